//! What time sales take off, in Redis, for those who show prices: written by the operator for as long as a sale may
//! still give a discount, and gone by themselves when it ends.
//!
//! Each sale is a JSON value that Redis forgets at the sale's end, and a member of a sorted set whose score is that
//! end, so that a reader finds them all with two calls. All keys of a namespace share a hash tag. Redis may lose
//! them: the operator writes them again at its next look.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redis::{Cmd, FromRedisValue, Pipeline};
use serde::{Deserialize, Serialize};

use crate::books::{Discount, StayDates, Target};
use crate::link::Link;
use crate::{RedisSettings, StockError, UnixMillis};

/// Most discounts that are read: more sales at a time than any platform has.
pub const DISCOUNTS_MAX: usize = 256;

/// What a time sale takes off, from when to when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleDiscount {
    /// The sale's id in the API: `metadata.name`.
    pub sale_id: String,
    /// Off each night: in JSON `percent` or `amount`, beside the others.
    #[serde(flatten)]
    pub discount: Discount,
    /// What it covers.
    pub target: Target,
    /// The nights it covers; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay_dates: Option<StayDates>,
    /// First instant of the sale.
    pub starts_at: Timestamp,
    /// First instant after it.
    pub ends_at: Timestamp,
}

/// The discounts that Redis held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscountsRead {
    /// Redis's clock.
    pub now: UnixMillis,
    /// In the order of their ids, those included whose sale has not started.
    pub discounts: Vec<SaleDiscount>,
    /// Values that could not be understood: written by another version, or by hand.
    pub unreadable: usize,
}

/// The discounts of one namespace in Redis. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Discounts {
    link: Arc<Link>,
    index: String,
}

impl std::fmt::Debug for Discounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discounts")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Discounts {
    /// Those of `namespace` on the server at the address; connects with the first call, and again whenever the
    /// connection is lost. Must be called on a tokio runtime.
    pub fn connect_lazy(settings: &RedisSettings, namespace: &str) -> Result<Self, StockError> {
        Ok(Self {
            link: Arc::new(Link::new(settings)?),
            index: format!("quokka:discounts:{{{namespace}}}"),
        })
    }

    fn key(&self, sale_id: &str) -> String {
        format!("{}:{sale_id}", self.index)
    }

    /// Writes a discount in the place of what the sale had before. One whose end has passed is removed.
    pub async fn put(&self, discount: &SaleDiscount) -> Result<(), StockError> {
        let json = serde_json::to_string(discount).map_err(|error| StockError::Reply {
            doing: "write a discount",
            reply: error.to_string(),
        })?;
        let ends = discount.ends_at.as_millisecond();
        let key = self.key(&discount.sale_id);
        let mut pipeline = redis::pipe();
        pipeline
            .atomic()
            .cmd("SET")
            .arg(&key)
            .arg(json)
            .arg("PXAT")
            // Redis refuses an expiry before 1970.
            .arg(ends.max(1))
            .ignore();
        pipeline
            .cmd("ZADD")
            .arg(&self.index)
            .arg(ends)
            .arg(&discount.sale_id)
            .ignore();
        self.run("write a discount", &pipeline).await
    }

    /// Removes a sale's discount, if it is there.
    pub async fn remove(&self, sale_id: &str) -> Result<(), StockError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("DEL").arg(self.key(sale_id)).ignore();
        pipeline.cmd("ZREM").arg(&self.index).arg(sale_id).ignore();
        self.run("remove a discount", &pipeline).await
    }

    /// Every discount whose sale has not ended by Redis's clock, and forgets the names of those that have.
    pub async fn read(&self) -> Result<DiscountsRead, StockError> {
        const DOING: &str = "read discounts";
        let (seconds, micros): (i64, i64) = self.ask(DOING, &redis::cmd("TIME")).await?;
        let now = UnixMillis(seconds * 1_000 + micros / 1_000);
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("ZREMRANGEBYSCORE")
            .arg(&self.index)
            .arg("-inf")
            .arg(now.0)
            .ignore();
        pipeline
            .cmd("ZRANGE")
            .arg(&self.index)
            .arg(0)
            .arg(DISCOUNTS_MAX - 1);
        let (mut ids,): (Vec<String>,) = self.run(DOING, &pipeline).await?;
        if ids.is_empty() {
            return Ok(DiscountsRead {
                now,
                discounts: Vec::new(),
                unreadable: 0,
            });
        }
        ids.sort_unstable();
        let mut command = redis::cmd("MGET");
        for id in &ids {
            command.arg(self.key(id));
        }
        let values: Vec<Option<String>> = self.ask(DOING, &command).await?;
        let mut unreadable = 0;
        let discounts = values
            .into_iter()
            .flatten()
            .filter_map(|json| {
                serde_json::from_str(&json)
                    .inspect_err(|_| unreadable += 1)
                    .ok()
            })
            .collect();
        Ok(DiscountsRead {
            now,
            discounts,
            unreadable,
        })
    }

    async fn ask<T: FromRedisValue>(
        &self,
        doing: &'static str,
        command: &Cmd,
    ) -> Result<T, StockError> {
        let answer = self
            .link
            .call(async |mut connection| command.query_async(&mut connection).await);
        answer
            .await
            .map_err(|source| StockError::Redis { doing, source })
    }

    async fn run<T: FromRedisValue>(
        &self,
        doing: &'static str,
        pipeline: &Pipeline,
    ) -> Result<T, StockError> {
        let answer = self
            .link
            .call(async |mut connection| pipeline.query_async(&mut connection).await);
        answer
            .await
            .map_err(|source| StockError::Redis { doing, source })
    }
}

/// How far Redis's clock is ahead of this machine's, from one reading and how long it took: half of that is on the way
/// back. The error is at most the other half.
pub fn clock_offset(redis: UnixMillis, asked_at: Timestamp, took: Duration) -> i64 {
    let half = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX);
    redis
        .0
        .saturating_sub(asked_at.as_millisecond())
        .saturating_sub(half)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_discount_is_one_flat_object() {
        let value = json!({
            "saleId": "jeju-weekend",
            "percent": 40,
            "target": {"regions": ["jeju"]},
            "stayDates": {"from": "2026-12-05", "to": "2026-12-20"},
            "startsAt": "2026-12-01T03:00:00Z",
            "endsAt": "2026-12-01T05:00:00Z",
        });
        let read: SaleDiscount = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), value);
        let mut amount = value;
        amount.as_object_mut().unwrap().remove("percent");
        assert!(serde_json::from_value::<SaleDiscount>(amount.clone()).is_err());
        amount["amount"] = json!(30_000);
        let read: SaleDiscount = serde_json::from_value(amount).unwrap();
        assert!(matches!(read.discount, Discount::Amount(off) if off.amount == 30_000));
    }

    #[test]
    fn the_way_back_is_half_of_the_time_it_took() {
        let asked_at = Timestamp::from_millisecond(10_000).unwrap();
        let offset = clock_offset(UnixMillis(70_050), asked_at, Duration::from_millis(100));
        assert_eq!(offset, 60_000);
    }
}
