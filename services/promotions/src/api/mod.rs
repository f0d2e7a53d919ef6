//! The API role: takes claims, and answers guests about sales, claims and coupons.

mod campaigns;
mod catalog;
mod claims;
mod coupons;
mod metrics;
mod problems;
mod time_sales;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::FromRef;
use axum::routing::get;
use chassis::auth::Verifier;
use chassis::health::Readiness;
use chassis::http::HttpOptions;
use chassis::openapi::{Document, Routes};
use chassis::postgres::{self, PoolOptions};
use chassis::serve::{Serve, Server, Shutdown};
use events::producer::{Producer, ProducerSettings};
use sale_stock::{RedisSettings, SaleStock};
use secrecy::ExposeSecret as _;
use utoipa_axum::routes;

use self::catalog::Catalog;
use crate::claims::keep_scripts;
use crate::config::ApiSettings;
use crate::store::Store;

pub use self::problems::ALL as PROBLEM_CODES;

/// How often Redis and Kafka are asked for a sign of life.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How long Kafka may take to answer one. Long, since a busy machine must not look like a broken one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the appends under way may take at the end. Longer than the producer gives any of them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What every handler works with. Each request has a clone: one count for all of it.
#[derive(Clone)]
struct Api(Arc<Parts>);

struct Parts {
    verifier: Verifier,
    catalog: Catalog,
    store: Store,
    stock: SaleStock,
    producer: Producer,
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<Api> for Verifier {
    fn from_ref(api: &Api) -> Self {
        api.verifier.clone()
    }
}

/// Starts the role: it listens when this returns, and ends when what it returns has run. Redis, Kafka and
/// PostgreSQL may all be away.
pub async fn start(settings: ApiSettings) -> anyhow::Result<Server> {
    let ApiSettings {
        common,
        http_addr,
        jwks_url,
        jwt_issuer,
        bench_noop,
    } = settings;
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();

    let pool = postgres::connect_lazy(
        &common.database_url,
        "promotions-api",
        PoolOptions::default(),
    )
    .context("use the database")?;
    let stock = SaleStock::connect_lazy(&RedisSettings::new(common.redis_url.expose_secret()))?;
    let producer = Producer::new(&ProducerSettings::new(
        &common.kafka_brokers,
        &common.process.instance,
    ))
    .context("set up the Kafka producer")?;
    let store = Store::new(pool);
    let catalog = Catalog::new(
        store.clone(),
        stock.clone(),
        producer.clone(),
        shutdown.clone(),
    );
    let verifier = Verifier::from_jwks_url(jwks_url, &jwt_issuer, &readiness, &shutdown);

    background(&readiness, &shutdown, &catalog, &stock, &producer);
    let api = Api(Arc::new(Parts {
        verifier,
        catalog,
        store,
        stock,
        producer,
    }));
    let server = Server::bind(Serve {
        http: Some((
            http_addr,
            chassis::http::router(routes(bench_noop).into_router(api), HttpOptions::default()),
        )),
        internal: None,
        ops: common.process.ops_addr,
        readiness,
        grace: common.process.shutdown_grace,
        shutdown,
    })
    .await?;
    Ok(server)
}

/// Starts the role and serves until the process is told to end.
pub async fn run(settings: ApiSettings) -> anyhow::Result<()> {
    Ok(start(settings).await?.run().await?)
}

fn routes(bench_noop: bool) -> Routes<Api> {
    let routes = Routes::new()
        .serve(routes!(campaigns::list))
        .serve(routes!(campaigns::get))
        .serve(routes!(campaigns::claim))
        .serve(routes!(coupons::list))
        .serve(routes!(time_sales::list))
        .serve(routes!(time_sales::get))
        .serve(routes!(time_sales::claim))
        .serve(routes!(time_sales::give_back))
        .serve(routes!(claims::get));
    if bench_noop {
        // What a request costs before it does anything: the measure that claims are held against.
        routes.serve_inside("/v1/noop", get(async || "{}"))
    } else {
        routes
    }
}

/// What is served through the gateway, in words.
pub fn document() -> Document {
    routes(false).into_document("Quokka promotions")
}

fn background(
    readiness: &Readiness,
    shutdown: &Shutdown,
    catalog: &Catalog,
    stock: &SaleStock,
    producer: &Producer,
) {
    shutdown.task(
        "catalog",
        catalog
            .clone()
            .keep(readiness.dependency("catalog"), shutdown.token()),
    );
    let (redis, kafka) = (readiness.dependency("redis"), readiness.dependency("kafka"));
    let (stock, producer, stop) = (stock.clone(), producer.clone(), shutdown.token());
    shutdown.task("dependencies", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            never = redis.watch(PROBE_EVERY, || stock.ping()) => match never {},
            never = keep_scripts(&stock) => match never {},
            never = kafka.watch(PROBE_EVERY, || producer.ping(PROBE_TIMEOUT)) => match never {},
        }
        if let Err(error) = producer.flush(FLUSH_TIMEOUT).await {
            tracing::warn!(%error, unacknowledged = producer.in_flight(), "appends were cut off");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_fresh() {
        let written = include_str!("../../openapi.json");
        assert!(
            document().to_json() == written,
            "stale: run `make generate`"
        );
    }

    #[test]
    fn every_problem_code_is_in_the_document() {
        let mut document = document();
        for code in PROBLEM_CODES {
            assert!(document.has_code(*code), "{}", code.as_str());
        }
    }
}
