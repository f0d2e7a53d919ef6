//! The service as guests and other services see it: over HTTP and Kafka, on a real PostgreSQL and a real Kafka. The
//! other services are played by the tests.
#![allow(clippy::unwrap_used)]

mod cancel;
mod expiry;
mod faults;
mod orders;
mod payment;
mod peers;
mod platform;
mod process;
mod saga;
