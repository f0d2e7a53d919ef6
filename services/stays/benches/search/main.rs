//! Searches a second and what they take, by the index and by PostgreSQL alone: the same binary, the same stays, the
//! same queries, equal answers. All on this machine, in one run: every figure that matters is a ratio of two of the
//! run.
#![allow(missing_docs)]

mod client;
mod freshness;
mod queries;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use serde_json::Value;

use client::{Connection, Measured, drive};
use stage::{Service, Stage};

/// Changes whose way into searches is followed, at the most.
const CHANGES_MAX: usize = 1_000;

/// The goals that the figures are printed against.
const GOAL_RATIO: f64 = 10.0;
const GOAL_P99_MS: f64 = 10.0;
const GOAL_AGE_MS: f64 = 2_000.0;

#[derive(Parser)]
#[command(about = "Searches by the index in memory, and by PostgreSQL alone")]
struct Plan {
    /// Stays, each with a year of nights for one to three room types.
    #[arg(long, default_value_t = 50_000)]
    stays: u64,
    /// Different queries.
    #[arg(long, default_value_t = 2_000)]
    queries: usize,
    /// Queries whose answers are compared, page after page.
    #[arg(long, default_value_t = 300)]
    compared: usize,
    /// Connections kept busy at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let plan = Plan::parse();
    let stage = Stage::start(plan.stays).await?;
    println!("starting the release binary twice");
    let index = stage.service("index").await?;
    let database = stage.service("postgres").await?;
    let paths = Arc::new(queries::paths(plan.queries));
    compare(&index, &database, &paths[..plan.compared.min(paths.len())]).await?;
    let run = Run {
        plan: &plan,
        paths: &paths,
    };
    let (fast, slow, mut missed) = run.throughput(&index, &database).await?;
    missed += run.half_load(&stage, &index, fast).await?;
    let half = run.drive(&database, Some(slow / 2.0)).await?;
    println!(
        "  by PostgreSQL alone, at half of its own    {}",
        latencies(&half)
    );
    memory(&index, &database).await?;
    if missed > 0 {
        println!("{missed} goals were MISSED");
        return Ok(ExitCode::FAILURE);
    }
    println!("every goal was met");
    Ok(ExitCode::SUCCESS)
}

/// An answer, asked for again while the service is too slow for one: PostgreSQL has yet to read its files.
async fn ask(connection: &mut Connection, path: &str) -> anyhow::Result<Vec<u8>> {
    const ATTEMPTS: usize = 10;
    for _ in 1..ATTEMPTS {
        let answer = connection.get(path).await?;
        if answer.status != 503 {
            ensure!(answer.status == 200, "{path}: {}", answer.status);
            return Ok(answer.body);
        }
    }
    bail!("{path}: 503 again and again")
}

/// Both answer the same, on the first two pages of each query.
async fn compare(index: &Service, database: &Service, paths: &[String]) -> anyhow::Result<()> {
    let (mut one, mut other) = (Connection::new(index.http), Connection::new(database.http));
    let (mut answers, mut stays) = (0, 0);
    for path in paths {
        let mut path = path.clone();
        for _ in 0..2 {
            let (from_index, from_database) =
                (ask(&mut one, &path).await?, ask(&mut other, &path).await?);
            ensure!(
                from_index == from_database,
                "{path}: the answers differ:\n{}\n{}",
                String::from_utf8_lossy(&from_index),
                String::from_utf8_lossy(&from_database)
            );
            let page: Value = serde_json::from_slice(&from_index)?;
            answers += 1;
            stays += page["items"].as_array().map_or(0, Vec::len);
            let Some(token) = page["nextPageToken"].as_str() else {
                break;
            };
            path = format!("{path}&pageToken={token}");
        }
    }
    println!("  {answers} answers with {stays} stays in them are the same, to the byte");
    Ok(())
}

/// What is asked, and for how long.
struct Run<'a> {
    plan: &'a Plan,
    paths: &'a Arc<Vec<String>>,
}

