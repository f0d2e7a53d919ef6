//! `orders`: takes orders, and sees each of them to its end.

use std::process::ExitCode;

use chassis::serve;
use clap::Parser;
use orders::config::Settings;

/// Orders and their saga. Every setting is an environment variable named QUOKKA_...
#[derive(Parser)]
#[command(version, after_help = orders::config::HELP)]
struct Arguments {}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    let settings = Settings::read().unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = settings
        .process
        .telemetry("orders", env!("CARGO_PKG_VERSION"));
    serve::process(&telemetry, orders::app::run(settings)).await
}
