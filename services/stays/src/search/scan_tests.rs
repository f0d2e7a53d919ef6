//! Sweeps find what the rules say, written down here as plainly as can be: each stay is looked at on its own, and all of
//! them are sorted.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use money::{Discount, Krw, NightPrice, Percent, StayPrice, lowest};
use proptest::prelude::*;
use proptest::sample::{Index as Pick, select};
use uuid::Uuid;

use super::index::{Directory, Index};
use super::{Hit, Offer, Order, Position, Query, per_night};
use crate::calendar::{Day, Nights};
use crate::discounts::Sale;
use crate::stay::{Amenities, Amenity, Card, Place, Region};
use crate::store::{RoomNights, SearchedStay};

/// Nights that have a calendar.
const DAYS: i32 = 5;

const REGIONS: [Region; 2] = [Region::Busan, Region::Jeju];
const WORDS: [&str; 3] = ["바다 호텔", "바다 펜션", "숲 호텔"];
const AMENITIES: [Amenity; 2] = [Amenity::Pool, Amenity::Spa];

#[derive(Debug, Clone, Copy)]
struct Night {
    price: i64,
    own: Option<Discount>,
    left: i32,
    min_nights: i32,
}

#[derive(Debug, Clone)]
struct Room {
    no: i32,
    capacity: u16,
    nights: Vec<Option<Night>>,
}

#[derive(Debug, Clone)]
struct Stay {
    no: i32,
    region: Region,
    rating: u16,
    amenities: Amenities,
    text: &'static str,
    place: Place,
    rooms: Vec<Room>,
    /// Whether all but one of its rooms come after all stays.
    grows: bool,
}

impl Stay {
    fn card(&self) -> Card {
        Card {
            stay_no: self.no,
            stay_id: stay_id(self.no),
            name: self.text.into(),
            name_en: "".into(),
            region: self.region,
            place: self.place,
            amenities: self.amenities,
            rating: self.rating,
            reviews: 1,
        }
    }

    fn searched(&self, rooms: usize) -> SearchedStay {
        let rooms = self.rooms.iter().take(rooms);
        SearchedStay {
            card: self.card(),
            point: self.place.point(),
            search_text: self.text.to_owned(),
            rooms: rooms
                .map(|room| (room.no, room_id(room.no), room.capacity))
                .collect(),
        }
    }
}

fn stay_id(no: i32) -> Uuid {
    Uuid::from_u128(no as u128)
}

fn room_id(no: i32) -> Uuid {
    Uuid::from_u128(1 << 64 | no as u128)
}

fn percent(of: u8) -> Discount {
    Discount::Percent(Percent::new(of).unwrap())
}

fn off(won: i64) -> Discount {
    Discount::Amount(Krw::new(won).unwrap())
}

fn discount(most: i64) -> impl Strategy<Value = Discount> {
    prop_oneof![(1..=99_u8).prop_map(percent), (1..=most).prop_map(off)]
}

fn night() -> impl Strategy<Value = Option<Night>> {
    // Few different prices, so that many are the same.
    let price = prop_oneof![3 => (1..8_i64).prop_map(|of| of * 11_111), 1 => 1..200_000_i64];
    let own = prop::option::weighted(0.3, discount(60_000));
    let left = prop_oneof![1 => Just(0), 12 => 1..70_000_i32];
    let min_nights = prop_oneof![8 => Just(1), 1 => 2..4_i32];
    let night = (price, own, left, min_nights).prop_map(|(price, own, left, min_nights)| Night {
        price,
        own,
        left,
        min_nights,
    });
    prop::option::weighted(0.97, night)
}

fn amenities() -> impl Strategy<Value = Amenities> {
    prop::collection::vec(select(&AMENITIES[..]), 0..3).prop_map(|all| all.into_iter().collect())
}

fn place() -> impl Strategy<Value = Place> {
    (33.0..38.5_f64, 126.0..130.0_f64).prop_map(|(lat, lng)| Place::new(lat, lng).unwrap())
}

/// Enough for a few blocks in each region.
fn stays() -> impl Strategy<Value = Vec<Stay>> {
    let room = (1..6_u16, prop::collection::vec(night(), DAYS as usize));
    let rooms = prop::collection::vec(room, 0..4);
    let rating = prop_oneof![Just(0_u16), Just(450), 100..=500_u16];
    let stay = (
        select(&REGIONS[..]),
        rating,
        amenities(),
        select(&WORDS[..]),
        place(),
        rooms,
        prop::bool::weighted(0.3),
    );
    prop::collection::vec(stay, 1..250).prop_map(|stays| {
        let mut rooms_made = 0;
        (1..)
            .zip(stays)
            .map(
                |(no, (region, rating, amenities, text, place, rooms, grows))| {
                    let rooms = rooms.into_iter().map(|(capacity, nights)| {
                        rooms_made += 1;
                        Room {
                            no: rooms_made,
                            capacity,
                            nights,
                        }
                    });
                    Stay {
                        no,
                        region,
                        rating,
                        amenities,
                        text,
                        place,
                        rooms: rooms.collect(),
                        grows,
                    }
                },
            )
            .collect()
    })
}

