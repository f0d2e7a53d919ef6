//! The operator of Quokka: makes declared sales real, measures them, and says what is so.
//!
//! A look at a sale sets up what is missing (its topic, its definition in the ledger), measures it (the stock in Redis,
//! the ledger's books), and lets the pure core in [`plan`] say what the status should be. Only what changed is written.
//! Sales open, sell and end without the operator: it never is on a guest's way.
//!
//! # What it calls of the Kubernetes API
//!
//! All in its own namespace:
//! - `quokka.travel` `timesales`, `couponcampaigns`: get (is a name taken by the other kind, are the finalizers still
//!   the same), list, watch, patch (the finalizer);
//! - `quokka.travel` `timesales/status`, `couponcampaigns/status`: patch;
//! - `events.k8s.io` `events`: create;
//! - `coordination.k8s.io` `leases`: create; get and update of the one named `quokka-operator`.

pub mod app;
pub mod backoff;
mod cleanup;
mod conditions;
pub mod config;
pub mod consistency;
mod coupon_campaign;
mod discounts;
pub mod lease;
pub mod ledger;
pub mod metrics;
mod neighbours;
pub mod observed;
pub mod plan;
pub mod platform;
mod publish;
pub mod reasons;
pub mod reconcile;
pub mod replicas;
pub mod sale;
pub mod sale_clock;
mod silence;
pub mod steady;
pub mod story;
#[cfg(test)]
mod testing;
mod time_sale;
pub mod topics;

pub use cleanup::RELEASE;
