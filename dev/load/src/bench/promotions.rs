//! The two roles of `promotions` under measurement, and sales as the operator would declare them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::kafka::create_topic;
use super::process::Program;
use super::servers::{NAMESPACE, Servers, free_addresses};
use crate::http::{Call, Connection};

/// As the operator chooses for the peak that two cores can take.
const PARTITIONS: i32 = 1;

const PATIENCE: Duration = Duration::from_secs(30);

/// How long the ledger may take for the claims of one measurement.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

/// A sale of one measurement.
pub(crate) struct OpenSale {
    /// Where guests claim.
    pub(crate) claims_path: String,
    books_path: String,
}

/// Both roles; they end when this is dropped.
pub(crate) struct Promotions {
    /// Where guests claim.
    pub(crate) api: SocketAddr,
    /// Where the operator and `orders` ask.
    pub(crate) ledger: SocketAddr,
    pub(crate) api_program: Program,
    pub(crate) ledger_program: Program,
    kafka_brokers: String,
}

impl Promotions {
    /// Starts both and waits until they are ready.
    pub(crate) async fn start(servers: &Servers) -> anyhow::Result<Self> {
        let database = servers.postgres.create_database().await?.url;
        let [api, ledger] = free_addresses();
        let of_ledger = [
            ("QUOKKA_INTERNAL_ADDR", ledger.to_string()),
            ("QUOKKA_DATABASE_URL", database.clone()),
        ];
        let of_api = [
            ("QUOKKA_HTTP_ADDR", api.to_string()),
            ("QUOKKA_DATABASE_URL", database),
            ("QUOKKA_BENCH_NOOP", "true".to_owned()),
        ];
        Ok(Self {
            api,
            ledger,
            ledger_program: servers
                .program("promotions", &["ledger"], &of_ledger)
                .await?,
            api_program: servers.program("promotions", &["api"], &of_api).await?,
            kafka_brokers: servers.kafka.brokers(),
        })
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
        create_topic(&self.kafka_brokers, &topic, PARTITIONS).await?;
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
        let mut api = Connection::new(self.api);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let books = ledger
                .send(&get, PATIENCE)
                .await
                .map_err(|no| anyhow::anyhow!("reading the books: {no:?}"))?;
            let books: Value = serde_json::from_slice(&books.body)?;
            let known = api
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
    /// same cores as the next measurement. Answers how long it took.
    pub(crate) async fn drained(
        &self,
        sale: &OpenSale,
        claimed: usize,
    ) -> anyhow::Result<Duration> {
        let get = Call::get(sale.books_path.parse()?);
        let mut ledger = Connection::new(self.ledger);
        let began = tokio::time::Instant::now();
        loop {
            let books = ledger
                .send(&get, PATIENCE)
                .await
                .map_err(|no| anyhow::anyhow!("reading the books: {no:?}"))?;
            let books: Value = serde_json::from_slice(&books.body)?;
            if books["stock"]["claimed"] == claimed && books["lag"] == 0 && books["unsettled"] == 0
            {
                return Ok(began.elapsed());
            }
            ensure!(
                began.elapsed() < DRAIN_PATIENCE,
                "the ledger did not catch up: {books}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
