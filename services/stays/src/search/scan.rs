//! One sweep over a region.

use std::collections::BinaryHeap;
use std::sync::Arc;

use money::{Discount, Krw, NightPrice, StayPrice, Used, lowest};

use super::index::{Column, Shard};
use super::words::Bits;
use super::{Hit, Offer, Order, Position, Query, per_night};
use crate::calendar::NIGHTS_MAX;
use crate::discounts::Sale;
use crate::stay::Region;

/// No offer yet.
const NOTHING: i64 = i64::MAX;

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

/// The cheapest offer of a stay that was seen so far.
#[derive(Clone, Copy)]
struct Best {
    amount: i64,
    room: u32,
    sale: u16,
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
    let best = cheapest(shard, query, &columns, &sales);
    for (stay, best) in best.iter().enumerate() {
        if best.amount == NOTHING {
            continue;
        }
        let key = match query.order {
            Order::Price => best.amount,
            Order::Rating => -i64::from(shard.ratings[stay]),
            Order::Distance(from) => from.apart(shard.points[stay]),
        };
        let position = Position {
            key,
            stay_no: shard.stay_nos[stay],
        };
        if query.after.is_some_and(|after| position <= after) || !found.wants(position) {
            continue;
        }
        let sale = sales.get(usize::from(best.sale));
        let room = best.room as usize;
        found.put(Hit {
            position,
            card: Arc::clone(&shard.cards[stay]),
            room_type_id: shard.room_ids[room],
            offer: Offer {
                amount: best.amount,
                original: stay_price(&columns, room, sale).original.get(),
                sale: sale.map(|applied| Arc::clone(&applied.sale.id)),
            },
        });
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
                discount: sale.discount,
                nights,
                rooms,
            })
        })
        .collect()
}

/// The cheapest offer of each stay that the query finds.
fn cheapest(shard: &Shard, query: &Query, columns: &[&Column], sales: &[Applied<'_>]) -> Vec<Best> {
    let nothing = Best {
        amount: NOTHING,
        room: 0,
        sale: NO_SALE,
    };
    let mut best = vec![nothing; shard.cards.len()];
    let with_words =
        (!query.words.is_empty()).then(|| shard.words.find(&query.words, shard.cards.len()));
    for room in 0..shard.room_nos.len() {
        let stay = shard.room_stays[room];
        if shard.room_capacities[room] < query.guests
            || !shard.amenities[stay as usize].contains(query.amenities)
            || with_words.as_ref().is_some_and(|with| !with.contains(stay))
        {
            continue;
        }
        let Some((amount, sale)) = offer(columns, room, query.nights.count(), sales) else {
            continue;
        };
        if !(query.min_price..=query.max_price).contains(&per_night(amount, query.nights.count())) {
            continue;
        }
        let best = &mut best[stay as usize];
        let earlier = || shard.room_nos[room] < shard.room_nos[best.room as usize];
        if amount < best.amount || (amount == best.amount && earlier()) {
            *best = Best {
                amount,
                room: room as u32,
                sale,
            };
        }
    }
    best
}

/// What a room type costs and by which sale; `None` if a night can't be had.
fn offer(
    columns: &[&Column],
    room: usize,
    nights: i32,
    sales: &[Applied<'_>],
) -> Option<(i64, u16)> {
    let mut amount = 0;
    for column in columns {
        if column.left[room] == 0 {
            return None;
        }
        let terms = column.terms[room];
        if terms.min_nights() > nights {
            return None;
        }
        // A night without a discount is the common one, and is its own lowest price.
        amount += if terms.has_own() {
            night_price(column, room, None).amount.get()
        } else {
            i64::from(column.prices[room])
        };
    }
    let mut chosen = (amount, NO_SALE);
    for (index, sale) in (0_u16..).zip(sales) {
        if sale
            .rooms
            .as_ref()
            .is_some_and(|rooms| !rooms.contains(room as u32))
        {
            continue;
        }
        let amount = stay_price(columns, room, Some(sale)).amount.get();
        if amount < chosen.0 {
            chosen = (amount, index);
        }
    }
    Some(chosen)
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
