//! What a stay is: where, with what, by whose terms. Plain types and rules.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The mean radius of the Earth, in metres.
const EARTH_RADIUS_METRES: f64 = 6_371_008.8;

macro_rules! named {
    (
        $(#[$doc:meta])* $name:ident, $all:literal:
        $($(#[$variant_doc:meta])* $variant:ident = $text:tt;)+
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; $all] = [$(Self::$variant,)+];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(()),
                }
            }
        }
    };
}

named! {
    /// One of Korea's 17 provinces and cities of that rank.
    Region, 17:
    /// 서울
    Seoul = "seoul";
    /// 부산
    Busan = "busan";
    /// 대구
    Daegu = "daegu";
    /// 인천
    Incheon = "incheon";
    /// 광주
    Gwangju = "gwangju";
    /// 대전
    Daejeon = "daejeon";
    /// 울산
    Ulsan = "ulsan";
    /// 세종
    Sejong = "sejong";
    /// 경기
    Gyeonggi = "gyeonggi";
    /// 강원
    Gangwon = "gangwon";
    /// 충북
    Chungbuk = "chungbuk";
    /// 충남
    Chungnam = "chungnam";
    /// 전북
    Jeonbuk = "jeonbuk";
    /// 전남
    Jeonnam = "jeonnam";
    /// 경북
    Gyeongbuk = "gyeongbuk";
    /// 경남
    Gyeongnam = "gyeongnam";
    /// 제주
    Jeju = "jeju";
}

impl Region {
    /// Its place in [`Region::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in Korean, and what else it is called, for those who look for it by name.
    pub const fn korean(self) -> &'static str {
        match self {
            Self::Seoul => "서울 서울특별시",
            Self::Busan => "부산 부산광역시",
            Self::Daegu => "대구 대구광역시",
            Self::Incheon => "인천 인천광역시",
            Self::Gwangju => "광주 광주광역시",
            Self::Daejeon => "대전 대전광역시",
            Self::Ulsan => "울산 울산광역시",
            Self::Sejong => "세종 세종특별자치시",
            Self::Gyeonggi => "경기 경기도",
            Self::Gangwon => "강원 강원도 강원특별자치도",
            Self::Chungbuk => "충북 충청북도",
            Self::Chungnam => "충남 충청남도",
            Self::Jeonbuk => "전북 전라북도 전북특별자치도",
            Self::Jeonnam => "전남 전라남도",
            Self::Gyeongbuk => "경북 경상북도",
            Self::Gyeongnam => "경남 경상남도",
            Self::Jeju => "제주 제주도 제주특별자치도",
        }
    }
}

named! {
    /// Something that a stay offers.
    Amenity, 20:
    /// Internet without a wire.
    Wifi = "wifi";
    /// A place for the car.
    Parking = "parking";
    /// Breakfast can be had.
    Breakfast = "breakfast";
    /// A pool.
    Pool = "pool";
    /// A hot spring or spa.
    Spa = "spa";
    /// A sauna.
    Sauna = "sauna";
    /// A gym.
    Gym = "gym";
    /// Something to cook with.
    Kitchen = "kitchen";
    /// A washing machine.
    Washer = "washer";
    /// Cooling in summer.
    AirConditioning = "air-conditioning";
    /// A floor that is heated from below.
    Ondol = "ondol";
    /// A grill.
    Barbecue = "barbecue";
    /// A view of the sea.
    OceanView = "ocean-view";
    /// A view of mountains.
    MountainView = "mountain-view";
    /// Animals may come along.
    PetFriendly = "pet-friendly";
    /// Fit for families with children.
    FamilyFriendly = "family-friendly";
    /// Steps and doors are no obstacle.
    Accessible = "accessible";
    /// A charger for electric cars.
    EvCharger = "ev-charger";
    /// Nobody smokes.
    NonSmoking = "non-smoking";
    /// Somebody is at the desk at any hour.
    FrontDesk = "front-desk-24h";
}

/// A set of amenities. In JSON a list of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, ToSchema)]
#[schema(value_type = Vec<Amenity>)]
pub struct Amenities(u32);

impl Amenities {
    /// Whether it has all of `wanted`.
    pub const fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, amenity: Amenity) -> Self {
        Self(self.0 | 1 << amenity as u32)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Amenity> {
        Amenity::ALL
            .into_iter()
            .filter(move |amenity| self.contains(Self::default().with(*amenity)))
    }

    /// As PostgreSQL keeps them.
    pub(crate) fn names(self) -> Vec<String> {
        self.iter()
            .map(|amenity| amenity.as_str().to_owned())
            .collect()
    }
}

