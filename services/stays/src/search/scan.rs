//! One sweep over a region.
//!
//! Most of what a sweep comes by is never shown: as soon as it has as many stays as are wanted, others have to come
//! before the last of them. So it looks closely at few. By rating or distance it knows where a stay stands before what
//! it costs. By price it passes over many room types at once, first by the lowest price among them, then by their sums
//! of nights: those that are too dear even with the largest discount of the sales that cover the region.

use std::collections::BinaryHeap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use money::{Discount, Krw};

use super::index::{BLOCK, Column, Shard};
use super::words::Bits;
use super::{Hit, Offer, Order, Position, Query};
use crate::discounts::Sale;
use crate::stay::Region;

/// No sale.
const NO_SALE: u16 = u16::MAX;

/// Where a stay stands among others, of which the last one in order is the greatest.
struct Ranked {
    position: Position,
    stay: u32,
    cheapest: Candidate,
    /// Made when its region's sweep is over: most of what is found goes again before.
    hit: Option<Hit>,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.position.cmp(&other.position)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for Ranked {}

/// The first so many hits of what was seen so far: never sorts what nobody will see.
pub(super) struct Found {
    limit: usize,
    ranked: BinaryHeap<Ranked>,
}

impl Found {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ranked: BinaryHeap::with_capacity(limit + 1),
        }
    }

    /// Where the last of them stands, once there are as many as are wanted: only what comes before it is.
    fn bar(&self) -> Option<Position> {
        let is_full = self.ranked.len() >= self.limit;
        self.ranked
            .peek()
            .filter(|_| is_full)
            .map(|last| last.position)
    }

    fn put(&mut self, ranked: Ranked) {
        self.ranked.push(ranked);
        if self.ranked.len() > self.limit {
            self.ranked.pop();
        }
    }

    /// Makes the hits that are yet to be made.
    fn make_hits(&mut self, hit: impl Fn(&Ranked) -> Hit) {
        let mut all = std::mem::take(&mut self.ranked).into_vec();
        for ranked in &mut all {
            if ranked.hit.is_none() {
                ranked.hit = Some(hit(ranked));
            }
        }
        self.ranked = all.into();
    }

    pub(super) fn into_hits(self) -> Vec<Hit> {
        let sorted = self.ranked.into_sorted_vec();
        sorted.into_iter().filter_map(|ranked| ranked.hit).collect()
    }
}

/// A sale as it applies to the nights of a query in one region.
struct Applied<'a> {
    sale: &'a Arc<Sale>,
    /// The nights that it covers, from the lowest bit on.
    nights: u32,
    /// The room types that it covers; `None` for all.
    rooms: Option<Bits>,
}

impl Applied<'_> {
    fn covers(&self, room: usize) -> bool {
        self.rooms
            .as_ref()
            .is_none_or(|rooms| rooms.contains(room as u32))
    }

    /// What a night costs with it: [`money::lowest`], whose other two prices are in the column already.
    fn cost(&self, night: usize, column: &Column, room: usize) -> i64 {
        let cost = i64::from(column.costs[room]);
        if self.nights & 1 << night == 0 {
            return cost;
        }
        let price = Krw::new(i64::from(column.prices[room])).unwrap_or(Krw::ZERO);
        cost.min(self.sale.discount.apply(price).get())
    }

    /// The most that so many nights may cost without it if they cost at most `amount` with it.
    fn most_without(&self, nights: i64, amount: i64) -> i64 {
        match self.sale.discount {
            Discount::Percent(off) => amount.saturating_mul(100) / (100 - i64::from(off.get())),
            Discount::Amount(off) => amount.saturating_add(off.get().saturating_mul(nights)),
        }
    }
}

