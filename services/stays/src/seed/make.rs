//! Makes stays up: believable, and the same for the same seed.

use uuid::Uuid;

use super::names::{AREAS, Area, HOUSE_ROOMS, KINDS, Kind, ROOMS, SEA_WORDS, WORDS};
use super::random::Random;
use crate::calendar::Day;
use crate::stay::{Amenities, Amenity, Cancellation, Place, Region, search_text};

/// How far from the middle of its spot a stay is, in degrees.
const SPREAD_DEGREES: f64 = 0.06;

/// Stays that share a host.
const STAYS_PER_HOST: u64 = 4;

/// What tells hosts' numbers from stays'.
const HOSTS: u64 = 1 << 40;

/// Prices are whole thousands.
const ROUND_TO: i64 = 1_000;

/// A stay that was made up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MadeStay {
    pub(super) stay_id: Uuid,
    pub(super) host_id: Uuid,
    pub(super) name: String,
    pub(super) name_en: String,
    pub(super) description: String,
    pub(super) region: Region,
    pub(super) address: String,
    pub(super) place: Place,
    pub(super) amenities: Amenities,
    pub(super) cancellation: Cancellation,
    pub(super) rating: i16,
    pub(super) reviews: i32,
    pub(super) search_text: String,
    pub(super) rooms: Vec<MadeRoom>,
}

/// One of its room types.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MadeRoom {
    pub(super) room_type_id: Uuid,
    pub(super) name: &'static str,
    pub(super) name_en: &'static str,
    pub(super) capacity: u16,
    pub(super) nights: Vec<MadeNight>,
}

/// One of its nights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MadeNight {
    pub(super) day: Day,
    pub(super) price: i32,
    /// 0 for none.
    pub(super) own_percent: i16,
    pub(super) allotment: i32,
    pub(super) min_nights: i16,
}

/// Which of weighted things a number falls on.
fn weighted<'a, T>(random: &mut Random, things: &'a [T], weight: impl Fn(&T) -> u64) -> &'a T {
    let mut at = random.below(things.iter().map(&weight).sum());
    for thing in things {
        match at.checked_sub(weight(thing)) {
            Some(rest) => at = rest,
            None => return thing,
        }
    }
    &things[0]
}

/// The stay of a number, with nights from `first` on.
pub(super) fn stay(seed: u64, number: u64, first: Day, days: i32) -> MadeStay {
    let mut random = Random::of(seed, number);
    let area = weighted(&mut random, &AREAS, |area| area.weight);
    let kind = weighted(&mut random, &KINDS, |kind| kind.weight);
    let spot = random.pick(area.spots);
    let words = if spot.sea && random.percent(40) {
        random.pick(&SEA_WORDS)
    } else {
        random.pick(&WORDS)
    };
    let stay_id = random.uuid();
    let host_id = Random::of(seed, HOSTS | (number / STAYS_PER_HOST)).uuid();
    let name = format!("{} {} {}", spot.korean, words.0, kind.korean);
    let name_en = format!("{} {} {}", spot.english, words.1, kind.english);
    let address = format!("{} {}", area.region.korean(), spot.korean);
    let amenities = amenities(&mut random, kind, spot.sea);
    let mut off = || (random.unit() - 0.5) * SPREAD_DEGREES;
    let place = Place {
        latitude: spot.latitude + off(),
        longitude: spot.longitude + off(),
    };
    let reviews = if random.percent(8) {
        0
    } else {
        random.between(1, 40) * random.between(1, 40)
    };
    let rating = if reviews == 0 {
        0
    } else {
        // Guests are kind: most stays have four stars and more.
        500 - random.between(0, 14) * random.between(0, 14)
    };
    let rooms = rooms(&mut random, area, kind, first, days);
    MadeStay {
        stay_id,
        host_id,
        description: format!("{}에 있는 {}입니다.", address, kind.korean),
        region: area.region,
        search_text: search_text([
            &*name,
            &*name_en,
            area.region.korean(),
            area.region.as_str(),
            &*address,
        ]),
        name,
        name_en,
        address,
        place,
        amenities,
        cancellation: *random.pick(&Cancellation::ALL),
        rating: i16::try_from(rating).unwrap_or(0),
        reviews: i32::try_from(reviews).unwrap_or(0),
        rooms,
    }
}

fn amenities(random: &mut Random, kind: &Kind, sea: bool) -> Amenities {
    Amenity::ALL
        .into_iter()
        .filter(|amenity| {
            let chance = match amenity {
                Amenity::Wifi => 95,
                Amenity::Parking => 80,
                Amenity::AirConditioning => 92,
                Amenity::NonSmoking => 70,
                Amenity::OceanView => {
                    if sea {
                        45
                    } else {
                        0
                    }
                }
                Amenity::MountainView => {
                    if sea {
                        5
                    } else {
                        25
                    }
                }
                Amenity::Barbecue | Amenity::Kitchen | Amenity::Ondol if kind.house => 65,
                Amenity::Barbecue => 5,
                Amenity::Breakfast | Amenity::Gym | Amenity::FrontDesk if kind.house => 6,
                Amenity::FrontDesk => 75,
                Amenity::Pool if kind.price >= 190_000 => 85,
                Amenity::Pool => 10,
                _ => 18,
            };
            random.percent(chance)
        })
        .collect()
}

