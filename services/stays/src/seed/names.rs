//! Places and words that stays are named by.

use crate::stay::Region;

/// A part of a region where stays are.
pub(super) struct Spot {
    pub(super) korean: &'static str,
    pub(super) english: &'static str,
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    /// By the sea.
    pub(super) sea: bool,
}

const fn spot(
    korean: &'static str,
    english: &'static str,
    latitude: f64,
    longitude: f64,
    sea: bool,
) -> Spot {
    Spot {
        korean,
        english,
        latitude,
        longitude,
        sea,
    }
}

/// A region with its share of all stays and what a night there costs, in percent of the country's average.
pub(super) struct Area {
    pub(super) region: Region,
    pub(super) weight: u64,
    pub(super) price_percent: i64,
    pub(super) spots: &'static [Spot],
}

/// The 17 regions.
pub(super) const AREAS: [Area; 17] = [
    Area {
        region: Region::Seoul,
        weight: 15,
        price_percent: 125,
        spots: &[
            spot("명동", "Myeongdong", 37.5636, 126.9850, false),
            spot("홍대", "Hongdae", 37.5563, 126.9236, false),
            spot("강남", "Gangnam", 37.4979, 127.0276, false),
            spot("종로", "Jongno", 37.5704, 126.9922, false),
            spot("잠실", "Jamsil", 37.5133, 127.1002, false),
            spot("이태원", "Itaewon", 37.5345, 126.9946, false),
            spot("북촌", "Bukchon", 37.5826, 126.9836, false),
        ],
    },
    Area {
        region: Region::Busan,
        weight: 11,
        price_percent: 112,
        spots: &[
            spot("해운대", "Haeundae", 35.1587, 129.1604, true),
            spot("광안리", "Gwangalli", 35.1532, 129.1186, true),
            spot("서면", "Seomyeon", 35.1577, 129.0591, false),
            spot("남포동", "Nampo", 35.0979, 129.0307, true),
            spot("기장", "Gijang", 35.2446, 129.2223, true),
            spot("송정", "Songjeong", 35.1786, 129.1997, true),
        ],
    },
    Area {
        region: Region::Daegu,
        weight: 3,
        price_percent: 85,
        spots: &[
            spot("동성로", "Dongseongno", 35.8690, 128.5950, false),
            spot("수성못", "Suseong Lake", 35.8283, 128.6167, false),
            spot("팔공산", "Palgongsan", 35.9930, 128.6960, false),
        ],
    },
    Area {
        region: Region::Incheon,
        weight: 5,
        price_percent: 100,
        spots: &[
            spot("송도", "Songdo", 37.3894, 126.6390, true),
            spot("을왕리", "Eurwangni", 37.4475, 126.3725, true),
            spot("강화", "Ganghwa", 37.7467, 126.4880, true),
            spot("월미도", "Wolmido", 37.4750, 126.5970, true),
        ],
    },
    Area {
        region: Region::Gwangju,
        weight: 2,
        price_percent: 80,
        spots: &[
            spot("상무", "Sangmu", 35.1520, 126.8510, false),
            spot("충장로", "Chungjangno", 35.1490, 126.9150, false),
            spot("무등산", "Mudeungsan", 35.1340, 126.9880, false),
        ],
    },
    Area {
        region: Region::Daejeon,
        weight: 3,
        price_percent: 83,
        spots: &[
            spot("유성온천", "Yuseong Spa", 36.3540, 127.3440, false),
            spot("둔산", "Dunsan", 36.3510, 127.3850, false),
            spot("계룡산", "Gyeryongsan", 36.3420, 127.2060, false),
        ],
    },
    Area {
        region: Region::Ulsan,
        weight: 2,
        price_percent: 88,
        spots: &[
            spot("간절곶", "Ganjeolgot", 35.3590, 129.3600, true),
            spot("일산해변", "Ilsan Beach", 35.4970, 129.4300, true),
            spot("삼산", "Samsan", 35.5390, 129.3380, false),
        ],
    },
    Area {
        region: Region::Sejong,
        weight: 1,
        price_percent: 86,
        spots: &[
            spot("나성", "Naseong", 36.4870, 127.2580, false),
            spot("조치원", "Jochiwon", 36.6010, 127.2980, false),
        ],
    },
    Area {
        region: Region::Gyeonggi,
        weight: 10,
        price_percent: 98,
        spots: &[
            spot("가평", "Gapyeong", 37.8315, 127.5095, false),
            spot("양평", "Yangpyeong", 37.4917, 127.4876, false),
            spot("수원", "Suwon", 37.2636, 127.0286, false),
            spot("포천", "Pocheon", 37.8949, 127.2002, false),
            spot("파주", "Paju", 37.7600, 126.7800, false),
            spot("대부도", "Daebudo", 37.2440, 126.5800, true),
        ],
    },
    Area {
        region: Region::Gangwon,
        weight: 12,
        price_percent: 108,
        spots: &[
            spot("강릉", "Gangneung", 37.7519, 128.8761, true),
            spot("속초", "Sokcho", 38.2070, 128.5918, true),
            spot("양양", "Yangyang", 38.0754, 128.6190, true),
            spot("평창", "Pyeongchang", 37.3705, 128.3900, false),
            spot("춘천", "Chuncheon", 37.8813, 127.7298, false),
            spot("홍천", "Hongcheon", 37.6970, 127.8890, false),
            spot("정선", "Jeongseon", 37.3807, 128.6609, false),
        ],
    },
    Area {
        region: Region::Chungbuk,
        weight: 2,
        price_percent: 84,
        spots: &[
            spot("단양", "Danyang", 36.9845, 128.3655, false),
            spot("제천", "Jecheon", 37.1326, 128.1910, false),
            spot("충주호", "Chungju Lake", 37.0080, 128.0280, false),
            spot("속리산", "Songnisan", 36.5320, 127.8300, false),
        ],
    },
    Area {
        region: Region::Chungnam,
        weight: 5,
        price_percent: 92,
        spots: &[
            spot("태안", "Taean", 36.7456, 126.2980, true),
            spot("안면도", "Anmyeondo", 36.5140, 126.3460, true),
            spot("대천", "Daecheon", 36.3070, 126.5150, true),
            spot("부여", "Buyeo", 36.2757, 126.9098, false),
            spot("공주", "Gongju", 36.4465, 127.1190, false),
        ],
    },
    Area {
        region: Region::Jeonbuk,
        weight: 3,
        price_percent: 87,
        spots: &[
            spot(
                "전주 한옥마을",
                "Jeonju Hanok Village",
                35.8151,
                127.1530,
                false,
            ),
            spot("군산", "Gunsan", 35.9676, 126.7370, true),
            spot("변산", "Byeonsan", 35.6820, 126.5310, true),
            spot("무주", "Muju", 36.0068, 127.6608, false),
            spot("남원", "Namwon", 35.4164, 127.3904, false),
        ],
    },
    Area {
        region: Region::Jeonnam,
        weight: 5,
        price_percent: 93,
        spots: &[
            spot("여수", "Yeosu", 34.7604, 127.6622, true),
            spot("순천", "Suncheon", 34.9506, 127.4872, false),
            spot("담양", "Damyang", 35.3211, 126.9881, false),
            spot("목포", "Mokpo", 34.8118, 126.3922, true),
            spot("완도", "Wando", 34.3110, 126.7550, true),
            spot("보성", "Boseong", 34.7714, 127.0800, false),
        ],
    },
    Area {
        region: Region::Gyeongbuk,
        weight: 6,
        price_percent: 94,
        spots: &[
            spot("경주", "Gyeongju", 35.8562, 129.2247, false),
            spot("보문호", "Bomun Lake", 35.8430, 129.2870, false),
            spot("포항", "Pohang", 36.0190, 129.3435, true),
            spot("안동", "Andong", 36.5684, 128.7294, false),
            spot("울릉도", "Ulleungdo", 37.4845, 130.9057, true),
            spot("영덕", "Yeongdeok", 36.4150, 129.3650, true),
        ],
    },
    Area {
        region: Region::Gyeongnam,
        weight: 6,
        price_percent: 96,
        spots: &[
            spot("거제", "Geoje", 34.8806, 128.6211, true),
            spot("통영", "Tongyeong", 34.8544, 128.4332, true),
            spot("남해", "Namhae", 34.8376, 127.8924, true),
            spot("지리산", "Jirisan", 35.3370, 127.7306, false),
            spot("진주", "Jinju", 35.1800, 128.1076, false),
            spot("창원", "Changwon", 35.2280, 128.6811, false),
        ],
    },
    Area {
        region: Region::Jeju,
        weight: 14,
        price_percent: 118,
        spots: &[
            spot("애월", "Aewol", 33.4620, 126.3090, true),
            spot("협재", "Hyeopjae", 33.3940, 126.2400, true),
            spot("성산", "Seongsan", 33.4580, 126.9420, true),
            spot("서귀포", "Seogwipo", 33.2541, 126.5600, true),
            spot("중문", "Jungmun", 33.2500, 126.4120, true),
            spot("함덕", "Hamdeok", 33.5430, 126.6690, true),
            spot("한라산", "Hallasan", 33.3617, 126.5292, false),
            spot("우도", "Udo", 33.5060, 126.9540, true),
        ],
    },
];

