//! Payments on a real PostgreSQL and a real Kafka, against the simulated gateway and a fixture of `orders`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod confirming;
mod ledger;
mod orders;
mod refunding;
mod settling;
mod webhooks;
mod world;
