//! Stays, room types, calendars, search and the lowest price.

use std::process::ExitCode;

use chassis::config::Env;
use chassis::serve;
use clap::{Parser, Subcommand};
use stays::config::{Config, HELP, SeedConfig};
use stays::{api, app, seed};

/// An answer is made of many small things, which this does with less CPU than the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Serves stays, room types, calendars and searches.
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
    /// Fills the database with stays to try the platform with, instead of serving.
    Seed(seed::Plan),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().command {
        None => {
            let config = Config::read(&mut Env::new("stays")).unwrap_or_else(|wrong| wrong.exit());
            let telemetry = config.process.telemetry("stays", VERSION);
            serve::process(&telemetry, app::run(config)).await
        }
        Some(Command::Openapi) => {
            print!("{}", api::document().to_json());
            ExitCode::SUCCESS
        }
        Some(Command::Seed(plan)) => {
            let config = SeedConfig::read(&mut Env::new("stays seed"));
            let config = config.unwrap_or_else(|wrong| wrong.exit());
            let telemetry = config.process.telemetry("stays-seed", VERSION);
            serve::process(&telemetry, seed::run(&config.database_url, &plan)).await
        }
    }
}
