//! One sweep over a region.

use std::cell::RefCell;
use std::collections::BinaryHeap;
use std::sync::Arc;

use money::{Discount, Krw, NightPrice, StayPrice, Used, lowest};

use super::index::{Column, Shard};
use super::words::Bits;
use super::{Hit, Offer, Order, Position, Query, per_night};
use crate::calendar::NIGHTS_MAX;
use crate::discounts::Sale;
use crate::stay::Region;

/// No candidate yet.
const NOBODY: u32 = u32::MAX;

/// A night before its price is known.
const NO_NIGHT: NightPrice = NightPrice {
    amount: Krw::ZERO,
    original: Krw::ZERO,
    used: Used::None,
};

/// No sale.
const NO_SALE: u16 = u16::MAX;

/// A hit among hits, of which the last one in order is the greatest.
struct Ranked(Hit);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.position.cmp(&other.0.position)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.0.position == other.0.position
    }
}

impl Eq for Ranked {}

/// The first so many hits of what was seen so far: never sorts what nobody will see.
pub(super) struct Found {
    limit: usize,
    hits: BinaryHeap<Ranked>,
}

impl Found {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            hits: BinaryHeap::with_capacity(limit + 1),
        }
    }

    /// Whether a hit at this position would be among them.
    fn wants(&self, position: Position) -> bool {
        self.hits.len() < self.limit
            || self
                .hits
                .peek()
                .is_some_and(|last| position < last.0.position)
    }

    fn put(&mut self, hit: Hit) {
        self.hits.push(Ranked(hit));
        if self.hits.len() > self.limit {
            self.hits.pop();
        }
    }

    pub(super) fn into_hits(self) -> Vec<Hit> {
        let sorted = self.hits.into_sorted_vec();
        sorted.into_iter().map(|Ranked(hit)| hit).collect()
    }
}

/// A sale as it applies to the nights of a query in one region.
struct Applied<'a> {
    sale: &'a Arc<Sale>,
    discount: Discount,
    /// The nights that it covers, from the lowest bit on.
    nights: u32,
    /// The room types that it covers; `None` for all.
    rooms: Option<Bits>,
}

impl Applied<'_> {
    fn of(&self, room: usize, night: usize) -> Option<Discount> {
        let covers = self.nights & (1 << night) != 0
            && self
                .rooms
                .as_ref()
                .is_none_or(|rooms| rooms.contains(room as u32));
        covers.then_some(self.discount)
    }
}

/// A room type that a query finds, with its cheapest offer.
#[derive(Clone, Copy)]
struct Candidate {
    room: u32,
    sale: u16,
    amount: i64,
}

/// What a sweep writes into: kept by its thread for the next one, since what is as large as this is dear to allocate.
#[derive(Default)]
struct Scratch {
    rooms: Vec<u32>,
    candidates: Vec<Candidate>,
    /// By stay: its cheapest candidate.
    cheapest: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Adds a region's hits to those that were found.
pub(super) fn search(
    shard: &Shard,
    region: Region,
    query: &Query,
    sales: &[Arc<Sale>],
    found: &mut Found,
) {
    let Some(columns) = shard.columns(query) else {
        return;
    };
    let sales = applied(shard, region, query, sales);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.find_rooms(shard, query, &columns);
        scratch.make_offers(query, &columns, &sales);
        scratch.list(shard, query, found, |candidate| {
            let sale = sales.get(usize::from(candidate.sale));
            Offer {
                amount: candidate.amount,
                original: stay_price(&columns, candidate.room as usize, sale)
                    .original
                    .get(),
                sale: sale.map(|applied| Arc::clone(&applied.sale.id)),
            }
        });
    });
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
                discount: sale.discount,
                nights,
                rooms,
            })
        })
        .collect()
}

/// Keeps those of `rooms` of which something is true. Without a branch: what is true of every other room type would be
/// guessed wrong every other time.
fn keep(rooms: &mut Vec<u32>, is_kept: impl Fn(usize) -> bool) {
    let mut kept = 0;
    for at in 0..rooms.len() {
        let room = rooms[at];
        rooms[kept] = room;
        kept += usize::from(is_kept(room as usize));
    }
    rooms.truncate(kept);
}