/// The sales that cover something here.
fn applied<'a>(
    shard: &Shard,
    region: Region,
    query: &Query,
    sales: &'a [Arc<Sale>],
) -> Vec<Applied<'a>> {
    sales
        .iter()
        .filter_map(|sale| {
            let check_in = query.nights.check_in();
            let nights = (0..query.nights.count())
                .filter(|night| (sale.first..=sale.last).contains(&check_in.plus(*night)))
                .fold(0_u32, |nights, night| nights | 1 << night);
            if nights == 0 {
                return None;
            }
            let rooms = if sale.regions.contains(&region) {
                None
            } else {
                let of_stays = sale
                    .stays
                    .iter()
                    .filter_map(|id| shard.rooms_by_stay_id.get(id))
                    .flatten();
                let of_rooms = sale
                    .room_types
                    .iter()
                    .filter_map(|id| shard.rooms_by_id.get(id));
                let mut covered = of_stays.chain(of_rooms).peekable();
                covered.peek()?;
                let mut bits = Bits::empty(shard.room_nos.len());
                covered.for_each(|room| bits.insert(*room));
                Some(bits)
            };
            Some(Applied {
                sale,
                nights,
                rooms,
            })
        })
        .collect()
}

/// What whole stays may cost, if a night of so many may cost between `min` and `max` on average and rounded up.
fn amounts(min: i64, max: i64, nights: i64) -> RangeInclusive<i64> {
    let least = min.saturating_sub(1).saturating_mul(nights);
    least.saturating_add(1)..=max.saturating_mul(nights)
}

/// A room type that a query finds, with its cheapest offer.
#[derive(Clone, Copy)]
struct Candidate {
    room: usize,
    sale: u16,
    amount: i64,
}

/// Adds a region's hits to those that were found.
pub(super) fn search(
    shard: &Shard,
    region: Region,
    query: &Query,
    sales: &[Arc<Sale>],
    found: &mut Found,
) {
    let Some(sweep) = Sweep::new(shard, region, query, sales) else {
        return;
    };
    match query.order {
        Order::Price => sweep.by_price(found),
        Order::Rating => {
            let ratings = &shard.ratings;
            sweep.by_key(found, |stay| -i64::from(ratings[stay as usize]));
        }
        Order::Distance(from) => {
            if found.bar().is_some_and(|bar| bar.key < shard.apart(from)) {
                return;
            }
            let points = &shard.points;
            sweep.by_key(found, |stay| from.apart(points[stay as usize]));
        }
    }
    found.make_hits(|ranked| sweep.hit(ranked));
}

struct Sweep<'a> {
    shard: &'a Shard,
    query: &'a Query,
    guests: u8,
    /// How many.
    nights: u8,
    columns: Vec<&'a Column>,
    sales: Vec<Applied<'a>>,
    /// What a stay may cost.
    amounts: RangeInclusive<i64>,
    /// The stays that have the words; `None` if there are none to have.
    with_words: Option<Bits>,
}

impl<'a> Sweep<'a> {
    /// `None` if nothing can be found.
    fn new(
        shard: &'a Shard,
        region: Region,
        query: &'a Query,
        sales: &'a [Arc<Sale>],
    ) -> Option<Self> {
        let nights = query.nights.count();
        let words = &query.words;
        Some(Self {
            shard,
            query,
            guests: u8::try_from(query.guests).ok()?,
            nights: u8::try_from(nights).ok()?,
            columns: shard.columns(query)?,
            sales: applied(shard, region, query, sales),
            amounts: amounts(query.min_price, query.max_price, i64::from(nights)),
            with_words: (!words.is_empty()).then(|| shard.words.find(words, shard.cards.len())),
        })
    }

    /// Puts those stays among what was found whose keys are low enough.
    fn by_key(&self, found: &mut Found, key: impl Fn(u32) -> i64) {
        let (mut least, mut most) = self.keys(found);
        let mut look_at = |stay: u32| {
            let key = key(stay);
            if key > most || key < least {
                return;
            }
            if self.wants(stay, key, found)
                && self.has_amenities(stay)
                && let Some(cheapest) = self.cheapest(stay)
            {
                self.put(stay, key, cheapest, found);
                (least, most) = self.keys(found);
            }
        };
        match &self.with_words {
            Some(stays) => stays.iter().for_each(look_at),
            None => (0..self.shard.cards.len() as u32).for_each(&mut look_at),
        }
    }

