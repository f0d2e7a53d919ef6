//! The service as its users see it: the real binary, over HTTP, against a real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod faults;
mod jwks;
mod me;
mod process;
mod refresh;
mod service;
mod sessions;
mod users;
