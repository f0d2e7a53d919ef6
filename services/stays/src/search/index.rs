//! The index in memory: what searches need of every stay, laid out for reading in one sweep.
//!
//! Stays and room types of a region have numbers of their own, from 0 without gaps, and every property of theirs is a
//! column. So is every night: for each date one column of prices, one of what remains of them after the host's own
//! discounts, and one of the fewest nights, in which a room type has its place. A search of a region reads a few columns,
//! at the most from end to end, which processors do at the speed of their memory, and touches nothing of other dates. A
//! night of a room type takes 9 bytes.
//!
//! One task changes the index ([`super::keep`]); searches share it. A lock for each region keeps them apart, held for
//! the microseconds of one sweep or of one room type's change.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use money::{Discount, Krw, Percent, lowest};
use uuid::Uuid;

use super::scan::{self, Found};
use super::words::{Bits, Words};
use super::{Hit, Order, Query};
use crate::calendar::{Day, HORIZON_DAYS, NIGHTS_MAX};
use crate::discounts::Sale;
use crate::stay::{Amenities, Card, Point, Region};
use crate::store::{RoomNights, SearchedStay};

/// Columns that are kept: every night that a calendar may have, and one for the clocks of others that are ahead.
const DAYS_KEPT: i32 = HORIZON_DAYS + 1;

/// The most that a night costs, in whole won, as the table `nights` has it.
const PRICE_MAX: u32 = 100_000_000;

// The nights of a stay are added up in 32 bits.
const _: () = assert!(PRICE_MAX as i64 * NIGHTS_MAX as i64 <= u32::MAX as i64);

/// Room types that searches pass over at once.
pub(super) const BLOCK: usize = Bits::WORD;

/// The fewest nights of a stay on a date where none is long enough: no room is left, or there is no calendar.
const NEVER: u8 = u8::MAX;

/// No room type.
const NOBODY: u32 = u32::MAX;

/// One date: each room type has its place.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// What the night costs without any discount, in whole won.
    pub(super) prices: Vec<u32>,
    /// What it costs without a sale: the lowest of the price and the price with the host's own discount. [`PRICE_MAX`]
    /// where it can't be had.
    pub(super) costs: Vec<u32>,
    /// The lowest cost of each [`BLOCK`] of room types.
    pub(super) floors: Vec<u32>,
    /// The fewest nights of a stay that includes the night; [`NEVER`] where it can't be had.
    pub(super) min_nights: Vec<u8>,
}

impl Column {
    fn with(rooms: usize) -> Self {
        let mut column = Self::default();
        column.resize(rooms);
        column
    }

    fn resize(&mut self, rooms: usize) {
        resize(&mut self.prices, rooms, 0);
        resize(&mut self.costs, rooms, PRICE_MAX);
        resize(&mut self.floors, rooms.div_ceil(BLOCK), PRICE_MAX);
        resize(&mut self.min_nights, rooms, NEVER);
    }

    /// Bytes that it takes, next to which those of its few floors are nothing.
    fn bytes(&self) -> usize {
        vec_bytes(&self.prices) + vec_bytes(&self.costs) + vec_bytes(&self.min_nights)
    }

    /// Puts a night in its place.
    fn put(&mut self, room: usize, price: u32, cost: u32, min_nights: u8) {
        self.prices[room] = price;
        self.min_nights[room] = min_nights;
        let before = std::mem::replace(&mut self.costs[room], cost);
        let block = room / BLOCK;
        let floor = &mut self.floors[block];
        if cost <= *floor {
            *floor = cost;
        } else if before == *floor {
            let first = block * BLOCK;
            let costs = &self.costs[first..self.costs.len().min(first + BLOCK)];
            *floor = costs.iter().copied().fold(PRICE_MAX, u32::min);
        }
    }
}

/// What a night costs without a sale.
fn cost(price: u32, own: Option<Discount>) -> u32 {
    let amount = Krw::new(i64::from(price)).map(|price| lowest(price, own, None).amount);
    amount
        .ok()
        .and_then(|amount| u32::try_from(amount.get()).ok())
        .unwrap_or(price)
}

/// The host's discount of a night: an amount, a percentage, or none if both are 0.
fn own_discount(percent: i16, amount: i32) -> Option<Discount> {
    if amount > 0 {
        return Krw::new(i64::from(amount)).ok().map(Discount::Amount);
    }
    let percent = Percent::new(u8::try_from(percent).ok()?).ok()?;
    Some(Discount::Percent(percent))
}

/// Grows a column by a little more than is asked for. Twice as much, as vectors do by themselves, is much where columns
/// are most of what the process holds.
fn resize<T: Clone>(column: &mut Vec<T>, rooms: usize, fill: T) {
    if rooms > column.capacity() {
        column.reserve_exact(rooms - column.len() + rooms / 8);
    }
    column.resize(rooms, fill);
}