fn sales() -> impl Strategy<Value = Vec<Arc<Sale>>> {
    let dates = prop_oneof![
        Just((Day::MIN, Day::MAX)),
        (0..DAYS, 0..3_i32).prop_map(|(from, more)| {
            let first = Day::today().plus(from);
            (first, first.plus(more))
        }),
    ];
    let some = |most: usize| prop::collection::vec(1..300_i32, 0..most);
    let target = prop_oneof![
        prop::collection::vec(select(&REGIONS[..]), 0..2).prop_map(|regions| (
            regions,
            vec![],
            vec![]
        )),
        (some(20), some(20)).prop_map(|(stays, rooms)| (vec![], stays, rooms)),
    ];
    prop::collection::vec((discount(150_000), dates, target), 0..4).prop_map(|sales| {
        (0..)
            .zip(sales)
            .map(
                |(number, (discount, (first, last), (regions, stays, rooms)))| {
                    Arc::new(Sale {
                        id: format!("sale-{number}").into(),
                        discount,
                        first,
                        last,
                        regions,
                        stays: stays.into_iter().map(stay_id).collect(),
                        room_types: rooms.into_iter().map(room_id).collect(),
                        starts_ms: 0,
                        ends_ms: i64::MAX,
                    })
                },
            )
            .collect()
    })
}

fn query() -> impl Strategy<Value = Query> {
    let order = prop_oneof![
        3 => Just(Order::Price),
        1 => Just(Order::Rating),
        1 => place().prop_map(|place| Order::Distance(place.point())),
    ];
    let prices = prop_oneof![
        2 => Just((0, i64::MAX)),
        1 => (0..60_000_i64, 0..80_000_i64).prop_map(|(min, more)| (min, min + more)),
    ];
    (
        prop::option::weighted(0.3, select(&REGIONS[..])),
        (0..DAYS, 1..=4_i32),
        1..7_u16,
        prices,
        prop_oneof![2 => Just(Amenities::default()), 1 => amenities()],
        prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(select(&["바다", "호", "산"][..]), 0..3)],
        order,
        prop_oneof![1..6_usize, 6..60_usize],
    )
        .prop_map(
            |(region, (from, count), guests, (min_price, max_price), amenities, words, order, limit)| {
                let today = Day::today();
                let check_in = today.plus(from);
                Query {
                    region,
                    nights: Nights::between(check_in, check_in.plus(count), today).unwrap(),
                    guests,
                    min_price,
                    max_price,
                    amenities,
                    words: words.into_iter().map(str::to_owned).collect(),
                    order,
                    after: None,
                    limit,
                }
            },
        )
}

struct World {
    index: Index,
    directory: Directory,
    stays: Vec<Stay>,
}

impl World {
    fn of(stays: Vec<Stay>) -> Self {
        let mut world = Self {
            index: Index::new(),
            directory: Directory::default(),
            stays,
        };
        world.index.roll(Day::today());
        for whole in [false, true] {
            let stays = world.stays.iter().filter(|stay| !whole || stay.grows);
            let stays = stays.map(|stay| stay.searched(if whole || !stay.grows { 9 } else { 1 }));
            world.index.put_stays(stays.collect(), &mut world.directory);
        }
        world.put_nights();
        world
    }

    fn put_nights(&self) {
        let rooms = self.stays.iter().flat_map(|stay| &stay.rooms);
        let nights: Vec<RoomNights> = rooms.map(room_nights).collect();
        self.index.put_nights(&nights, &self.directory);
    }

    /// Other nights, capacities and ratings for some.
    fn change(&mut self, with: &[Stay], picks: &[Pick]) {
        for (pick, with) in picks.iter().zip(with) {
            let at = pick.index(self.stays.len());
            let stay = &mut self.stays[at];
            (stay.rating, stay.amenities) = (with.rating, with.amenities);
            (stay.text, stay.place) = (with.text, with.place);
            for (room, with) in stay.rooms.iter_mut().zip(&with.rooms) {
                room.capacity = with.capacity;
                // A night that is there stays there.
                for (night, with) in room.nights.iter_mut().zip(&with.nights) {
                    *night = with.or(*night);
                }
            }
            let changed = vec![stay.searched(9)];
            self.index.put_stays(changed, &mut self.directory);
        }
        self.put_nights();
    }

    /// Page after page, of which each is what the rules say.
    fn check(&self, query: &Query, sales: &[Arc<Sale>]) -> Result<usize, TestCaseError> {
        let mut query = query.clone();
        let mut seen = 0;
        let expected = found(&self.stays, &query, sales);
        loop {
            let page = self.index.search(&query, sales);
            let rest = &expected[seen..];
            prop_assert_eq!(&page[..], &rest[..rest.len().min(query.limit)]);
            seen += page.len();
            let Some(last) = page.last() else { break };
            query.after = Some(last.position);
        }
        Ok(seen)
    }
}

