//! `booking` on real servers.
#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod calendars;
mod expiry;
mod holds;
mod process;
mod saga;
mod world;
