//! The simulator of the payment gateway as a process, for the local platform.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use toss_simulator::{Settings, Simulator};

/// Simulates the Toss Payments gateway. A development tool.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where it listens.
    #[arg(
        long,
        env = "QUOKKA_TOSS_SIMULATOR_ADDR",
        default_value = "127.0.0.1:8090"
    )]
    listen: SocketAddr,
    /// The secret key that callers must use.
    #[arg(
        long,
        env = "QUOKKA_TOSS_SECRET_KEY",
        default_value = "test_sk_quokka",
        hide_env_values = true
    )]
    secret_key: String,
    /// Where webhooks go; nowhere if left out.
    #[arg(long, env = "QUOKKA_TOSS_SIMULATOR_WEBHOOK_URL")]
    webhook_url: Option<String>,
    /// What webhooks are tried again in multiples of, in milliseconds: 60000 at the real gateway.
    #[arg(
        long,
        env = "QUOKKA_TOSS_SIMULATOR_WEBHOOK_UNIT_MS",
        default_value_t = 60_000
    )]
    webhook_unit_ms: u64,
    /// How long an authenticated session can be confirmed, in seconds.
    #[arg(
        long,
        env = "QUOKKA_TOSS_SIMULATOR_SESSION_TTL_S",
        default_value_t = 600
    )]
    session_ttl_s: u64,
    /// How many payments are kept.
    #[arg(
        long,
        env = "QUOKKA_TOSS_SIMULATOR_PAYMENTS_MAX",
        default_value_t = 100_000
    )]
    payments_max: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        session_ttl: Duration::from_secs(arguments.session_ttl_s),
        webhook_unit: Duration::from_millis(arguments.webhook_unit_ms),
        webhook_url: arguments.webhook_url,
        payments_max: arguments.payments_max,
        ..Settings::new(arguments.secret_key)
    };
    let simulator = Simulator::start_at(settings, arguments.listen)
        .await
        .with_context(|| format!("listen on {}", arguments.listen))?;
    println!("the simulated gateway is at {}", simulator.url());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        ended = tokio::signal::ctrl_c() => ended?,
        () = simulator.served() => {}
    }
    Ok(())
}