fn room_nights(room: &Room) -> RoomNights {
    let mut nights = RoomNights {
        room_type_no: room.no,
        ..RoomNights::default()
    };
    for (day, night) in (Day::today().number()..).zip(&room.nights) {
        let Some(night) = night else { continue };
        let (percent, amount) = match night.own {
            None => (0, 0),
            Some(Discount::Percent(percent)) => (percent.get(), 0),
            Some(Discount::Amount(amount)) => (0, amount.get()),
        };
        nights.days.push(day);
        nights.prices.push(night.price as i32);
        nights.own_percents.push(i16::from(percent));
        nights.own_amounts.push(amount as i32);
        nights.left.push(night.left);
        nights.min_nights.push(night.min_nights as i16);
    }
    nights
}

/// What a room type costs, if it can be had, by the first sale that gives the most.
fn offer(stay: &Stay, room: &Room, query: &Query, sales: &[Arc<Sale>]) -> Option<Offer> {
    if room.capacity < query.guests {
        return None;
    }
    let from = query.nights.check_in().since(Day::today()) as usize;
    let count = query.nights.count();
    let nights = room.nights.get(from..from + count as usize)?;
    let nights: Vec<Night> = nights.iter().copied().collect::<Option<_>>()?;
    if nights
        .iter()
        .any(|night| night.left == 0 || night.min_nights > count)
    {
        return None;
    }
    let cost = |sale: Option<&Sale>| {
        let prices: Vec<NightPrice> = (0..)
            .zip(&nights)
            .map(|(at, night)| {
                let day = query.nights.check_in().plus(at);
                let sale = sale.filter(|sale| (sale.first..=sale.last).contains(&day));
                let price = Krw::new(night.price).unwrap();
                lowest(price, night.own, sale.map(|sale| sale.discount))
            })
            .collect();
        StayPrice::of(&prices).unwrap()
    };
    let covering = sales.iter().filter(|sale| {
        sale.regions.contains(&stay.region)
            || sale.stays.contains(&stay_id(stay.no))
            || sale.room_types.contains(&room_id(room.no))
    });
    let mut best = (cost(None), None);
    for sale in covering {
        let price = cost(Some(sale));
        if price.amount < best.0.amount {
            best = (price, Some(Arc::clone(&sale.id)));
        }
    }
    let (price, sale) = best;
    let bounds: RangeInclusive<i64> = query.min_price..=query.max_price;
    bounds
        .contains(&per_night(price.amount.get(), count))
        .then_some(Offer {
            amount: price.amount.get(),
            original: price.original.get(),
            sale,
        })
}

/// All that a query finds, in order.
fn found(stays: &[Stay], query: &Query, sales: &[Arc<Sale>]) -> Vec<Hit> {
    let mut hits = Vec::new();
    for stay in stays {
        let has = |word: &String| stay.text.split(' ').any(|of| of.contains(word.as_str()));
        if query.region.is_some_and(|region| region != stay.region)
            || !stay.amenities.contains(query.amenities)
            || !query.words.iter().all(has)
        {
            continue;
        }
        let offers = stay
            .rooms
            .iter()
            .filter_map(|room| Some((room.no, offer(stay, room, query, sales)?)));
        let Some((room, offer)) = offers.min_by_key(|(no, offer)| (offer.amount, *no)) else {
            continue;
        };
        hits.push(Hit {
            position: Position {
                key: match query.order {
                    Order::Price => offer.amount,
                    Order::Rating => -i64::from(stay.rating),
                    Order::Distance(from) => from.apart(stay.place.point()),
                },
                stay_no: stay.no,
            },
            card: Arc::new(stay.card()),
            room_type_id: room_id(room),
            offer,
        });
    }
    hits.sort_by_key(|hit| hit.position);
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_sweep_finds_what_the_rules_say(
        stays in stays(),
        others in stays(),
        picks in prop::collection::vec(any::<Pick>(), 20),
        asked in prop::collection::vec((query(), sales()), 12),
    ) {
        let mut world = World::of(stays);
        for (query, sales) in &asked {
            world.check(query, sales)?;
        }
        world.change(&others, &picks);
        for (query, sales) in &asked {
            world.check(query, sales)?;
        }
    }
}

#[test]
fn the_queries_find_enough_to_prove_something() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut hits: HashMap<&str, usize> = HashMap::new();
    for _ in 0..20 {
        let world = World::of(stays().new_tree(&mut runner).unwrap().current());
        for _ in 0..10 {
            let query = query().new_tree(&mut runner).unwrap().current();
            let sales = sales().new_tree(&mut runner).unwrap().current();
            let all = found(&world.stays, &query, &sales);
            *hits.entry("in all").or_default() += all.len();
            *hits.entry("by sale").or_default() +=
                all.iter().filter(|hit| hit.offer.sale.is_some()).count();
            *hits.entry("beyond a page").or_default() += all.len().saturating_sub(query.limit);
        }
    }
    assert!(
        hits["in all"] > 1_500 && hits["by sale"] > 250 && hits["beyond a page"] > 1_000,
        "{hits:?}"
    );
}
