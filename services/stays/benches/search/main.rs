//! Searches a second and what they take, by the index and by PostgreSQL alone: the same binary, the same stays, the
//! same queries, equal answers. All on this machine, in one run: every figure that matters is a ratio of two of the
//! run.
#![allow(missing_docs)]

mod client;
mod queries;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use sale_stock::RedisSettings;
use sale_stock::discounts::{Discounts, SaleDiscount};
use serde_json::{Value, json};
use testkit::{JwksServer, Postgres, Redis, TokenIssuer, free_port};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use client::{Connection, Measured, drive};

const BINARY: &str = env!("CARGO_BIN_EXE_stays");
const NAMESPACE: &str = "bench";

/// How long a process may take until it is ready: the index reads every night there is.
const READY_PATIENCE: Duration = Duration::from_secs(600);

/// The goals that the figures are printed against.
const GOAL_RATIO: f64 = 10.0;
const GOAL_P99_MS: f64 = 10.0;

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

/// A running service.
struct Service {
    process: Child,
    http: SocketAddr,
}

impl Service {
    fn start(settings: &[(&str, String)], search_by: &str) -> anyhow::Result<(Self, SocketAddr)> {
        let [http, internal, ops] =
            std::array::from_fn(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let process = Command::new(BINARY)
            .envs(settings.iter().cloned())
            .env("QUOKKA_SEARCH", search_by)
            .env("QUOKKA_HTTP_ADDR", http.to_string())
            .env("QUOKKA_INTERNAL_ADDR", internal.to_string())
            .env("QUOKKA_OPS_ADDR", ops.to_string())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start stays")?;
        Ok((Self { process, http }, ops))
    }

    async fn ready(settings: &[(&str, String)], search_by: &str) -> anyhow::Result<Self> {
        let began = Instant::now();
        let (mut service, ops) = Self::start(settings, search_by)?;
        loop {
            ensure!(
                service.process.try_wait()?.is_none(),
                "stays ended at its start"
            );
            let answer = Connection::new(ops).get("/readyz").await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            ensure!(
                began.elapsed() < READY_PATIENCE,
                "stays did not become ready"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!(
            "  searching by {search_by}: ready after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        Ok(service)
    }

    /// The most memory that it held so far, in MiB.
    fn peak_mib(&self) -> anyhow::Result<u64> {
        let pid = self.process.id().context("stays has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmHWM")?.parse::<u64>()? / 1_024)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let plan = Plan::parse();
    let (postgres, redis) = tokio::try_join!(Postgres::start(), Redis::start())?;
    let issuer = TokenIssuer::new();
    let keys = JwksServer::start(issuer.jwks()).await?;
    let database = postgres.create_database().await?.url;
    let settings = [
        ("QUOKKA_DATABASE_URL", database),
        ("QUOKKA_REDIS_URL", redis.url()),
        // Nothing is written here, so that nothing needs to be sent.
        ("QUOKKA_KAFKA_BROKERS", "127.0.0.1:9".to_owned()),
        ("QUOKKA_JWKS_URL", keys.url().to_owned()),
        ("QUOKKA_NAMESPACE", NAMESPACE.to_owned()),
        ("QUOKKA_LOG", "error".to_owned()),
    ];
    seed(&settings, plan.stays).await?;
    begin_sales(&redis.url()).await?;
    let index = Service::ready(&settings, "index").await?;
    let database = Service::ready(&settings, "postgres").await?;
    let paths = Arc::new(queries::paths(plan.queries));
    compare(&index, &database, &paths[..plan.compared.min(paths.len())]).await?;
    let missed = measure(&plan, &index, &database, &paths).await?;
    println!(
        "  the process with the index held {} MiB at the most, the other {} MiB",
        index.peak_mib()?,
        database.peak_mib()?
    );
    if missed > 0 {
        bail!("{missed} goals were MISSED");
    }
    println!("every goal was met");
    Ok(())
}

async fn seed(settings: &[(&str, String)], stays: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let stays = stays.to_string();
    let status = Command::new(BINARY)
        .args(["seed", "--stays", &stays, "--seed", "1", "--searches-only"])
        .envs(settings.iter().cloned())
        .status()
        .await?;
    ensure!(status.success(), "seeding failed");
    println!(
        "  {stays} stays seeded in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Two sales that are on, as on any day that matters.
async fn begin_sales(redis_url: &str) -> anyhow::Result<()> {
    let discounts = Discounts::connect_lazy(&RedisSettings::new(redis_url), NAMESPACE)?;
    let now = Timestamp::now();
    for (id, region, percent) in [("jeju-weekend", "jeju", 40), ("east-sea", "gangwon", 25)] {
        let sale: SaleDiscount = serde_json::from_value(json!({
            "saleId": id, "percent": percent, "target": {"regions": [region]},
            "startsAt": now - SignedDuration::from_secs(60), "endsAt": now + SignedDuration::from_hours(10),
        }))?;
        discounts.put(&sale).await?;
    }
    Ok(())
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
    println!("  {answers} answers compared, with {stays} stays: equal");
    Ok(())
}

async fn measure(
    plan: &Plan,
    index: &Service,
    database: &Service,
    paths: &Arc<Vec<String>>,
) -> anyhow::Result<usize> {
    let time = Duration::from_secs(plan.seconds);
    let run = async |service: &Service, rate| {
        drive(service.http, paths, plan.connections, time, rate).await
    };
    // Caches and connections.
    run(index, None).await?;
    run(database, None).await?;
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        let (one, other) = (run(index, None).await?, run(database, None).await?);
        println!(
            "  round {round}: index {:.0}/s (p99 {:.2} ms), PostgreSQL alone {:.0}/s (p99 {:.1} ms)",
            one.per_second(),
            one.quantile_ms(0.99),
            other.per_second(),
            other.quantile_ms(0.99)
        );
        fast.push(one.per_second());
        slow.push(other.per_second());
    }
    let (fast, slow) = (median(fast), median(slow));
    let ratio = fast / slow;
    println!("  index {fast:.0}/s, PostgreSQL alone {slow:.0}/s: {ratio:.1} times as many");
    println!("  goal: {GOAL_RATIO} times or more");
    let mut missed = verdict(ratio >= GOAL_RATIO);
    let half: Measured = run(index, Some(fast / 2.0)).await?;
    println!(
        "  index at half of that: p50 {:.2} ms, p99 {:.2} ms",
        half.quantile_ms(0.5),
        half.quantile_ms(0.99)
    );
    println!("  goal: p99 under {GOAL_P99_MS} ms");
    missed += verdict(half.quantile_ms(0.99) < GOAL_P99_MS);
    let half = run(database, Some(slow / 2.0)).await?;
    println!(
        "  PostgreSQL alone at half of its own: p50 {:.2} ms, p99 {:.2} ms",
        half.quantile_ms(0.5),
        half.quantile_ms(0.99)
    );
    Ok(missed)
}

fn verdict(met: bool) -> usize {
    println!("    {}", if met { "met" } else { "MISSED" });
    usize::from(!met)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
