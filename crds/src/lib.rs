//! The custom resources of Quokka, `quokka.travel/v1alpha1`, as Rust types.
//!
//! The types carry their validation with them: the OpenAPI schema and the CEL rules that the API
//! server runs are generated from this crate (`make generate`), so that a spec that can't work is
//! refused by `kubectl apply` with its reason. This crate never talks to a cluster.

// `KubeSchema` repeats each struct inside a function, where `pub` reaches nowhere.
#![allow(unreachable_pub)]

mod campaign;
mod duration;
mod generate;
mod rules;
mod schema;
mod spec;
mod status;
mod time_sale;

pub use campaign::{
    Announcement, CampaignDiscount, CampaignStatus, CouponCampaign, CouponCampaignSpec,
    CouponTerms, SecretKeyRef, SlackAnnouncement,
};
pub use duration::{DurationError, KubeDuration};
pub use generate::manifests;
pub use spec::{ExpectedPeak, StayDates};
pub use status::{Phase, SaleStatus, StockStatus};
pub use time_sale::{Target, TimeSale, TimeSaleDiscount, TimeSaleSpec};

/// The API group of every resource.
pub const GROUP: &str = "quokka.travel";
/// The version served and stored.
pub const VERSION: &str = "v1alpha1";
/// `GROUP/VERSION`, as manifests write it.
pub const API_VERSION: &str = "quokka.travel/v1alpha1";
