//! Parts of a spec that the kinds share.

use jiff::civil::Date;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{KubeDuration, rules, schema};

/// What the sale is expected to ask of the platform at its height.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedPeak {
    /// Claims a second, 1 to 1000000. Decides how many partitions the sale's topic gets.
    #[x_kube(validation = rules::claims_per_second())]
    pub claims_per_second: i64,
}

/// The nights a sale covers, both dates included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.from <= self.to")
    .message("stayDates.from must not be after stayDates.to")
    .reason(Reason::FieldValueInvalid))]
#[serde(rename_all = "camelCase")]
pub struct StayDates {
    /// First night, a date in Asia/Seoul.
    #[schemars(schema_with = "schema::date")]
    pub from: Date,
    /// Last night, a date in Asia/Seoul.
    #[schemars(schema_with = "schema::date")]
    pub to: Date,
}

pub(crate) fn one() -> i64 {
    1
}

pub(crate) fn five_minutes() -> KubeDuration {
    KubeDuration::from_mins(5)
}

pub(crate) fn ten_minutes() -> KubeDuration {
    KubeDuration::from_mins(10)
}
