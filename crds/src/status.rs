//! What the operator says of a sale.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Where a sale is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Known, and its start is further away than `warmUp`.
    Scheduled,
    /// The start is near: everything that the sale needs is in place or being put there.
    Warming,
    /// Guests can claim.
    Active,
    /// Everything is claimed. What is given back makes it `Active` again.
    SoldOut,
    /// Inside its window, and stopped by `spec.paused`.
    Paused,
    /// Inside its window, and closed while the stock is rebuilt from the ledger.
    Recovering,
    /// The window is over.
    Ended,
}

impl Phase {
    /// As it is written in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Warming => "Warming",
            Self::Active => "Active",
            Self::SoldOut => "SoldOut",
            Self::Paused => "Paused",
            Self::Recovering => "Recovering",
            Self::Ended => "Ended",
        }
    }
}

/// The stock of a sale, in units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockStatus {
    /// Units that the sale has in force; `spec` may already ask for another number.
    pub total: i64,
    /// Units claimed and not given back.
    pub claimed: i64,
    /// `total` less `claimed`. Below zero would be an oversell, and is never hidden.
    pub remaining: i64,
}

/// Written by the operator alone, by server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SaleStatus {
    /// Where the sale is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Since when it is in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::timestamp")]
    pub phase_since: Option<Timestamp>,
    /// When the window opened. From then on the terms of the sale are fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::timestamp")]
    pub started_at: Option<Timestamp>,
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The stock as measured last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stock: Option<StockStatus>,
    /// The Kafka topic that holds the sale's claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// How often the sale's stock was opened: 1 at first, one more with each recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// `Ready` sums up; `StockReady`, `TopicReady`, `Consistent` and `FailoverSafe` say why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
