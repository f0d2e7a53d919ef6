//! Orders: the saga that takes an order from its first step to a booking that is paid for, or back to nothing.

pub mod api;
pub mod app;
pub mod config;
pub mod desk;
mod expiry;
mod messages;
mod metrics;
pub mod peers;
pub mod pricing;
pub mod refunds;
mod replies;
pub mod saga;
pub mod stay;
pub mod store;
