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
use clap::{Parser, Subcommand};

use crate::config::Config;

/// Sign-up, sessions and profiles of Quokka's guests, and the keys that access tokens are checked by.
#[derive(Parser)]
#[command(version, after_help = config::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the OpenAPI document of the routes that are served, instead of serving.
    Openapi,
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(Command::Openapi) = Arguments::parse().command {
        print!("{}", api::document().to_json());
        return ExitCode::SUCCESS;
    }
    let config = Config::read(&mut Env::new("users")).unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = config.process.telemetry("users", env!("CARGO_PKG_VERSION"));
    chassis::serve::process(&telemetry, app::run(config)).await
}