fn vec_bytes<T>(column: &Vec<T>) -> usize {
    column.capacity() * size_of::<T>()
}

/// A box around points: its corners with the lowest and the highest coordinates.
#[derive(Debug, Clone, Copy)]
struct Around(Point, Point);

impl Around {
    fn add(&mut self, point: Point) {
        let each = |of: fn(f64, f64) -> f64, one: Point| Point {
            x: of(one.x, point.x),
            y: of(one.y, point.y),
            z: of(one.z, point.z),
        };
        *self = Self(each(f64::min, self.0), each(f64::max, self.1));
    }

    /// No point in the box is less than this apart from one: [`Point::apart`] of the nearest of the whole box. Rounding
    /// keeps the order of numbers, so that this holds to the last bit.
    fn apart(&self, from: Point) -> i64 {
        let Self(low, high) = *self;
        from.apart(Point {
            x: from.x.clamp(low.x, high.x),
            y: from.y.clamp(low.y, high.y),
            z: from.z.clamp(low.z, high.z),
        })
    }
}

/// The stays of one region.
#[derive(Debug, Default)]
pub(super) struct Shard {
    // By stay.
    pub(super) cards: Vec<Arc<Card>>,
    pub(super) stay_nos: Vec<i32>,
    pub(super) amenities: Vec<Amenities>,
    pub(super) ratings: Vec<u16>,
    pub(super) points: Vec<Point>,
    /// Around all points that there ever were.
    around: Option<Around>,
    texts: Vec<Box<str>>,
    /// The room type that was added last; [`NOBODY`] if there is none.
    last_rooms: Vec<u32>,
    pub(super) words: Words,
    /// Bytes of names and texts.
    text_bytes: usize,
    // By room type.
    pub(super) room_stays: Vec<u32>,
    /// The room type of the same stay that was added before; [`NOBODY`] if it is the first one.
    previous_rooms: Vec<u32>,
    pub(super) room_capacities: Vec<u8>,
    pub(super) room_nos: Vec<i32>,
    pub(super) room_ids: Vec<Uuid>,
    /// Room types of stays and room types by their ids, for the targets of sales.
    pub(super) rooms_by_stay_id: HashMap<Uuid, Vec<u32>>,
    pub(super) rooms_by_id: HashMap<Uuid, u32>,
    stays_by_no: HashMap<i32, u32>,
    /// From the first date on.
    columns: VecDeque<Column>,
    first: Option<Day>,
}

impl Shard {
    /// The columns of a stay's nights; `None` if one of them is outside of what is kept.
    pub(super) fn columns(&self, query: &Query) -> Option<Vec<&Column>> {
        let start = usize::try_from(query.nights.check_in().since(self.first?)).ok()?;
        let count = usize::try_from(query.nights.count()).ok()?;
        (start..start + count)
            .map(|at| self.columns.get(at))
            .collect()
    }

    /// No stay is less than this apart from a point.
    pub(super) fn apart(&self, from: Point) -> i64 {
        self.around.map_or(i64::MAX, |around| around.apart(from))
    }

    /// The room types of a stay, in no order that matters.
    pub(super) fn rooms_of(&self, stay: u32) -> impl Iterator<Item = usize> {
        let some = |room: u32| (room != NOBODY).then_some(room as usize);
        std::iter::successors(some(self.last_rooms[stay as usize]), move |room| {
            some(self.previous_rooms[*room])
        })
    }

    /// Bytes that it takes, but for what allocators and maps add to that. Counted without a look at each stay: it is
    /// asked for again and again while searches wait.
    fn bytes(&self) -> usize {
        let nights: usize = self.columns.iter().map(Column::bytes).sum();
        let cards = self.cards.len() * size_of::<Card>() + self.text_bytes;
        let by_stay = vec_bytes(&self.cards)
            + vec_bytes(&self.stay_nos)
            + vec_bytes(&self.amenities)
            + vec_bytes(&self.ratings)
            + vec_bytes(&self.points)
            + vec_bytes(&self.texts)
            + vec_bytes(&self.last_rooms);
        let by_room = vec_bytes(&self.room_stays)
            + vec_bytes(&self.previous_rooms)
            + vec_bytes(&self.room_capacities)
            + vec_bytes(&self.room_nos)
            + vec_bytes(&self.room_ids);
        let by_id = self.rooms_by_stay_id.capacity() * size_of::<(Uuid, Vec<u32>)>()
            + self.rooms_by_id.capacity() * size_of::<(Uuid, u32)>()
            + self.stays_by_no.capacity() * size_of::<(i32, u32)>();
        nights + cards + by_stay + by_room + by_id + self.words.bytes()
    }

