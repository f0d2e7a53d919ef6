//! What the operator and the ledger tell each other about a sale, as JSON: the definition that is to hold,
//! and the books as they stand.
//!
//! Definitions are also kept. One that a later version kept may have fields that this one doesn't know, and is read
//! all the same; one that is declared may not ([`SaleDefinition::unknown_fields`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{Epoch, SaleUid, Stock};

/// Which custom resource declared the sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SaleKind {
    /// Units of a discounted stay; a claim ends by use, return or expiry.
    TimeSale,
    /// Coupons; a claim is issued once it is in the ledger and stays valid for the coupon's time.
    CouponCampaign,
}

impl SaleKind {
    /// As in JSON and in metrics labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeSale => "TIME_SALE",
            Self::CouponCampaign => "COUPON_CAMPAIGN",
        }
    }
}

/// A sale as its resource's specification of one generation declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaleDefinition {
    /// `metadata.uid`.
    pub uid: SaleUid,
    /// `metadata.name`: the sale's id in the API.
    pub name: String,
    /// Which resource.
    pub kind: SaleKind,
    /// `metadata.generation`: a definition replaces those of lower generations only.
    pub generation: i64,
    /// For guests to read.
    pub display_name: String,
    /// First instant of the window.
    pub starts: Timestamp,
    /// First instant after the window.
    pub ends: Timestamp,
    /// Units for sale in all.
    pub stock: Stock,
    /// Units a user may hold at once: 1 to 10.
    pub per_user_limit: u8,
    /// Time sales: milliseconds after which an unused claim goes back to stock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_ttl_ms: Option<i64>,
    /// No claims while true.
    #[serde(default)]
    pub paused: bool,
    /// The Kafka topic of the sale's log.
    pub topic: String,
    /// Partitions of the topic; never fewer later.
    pub partitions: u32,
    /// Time sales: what the discount covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Time sales: the nights it covers; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay_dates: Option<StayDates>,
    /// What a claim is worth.
    pub discount: Discount,
    /// Coupon campaigns: the coupon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon: Option<CouponTerms>,
}

impl SaleDefinition {
    /// JSON pointers to fields that no definition has: whoever declares a sale by them means something that would not
    /// happen.
    pub fn unknown_fields(json: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        let objects = KNOWN_FIELDS.iter().map(|(at, known)| (*at, *known));
        let discount = json.pointer("/discount");
        let percent = discount.is_some_and(|discount| discount.get("percent").is_some());
        let known = if percent {
            PERCENT_FIELDS
        } else {
            AMOUNT_FIELDS
        };
        for (at, known) in objects.chain([("/discount", known)]) {
            let Some(object) = json.pointer(at).and_then(Value::as_object) else {
                continue;
            };
            let others = object.keys().filter(|name| !known.contains(&name.as_str()));
            unknown.extend(others.map(|name| format!("{at}/{name}")));
        }
        unknown
    }
}

/// The fields of the objects of a definition, by where they stand; those of its discount depend on its kind.
const KNOWN_FIELDS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "uid",
            "name",
            "kind",
            "generation",
            "displayName",
            "starts",
            "ends",
            "stock",
            "perUserLimit",
            "claimTtlMs",
            "paused",
            "topic",
            "partitions",
            "target",
            "stayDates",
            "discount",
            "coupon",
        ],
    ),
    ("/target", &["roomTypeIds", "stayIds", "regions"]),
    ("/stayDates", &["from", "to"]),
    ("/coupon", &["validForMs", "minOrderAmount", "regions"]),
];
const PERCENT_FIELDS: &[&str] = &["percent", "maxAmount"];
const AMOUNT_FIELDS: &[&str] = &["amount"];

/// What a time sale covers: at least one list is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SaleTarget)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Room types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub room_type_ids: Vec<String>,
    /// Whole stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stay_ids: Vec<String>,
    /// Whole regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
}

/// Calendar dates of stay, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SaleStayDates)]
#[serde(rename_all = "camelCase")]
pub struct StayDates {
    /// First night.
    pub from: jiff::civil::Date,
    /// Last night.
    pub to: jiff::civil::Date,
}

/// `{"percent": 40}`, `{"percent": 10, "maxAmount": 20000}` or `{"amount": 30000}`; amounts in whole won.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SaleDiscount)]
#[serde(untagged)]
pub enum Discount {
    /// A share of the price.
    Percent(PercentDiscount),
    /// A fixed sum.
    Amount(AmountDiscount),
}

