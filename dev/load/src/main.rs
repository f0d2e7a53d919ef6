//! Runs that show what the platform promises: end to end, under faults, and how fast.
//!
//! Every run prints its figures and exits with 1 when something that must hold does not.

mod bench;
mod chaos;
mod checker;
mod e2e;
mod faults;
mod guests;
mod history;
mod http;
mod orders;
mod platform;
mod sale_run;
mod storm;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::platform::Platform;

/// Requests allocate much and briefly, which this does with less CPU than the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    run: Run,
}

#[derive(clap::Args)]
struct Target {
    /// Where the gateway answers.
    #[arg(long, env = "QUOKKA_API", default_value = "127.0.0.1:30080")]
    api: SocketAddr,
    /// The platform's namespace.
    #[arg(long, env = "QUOKKA_NAMESPACE", default_value = "quokka")]
    namespace: String,
}

#[derive(Subcommand)]
enum Run {
    /// Many guests on few units through the gateway, then the life of a time sale's claims, then that of orders.
    E2e {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        size: sale_run::Size,
        #[command(flatten)]
        orders: orders::Plan,
        #[command(flatten)]
        market: orders::market::Size,
        /// Only these parts; all by default.
        #[arg(long = "part", value_enum)]
        parts: Vec<e2e::Part>,
    },
    /// The same under faults, one after another; needs the local platform.
    Chaos {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        size: sale_run::Size,
        #[command(flatten)]
        plan: chaos::Plan,
    },
    /// Many orders at once under faults, one after another; needs the local platform, with the times of tests.
    ChaosOrders {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        plan: orders::market::faults::Plan,
    },
    /// Claims a second, latency, memory and CPU, against bounds of the same run; needs no platform, only the release binaries.
    BenchClaims {
        #[command(flatten)]
        plan: bench::claims::Plan,
    },
    /// Holds a second beside a bare update, and orders a second through the whole saga; needs no platform, only the
    /// release binaries.
    BenchBooking {
        #[command(flatten)]
        plan: bench::booking::Plan,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().run {
        Run::E2e {
            target,
            size,
            orders,
            market,
            parts,
        } => match Platform::connect(target.api, &target.namespace).await {
            Ok(platform) => e2e::run(&platform, size, &orders, market, &parts).await,
            Err(error) => Err(error),
        },
        Run::Chaos { target, size, plan } => {
            match Platform::connect(target.api, &target.namespace).await {
                Ok(platform) => chaos::run(&platform, size, &plan).await,
                Err(error) => Err(error),
            }
        }
        Run::ChaosOrders { target, plan } => {
            match Platform::connect(target.api, &target.namespace).await {
                Ok(platform) => orders::market::faults::run(&platform, &plan).await,
                Err(error) => Err(error),
            }
        }
        Run::BenchClaims { plan } => bench::claims::run(&plan).await,
        Run::BenchBooking { plan } => bench::booking::run(&plan).await,
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(violations) => {
            println!("FAILED: {violations} things that must hold did not");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn no_two_options_of_a_command_share_a_name() {
        Arguments::command().debug_assert();
    }
}
