//! Accounts, sessions, and the keys that access tokens are checked by.

mod account;
mod api;
mod app;
mod config;
mod guesses;
mod hashing;
mod identity;
mod metrics;
mod store;
mod tokens;

use std::process::ExitCode;

use chassis::config::Env;
use clap::Parser;

use crate::config::Config;

/// Sign-up, sessions and profiles of Quokka's guests, and the keys that access tokens are checked by.
#[derive(Parser)]
#[command(version, after_help = config::HELP)]
struct Arguments {}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    let config = Config::read(&mut Env::new("users")).unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = config.process.telemetry("users", env!("CARGO_PKG_VERSION"));
    chassis::serve::process(&telemetry, app::run(config)).await
}
