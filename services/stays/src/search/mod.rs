//! Searching stays: one kind of query, answered by the index in memory or by PostgreSQL alone, with equal answers.
//!
//! A stay is found by the cheapest of its room types that has room for the guests and a free room in every night. What
//! it costs is the lowest price of each night ([`money::lowest`]), with at most one time sale for the whole stay, since
//! a guest pays with one claim. Where two offers cost the same, the one without a sale counts, then the sale whose id
//! comes first, then the room type that was made first.

mod database;
pub mod index;
mod keep;
mod scan;
#[cfg(test)]
mod scan_tests;
mod words;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::database::Database;
pub use self::index::Index;
pub use self::keep::keep;

use crate::calendar::Nights;
use crate::discounts::Sale;
use crate::stay::{Amenities, Card, Point, Region};
use crate::store::StoreError;

/// Most words of one query.
pub const WORDS_MAX: usize = 8;

/// What is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Where; everywhere if absent.
    pub region: Option<Region>,
    /// When.
    pub nights: Nights,
    /// How many people have to fit in.
    pub guests: u16,
    /// Whole won a night, at least.
    pub min_price: i64,
    /// Whole won a night, at most.
    pub max_price: i64,
    /// All of these are there.
    pub amenities: Amenities,
    /// Each of these is part of a word of the stay's names, region or address. In lower case, without spaces.
    pub words: Vec<String>,
    /// What comes first.
    pub order: Order,
    /// Only what comes after this.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// What comes first in a list of stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// The cheapest.
    Price,
    /// The one that guests rated best.
    Rating,
    /// The one nearest to a point.
    Distance(Point),
}

/// Where a stay stands in a list: what it is sorted by, and its number where others are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Small comes first: the price, the rating's negative or the distance.
    #[serde(rename = "k")]
    pub key: i64,
    /// The stay's number.
    #[serde(rename = "n")]
    pub stay_no: i32,
}

/// A stay that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Where it stands.
    pub position: Position,
    /// What is shown of it.
    pub card: Arc<Card>,
    /// Its cheapest room type.
    pub room_type_id: Uuid,
    /// What that costs.
    pub offer: Offer,
}

/// What a stay costs in a room type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// To be paid, in whole won.
    pub amount: i64,
    /// Without any discount.
    pub original: i64,
    /// The time sale that lowers it.
    pub sale: Option<Arc<str>>,
}

/// Which discount an offer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DiscountKind {
    /// A time sale's, in at least one night.
    TimeSale,
    /// The host's own.
    Own,
}

impl Offer {
    /// What one night costs, on average and rounded up to whole won.
    pub fn per_night(&self, nights: i32) -> i64 {
        per_night(self.amount, nights)
    }

    /// Which discount lowers it, if any does.
    pub fn discount(&self) -> Option<DiscountKind> {
        match (&self.sale, self.amount < self.original) {
            (Some(_), _) => Some(DiscountKind::TimeSale),
            (None, true) => Some(DiscountKind::Own),
            (None, false) => None,
        }
    }

    /// How much of the original price is taken off, in percent, rounded to the nearest.
    pub fn percent_off(&self) -> i64 {
        let off = self.original - self.amount;
        (off * 200 + self.original) / (self.original.max(1) * 2)
    }
}

/// Rounded up, so that a price per night is never below what is paid for one.
pub(crate) const fn per_night(amount: i64, nights: i32) -> i64 {
    let nights = nights as i64;
    (amount + nights - 1) / nights
}

/// Who answers searches.
#[derive(Clone)]
pub struct Searcher {
    /// Preferred once it is loaded.
    index: Option<Arc<Index>>,
    database: Database,
}

impl Searcher {
    /// The index as soon as it is loaded, and PostgreSQL until then; PostgreSQL alone without an index.
    pub fn new(index: Option<Arc<Index>>, database: Database) -> Self {
        Self { index, database }
    }

    /// The stays that a query finds while these sales are on, in its order.
    pub async fn search(&self, query: &Query, sales: &[Arc<Sale>]) -> Result<Vec<Hit>, StoreError> {
        match &self.index {
            Some(index) if index.is_loaded() => Ok(index.search(query, sales)),
            _ => self.database.search(query, sales).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(amount: i64, original: i64, sale: Option<&str>) -> Offer {
        Offer {
            amount,
            original,
            sale: sale.map(Into::into),
        }
    }

    #[test]
    fn a_percentage_is_the_nearest_one() {
        assert_eq!(offer(60_000, 99_999, None).percent_off(), 40);
        assert_eq!(offer(100, 100, None).percent_off(), 0);
        assert_eq!(offer(0, 100, None).percent_off(), 100);
        assert_eq!(offer(995, 1_000, None).percent_off(), 1);
        assert_eq!(offer(996, 1_000, None).percent_off(), 0);
    }

    #[test]
    fn a_discount_is_named_by_what_lowers_the_price() {
        assert_eq!(offer(100, 100, None).discount(), None);
        assert_eq!(offer(99, 100, None).discount(), Some(DiscountKind::Own));
        assert_eq!(
            offer(99, 100, Some("jeju")).discount(),
            Some(DiscountKind::TimeSale)
        );
    }

    #[test]
    fn a_price_per_night_is_rounded_up() {
        assert_eq!(offer(200_001, 200_001, None).per_night(2), 100_001);
        assert_eq!(offer(200_000, 200_000, None).per_night(2), 100_000);
    }
}
