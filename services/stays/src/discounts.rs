//! The discounts of time sales that are under way, read from Redis again and again. When Redis is away, what was read
//! last goes on, each discount inside its window.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use money::{Krw, Percent};
use sale_stock::StockError;
use sale_stock::books::Discount as SaleOff;
use sale_stock::discounts::{Discounts, SaleDiscount, clock_offset};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::calendar::Day;
use crate::metrics;
use crate::stay::Region;

/// What a time sale takes off each night that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// Its id in the API.
    pub id: Arc<str>,
    /// Off each night.
    pub discount: money::Discount,
    /// The first night that it covers.
    pub first: Day,
    /// The last one.
    pub last: Day,
    /// Regions all of whose stays it covers.
    pub regions: Vec<Region>,
    /// Stays that it covers.
    pub stays: Vec<Uuid>,
    /// Room types that it covers.
    pub room_types: Vec<Uuid>,
    /// When it begins, by Redis's clock.
    pub starts_ms: i64,
    /// When it is over.
    pub ends_ms: i64,
}

impl Sale {
    /// The discount as Redis has it; `None` if it could never lower a price here.
    pub fn of(read: &SaleDiscount) -> Option<Self> {
        let discount = match &read.discount {
            SaleOff::Percent(off) => money::Discount::Percent(Percent::new(off.percent).ok()?),
            SaleOff::Amount(off) => money::Discount::Amount(Krw::new(off.amount).ok()?),
        };
        let (first, last) = match &read.stay_dates {
            Some(dates) => (Day::of(dates.from)?, Day::of(dates.to)?),
            None => (Day::MIN, Day::MAX),
        };
        let ids = |texts: &[String]| -> Vec<Uuid> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        Some(Self {
            id: read.sale_id.as_str().into(),
            discount,
            first,
            last,
            regions: read
                .target
                .regions
                .iter()
                .filter_map(|region| region.parse().ok())
                .collect(),
            stays: ids(&read.target.stay_ids),
            room_types: ids(&read.target.room_type_ids),
            starts_ms: read.starts_at.as_millisecond(),
            ends_ms: read.ends_at.as_millisecond(),
        })
    }

    /// Whether it covers a night of a room type.
    pub fn covers(&self, region: Region, stay: Uuid, room_type: Uuid, night: Day) -> bool {
        (self.first..=self.last).contains(&night)
            && (self.regions.contains(&region)
                || self.stays.contains(&stay)
                || self.room_types.contains(&room_type))
    }

    fn is_on(&self, now_ms: i64) -> bool {
        (self.starts_ms..self.ends_ms).contains(&now_ms)
    }
}

/// The discounts as last read. Clones share them.
#[derive(Clone, Default)]
pub struct ActiveSales {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// In the order of their ids; those included that have not started.
    sales: ArcSwap<Vec<Arc<Sale>>>,
    /// Milliseconds that Redis's clock is ahead of this machine's.
    offset_ms: AtomicI64,
}

impl ActiveSales {
    /// Those that are on now by Redis's clock, in the order of their ids.
    pub fn now(&self) -> Vec<Arc<Sale>> {
        let offset = self.shared.offset_ms.load(Ordering::Relaxed);
        let now = Timestamp::now().as_millisecond().saturating_add(offset);
        let sales = self.shared.sales.load();
        sales
            .iter()
            .filter(|sale| sale.is_on(now))
            .cloned()
            .collect()
    }

    /// Takes these for the ones that were read.
    pub fn set(&self, sales: Vec<Sale>, offset_ms: i64) {
        let mut sales: Vec<_> = sales.into_iter().map(Arc::new).collect();
        sales.sort_by(|a, b| a.id.cmp(&b.id));
        self.shared.offset_ms.store(offset_ms, Ordering::Relaxed);
        self.shared.sales.store(Arc::new(sales));
    }

    /// Reads them with a pause of `every` until it is told to stop.
    pub async fn keep(self, discounts: Discounts, every: Duration, stop: CancellationToken) {
        let mut answers = true;
        while !stop.is_cancelled() {
            match self.refresh(&discounts).await {
                Ok(()) => answers = true,
                Err(error) => {
                    if std::mem::take(&mut answers) {
                        tracing::warn!(%error, "discounts stay as they were read last");
                    }
                    metrics::DISCOUNTS_UNREAD.inc();
                }
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(every)).await;
        }
    }

    async fn refresh(&self, discounts: &Discounts) -> Result<(), StockError> {
        let (asked_at, asked) = (Timestamp::now(), Instant::now());
        let read = discounts.read().await?;
        let offset = clock_offset(read.now, asked_at, asked.elapsed());
        let sales: Vec<Sale> = read.discounts.iter().filter_map(Sale::of).collect();
        if read.unreadable > 0 {
            tracing::debug!(count = read.unreadable, "discounts that can't be read");
        }
        metrics::DISCOUNTS.set(i64::try_from(sales.len()).unwrap_or(i64::MAX));
        self.set(sales, offset);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sale(json: serde_json::Value) -> Option<Sale> {
        Sale::of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_sale_covers_the_nights_of_what_it_is_for() {
        let stay = Uuid::from_u128(1);
        let sale = sale(serde_json::json!({
            "saleId": "jeju", "amount": 5_000,
            "target": {"regions": ["jeju", "atlantis"], "stayIds": [stay, "nonsense"]},
            "stayDates": {"from": "2026-12-05", "to": "2026-12-06"},
            "startsAt": "2026-12-01T00:00:00Z", "endsAt": "2026-12-02T00:00:00Z",
        }))
        .unwrap();
        let night: Day = "2026-12-05".parse().unwrap();
        let none = Uuid::nil();
        assert!(sale.covers(Region::Jeju, none, none, night));
        assert!(sale.covers(Region::Seoul, stay, none, night.plus(1)));
        assert!(!sale.covers(Region::Seoul, none, stay, night));
        assert!(!sale.covers(Region::Jeju, none, none, night.plus(2)));
        assert!(!sale.covers(Region::Jeju, none, none, night.plus(-1)));
    }

    #[test]
    fn a_sale_is_on_from_its_first_millisecond_to_its_last_by_redis_clock() {
        let sales = ActiveSales::default();
        let now = Timestamp::now().as_millisecond();
        let hour = 3_600_000;
        let mut sale = sale(serde_json::json!({
            "saleId": "jeju", "percent": 40, "target": {"regions": ["jeju"]},
            "startsAt": "2026-12-01T00:00:00Z", "endsAt": "2026-12-02T00:00:00Z",
        }))
        .unwrap();
        assert!(sale.is_on(sale.starts_ms) && sale.is_on(sale.ends_ms - 1));
        assert!(!sale.is_on(sale.starts_ms - 1) && !sale.is_on(sale.ends_ms));
        (sale.starts_ms, sale.ends_ms) = (now + hour, now + 2 * hour);
        sales.set(vec![sale.clone()], 0);
        assert!(sales.now().is_empty());
        // Redis is an hour and a half ahead.
        sales.set(vec![sale.clone()], 3 * hour / 2);
        assert_eq!(sales.now().len(), 1);
        sales.set(vec![sale], 3 * hour);
        assert!(sales.now().is_empty());
    }
}
