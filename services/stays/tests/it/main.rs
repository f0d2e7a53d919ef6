//! The service on real servers: PostgreSQL, Redis and Kafka.
#![allow(clippy::unwrap_used)]

mod booking;
mod equal;
mod hosts;
mod quotes;
mod sales;
mod searching;
mod seeding;
mod world;