    /// Drops the columns of dates before `today`, and adds those that are new.
    fn roll(&mut self, today: Day) {
        let rooms = self.room_nos.len();
        let first = *self.first.get_or_insert(today);
        for _ in 0..today.since(first).clamp(0, DAYS_KEPT) {
            self.columns.pop_front();
        }
        if today > first {
            self.first = Some(today);
        }
        while (self.columns.len() as i32) < DAYS_KEPT {
            self.columns.push_back(Column::with(rooms));
        }
    }

    /// Adds a stay or puts it in the place of what was known of it; answers the places of its room types.
    fn put_stay(&mut self, stay: SearchedStay) -> Vec<(i32, u32)> {
        let next = self.cards.len() as u32;
        let number = *self.stays_by_no.entry(stay.card.stay_no).or_insert(next);
        let (at, stay_id) = (number as usize, stay.card.stay_id);
        let card = Arc::new(stay.card);
        self.text_bytes += text_bytes(&card, &stay.search_text);
        self.around
            .get_or_insert(Around(stay.point, stay.point))
            .add(stay.point);
        if number == next {
            self.words.add(number, &stay.search_text);
            self.stay_nos.push(card.stay_no);
            self.amenities.push(card.amenities);
            self.ratings.push(card.rating);
            self.points.push(stay.point);
            self.cards.push(card);
            self.texts.push(stay.search_text.into());
            self.last_rooms.push(NOBODY);
        } else {
            self.text_bytes -= text_bytes(&self.cards[at], &self.texts[at]);
            self.amenities[at] = card.amenities;
            self.ratings[at] = card.rating;
            self.points[at] = stay.point;
            self.cards[at] = card;
            if *self.texts[at] != *stay.search_text {
                self.texts[at] = stay.search_text.into();
                self.words = Words::default();
                for (number, text) in (0..).zip(&self.texts) {
                    self.words.add(number, text);
                }
            }
        }
        let mut places = Vec::with_capacity(stay.rooms.len());
        for (room_type_no, room_type_id, capacity) in stay.rooms {
            // There are no rooms for more people.
            let capacity = u8::try_from(capacity).unwrap_or(u8::MAX);
            let next = self.room_nos.len() as u32;
            let place = *self.rooms_by_id.entry(room_type_id).or_insert(next);
            if place == next {
                self.room_nos.push(room_type_no);
                self.room_ids.push(room_type_id);
                self.room_stays.push(number);
                self.room_capacities.push(capacity);
                self.previous_rooms.push(self.last_rooms[at]);
                self.last_rooms[at] = place;
                self.rooms_by_stay_id
                    .entry(stay_id)
                    .or_default()
                    .push(place);
            } else {
                self.room_capacities[place as usize] = capacity;
            }
            places.push((room_type_no, place));
        }
        places
    }

    /// Gives every column a place for every room type.
    fn widen(&mut self) {
        let rooms = self.room_nos.len();
        for column in &mut self.columns {
            column.resize(rooms);
        }
    }

    fn put_nights(&mut self, place: u32, nights: &RoomNights) {
        let Some(first) = self.first else { return };
        let at = place as usize;
        for (index, day) in nights.days.iter().enumerate() {
            let column = usize::try_from(day - first.number())
                .ok()
                .and_then(|offset| self.columns.get_mut(offset));
            let Some(column) = column else { continue };
            let price = nights.prices[index].cast_unsigned();
            debug_assert!(price <= PRICE_MAX, "{price}");
            if nights.left[index] > 0 {
                let own = own_discount(nights.own_percents[index], nights.own_amounts[index]);
                let min_nights = u8::try_from(nights.min_nights[index]).unwrap_or(NEVER);
                column.put(at, price, cost(price, own), min_nights);
            } else {
                column.put(at, price, PRICE_MAX, NEVER);
            }
        }
    }
}

/// Bytes of what is written about a stay.
fn text_bytes(card: &Card, text: &str) -> usize {
    card.name.len() + card.name_en.len() + text.len()
}

/// Where a room type is: its region and its place there. Only the task that changes the index needs to know.
#[derive(Debug, Default)]
pub(super) struct Directory(HashMap<i32, (Region, u32)>);

impl Directory {
    pub(super) fn knows(&self, room_type_no: i32) -> bool {
        self.0.contains_key(&room_type_no)
    }
}

/// All regions.
#[derive(Debug, Default)]
pub struct Index {
    shards: [RwLock<Shard>; Region::ALL.len()],
    loaded: AtomicBool,
}

