//! Payments through Toss Payments, refunds, and their ledger.

use std::process::ExitCode;

use chassis::config::Env;
use clap::{Parser, Subcommand};
use payments::app;
use payments::config::{Config, HELP};

/// Payments through Toss Payments, refunds, and the double-entry ledger of both.
#[derive(Parser)]
#[command(version, after_help = HELP)]
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
        print!("{}", payments::api::document().to_json());
        return ExitCode::SUCCESS;
    }
    let config = Config::read(&mut Env::new("payments")).unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = config
        .process
        .telemetry("payments", env!("CARGO_PKG_VERSION"));
    chassis::serve::process(&telemetry, app::run(config)).await
}
