//! `orders`: takes orders, and sees each of them to its end.

use std::process::ExitCode;

use chassis::serve;
use clap::{Parser, Subcommand};
use orders::config::Settings;

/// Orders and their saga. Every setting is an environment variable named QUOKKA_...
#[derive(Parser)]
#[command(version, after_help = orders::config::HELP)]
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
        print!("{}", orders::api::document().to_json());
        return ExitCode::SUCCESS;
    }
    let settings = Settings::read().unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = settings
        .process
        .telemetry("orders", env!("CARGO_PKG_VERSION"));
    serve::process(&telemetry, orders::app::run(settings)).await
}
