//! `promotions api` takes claims; `promotions ledger` records them. Two roles of one binary, scaled on their own.

use std::process::ExitCode;

use chassis::serve;
use clap::{Parser, Subcommand};
use promotions::config::{ApiSettings, LedgerSettings};
use promotions::{api, ledger};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Requests allocate much and briefly, which this does with less CPU than the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Claims on time sales and coupon campaigns. Every setting is an environment variable named QUOKKA_...
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Takes claims and answers guests.
    Api,
    /// Reads the logs of all sales into the ledger and tends their gates.
    Ledger,
    /// Prints the OpenAPI document of the routes that `api` serves.
    Openapi,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().role {
        Role::Api => {
            let settings = ApiSettings::read().unwrap_or_else(|mistakes| mistakes.exit());
            let telemetry = (settings.common.process).telemetry("promotions-api", VERSION);
            serve::process(&telemetry, api::run(settings)).await
        }
        Role::Openapi => {
            print!("{}", api::document().to_json());
            ExitCode::SUCCESS
        }
        Role::Ledger => {
            let settings = LedgerSettings::read().unwrap_or_else(|mistakes| mistakes.exit());
            let telemetry = (settings.common.process).telemetry("promotions-ledger", VERSION);
            serve::process(&telemetry, ledger::run(settings)).await
        }
    }
}
