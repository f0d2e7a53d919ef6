//! The operator's process.

use std::process::ExitCode;

use chassis::config::Env;
use clap::Parser;
use quokka_operator::{
    app,
    config::{self, Config},
};

/// Makes the sales that are declared in its namespace real, measures them and says what is so in their status.
#[derive(Parser)]
#[command(version, after_help = config::HELP)]
struct Arguments {}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    let config = Config::read(&mut Env::new("operator")).unwrap_or_else(|mistakes| mistakes.exit());
    let telemetry = config
        .process
        .telemetry("operator", env!("CARGO_PKG_VERSION"));
    chassis::serve::process(&telemetry, app::run(config)).await
}