impl FromIterator<Amenity> for Amenities {
    fn from_iter<I: IntoIterator<Item = Amenity>>(amenities: I) -> Self {
        amenities.into_iter().fold(Self::default(), Self::with)
    }
}

impl Serialize for Amenities {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Amenities {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Amenity>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

named! {
    /// What a guest gets back who cancels.
    Cancellation, 3:
    /// Almost everything until shortly before.
    Flexible = "FLEXIBLE";
    /// Less, and earlier.
    Moderate = "MODERATE";
    /// Little.
    Strict = "STRICT";
}

/// A place on the Earth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
}

impl Place {
    /// The place, unless a coordinate is out of range or not a number.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let inside = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        inside.then_some(Self {
            latitude,
            longitude,
        })
    }

    /// The same place on a sphere of radius 1.
    pub fn point(self) -> Point {
        let (latitude, longitude) = (self.latitude.to_radians(), self.longitude.to_radians());
        Point {
            x: latitude.cos() * longitude.cos(),
            y: latitude.cos() * longitude.sin(),
            z: latitude.sin(),
        }
    }
}

/// A point of the unit sphere.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Towards 0° north, 0° east.
    pub x: f64,
    /// Towards 0° north, 90° east.
    pub y: f64,
    /// Towards the north pole.
    pub z: f64,
}

/// What the square of a straight line through the unit sphere is multiplied by to become whole: a metre is 24 of these.
pub(crate) const CHORD_SCALE: f64 = 1e15;

impl Point {
    /// How far apart two points are, as a whole number that grows with the distance: the square of the straight line,
    /// scaled. Nothing but additions and multiplications, so that every machine and PostgreSQL come to the same number.
    pub fn apart(self, other: Self) -> i64 {
        let (x, y, z) = (self.x - other.x, self.y - other.y, self.z - other.z);
        // Never negative, and so rounded down.
        ((x * x + y * y + z * z) * CHORD_SCALE) as i64
    }
}

/// The metres on the ground that [`Point::apart`] stands for.
pub fn metres(apart: i64) -> u32 {
    let chord = (apart.max(0) as f64 / CHORD_SCALE).sqrt();
    (2.0 * EARTH_RADIUS_METRES * (chord / 2.0).min(1.0).asin()).round() as u32
}

/// What a list of stays shows of one. Shared by whoever lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Its number: what lists go by where stays are otherwise equal.
    pub stay_no: i32,
    /// Its id.
    pub stay_id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// Its name in English; empty if it has none.
    pub name_en: Arc<str>,
    /// Where.
    pub region: Region,
    /// Where exactly.
    pub place: Place,
    /// What it offers.
    pub amenities: Amenities,
    /// Hundredths of a star; 0 without a review.
    pub rating: u16,
    /// How many reviews.
    pub reviews: u32,
}

/// Text as words are looked for in it: lower case, everything between words a single space.
pub fn search_text<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for word in parts.into_iter().flat_map(str::split_whitespace) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&word.to_lowercase());
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_amenities_is_written_as_names() {
        let set: Amenities =
            serde_json::from_str(r#"["pool","wifi","front-desk-24h","pool"]"#).unwrap();
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            r#"["wifi","pool","front-desk-24h"]"#
        );
        assert!(set.contains([Amenity::Pool].into_iter().collect()));
        assert!(!set.contains([Amenity::Pool, Amenity::Gym].into_iter().collect()));
        assert!(serde_json::from_str::<Amenities>(r#"["lift"]"#).is_err());
    }

    #[test]
    fn distances_are_those_on_the_ground() {
        let seoul = Place::new(37.5665, 126.9780).unwrap().point();
        let busan = Place::new(35.1796, 129.0756).unwrap().point();
        let far = metres(seoul.apart(busan));
        assert!((320_000..330_000).contains(&far), "{far}");
        assert_eq!(metres(seoul.apart(seoul)), 0);
        let next_door = Place::new(37.5675, 126.9780).unwrap().point();
        let near = metres(seoul.apart(next_door));
        assert!((110..113).contains(&near), "{near}");
        assert!(Place::new(91.0, 0.0).is_none() && Place::new(f64::NAN, 0.0).is_none());
    }

    #[test]
    fn search_text_is_lower_case_words() {
        assert_eq!(
            search_text(["Aewol  Ocean", "애월 바다\t펜션", ""]),
            "aewol ocean 애월 바다 펜션"
        );
    }

    #[test]
    fn regions_know_their_place() {
        for (index, region) in Region::ALL.into_iter().enumerate() {
            assert_eq!(region.index(), index);
            assert_eq!(region.as_str().parse(), Ok(region));
        }
    }
}
