//! What is measured: real servers, a full data set, and the service twice, once for each way to search.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::{SignedDuration, Timestamp};
use sale_stock::RedisSettings;
use sale_stock::discounts::{Discounts, SaleDiscount};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{JwksServer, Kafka, Postgres, Redis, TokenIssuer, free_port};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::client::Connection;

const BINARY: &str = env!("CARGO_BIN_EXE_stays");
const NAMESPACE: &str = "bench";

/// How long a process may take until it is ready: the index reads every night there is.
const READY_PATIENCE: Duration = Duration::from_secs(600);

/// How often a process is asked whether it is ready.
const READY_EVERY: Duration = Duration::from_millis(50);

/// Servers, full of stays.
pub(crate) struct Stage {
    settings: [(&'static str, String); 6],
    pub(crate) brokers: String,
    pub(crate) pool: PgPool,
    _servers: (Postgres, Redis, Kafka, JwksServer),
}

impl Stage {
    /// Starts the servers, and seeds them.
    pub(crate) async fn start(stays: u64) -> anyhow::Result<Self> {
        println!("starting Redis, Kafka and PostgreSQL");
        testkit::set_up_for_load();
        let (postgres, redis, kafka) =
            tokio::try_join!(Postgres::start(), Redis::start(), Kafka::start())?;
        let keys = JwksServer::start(TokenIssuer::new().jwks()).await?;
        let database = postgres.create_database().await?;
        let pool = database.pool().await?;
        let stage = Self {
            settings: [
                ("QUOKKA_DATABASE_URL", database.url),
                ("QUOKKA_REDIS_URL", redis.url()),
                ("QUOKKA_KAFKA_BROKERS", kafka.brokers()),
                ("QUOKKA_JWKS_URL", keys.url().to_owned()),
                ("QUOKKA_NAMESPACE", NAMESPACE.to_owned()),
                ("QUOKKA_LOG", "error,stays::seed=info".to_owned()),
            ],
            brokers: kafka.brokers(),
            pool,
            _servers: (postgres, redis, kafka, keys),
        };
        stage.seed(stays).await?;
        begin_sales(&stage._servers.1.url()).await?;
        Ok(stage)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .envs(self.settings.iter().cloned())
            .kill_on_drop(true);
        command
    }

    async fn seed(&self, stays: u64) -> anyhow::Result<()> {
        println!("seeding {stays} stays");
        let stays = stays.to_string();
        let mut process = self
            .command()
            .args(["seed", "--stays", &stays, "--seed", "1", "--searches-only"])
            .stdout(Stdio::piped())
            .spawn()
            .context("start stays")?;
        let said = process.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(said).lines();
        while let Some(line) = lines.next_line().await? {
            let line: Value = serde_json::from_str(&line)?;
            match line["message"].as_str() {
                Some("seeding") => println!(
                    "  {} of {}, {} a second",
                    line["stays"], line["of"], line["per_second"]
                ),
                Some("seeded") => println!(
                    "  all of them after {:.1} s",
                    line["ms"].as_f64().unwrap_or(f64::NAN) / 1_000.0
                ),
                _ => println!("  {line}"),
            }
        }
        ensure!(process.wait().await?.success(), "seeding failed");
        Ok(())
    }

    /// Starts the service, and waits until it is ready.
    pub(crate) async fn service(&self, search_by: &str) -> anyhow::Result<Service> {
        let began = Instant::now();
        let [http, internal, ops] =
            std::array::from_fn(|_| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let process = self
            .command()
            .env("QUOKKA_SEARCH", search_by)
            .env("QUOKKA_HTTP_ADDR", http.to_string())
            .env("QUOKKA_INTERNAL_ADDR", internal.to_string())
            .env("QUOKKA_OPS_ADDR", ops.to_string())
            .stdout(Stdio::null())
            .spawn()
            .context("start stays")?;
        let mut service = Service { process, http, ops };
        while !service.is_ready().await? {
            ensure!(
                began.elapsed() < READY_PATIENCE,
                "stays did not become ready"
            );
            tokio::time::sleep(READY_EVERY).await;
        }
        println!(
            "  searching by {search_by}: ready after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        Ok(service)
    }
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

/// A running service.
pub(crate) struct Service {
    process: Child,
    pub(crate) http: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Service {
    /// Whether it is, and knows the sales.
    async fn is_ready(&mut self) -> anyhow::Result<bool> {
        ensure!(
            self.process.try_wait()?.is_none(),
            "stays ended at its start"
        );
        let answer = Connection::new(self.ops).get("/readyz").await;
        Ok(answer.is_ok_and(|answer| answer.status == 200)
            && self.metric("quokka_stays_discounts").await? == 2.0)
    }

    /// One of its metrics that has no labels.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let answer = Connection::new(self.ops).get("/metrics").await?;
        let text = String::from_utf8(answer.body)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    }

    /// The most memory that it held so far, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<u64> {
        let pid = self.process.id().context("stays has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmHWM")?.parse::<u64>()? / 1_024)
    }
}
