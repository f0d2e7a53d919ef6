//! `TimeSale`: a stock of discounts for a set of stays, for sale in a window of time.

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{ExpectedPeak, KubeDuration, SaleStatus, StayDates, rules, schema, spec};

/// What is on sale, when, and at what discount.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "quokka.travel",
    version = "v1alpha1",
    kind = "TimeSale",
    namespaced,
    doc = "A time sale: a stock of discounts on stays that guests claim inside a window of time.",
    derive = "PartialEq",
    status = "SaleStatus",
    shortname = "tsale",
    category = "quokka",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Starts", type_ = "string", json_path = ".spec.starts"),
    printcolumn(name = "Ends", type_ = "string", json_path = ".spec.ends"),
    printcolumn(name = "Stock", type_ = "integer", json_path = ".spec.stock"),
    printcolumn(name = "Claimed", type_ = "integer", json_path = ".status.stock.claimed"),
    printcolumn(name = "Remaining", type_ = "integer", json_path = ".status.stock.remaining"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        priority = 1
    ),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = rules::name_fits(),
    validation = rules::fixed_once_started("starts"),
    validation = rules::fixed_once_started("discount"),
    validation = rules::fixed_once_started("target"),
    validation = rules::optional_fixed_once_started("stayDates"),
    validation = rules::fixed_once_started("perUserLimit"),
    validation = rules::fixed_once_started("claimTtl"),
    validation = rules::covers_what_is_claimed("stock")
)]
#[x_kube(validation = rules::ends_after_starts())]
#[serde(rename_all = "camelCase")]
pub struct TimeSaleSpec {
    /// What guests read as the sale's name.
    #[schemars(length(min = 1, max = 200))]
    pub display_name: String,
    /// When claims open, to the millisecond, by the clock of Redis. Fixed once the sale has started.
    #[schemars(schema_with = "schema::timestamp")]
    pub starts: Timestamp,
    /// When claims close.
    #[schemars(schema_with = "schema::timestamp")]
    pub ends: Timestamp,
    /// What the discount is for. Fixed once the sale has started.
    pub target: Target,
    /// The nights that the discount covers; left out, every night. Fixed once the sale has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay_dates: Option<StayDates>,
    /// Fixed once the sale has started.
    pub discount: TimeSaleDiscount,
    /// Units for sale, 1 to 10000000. May grow at any time; shrinks only to what is claimed.
    #[x_kube(validation = rules::units("stock"))]
    pub stock: i64,
    /// Units that one guest can have at a time, 1 to 10. Fixed once the sale has started.
    #[serde(default = "spec::one")]
    #[x_kube(validation = rules::per_user_limit())]
    pub per_user_limit: i64,
    /// A claim that isn't used within this time goes back to stock. Fixed once the sale has started.
    #[serde(default = "spec::ten_minutes")]
    #[x_kube(validation = rules::duration_between("claimTtl", "1s", "24h"))]
    pub claim_ttl: KubeDuration,
    /// What the sale is expected to ask of the platform at its height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_peak: Option<ExpectedPeak>,
    /// How long before the start everything that the sale needs must be in place.
    #[serde(default = "spec::five_minutes")]
    #[x_kube(validation = rules::duration_between("warmUp", "0s", "24h"))]
    pub warm_up: KubeDuration,
    /// Stops claims while it is set; what is claimed stays claimed.
    #[serde(default)]
    pub paused: bool,
}

/// What a sale's discount is for: any of the room types, stays and regions named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.roomTypeIds) || has(self.stayIds) || has(self.regions)")
    .message("a target names at least one of roomTypeIds, stayIds and regions")
    .reason(Reason::FieldValueRequired))]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Room types by id, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ids")]
    pub room_type_ids: Option<Vec<String>>,
    /// Stays by id, 1 to 100: all of their room types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ids")]
    pub stay_ids: Option<Vec<String>>,
    /// Regions by name, 1 to 100: all stays in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::regions")]
    pub regions: Option<Vec<String>>,
}

/// Exactly one of a part of the price and an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = rules::one_kind_of_discount())]
#[serde(rename_all = "camelCase")]
pub struct TimeSaleDiscount {
    /// Percent of the price, 1 to 99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::percent())]
    pub percent: Option<i64>,
    /// Whole won off the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::amount("amount"))]
    pub amount: Option<i64>,
}
