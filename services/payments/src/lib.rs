//! Payments through Toss Payments, refunds, and the double-entry ledger of both.
//!
//! An intent is recorded before the gateway is called, and the outcome after, in one transaction with its journal and
//! the answer to `orders`. What a call came to is decided by the gateway's code, never by its HTTP status; what isn't
//! known is asked about until it is. It must never call a payment failed that may have been captured.

pub mod api;
pub mod app;
pub mod config;
pub mod ledger;
pub mod metrics;
pub mod orders;
pub mod payment;
pub mod reconciler;
pub mod refunds;
pub mod settler;
pub mod store;
pub mod toss;
pub mod work;
