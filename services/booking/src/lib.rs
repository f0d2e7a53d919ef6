//! Room-night inventory, holds and bookings.
//!
//! `booking` owns how many rooms of each type are offered and reserved each night. It takes commands of the order saga
//! ([`commands`]) and hosts' calendars ([`calendar`]), ends holds whose time is over ([`expiry`]), and tells guests
//! their bookings ([`api`]). It must never reserve more rooms than are offered, nor free one twice.

pub mod api;
pub mod app;
pub mod calendar;
pub mod commands;
pub mod config;
pub mod expiry;
pub mod inventory;
mod metrics;
pub mod nights;
pub mod store;
