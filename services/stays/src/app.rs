//! Puts the service together and serves it.

use std::sync::Arc;

use anyhow::Context as _;
use chassis::auth::Verifier;
use chassis::health::Readiness;
use chassis::http::HttpOptions;
use chassis::idempotency::{self, Idempotency};
use chassis::postgres::{self, PoolOptions, Schema};
use chassis::serve::{Serve, Server, Shutdown};
use events::consumer::ConsumerSettings;
use events::inbox::{self, Inbox};
use events::outbox::{self, Relay};
use events::producer::ProducerSettings;
use events::saga::{AVAILABILITY, CALENDAR};
use events::topics;
use sale_stock::RedisSettings;
use sale_stock::discounts::Discounts;
use secrecy::ExposeSecret as _;
use sqlx::PgPool;

use crate::api::{self, ApiState};
use crate::availability::Availability;
use crate::config::{Config, SearchBy};
use crate::discounts::ActiveSales;
use crate::metrics;
use crate::search::{self, Database, Index, Searcher};
use crate::store::{MIGRATIONS, Store};

/// Requests, messages, the outbox and the index share these; the listener of the index keeps one.
const CONNECTIONS_MAX: u32 = 12;

/// A year of nights is a large body.
const BODY_BYTES_MAX: usize = 128 * 1024;

/// Everything that must be in the service's database.
pub(crate) fn schema() -> Schema {
    Schema::of(&MIGRATIONS)
        .with(idempotency::MIGRATION)
        .with(outbox::MIGRATION)
        .with(inbox::MIGRATION)
}

/// Starts the service: it listens when this returns, and ends when what it returns has run. Redis, Kafka and
/// PostgreSQL may all be away.
pub async fn start(config: Config) -> anyhow::Result<Server> {
    metrics::register();
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    let options = PoolOptions {
        connections_max: CONNECTIONS_MAX,
        ..PoolOptions::default()
    };
    let pool = postgres::connect_lazy(&config.database_url, "stays", options)
        .context("use the database")?;
    let database = readiness.dependency("postgres");
    shutdown.task(
        "postgres",
        postgres::keep(pool.clone(), schema(), database, shutdown.token()),
    );
    let store = Store::new(pool.clone());
    let sales = follow_sales(&config, &shutdown)?;
    let searcher = searcher(&config, &store, &readiness, &shutdown)?;
    exchange_messages(&config, &pool, &shutdown)?;

    let verifier =
        Verifier::from_jwks_url(config.jwks_url, &config.jwt_issuer, &readiness, &shutdown);
    let idempotency = Idempotency::new(pool, &shutdown).scoped_to_caller(verifier.clone());
    let state = ApiState {
        store,
        searcher,
        sales,
        verifier,
    };
    let options = HttpOptions {
        body_limit_bytes: BODY_BYTES_MAX,
        ..HttpOptions::default()
    };
    let internal = api::internal_routes(state.clone());
    let server = Server::bind(Serve {
        http: Some((
            config.http_addr,
            chassis::http::router(api::routes(Some(idempotency)).into_router(state), options),
        )),
        internal: Some((
            config.internal_addr,
            chassis::http::router(internal, HttpOptions::default()),
        )),
        ops: config.process.ops_addr,
        readiness,
        grace: config.process.shutdown_grace,
        shutdown,
    })
    .await?;
    Ok(server)
}

/// Starts the service and serves until the process is told to end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    Ok(start(config).await?.run().await?)
}

/// Redis is no dependency: without it, discounts go on as they were read last.
fn follow_sales(config: &Config, shutdown: &Shutdown) -> anyhow::Result<ActiveSales> {
    let redis = RedisSettings::new(config.redis_url.expose_secret());
    let discounts = Discounts::connect_lazy(&redis, &config.process.namespace)?;
    let sales = ActiveSales::default();
    shutdown.task(
        "discounts",
        (sales.clone()).keep(discounts, config.discounts_every, shutdown.token()),
    );
    Ok(sales)
}

fn searcher(
    config: &Config,
    store: &Store,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<Searcher> {
    let database = Database::connect_lazy(&config.database_url).context("use the database")?;
    let index = match config.search_by {
        SearchBy::Postgres => None,
        SearchBy::Index => {
            let index = Arc::new(Index::new());
            let dependency = readiness.dependency("search-index");
            let kept = search::keep(
                Arc::clone(&index),
                store.clone(),
                dependency,
                shutdown.token(),
            );
            shutdown.task("search-index", kept);
            Some(index)
        }
    };
    Ok(Searcher::new(index, database))
}

/// Kafka is no dependency either: what is to be said waits in the outbox, and what is to be heard in the log.
fn exchange_messages(config: &Config, pool: &PgPool, shutdown: &Shutdown) -> anyhow::Result<()> {
    let (brokers, instance) = (&config.kafka_brokers, &config.process.instance);
    let topics = [CALENDAR, AVAILABILITY].map(|topic| (topic, config.saga_partitions));
    let made = topics::ensure_until(brokers.clone(), topics.to_vec(), shutdown.token());
    shutdown.job("topics", made);
    let producer = ProducerSettings::new(brokers, instance);
    let relay = Relay::new(pool.clone(), &producer).context("set up the Kafka producer")?;
    shutdown.task("outbox", relay.run(shutdown.token()));
    let group = format!("quokka-stays-{}", config.process.namespace);
    let consumer = ConsumerSettings::new(brokers, group, instance);
    let inbox = Inbox::new(pool.clone(), consumer, [AVAILABILITY])?;
    shutdown.task("inbox", inbox.run(Availability, shutdown.token()));
    Ok(())
}
