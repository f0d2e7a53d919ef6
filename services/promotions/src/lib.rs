//! Promotions: claims on time sales and coupon campaigns, and the ledger that says who got what.

pub mod api;
pub mod claims;
pub mod config;
pub mod ledger;
pub mod planted;
pub mod reservations;
pub mod store;