fn rooms(random: &mut Random, area: &Area, kind: &Kind, first: Day, days: i32) -> Vec<MadeRoom> {
    let types = if kind.house { &HOUSE_ROOMS } else { &ROOMS };
    let count = match random.below(100) {
        0..70 => 1,
        70..90 => 2,
        _ => 3,
    };
    let quality = random.between(65, 150);
    let base = kind.price * area.price_percent / 100 * quality / 100;
    let begin = if count == 1 {
        random.below(2) as usize
    } else {
        0
    };
    types[begin..begin + count]
        .iter()
        .map(|(name, name_en, capacity, percent)| {
            let base = base * percent / 100;
            MadeRoom {
                room_type_id: random.uuid(),
                name,
                name_en,
                capacity: *capacity,
                nights: nights(random, kind, base, first, days),
            }
        })
        .collect()
}

/// How dear a date is, in percent: summer holidays, the end of the year, blossoms and autumn leaves, and the dull
/// weeks.
fn season(day: Day) -> i64 {
    let date = day.date();
    match (date.month(), date.day()) {
        (7, 20..) | (8, ..=20) => 165,
        (12, 24..) | (1, 1) => 145,
        (5, ..=7) | (10, ..=10) => 130,
        (4, _) | (10, _) => 112,
        (7, _) | (8, _) | (5, _) => 108,
        (1, _) | (2, _) | (3, _) | (11, _) => 88,
        _ => 97,
    }
}

/// How dear a night of the week is, in percent.
fn weekday(day: Day) -> i64 {
    match day.date().weekday() {
        jiff::civil::Weekday::Friday => 122,
        jiff::civil::Weekday::Saturday => 145,
        _ => 100,
    }
}

fn nights(random: &mut Random, kind: &Kind, base: i64, first: Day, days: i32) -> Vec<MadeNight> {
    let allotment = random.between(kind.rooms.0, kind.rooms.1);
    let weekday_discount = if random.percent(22) {
        random.between(1, 6) * 5
    } else {
        0
    };
    let weekend_minimum = if kind.house && random.percent(35) {
        2
    } else {
        1
    };
    (0..days)
        .map(|offset| {
            let day = first.plus(offset);
            let wobble = random.between(95, 105);
            let price = base * season(day) / 100 * weekday(day) / 100 * wobble / 100;
            let weekend = weekday(day) > 100;
            let price = (price / ROUND_TO).max(10) * ROUND_TO;
            MadeNight {
                day,
                price: i32::try_from(price).unwrap_or(i32::MAX),
                own_percent: if weekend {
                    0
                } else {
                    i16::try_from(weekday_discount).unwrap_or(0)
                },
                allotment: i32::try_from(allotment).unwrap_or(1),
                min_nights: if weekend && season(day) > 120 {
                    weekend_minimum
                } else {
                    1
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const FIRST: fn() -> Day = || Day::new(20_800).unwrap_or(Day::MIN);

    #[test]
    fn a_stay_is_the_same_for_the_same_seed_and_another_for_another() {
        let one = stay(1, 7, FIRST(), 30);
        assert_eq!(one, stay(1, 7, FIRST(), 30));
        assert_ne!(one.stay_id, stay(2, 7, FIRST(), 30).stay_id);
        assert_ne!(one.stay_id, stay(1, 8, FIRST(), 30).stay_id);
    }

    #[test]
    fn stays_are_what_the_database_takes() {
        let stays: Vec<MadeStay> = (0..2_000)
            .map(|number| stay(1, number, FIRST(), 30))
            .collect();
        let ids: HashSet<Uuid> = stays.iter().map(|stay| stay.stay_id).collect();
        assert_eq!(ids.len(), stays.len());
        let regions: HashSet<Region> = stays.iter().map(|stay| stay.region).collect();
        assert_eq!(regions.len(), Region::ALL.len());
        for stay in &stays {
            assert!((1..=3).contains(&stay.rooms.len()));
            assert!(stay.rating == 0 || (100..=500).contains(&stay.rating));
            assert_eq!(stay.rating == 0, stay.reviews == 0);
            assert!((33.0..39.0).contains(&stay.place.latitude), "{}", stay.name);
            for night in stay.rooms.iter().flat_map(|room| &room.nights) {
                assert!((10_000..5_000_000).contains(&night.price));
                assert!((0..=30).contains(&night.own_percent));
                assert!((1..=80).contains(&night.allotment));
            }
        }
    }

    #[test]
    fn summer_saturdays_are_dearer_than_winter_tuesdays() {
        let summer = "2026-08-01".parse().unwrap_or(Day::MIN);
        let winter = "2027-02-02".parse().unwrap_or(Day::MIN);
        assert!(season(summer) * weekday(summer) > 2 * season(winter) * weekday(winter));
    }
}
