//! Promotions on real servers.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod claims;
mod expiry;
mod faults;
mod ledger;
mod locks;
mod orders;
#[cfg(feature = "planted-bugs")]
mod planted;
mod platform;
mod recovery;
mod world;
