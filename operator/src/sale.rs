//! A sale as the operator works with it, whatever kind of resource declared it.

use std::{fmt::Debug, time::Duration};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use quokka_crds::{ExpectedPeak, SaleStatus};
use sale_stock::{
    SaleUid, Stock,
    books::{Discount, PercentDiscount, SaleDefinition},
};
use serde::{Serialize, de::DeserializeOwned};

/// A partition takes this many claims a second with room to spare: they come gathered, hundreds in a record, and the
/// ledger applies a sale's partitions one after another anyway. More partitions would only cut the records up.
const CLAIMS_PER_PARTITION: i64 = 20_000;

/// More partitions than this help no sale and cost the brokers.
const PARTITIONS_MAX: i64 = 12;

/// What the shared core needs of a kind of resource.
pub trait SaleResource:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// The kind's name in metrics.
    const KIND: &'static str;

    /// The other kind of sale, which shares the names.
    type Other: SaleResource;

    /// The status that the operator wrote.
    fn sale_status(&self) -> Option<&SaleStatus>;

    /// What the ledger is to be told. `definition` has what all kinds share.
    ///
    /// # Errors
    ///
    /// A spec that can't work, though the schema let it in.
    fn sale(&self) -> Result<Sale, SpecError>;
}

/// Why a spec can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// The field of the spec.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl SpecError {
    pub(crate) fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// A sale whose spec was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    /// What the ledger is told; `partitions` are those that the spec asks for.
    pub definition: SaleDefinition,
    /// How long before the start everything must be in place.
    pub warm_up: Duration,
    /// When the resource was made.
    pub created: Timestamp,
}

impl Sale {
    /// Which sale.
    #[must_use]
    pub fn uid(&self) -> SaleUid {
        self.definition.uid
    }

    /// When it should be getting ready for a window that begins at `starts`.
    #[must_use]
    pub fn warms(&self, starts: Timestamp) -> Timestamp {
        let warm_up = jiff::SignedDuration::try_from(self.warm_up).unwrap_or_default();
        starts.checked_sub(warm_up).unwrap_or(Timestamp::MIN)
    }
}

/// What identifies a resource, read from its metadata.
pub(crate) struct Identity {
    pub(crate) uid: SaleUid,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) generation: i64,
    pub(crate) created: Timestamp,
}

pub(crate) fn identity<K: SaleResource>(resource: &K) -> Result<Identity, SpecError> {
    let meta = resource.meta();
    let uid = meta.uid.as_deref().and_then(|uid| uid.parse().ok());
    Ok(Identity {
        uid: uid.ok_or_else(|| SpecError::new("metadata.uid", "is not a UUID"))?,
        name: resource.name_any(),
        namespace: resource.namespace().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::MIN, |time| time.0),
    })
}

/// Partitions for an expected peak: one for each twenty thousand claims a second, 1 to 12.
pub(crate) fn partitions(peak: Option<&ExpectedPeak>) -> u32 {
    let claims = peak.map_or(0, |peak| peak.claims_per_second.max(0));
    let partitions =
        claims.div_euclid(CLAIMS_PER_PARTITION) + i64::from(claims % CLAIMS_PER_PARTITION > 0);
    u32::try_from(partitions.clamp(1, PARTITIONS_MAX)).unwrap_or(1)
}

/// `1 partition`, `2 partitions`: as events and conditions tell it.
pub(crate) fn counted_partitions(partitions: u32) -> String {
    let plural = if partitions == 1 { "" } else { "s" };
    format!("{partitions} partition{plural}")
}

pub(crate) fn stock(field: &'static str, units: i64) -> Result<Stock, SpecError> {
    match u32::try_from(units) {
        Ok(units) if units > 0 => Ok(Stock(units)),
        _ => Err(SpecError::new(
            field,
            format!("{units} is not a number of units"),
        )),
    }
}

pub(crate) fn per_user_limit(limit: i64) -> Result<u8, SpecError> {
    match u8::try_from(limit) {
        Ok(limit @ 1..=sale_stock::PER_USER_LIMIT_MAX) => Ok(limit),
        _ => Err(SpecError::new(
            "spec.perUserLimit",
            format!("{limit} is not from 1 to 10"),
        )),
    }
}

pub(crate) fn window(starts: Timestamp, ends: Timestamp) -> Result<(), SpecError> {
    if ends > starts {
        Ok(())
    } else {
        Err(SpecError::new("spec.ends", "is not after spec.starts"))
    }
}

pub(crate) fn discount(
    percent: Option<i64>,
    max_amount: Option<i64>,
    amount: Option<i64>,
) -> Result<Discount, SpecError> {
    let refuse = |problem: &str| Err(SpecError::new("spec.discount", problem));
    match (percent, amount) {
        (Some(percent), None) => match u8::try_from(percent) {
            Ok(percent @ 1..=99) => Ok(Discount::Percent(PercentDiscount {
                percent,
                max_amount,
            })),
            _ => refuse("percent is not from 1 to 99"),
        },
        (None, Some(amount)) if amount > 0 && max_amount.is_none() => {
            Ok(Discount::Amount(sale_stock::books::AmountDiscount {
                amount,
            }))
        }
        _ => refuse("is not exactly one of percent and amount"),
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_the_expected_peak() {
        for (claims_per_second, expected) in
            [(1, 1), (20_000, 1), (20_001, 2), (60_000, 3), (500_000, 12)]
        {
            assert_eq!(
                partitions(Some(&ExpectedPeak { claims_per_second })),
                expected,
                "{claims_per_second}"
            );
        }
        assert_eq!(partitions(None), 1);
    }

    #[test]
    fn what_the_schema_should_have_refused_is_refused_here() {
        assert!(discount(Some(40), None, None).is_ok());
        assert!(discount(None, None, Some(5_000)).is_ok());
        for (percent, max, amount) in [
            (None, None, None),
            (Some(0), None, None),
            (Some(100), None, None),
            (Some(1), None, Some(1)),
            (None, Some(1), Some(1)),
        ] {
            assert!(
                discount(percent, max, amount).is_err(),
                "{percent:?} {max:?} {amount:?}"
            );
        }
        assert!(stock("spec.stock", 0).is_err());
        assert!(stock("spec.stock", i64::MAX).is_err());
        assert!(per_user_limit(11).is_err());
    }
}
