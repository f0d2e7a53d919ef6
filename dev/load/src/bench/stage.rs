//! The servers and programs under measurement, outside Kubernetes, so that nothing but them is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use serde_json::{Value, json};
use testkit::{JwksServer, Kafka, Postgres, Redis, TokenIssuer};
use tokio::process::Command;
use uuid::Uuid;

use super::lock::{CLAIM_SCRIPT, write_gate};
use super::process::Program;
use crate::guests::TokenSigner;
use crate::http::{Call, Connection};

const NAMESPACE: &str = "bench";

/// As the operator would choose for the peak that this machine can take.
const PARTITIONS: i32 = 3;

const PATIENCE: Duration = Duration::from_secs(30);

/// How long the ledger may take for the claims of one measurement.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

/// Calls that redis-benchmark makes.
const SCRIPT_CALLS: u32 = 200_000;

/// A sale of one measurement.
pub(crate) struct OpenSale {
    /// Where guests claim.
    pub(crate) claims_path: String,
    books_path: String,
}

/// Everything that runs while measuring; it ends when this is dropped.
pub(crate) struct Stage {
    pub(crate) promotions: SocketAddr,
    pub(crate) gateway: SocketAddr,
    pub(crate) signer: TokenSigner,
    pub(crate) redis_url: String,
    pub(crate) redis_pid: u32,
    ledger: SocketAddr,
    promotions_program: Program,
    ledger_program: Program,
    gateway_program: Program,
    kafka_brokers: String,
    _servers: (Redis, Kafka, Postgres),
    _keys: JwksServer,
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(binaries: &Path) -> anyhow::Result<Self> {
        let (redis, kafka, postgres) =
            tokio::try_join!(Redis::start(), Kafka::start(), Postgres::start())?;
        let issuer = TokenIssuer::new();
        let keys = JwksServer::start(issuer.jwks()).await?;
        let database = postgres.create_database().await?.url;
        let [promotions, gateway, ledger] = free_addresses();
        let shared = [
            ("QUOKKA_NAMESPACE", NAMESPACE.to_owned()),
            ("QUOKKA_LOG", "warn".to_owned()),
            ("QUOKKA_JWKS_URL", keys.url().to_owned()),
            ("QUOKKA_REDIS_URL", redis.url()),
            ("QUOKKA_KAFKA_BROKERS", kafka.brokers()),
        ];
        let with = |more: &[(&'static str, String)]| [&shared[..], more].concat();
        let ledger_program = Program::start(
            binaries,
            "promotions",
            &["ledger"],
            &with(&[
                ("QUOKKA_INTERNAL_ADDR", ledger.to_string()),
                ("QUOKKA_DATABASE_URL", database.clone()),
            ]),
            testkit::free_port(),
        )
        .await?;
        let promotions_program = Program::start(
            binaries,
            "promotions",
            &["api"],
            &with(&[
                ("QUOKKA_HTTP_ADDR", promotions.to_string()),
                ("QUOKKA_DATABASE_URL", database),
                ("QUOKKA_BENCH_NOOP", "true".to_owned()),
            ]),
            testkit::free_port(),
        )
        .await?;
        let gateway_program = Program::start(
            binaries,
            "gateway",
            &[],
            &with(&[
                ("QUOKKA_HTTP_ADDR", gateway.to_string()),
                (
                    "QUOKKA_UPSTREAMS",
                    format!("quokka-users={promotions},quokka-promotions={promotions}"),
                ),
            ]),
            testkit::free_port(),
        )
        .await?;
        let signer = TokenSigner::new(issuer.private_pem().as_bytes(), issuer.kid(), "quokka")?;
        Ok(Self {
            promotions,
            gateway,
            signer,
            redis_url: redis.url(),
            redis_pid: redis.pid().context("Redis has ended")?,
            ledger,
            promotions_program,
            kafka_brokers: kafka.brokers(),
            ledger_program,
            gateway_program,
            _servers: (redis, kafka, postgres),
            _keys: keys,
        })
    }

    /// The endpoint of promotions that does nothing.
    pub(crate) fn nothing_path(&self) -> &'static str {
        "/v1/noop"
    }

    /// Our processes under measurement, by name.
    pub(crate) fn processes(&self) -> anyhow::Result<[(&'static str, u32); 3]> {
        Ok([
            ("promotions api", self.promotions_program.pid()?),
            ("promotions ledger", self.ledger_program.pid()?),
            ("gateway", self.gateway_program.pid()?),
        ])
    }

    /// Declares a campaign as the operator would and waits until its gate stands and promotions knows it.
    /// Returns the path to claim at.
    pub(crate) async fn open_sale(
        &self,
        stock: usize,
        starts: Timestamp,
    ) -> anyhow::Result<OpenSale> {
        let uid = Uuid::new_v4();
        let name = format!("bench-{}", &uid.simple().to_string()[..12]);
        let topic = format!("quokka.claims.{NAMESPACE}.{name}");
        self.create_topic(&topic).await?;
        let definition = json!({
            "uid": uid, "name": name, "kind": "COUPON_CAMPAIGN", "generation": 1, "displayName": "Bench",
            "starts": starts, "ends": starts + SignedDuration::from_hours(1), "stock": stock, "perUserLimit": 1,
            "paused": false, "topic": topic, "partitions": PARTITIONS, "discount": {"percent": 10},
            "coupon": {"validForMs": 86_400_000},
        });
        let path = format!("/internal/v1/sales/{uid}");
        let put = Call {
            method: hyper::Method::PUT,
            body: definition.to_string().into(),
            ..Call::post(path.parse()?, None)
        };
        let get = Call::get(path.parse()?);
        let mut ledger = Connection::new(self.ledger);
        let answer = ledger
            .send(&put, PATIENCE)
            .await
            .map_err(|no| anyhow::anyhow!("declaring a sale: {no:?}"))?;
        ensure!(
            answer.status.is_success(),
            "declaring a sale: {}",
            String::from_utf8_lossy(&answer.body)
        );
        let campaign = format!("/v1/coupon-campaigns/{name}");
        let known = Call::get(campaign.parse()?);
        let mut promotions = Connection::new(self.promotions);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let books = ledger
                .send(&get, PATIENCE)
                .await
                .map_err(|no| anyhow::anyhow!("reading the books: {no:?}"))?;
            let books: Value = serde_json::from_slice(&books.body)?;
            let known = promotions
                .send(&known, PATIENCE)
                .await
                .is_ok_and(|answer| answer.status.is_success());
            if books["gate"] == "OPEN" && known {
                return Ok(OpenSale {
                    claims_path: format!("{campaign}/claims"),
                    books_path: path,
                });
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the sale did not open: {books}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the ledger has written all that was claimed: its work is not part of an answer, but it takes the
    /// same cores as the next measurement.
    pub(crate) async fn drained(&self, sale: &OpenSale, claimed: usize) -> anyhow::Result<()> {
        let get = Call::get(sale.books_path.parse()?);
        let mut ledger = Connection::new(self.ledger);
        let deadline = tokio::time::Instant::now() + DRAIN_PATIENCE;
        loop {
            let books = ledger
                .send(&get, PATIENCE)
                .await
                .map_err(|no| anyhow::anyhow!("reading the books: {no:?}"))?;
            let books: Value = serde_json::from_slice(&books.body)?;
            if books["stock"]["claimed"] == claimed && books["lag"] == 0 && books["unsettled"] == 0
            {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the ledger did not catch up: {books}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn create_topic(&self, topic: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka_brokers)
            .create()?;
        let new =
            NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let created = admin
            .create_topics([&new], &AdminOptions::new().request_timeout(Some(PATIENCE)))
            .await?;
        for topic in created {
            topic.map_err(|(topic, code)| anyhow::anyhow!("creating the topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Calls a second of the claim script alone, one claim a call, as redis-benchmark measures it.
    pub(crate) async fn script_by_redis_benchmark(
        &self,
        connections: usize,
    ) -> anyhow::Result<f64> {
        let tag = Uuid::new_v4();
        let key = |name: &str| format!("quokka:{{{tag}}}:{name}");
        let mut redis = redis::Client::open(self.redis_url.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        write_gate(&mut redis, &key("gate"), 10_000_000).await?;
        let digest: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(CLAIM_SCRIPT)
            .query_async(&mut redis)
            .await?;
        let port = url_port(&self.redis_url)?;
        let claims = key("claims");
        let output = Command::new("redis-benchmark")
            .args([
                "-p",
                &port.to_string(),
                "-n",
                &SCRIPT_CALLS.to_string(),
                "-c",
                &connections.to_string(),
            ])
            .args(["-r", "1000000000", "--csv", "EVALSHA", &digest, "3"])
            .args([key("gate"), claims.clone(), key("unsettled")])
            .args(["user-__rand_int__", "claim-__rand_int__", "0"])
            .output()
            .await
            .context("starting redis-benchmark")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "redis-benchmark: {said}");
        // Refusals would be fast. Of so many random users a few are the same.
        let taken: u32 = redis::cmd("HLEN")
            .arg(&claims)
            .query_async(&mut redis)
            .await?;
        ensure!(
            taken >= SCRIPT_CALLS / 100 * 99,
            "{SCRIPT_CALLS} calls of the script took only {taken} units"
        );
        // They would take the memory of what is measured next.
        let keys = [key("gate"), claims, key("unsettled")];
        redis::cmd("UNLINK")
            .arg(&keys[..])
            .exec_async(&mut redis)
            .await?;
        // A header, then `"name","requests per second",latencies...`.
        let figure = said
            .lines()
            .last()
            .and_then(|line| line.split("\",\"").nth(1));
        figure
            .with_context(|| format!("no figure in {said}"))?
            .parse()
            .context("reading redis-benchmark's figure")
    }
}

fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, testkit::free_port())))
}

fn url_port(url: &str) -> anyhow::Result<u16> {
    let end = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .context("a Redis address without a port")?;
    Ok(end.split('/').next().unwrap_or(end).parse()?)
}
