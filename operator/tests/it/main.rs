//! The operator on real servers: Kubernetes API, Kafka, Redis, PostgreSQL, and the ledger and the API of promotions.

#![allow(clippy::unwrap_used)]

mod cleanup;
mod discounts;
mod election;
mod life;
mod names;
mod outages;
mod process;
mod rights;
mod storm;
mod topics;
mod world;