/// What a stay is called by: Korean, English.
pub(super) const WORDS: [(&str, &str); 32] = [
    ("달빛", "Moonlight"),
    ("햇살", "Sunshine"),
    ("바람", "Breeze"),
    ("하늘", "Sky"),
    ("별빛", "Starlight"),
    ("숲속", "Forest"),
    ("구름", "Cloud"),
    ("노을", "Sunset"),
    ("아침", "Morning"),
    ("봄날", "Spring Day"),
    ("은하수", "Galaxy"),
    ("단풍", "Maple"),
    ("소나무", "Pine Tree"),
    ("동백", "Camellia"),
    ("매화", "Plum Blossom"),
    ("솔향", "Pine Scent"),
    ("물결", "Ripple"),
    ("고요", "Calm"),
    ("쉼표", "Comma"),
    ("온유", "Gentle"),
    ("새벽", "Dawn"),
    ("여울", "Stream"),
    ("들꽃", "Wildflower"),
    ("푸른", "Blue"),
    ("하얀", "White"),
    ("오래된", "Old"),
    ("작은", "Little"),
    ("느린", "Slow"),
    ("로얄", "Royal"),
    ("센트럴", "Central"),
    ("파크", "Park"),
    ("스카이라인", "Skyline"),
];

/// Words for stays by the sea.
pub(super) const SEA_WORDS: [(&str, &str); 8] = [
    ("바다", "Ocean"),
    ("파도", "Wave"),
    ("등대", "Lighthouse"),
    ("오션뷰", "Ocean View"),
    ("모래", "Sand"),
    ("해변", "Beach"),
    ("돌담", "Stone Wall"),
    ("섬", "Island"),
];

