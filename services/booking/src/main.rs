//! The process of `booking`.

use std::process::ExitCode;

use booking::app;
use booking::config::{Config, HELP};
use chassis::config::Env;
use clap::Parser;

/// Room-night inventory, holds and bookings of Quokka.
#[derive(Parser)]
#[command(version, after_help = HELP)]
struct Arguments {}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    let config = Config::read(&mut Env::new("booking")).unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = config
        .process
        .telemetry("booking", env!("CARGO_PKG_VERSION"));
    chassis::serve::process(&telemetry, app::run(config)).await
}