    /// The lowest and the highest key of what may still be among what is found.
    fn keys(&self, found: &Found) -> (i64, i64) {
        let after = self.query.after.map_or(i64::MIN, |after| after.key);
        (after, found.bar().map_or(i64::MAX, |bar| bar.key))
    }

    /// Puts the stays of those room types among what was found that may be cheap enough.
    fn by_price(&self, found: &mut Found) {
        let covered = self.covered();
        let rooms = self.shard.room_nos.len();
        for start in (0..rooms).step_by(BLOCK) {
            let block = start..rooms.min(start + BLOCK);
            let (least, most) = self.wanted(found);
            let floors = self
                .columns
                .iter()
                .map(|column| column.floors[start / BLOCK]);
            let mut near = 0;
            if floors.sum::<u32>() <= most {
                near = self.within(block.clone(), (least, most));
            }
            if let Some(covered) = &covered {
                near |= covered.word(start);
            }
            if near == 0 {
                continue;
            }
            near &= self.fitting(block);
            while near != 0 {
                self.look_at(start + near.trailing_zeros() as usize, found);
                near &= near - 1;
            }
        }
    }

    /// The room types of sales that don't cover all of the region.
    fn covered(&self) -> Option<Bits> {
        let rooms = self.sales.iter().filter_map(|sale| sale.rooms.clone());
        rooms.reduce(|mut all, rooms| {
            all.add_those_in(&rooms);
            all
        })
    }

    /// The least and the most that the nights may cost without a sale where an offer may still be among what is found, but
    /// for sales that don't cover all of the region.
    fn wanted(&self, found: &Found) -> (u32, u32) {
        let (least, most) = self.keys(found);
        let least = least.max(*self.amounts.start());
        let most = most.min(*self.amounts.end());
        let whole = self.sales.iter().filter(|sale| sale.rooms.is_none());
        let most = whole
            .map(|sale| sale.most_without(i64::from(self.nights), most))
            .fold(most, i64::max);
        let clamped = |amount: i64| amount.clamp(0, i64::from(u32::MAX)) as u32;
        if most < 0 {
            return (1, 0);
        }
        (clamped(least), clamped(most))
    }

    /// Which of some room types cost so much without a sale, from the lowest bit on.
    fn within(&self, rooms: Range<usize>, (least, most): (u32, u32)) -> u64 {
        let mut sums = [0_u32; BLOCK];
        for column in &self.columns {
            for (sum, cost) in sums.iter_mut().zip(&column.costs[rooms.clone()]) {
                *sum = sum.wrapping_add(*cost);
            }
        }
        let mut flags = [0_u8; BLOCK];
        for (flag, sum) in flags[..rooms.len()].iter_mut().zip(&sums) {
            *flag = u8::from((least <= *sum) & (*sum <= most));
        }
        bits(&flags)
    }

    /// Which of some room types fit and can be had in every night, from the lowest bit on.
    fn fitting(&self, rooms: Range<usize>) -> u64 {
        let mut flags = [0_u8; BLOCK];
        let capacities = &self.shard.room_capacities[rooms.clone()];
        for (flag, capacity) in flags.iter_mut().zip(capacities) {
            *flag = u8::from(*capacity >= self.guests);
        }
        for column in &self.columns {
            for (flag, least) in flags.iter_mut().zip(&column.min_nights[rooms.clone()]) {
                *flag &= u8::from(*least <= self.nights);
            }
        }
        bits(&flags)
    }

    /// Puts the stay of a room type among what was found, if this is its cheapest.
    fn look_at(&self, room: usize, found: &mut Found) {
        let stay = self.shard.room_stays[room];
        if !self.has_amenities(stay) || !self.has_words(stay) {
            return;
        }
        let cheapest = self.cheapest(stay);
        if let Some(cheapest) = cheapest.filter(|cheapest| cheapest.room == room)
            && self.wants(stay, cheapest.amount, found)
        {
            self.put(stay, cheapest.amount, cheapest, found);
        }
    }

    fn has_amenities(&self, stay: u32) -> bool {
        self.shard.amenities[stay as usize].contains(self.query.amenities)
    }