impl Run<'_> {
    fn time(&self) -> Duration {
        Duration::from_secs(self.plan.seconds)
    }

    async fn drive(&self, service: &Service, rate: Option<f64>) -> anyhow::Result<Measured> {
        let connections = self.plan.connections;
        drive(service.http, self.paths, connections, self.time(), rate).await
    }

    /// The same of the index, which refuses nothing.
    async fn drive_index(&self, index: &Service, rate: Option<f64>) -> anyhow::Result<Measured> {
        let measured = self.drive(index, rate).await?;
        ensure!(
            measured.refused == 0,
            "the index refused {} searches",
            measured.refused
        );
        Ok(measured)
    }

    /// Searches a second of both, and how many goals were missed.
    async fn throughput(
        &self,
        index: &Service,
        database: &Service,
    ) -> anyhow::Result<(f64, f64, usize)> {
        println!(
            "searches a second, {} different ones over {} connections, {} rounds of {} s",
            self.paths.len(),
            self.plan.connections,
            self.plan.rounds,
            self.plan.seconds
        );
        // Caches and connections.
        self.drive_index(index, None).await?;
        self.drive(database, None).await?;
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        for round in 1..=self.plan.rounds {
            let one = self.drive_index(index, None).await?;
            let other = self.drive(database, None).await?;
            println!(
                "  round {round}: {:.0}/s and {:.1}/s, p99 {:.2} ms and {:.1} ms",
                one.per_second(),
                other.per_second(),
                one.quantile_ms(0.99),
                other.quantile_ms(0.99)
            );
            if other.refused > 0 {
                println!("    of the other, {} more were refused", other.refused);
            }
            fast.push(one.per_second());
            slow.push(other.per_second());
        }
        let (fast, slow) = (median(fast), median(slow));
        let ratio = fast / slow;
        println!("  by the index                               {fast:>8.0}/s");
        println!("  by PostgreSQL alone                        {slow:>8.1}/s");
        println!("  the index answers {ratio:.1} times as many");
        println!("  goal: {GOAL_RATIO} times or more");
        Ok((fast, slow, verdict(ratio >= GOAL_RATIO)))
    }

    /// Latencies at half load, and how soon searches show what changes meanwhile; how many goals were missed.
    async fn half_load(&self, stage: &Stage, index: &Service, fast: f64) -> anyhow::Result<usize> {
        println!("at half of the searches that it can answer");
        let half = self.drive_index(index, Some(fast / 2.0)).await?;
        println!(
            "  by the index                               {}",
            latencies(&half)
        );
        // What is lost on the way, and by waiting for a core.
        let nothing = Arc::new(vec!["/livez".to_owned()]);
        let connections = self.plan.connections;
        let idle = drive(
            index.ops,
            &nothing,
            connections,
            self.time(),
            Some(fast / 2.0),
        )
        .await?;
        println!(
            "    as often, by the same process, nothing    {}",
            latencies(&idle)
        );
        println!("  goal: p99 under {GOAL_P99_MS} ms");
        let mut missed = verdict(half.quantile_ms(0.99) < GOAL_P99_MS);
        let changes = freshness::measure(stage, index, CHANGES_MAX, self.time());
        let (half, ages) = tokio::join!(self.drive_index(index, Some(fast / 2.0)), changes);
        let (half, ages) = (half?, ages?);
        let ms = |at: usize| ages[at].as_secs_f64() * 1_000.0;
        let worst = ms(ages.len() - 1);
        println!(
            "  while {} nights are sold out one by one     {}",
            ages.len(),
            latencies(&half)
        );
        println!(
            "  a sold out night is found for another {:.0} ms, and {worst:.0} ms at the most",
            ms(ages.len() / 2)
        );
        println!("  goal: {GOAL_AGE_MS:.0} ms at the most");
        missed += verdict(worst <= GOAL_AGE_MS);
        Ok(missed)
    }
}

async fn memory(index: &Service, database: &Service) -> anyhow::Result<()> {
    const MIB: f64 = 1_048_576.0;
    println!("memory at the most, over all of the above");
    println!(
        "  the process with the index   {:>6} MiB",
        index.peak_mib()?
    );
    println!(
        "    of which the index itself  {:>6.0} MiB",
        index.metric("quokka_stays_index_bytes").await? / MIB
    );
    println!(
        "  the process without          {:>6} MiB",
        database.peak_mib()?
    );
    Ok(())
}

fn latencies(measured: &Measured) -> String {
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
        measured.quantile_ms(0.5),
        measured.quantile_ms(0.99),
        measured.quantile_ms(0.999)
    )
}

fn verdict(met: bool) -> usize {
    println!("    {}", if met { "met" } else { "MISSED" });
    usize::from(!met)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
