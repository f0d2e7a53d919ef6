//! The platform's one entrance: finds the service behind a path, checks tokens, keeps limits, and says in one form
//! what went wrong.

mod app;
mod config;
mod connection;
mod discovery;
mod forwarded;
mod framing;
mod head;
mod listener;
mod metrics;
mod policy;
mod proxy;
mod reference;
mod refusal;
mod routes;
mod smoke;
mod trace;
mod upstreams;

use std::process::ExitCode;

use clap::Parser;

/// Requests allocate much and briefly, which this does with less CPU than the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Quokka gateway. Every setting is an environment variable; a wrong one is named at start.
#[derive(Parser)]
#[command(name = "gateway", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Walks a guest's way through a platform that runs, and fails where it ends: `helm test` does this.
    Smoke(smoke::Arguments),
    /// Prints the OpenAPI document of the whole API.
    Openapi,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        None => serve(),
        Some(Command::Smoke(arguments)) => on_runtime(1, smoke::run(arguments)),
        Some(Command::Openapi) => openapi(),
    }
}

fn serve() -> ExitCode {
    let config = match config::Config::read(chassis::config::Env::new("gateway")) {
        Ok(config) => config,
        Err(mistakes) => mistakes.exit(),
    };
    on_runtime(config.threads, app::run(config))
}

fn openapi() -> ExitCode {
    match reference::document() {
        Ok(document) => {
            print!("{}", document.to_json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn on_runtime(threads: usize, work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            eprintln!("gateway: start threads: {error}");
            ExitCode::FAILURE
        }
    }
}