impl Scratch {
    /// The room types that fit and can be had in every night.
    fn find_rooms(&mut self, shard: &Shard, query: &Query, columns: &[&Column]) {
        let rooms = &mut self.rooms;
        rooms.clear();
        rooms.extend(0..shard.room_nos.len() as u32);
        keep(rooms, |room| {
            let amenities = shard.amenities[shard.room_stays[room] as usize];
            (shard.room_capacities[room] >= query.guests) & amenities.contains(query.amenities)
        });
        if !query.words.is_empty() {
            let with = shard.words.find(&query.words, shard.cards.len());
            keep(rooms, |room| with.contains(shard.room_stays[room]));
        }
        let count = query.nights.count();
        for column in columns {
            keep(rooms, |room| {
                (column.left[room] > 0) & (column.terms[room].min_nights() <= count)
            });
        }
    }

    /// What each of them costs by its cheapest offer, where that is asked for.
    fn make_offers(&mut self, query: &Query, columns: &[&Column], sales: &[Applied<'_>]) {
        let prices = query.min_price..=query.max_price;
        let any_price = prices == (0..=i64::MAX);
        let count = query.nights.count();
        self.candidates.clear();
        for room in &self.rooms {
            let (amount, sale) = offer(columns, *room as usize, sales);
            if any_price || prices.contains(&per_night(amount, count)) {
                self.candidates.push(Candidate {
                    room: *room,
                    sale,
                    amount,
                });
            }
        }
    }

    /// Puts the cheapest of each stay among what was found.
    fn list(
        &mut self,
        shard: &Shard,
        query: &Query,
        found: &mut Found,
        offer: impl Fn(&Candidate) -> Offer,
    ) {
        self.cheapest.clear();
        self.cheapest.resize(shard.cards.len(), NOBODY);
        for (at, candidate) in (0_u32..).zip(&self.candidates) {
            let cheapest = &mut self.cheapest[shard.room_stays[candidate.room as usize] as usize];
            let so_far = self.candidates.get(*cheapest as usize);
            let is_cheaper = so_far.is_none_or(|so_far| {
                let key = |of: &Candidate| (of.amount, shard.room_nos[of.room as usize]);
                key(candidate) < key(so_far)
            });
            if is_cheaper {
                *cheapest = at;
            }
        }
        for (at, candidate) in (0_u32..).zip(&self.candidates) {
            let room = candidate.room as usize;
            let stay = shard.room_stays[room] as usize;
            if self.cheapest[stay] != at {
                continue;
            }
            let position = Position {
                key: match query.order {
                    Order::Price => candidate.amount,
                    Order::Rating => -i64::from(shard.ratings[stay]),
                    Order::Distance(from) => from.apart(shard.points[stay]),
                },
                stay_no: shard.stay_nos[stay],
            };
            if query.after.is_some_and(|after| position <= after) || !found.wants(position) {
                continue;
            }
            found.put(Hit {
                position,
                card: Arc::clone(&shard.cards[stay]),
                room_type_id: shard.room_ids[room],
                offer: offer(candidate),
            });
        }
    }
}

/// What a room type costs and by which sale.
fn offer(columns: &[&Column], room: usize, sales: &[Applied<'_>]) -> (i64, u16) {
    let amount = columns.iter().map(|column| {
        // A night without a discount is the common one, and is its own lowest price.
        if column.terms[room].has_own() {
            night_price(column, room, None).amount.get()
        } else {
            i64::from(column.prices[room])
        }
    });
    let mut chosen = (amount.sum::<i64>(), NO_SALE);
    for (index, sale) in (0_u16..).zip(sales) {
        if sale
            .rooms
            .as_ref()
            .is_some_and(|rooms| !rooms.contains(room as u32))
        {
            continue;
        }
        let amount = columns
            .iter()
            .enumerate()
            .map(|(night, column)| night_price(column, room, sale.of(room, night)).amount.get());
        let amount = amount.sum::<i64>();
        if amount < chosen.0 {
            chosen = (amount, index);
        }
    }
    chosen
}

fn night_price(column: &Column, room: usize, sale: Option<Discount>) -> NightPrice {
    let price = Krw::new(i64::from(column.prices[room])).unwrap_or(Krw::ZERO);
    lowest(price, column.own(room, column.terms[room]), sale)
}

/// What a room type costs with one sale.
fn stay_price(columns: &[&Column], room: usize, sale: Option<&Applied<'_>>) -> StayPrice {
    let mut nights = [NO_NIGHT; NIGHTS_MAX as usize];
    let nights = &mut nights[..columns.len()];
    for (index, (night, column)) in nights.iter_mut().zip(columns).enumerate() {
        *night = night_price(column, room, sale.and_then(|sale| sale.of(room, index)));
    }
    // Thirty nights of the dearest rooms are far from what 64 bits hold.
    StayPrice::of(&*nights).unwrap_or_default()
}
