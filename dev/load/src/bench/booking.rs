//! What a hold costs beside the one statement that it comes down to, and what an order costs from the guest's wish to
//! the booking.

use std::path::PathBuf;

use super::servers::Servers;
use super::{Goals, conclude, holds, saga};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Folder with the release binaries.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// One part alone.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: usize,
    /// Holds in each round.
    #[arg(long, default_value_t = 30_000)]
    pub(super) holds: usize,
    /// Room types where holds are of many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(super) room_types: u32,
    /// Seconds that pgbench updates in each round.
    #[arg(long, default_value_t = 10)]
    pub(super) bare_seconds: u32,
    /// Connections of pgbench: as many as booking has for holds, its answers and their relay, and more.
    #[arg(long, default_value_t = 8)]
    pub(super) bare_connections: u32,
    /// Orders in each round; each by a guest of its own.
    #[arg(long, default_value_t = 2_000)]
    pub(super) orders: usize,
    /// Orders that are on their way at once.
    #[arg(long, default_value_t = 100)]
    pub(super) at_once: usize,
    /// Keep the servers' data in memory, PostgreSQL without fsync: the difference is what the disk costs.
    #[arg(long)]
    in_memory: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Holds beside bare updates.
    Holds,
    /// Orders through the whole saga.
    Orders,
}

/// Runs every measurement and prints it; returns how many goals were missed.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<usize> {
    anyhow::ensure!(plan.rounds > 0, "no rounds");
    let mut goals = Goals::default();
    let mut parts = Vec::new();
    // Each part on servers of its own: what is left of one is no load of the other.
    let servers = || Servers::start(&plan.binaries, plan.in_memory);
    if plan.only != Some(Part::Orders) {
        goals += holds::run(plan, &servers().await?).await?;
        parts.push("holds");
    }
    if plan.only != Some(Part::Holds) {
        saga::run(plan, &servers().await?).await?;
        parts.push("orders");
    }
    Ok(conclude(&parts, goals))
}
