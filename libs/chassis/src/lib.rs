//! What every Quokka process is built on.
//!
//! A process reads its settings with [`config`], builds an axum router and hands it to [`http::router`], and gives
//! everything to [`serve::run`], which ends only when the process should:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use axum::{Router, routing::get};
//! use chassis::{config, health::Readiness, http, serve};
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     let mut env = config::Env::new("greeter");
//!     let address = env.or("QUOKKA_HTTP_ADDR", ([0, 0, 0, 0], 8080).into());
//!     let process = config::Process::read(&mut env);
//!     env.finish().unwrap_or_else(|mistakes| mistakes.exit());
//!
//!     let routes = Router::new().route("/v1/greeting", get(async || "hello"));
//!     let serving = serve::run(serve::Serve {
//!         http: Some((address, http::router(routes, http::HttpOptions::default()))),
//!         internal: None,
//!         ops: process.ops_addr,
//!         readiness: Readiness::new(),
//!         grace: process.shutdown_grace,
//!         shutdown: serve::Shutdown::new(),
//!     });
//!     serve::process(&process.telemetry("greeter", env!("CARGO_PKG_VERSION")), serving).await
//! }
//! ```
//!
//! It must never know what a service is for: no sale, no user, no topic is named here.

pub mod auth;
pub mod config;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod metrics;
pub mod openapi;
pub mod postgres;
pub mod problem;
pub mod serve;
pub mod telemetry;
