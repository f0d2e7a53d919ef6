//! `CouponCampaign`: a number of coupons that guests claim in a window of time.

use jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ExpectedPeak, KubeDuration, SaleStatus, rules, schema, spec};

/// Which coupons are given out, when, and to how many.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "quokka.travel",
    version = "v1alpha1",
    kind = "CouponCampaign",
    namespaced,
    doc = "A coupon campaign: a number of coupons that guests claim inside a window of time.",
    derive = "PartialEq",
    status = "CampaignStatus",
    shortname = "ccamp",
    category = "quokka",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Starts", type_ = "string", json_path = ".spec.starts"),
    printcolumn(name = "Ends", type_ = "string", json_path = ".spec.ends"),
    printcolumn(name = "Quantity", type_ = "integer", json_path = ".spec.quantity"),
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
    validation = rules::fixed_once_started("coupon"),
    validation = rules::fixed_once_started("perUserLimit"),
    validation = rules::covers_what_is_claimed("quantity")
)]
#[x_kube(validation = rules::ends_after_starts())]
#[serde(rename_all = "camelCase")]
pub struct CouponCampaignSpec {
    /// What guests read as the campaign's name.
    #[schemars(length(min = 1, max = 200))]
    pub display_name: String,
    /// When claims open, to the millisecond, by the clock of Redis. Fixed once the campaign has started.
    #[schemars(schema_with = "schema::timestamp")]
    pub starts: Timestamp,
    /// When claims close.
    #[schemars(schema_with = "schema::timestamp")]
    pub ends: Timestamp,
    /// Coupons to give out, 1 to 10000000. May grow at any time; shrinks only to what is claimed.
    #[x_kube(validation = rules::units("quantity"))]
    pub quantity: i64,
    /// Coupons that one guest can have, 1 to 10. Fixed once the campaign has started.
    #[serde(default = "spec::one")]
    #[x_kube(validation = rules::per_user_limit())]
    pub per_user_limit: i64,
    /// What the campaign is expected to ask of the platform at its height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_peak: Option<ExpectedPeak>,
    /// How long before the start everything that the campaign needs must be in place.
    #[serde(default = "spec::five_minutes")]
    #[x_kube(validation = rules::duration_between("warmUp", "0s", "24h"))]
    pub warm_up: KubeDuration,
    /// Stops claims while it is set; what is claimed stays claimed.
    #[serde(default)]
    pub paused: bool,
    /// Fixed once the campaign has started.
    pub discount: CampaignDiscount,
    /// The terms of each coupon. Fixed once the campaign has started.
    pub coupon: CouponTerms,
    /// Where and when the campaign is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announcement: Option<Announcement>,
}

/// Exactly one of a part of the price, which may have an upper bound, and an amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = rules::one_kind_of_discount())]
#[x_kube(validation = Rule::new("!has(self.maxAmount) || has(self.percent)")
    .message("maxAmount bounds a percent and means nothing for an amount")
    .reason(Reason::FieldValueForbidden)
    .field_path(".maxAmount"))]
#[serde(rename_all = "camelCase")]
pub struct CampaignDiscount {
    /// Percent of the price, 1 to 99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::percent())]
    pub percent: Option<i64>,
    /// The most that a percent takes off, in whole won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::amount("maxAmount"))]
    pub max_amount: Option<i64>,
    /// Whole won off the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::amount("amount"))]
    pub amount: Option<i64>,
}

/// What a coupon is good for, once claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CouponTerms {
    /// How long a coupon is good for after its claim, 1m to 17520h.
    #[x_kube(validation = rules::duration_between("validFor", "1m", "17520h"))]
    pub valid_for: KubeDuration,
    /// The smallest order that it can be used on, in whole won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 100000000")
        .message("minOrderAmount must be from 0 to 100000000 won")
        .reason(Reason::FieldValueInvalid))]
    pub min_order_amount: Option<i64>,
    /// The regions that it can be used in; none means every region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::regions_or_all")]
    pub regions: Vec<String>,
}

/// Where and when a campaign is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// The Slack channel to announce it in.
    pub slack: SlackAnnouncement,
    /// How long before the start.
    #[serde(default = "spec::ten_minutes")]
    #[x_kube(validation = rules::duration_between("before", "0s", "168h"))]
    pub before: KubeDuration,
}

/// A Slack channel, by its incoming webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlackAnnouncement {
    /// The Secret that holds the webhook's URL.
    pub secret_ref: SecretKeyRef,
}

/// One key of a Secret in the campaign's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// As a time sale's, with the announcement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignStatus {
    /// What every sale's status says.
    #[serde(flatten)]
    pub sale: SaleStatus,
    /// When the campaign was announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::timestamp")]
    pub announced_at: Option<Timestamp>,
}
