//! The process of `booking`.

use std::process::ExitCode;

use booking::app;
use booking::config::{Config, HELP};
use chassis::config::Env;
use clap::{Parser, Subcommand};

/// Room-night inventory, holds and bookings of Quokka.
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
        print!("{}", booking::api::document().to_json());
        return ExitCode::SUCCESS;
    }
    let config = Config::read(&mut Env::new("booking")).unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = config
        .process
        .telemetry("booking", env!("CARGO_PKG_VERSION"));
    chassis::serve::process(&telemetry, app::run(config)).await
}