impl Index {
    /// Without any stay.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has every stay that there was when it was loaded, and hears of changes.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Acquire)
    }

    pub(super) fn set_loaded(&self) {
        self.loaded.store(true, Release);
    }

    /// How many stays it has.
    pub fn stays(&self) -> usize {
        Region::ALL
            .map(|region| self.read(region).cards.len())
            .iter()
            .sum()
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        Region::ALL
            .map(|region| self.read(region).bytes())
            .iter()
            .sum()
    }

    /// The stays that a query finds while these sales are on, in its order.
    pub fn search(&self, query: &Query, sales: &[Arc<Sale>]) -> Vec<Hit> {
        let mut all = Region::ALL;
        let regions: &[Region] = match (&query.region, query.order) {
            (Some(region), _) => std::slice::from_ref(region),
            (None, Order::Price | Order::Rating) => &all,
            // What is near first, so that the rest need not be looked at.
            (None, Order::Distance(from)) => {
                all.sort_by_cached_key(|region| self.read(*region).apart(from));
                &all
            }
        };
        let mut found = Found::new(query.limit);
        for region in regions {
            scan::search(&self.read(*region), *region, query, sales, &mut found);
        }
        found.into_hits()
    }

    /// Drops the nights before `today` and makes room for new ones.
    pub(super) fn roll(&self, today: Day) {
        for region in Region::ALL {
            if self.read(region).first != Some(today) {
                self.write(region).roll(today);
            }
        }
    }

    /// Adds stays, or puts them in the place of what was known of them.
    pub(super) fn put_stays(&self, stays: Vec<SearchedStay>, directory: &mut Directory) {
        let mut by_region: [Vec<SearchedStay>; Region::ALL.len()] = Default::default();
        for stay in stays {
            by_region[stay.card.region.index()].push(stay);
        }
        for (region, stays) in Region::ALL.into_iter().zip(by_region) {
            if stays.is_empty() {
                continue;
            }
            let mut shard = self.write(region);
            for stay in stays {
                for (room_type_no, place) in shard.put_stay(stay) {
                    directory.0.insert(room_type_no, (region, place));
                }
            }
            shard.widen();
        }
    }

    /// Puts nights of room types in the place of what was known of them. Room types that aren't known are left out.
    pub(super) fn put_nights(&self, rooms: &[RoomNights], directory: &Directory) {
        for nights in rooms {
            if let Some((region, place)) = directory.0.get(&nights.room_type_no) {
                self.write(*region).put_nights(*place, nights);
            }
        }
    }

    fn read(&self, region: Region) -> RwLockReadGuard<'_, Shard> {
        self.shards[region.index()]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, region: Region) -> RwLockWriteGuard<'_, Shard> {
        self.shards[region.index()]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::stay::Place;

    #[test]
    fn a_night_costs_its_price_without_what_the_host_takes_off() {
        for (percent, amount, expected) in [
            (0, 0, 10_001),
            (10, 0, 9_001),
            (0, 1_000, 9_001),
            (0, 20_000, 0),
        ] {
            assert_eq!(cost(10_001, own_discount(percent, amount)), expected);
        }
    }

    #[test]
    fn a_floor_is_the_lowest_cost_of_its_block() {
        let mut column = Column::with(BLOCK + 3);
        let mut put = |room: usize, cost| {
            column.put(room, cost, cost, 1);
            [column.floors[0], column.floors[1]]
        };
        assert_eq!(put(3, 500), [500, PRICE_MAX]);
        assert_eq!(put(4, 700), [500, PRICE_MAX]);
        assert_eq!(put(BLOCK + 2, 900), [500, 900]);
        assert_eq!(put(3, 800), [700, 900]);
        assert_eq!(put(4, 100), [100, 900]);
        assert_eq!(put(BLOCK + 2, PRICE_MAX), [100, PRICE_MAX]);
    }

    #[test]
    fn nothing_in_a_box_is_nearer_than_the_box() {
        let place = |lat, lng| Place::new(lat, lng).unwrap().point();
        let points = [place(33.2, 126.1), place(33.5, 126.9), place(33.3, 126.5)];
        let mut around = Around(points[0], points[0]);
        points.iter().for_each(|point| around.add(*point));
        for from in [place(37.5, 127.0), place(33.3, 126.5), place(-40.0, -50.0)] {
            let nearest = points.iter().map(|point| from.apart(*point)).min();
            assert!(Some(around.apart(from)) <= nearest);
        }
        assert_eq!(around.apart(points[2]), 0);
    }

    #[test]
    fn columns_move_with_the_days() {
        let today = Day::today();
        let mut shard = Shard::default();
        shard.roll(today);
        shard.columns[3] = Column::with(1);
        shard.roll(today.plus(2));
        assert_eq!(shard.columns.len() as i32, DAYS_KEPT);
        assert_eq!(shard.columns[1].prices.len(), 1);
        shard.roll(today.plus(1));
        assert_eq!(
            shard.first,
            Some(today.plus(2)),
            "a clock that was set back"
        );
        shard.roll(today.plus(5_000));
        assert_eq!(shard.columns.len() as i32, DAYS_KEPT);
        assert!(shard.columns.iter().all(|column| column.prices.is_empty()));
    }
}