/// A share of the price, at most `max_amount` won.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PercentDiscount {
    /// 1 to 99.
    pub percent: u8,
    /// Whole won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max_amount: Option<i64>,
}

/// A fixed sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmountDiscount {
    /// Whole won.
    pub amount: i64,
}

/// The coupon that a campaign issues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CouponTerms {
    /// Milliseconds from the claim for which the coupon is valid.
    pub valid_for_ms: i64,
    /// Smallest order it applies to, in whole won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub min_order_amount: Option<i64>,
    /// Where it applies; empty means everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
}

/// What the ledger found when it last looked at the gate in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GateState {
    /// Claims are taken inside the window.
    Open,
    /// Shut, by a recovery under way or for good.
    Closed,
    /// Not there: never opened, or Redis lost it.
    Missing,
    /// Written by another run of the server: a restart or a failover lies between.
    Foreign,
    /// Redis doesn't answer.
    Unreachable,
}

/// Units of a sale by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockBooks {
    /// For sale in all.
    pub total: Stock,
    /// Held by claims that are active in the ledger.
    pub claimed: Stock,
}

/// How far the ledger has read one partition of the sale's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionPosition {
    /// Partition number.
    pub partition: i32,
    /// The next offset to be applied.
    pub next_offset: i64,
    /// The highest fence applied.
    pub epoch: Epoch,
}

/// The ledger's books of one sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Books {
    /// Whose.
    pub uid: SaleUid,
    /// Generation of the definition that is applied.
    pub generation: i64,
    /// Highest epoch given out.
    pub epoch: Epoch,
    /// The gate in Redis.
    pub gate: GateState,
    /// A recovery is under way.
    pub recovering: bool,
    /// Units.
    pub stock: StockBooks,
    /// Ended claims whose entries may still stand in Redis.
    pub unreleased: u32,
    /// Entries in Redis that the ledger has not settled.
    pub unsettled: u32,
    /// Records in the log that the ledger has not applied; `None` when Kafka doesn't say.
    pub lag: Option<u64>,
    /// By partition.
    pub positions: Vec<PartitionPosition>,
    /// The gate is closed for good.
    pub closed: bool,
    /// Closed, and nothing is pending any more.
    pub drained: bool,
}

/// Asks for a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoveryRequest {
    /// Why, for logs and events.
    pub reason: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn full(discount: Value) -> Value {
        json!({
            "uid": "0190b3a4-7c1e-7f00-8000-000000000001", "name": "jeju", "kind": "TIME_SALE", "generation": 1,
            "displayName": "Jeju", "starts": "2026-12-01T03:00:00Z", "ends": "2026-12-01T05:00:00Z", "stock": 5,
            "perUserLimit": 1, "claimTtlMs": 600_000, "paused": false, "topic": "t", "partitions": 3,
            "target": {"roomTypeIds": ["a"], "stayIds": ["b"], "regions": ["c"]},
            "stayDates": {"from": "2026-12-05", "to": "2026-12-20"},
            "discount": discount,
            "coupon": {"validForMs": 1, "minOrderAmount": 2, "regions": ["c"]},
        })
    }

    #[test]
    fn every_field_of_a_definition_is_known() {
        for discount in [json!({"percent": 10, "maxAmount": 2}), json!({"amount": 3})] {
            let json = full(discount);
            assert_eq!(SaleDefinition::unknown_fields(&json), [""; 0]);
            let definition: SaleDefinition = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(definition).unwrap(), json);
        }
    }

    #[test]
    fn a_field_of_a_later_version_is_named_and_does_not_keep_a_definition_from_being_read() {
        let mut json = full(json!({"amount": 3, "maxAmount": 2}));
        json["colour"] = json!("red");
        json["coupon"]["colour"] = json!("red");
        let unknown = SaleDefinition::unknown_fields(&json);
        assert_eq!(
            unknown,
            ["/colour", "/coupon/colour", "/discount/maxAmount"]
        );
        let definition: SaleDefinition = serde_json::from_value(json).unwrap();
        assert_eq!(
            definition.discount,
            Discount::Amount(AmountDiscount { amount: 3 })
        );
    }
}