/// A kind of stay.
pub(super) struct Kind {
    pub(super) korean: &'static str,
    pub(super) english: &'static str,
    pub(super) weight: u64,
    /// Whole won of an average night for two.
    pub(super) price: i64,
    /// Rooms of one type.
    pub(super) rooms: (i64, i64),
    /// A house rather than a hotel: groups come, and weekends are sold whole.
    pub(super) house: bool,
}

const fn kind(
    korean: &'static str,
    english: &'static str,
    weight: u64,
    price: i64,
    rooms: (i64, i64),
    house: bool,
) -> Kind {
    Kind {
        korean,
        english,
        weight,
        price,
        rooms,
        house,
    }
}

/// The kinds.
pub(super) const KINDS: [Kind; 9] = [
    kind("호텔", "Hotel", 26, 115_000, (8, 40), false),
    kind("펜션", "Pension", 26, 125_000, (1, 4), true),
    kind("게스트하우스", "Guesthouse", 11, 48_000, (2, 6), false),
    kind("한옥스테이", "Hanok Stay", 7, 150_000, (1, 3), true),
    kind("리조트", "Resort", 7, 190_000, (20, 80), false),
    kind("풀빌라", "Pool Villa", 8, 320_000, (1, 3), true),
    kind("글램핑", "Glamping", 6, 135_000, (2, 10), true),
    kind("모텔", "Motel", 5, 58_000, (5, 20), false),
    kind("민박", "Minbak", 4, 62_000, (1, 4), true),
];

/// Room types: Korean, English, people, price in percent of the stay's.
pub(super) const ROOMS: [(&str, &str, u16, i64); 3] = [
    ("스탠다드 룸", "Standard Room", 2, 100),
    ("패밀리 룸", "Family Room", 4, 145),
    ("스위트", "Suite", 4, 190),
];

/// Room types of houses.
pub(super) const HOUSE_ROOMS: [(&str, &str, u16, i64); 3] = [
    ("원룸형", "Studio", 2, 100),
    ("가족형", "Family Unit", 6, 150),
    ("독채", "Whole House", 10, 240),
];