    fn has_words(&self, stay: u32) -> bool {
        self.with_words
            .as_ref()
            .is_none_or(|stays| stays.contains(stay))
    }

    fn position(&self, stay: u32, key: i64) -> Position {
        Position {
            key,
            stay_no: self.shard.stay_nos[stay as usize],
        }
    }

    /// Whether a stay of this key would be among what is found.
    fn wants(&self, stay: u32, key: i64, found: &Found) -> bool {
        let position = self.position(stay, key);
        self.query.after.is_none_or(|after| after < position)
            && found.bar().is_none_or(|bar| position < bar)
    }

    /// The cheapest room type of a stay that fits and can be had in every night.
    fn cheapest(&self, stay: u32) -> Option<Candidate> {
        let rooms = self
            .shard
            .rooms_of(stay)
            .filter(|room| self.fits(*room))
            .map(|room| self.offer(room))
            .filter(|offer| self.amounts.contains(&offer.amount));
        rooms.min_by_key(|offer| (offer.amount, self.shard.room_nos[offer.room]))
    }

    fn fits(&self, room: usize) -> bool {
        self.shard.room_capacities[room] >= self.guests
            && self
                .columns
                .iter()
                .all(|column| column.min_nights[room] <= self.nights)
    }

    /// What a room type costs and by which sale.
    fn offer(&self, room: usize) -> Candidate {
        let costs = self.columns.iter().map(|column| column.costs[room]);
        let mut offer = Candidate {
            room,
            sale: NO_SALE,
            amount: costs.map(i64::from).sum(),
        };
        for (index, sale) in (0_u16..).zip(&self.sales) {
            if !sale.covers(room) {
                continue;
            }
            let nights = self.columns.iter().enumerate();
            let amount = nights
                .map(|(night, column)| sale.cost(night, column, room))
                .sum();
            if amount < offer.amount {
                (offer.amount, offer.sale) = (amount, index);
            }
        }
        offer
    }

    fn put(&self, stay: u32, key: i64, cheapest: Candidate, found: &mut Found) {
        found.put(Ranked {
            position: self.position(stay, key),
            stay,
            cheapest,
            hit: None,
        });
    }

    fn hit(&self, ranked: &Ranked) -> Hit {
        let Candidate { room, sale, amount } = ranked.cheapest;
        let prices = self.columns.iter().map(|column| column.prices[room]);
        let sale = self.sales.get(usize::from(sale));
        Hit {
            position: ranked.position,
            card: Arc::clone(&self.shard.cards[ranked.stay as usize]),
            room_type_id: self.shard.room_ids[room],
            offer: Offer {
                amount,
                original: prices.map(i64::from).sum(),
                sale: sale.map(|applied| Arc::clone(&applied.sale.id)),
            },
        }
    }
}

/// Flags of 0 or 1 as bits, the first one the lowest.
fn bits(flags: &[u8; BLOCK]) -> u64 {
    // Moves the lowest bit of byte i to bit 56 + i, and nothing else there.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, _) = flags.as_chunks();
    eights.iter().rev().fold(0, |bits, eight| {
        bits << 8 | u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_bits_in_their_order() {
        for wanted in [0, 1, 0x8000_0000_0000_0001, 0x0123_4567_89ab_cdef, u64::MAX] {
            let flags = std::array::from_fn(|at| (wanted >> at & 1) as u8);
            assert_eq!(bits(&flags), wanted);
        }
    }

    #[test]
    fn bounds_of_a_night_are_bounds_of_the_stay() {
        for nights in 1..=4 {
            for (min, max) in [
                (0, 3),
                (2, 2),
                (3, 1),
                (-5, -1),
                (1, i64::MAX),
                (i64::MAX, 0),
            ] {
                let stays = amounts(min, max, nights);
                for amount in 0..20 {
                    let per_night = super::super::per_night(amount, nights as i32);
                    let expected = (min..=max).contains(&per_night);
                    assert_eq!(
                        stays.contains(&amount),
                        expected,
                        "{amount} {min} {max} {nights}"
                    );
                }
            }
        }
    }
}
