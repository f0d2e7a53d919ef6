//! Stays: what hosts offer, when and for how much; searching it; and the lowest price of a night.
//!
//! PostgreSQL is the truth. Searches are answered by an index in memory that follows its commits, discounts of time
//! sales come from Redis, and how many rooms are left is mirrored from `booking`, which decides about them: nothing
//! here may promise a room.

pub mod api;
pub mod app;
mod availability;
pub mod calendar;
pub mod config;
pub mod discounts;
mod metrics;
pub mod search;
pub mod seed;
pub mod stay;
pub mod store;
