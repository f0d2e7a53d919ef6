//! The ledger role: reads the logs of all sales into PostgreSQL, tends their gates, keeps claims for orders, and answers
//! the operator and `orders`.

mod consumer;
pub mod core;
mod discounts;
mod effects;
mod internal;
mod metrics;
pub mod orders;
mod recovery;
mod sales;
#[cfg(test)]
mod simulation;
mod steward;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chassis::health::{Dependency, Readiness};
use chassis::http::HttpOptions;
use chassis::postgres::{self, PoolOptions, Schema};
use chassis::serve::{Serve, Server, Shutdown};
use events::consumer::{BatchConsumer, ConsumerSettings};
use events::producer::{Producer, ProducerSettings};
use events::{inbox, outbox};
use sale_stock::{RedisSettings, SaleStock};
use secrecy::ExposeSecret as _;

use self::consumer::Reader;
use self::discounts::Discounts;
use self::internal::Internal;
use self::recovery::Recovery;
use self::sales::Sales;
use self::steward::Steward;
use crate::config::LedgerSettings;
use crate::store::{MIGRATIONS, Store};

/// How often Kafka and Redis are asked for a sign of life.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How long Kafka may take to answer. Long, since a busy machine must not look like a broken one.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many connections to the database tend the sales and answer the operator.
const TENDING_CONNECTIONS_MAX: u32 = 4;

/// How many are for orders: four partitions of commands, the relay, and questions about claims.
const ORDERS_CONNECTIONS_MAX: u32 = 8;

/// Starts the role: it listens when this returns, and ends when what it returns has run. Redis, Kafka and PostgreSQL
/// may all be away.
pub async fn start(settings: LedgerSettings) -> anyhow::Result<Server> {
    let LedgerSettings {
        common,
        internal_addr,
        saga_partitions,
    } = settings;
    let process = common.process;
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();

    let connect = |name, connections_max| {
        let options = PoolOptions {
            connections_max,
            ..PoolOptions::default()
        };
        postgres::connect_lazy(&common.database_url, name, options).context("use the database")
    };
    // Connections of their own: many sales' rounds, and many orders, must not keep the reader waiting for one.
    let connections_max = PoolOptions::default().connections_max;
    let pool = connect("promotions-ledger", connections_max)?;
    let tending = connect("promotions-steward", TENDING_CONNECTIONS_MAX)?;
    let ordering = connect("promotions-orders", ORDERS_CONNECTIONS_MAX)?;
    let stock = SaleStock::connect_lazy(&RedisSettings::new(common.redis_url.expose_secret()))?;
    let producer = Producer::new(&ProducerSettings::new(
        &common.kafka_brokers,
        &process.instance,
    ))
    .context("set up the Kafka producer")?;
    let group = format!("quokka-ledger-{}", process.namespace);
    let consumer = ConsumerSettings::new(&common.kafka_brokers, &group, &process.instance);
    let consumer = Arc::new(BatchConsumer::new(&consumer)?);
    let store = Store::new(pool.clone());
    let tending = Store::new(tending);
    let sales = Sales::new();

    // A container that is started again in its pod is another owner: the one before may still have writes under way.
    let owner = format!("{}/{}", process.instance, uuid::Uuid::new_v4());
    let recovery = Recovery {
        store: tending.clone(),
        stock: stock.clone(),
        producer: producer.clone(),
        owner,
    };
    let steward = Steward {
        recovery,
        consumer: Arc::clone(&consumer),
        sales: sales.clone(),
    };
    let (effects, pending) = effects::channel();
    let reader = Reader::new(
        Arc::clone(&consumer),
        store.clone(),
        sales.clone(),
        effects,
        group,
    );

    let schema = Schema::of(&MIGRATIONS)
        .with(outbox::MIGRATION)
        .with(inbox::MIGRATION);
    let stop = || shutdown.token();
    shutdown.task(
        "postgres",
        postgres::keep(pool, schema, readiness.dependency("postgres"), stop()),
    );
    shutdown.task(
        "kafka",
        watch_kafka(producer, readiness.dependency("kafka"), shutdown.clone()),
    );
    shutdown.task("redis", watch_redis(stock.clone(), shutdown.clone()));
    shutdown.task("sales", sales.clone().keep(store.clone(), stop()));
    shutdown.task(
        "effects",
        effects::run(pending, stock.clone(), store, stop()),
    );
    shutdown.task("expiry", steward.clone().expire(stop()));
    shutdown.task("log", read(reader, steward, shutdown.clone()));

    orders::serve(
        &common.kafka_brokers,
        saga_partitions,
        &process,
        &ordering,
        &shutdown,
    )?;
    let discounts = Discounts {
        store: Store::new(ordering),
        stock: stock.clone(),
        sales: sales.clone(),
    };

    // Redis is no dependency: without it the ledger goes on reading, and the operator wants to hear of it.
    let internal = Internal {
        store: tending,
        stock,
        consumer,
        sales,
    };
    let server = Server::bind(Serve {
        http: None,
        internal: Some((
            internal_addr,
            chassis::http::router(
                internal::routes(internal).merge(discounts::routes(discounts)),
                HttpOptions::default(),
            ),
        )),
        ops: process.ops_addr,
        readiness,
        grace: process.shutdown_grace,
        shutdown,
    })
    .await?;
    Ok(server)
}

/// Starts the role and serves until the process is told to end.
pub async fn run(settings: LedgerSettings) -> anyhow::Result<()> {
    Ok(start(settings).await?.run().await?)
}

/// Reads and tends until the end, and then leaves the consumer group, so that others go on at once.
async fn read(reader: Reader, steward: Steward, shutdown: Shutdown) {
    let consumer = Arc::clone(&reader.consumer);
    tokio::join!(reader.run(shutdown.token()), steward.run(shutdown.token()));
    consumer.leave().await;
}

/// A Redis that was demoted goes on answering who only reads: it is noticed, and left, by being asked for its role.
async fn watch_redis(stock: SaleStock, shutdown: Shutdown) {
    loop {
        if let Err(error) = stock.ping().await {
            tracing::debug!(%error, "redis");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
    }
}

async fn watch_kafka(producer: Producer, dependency: Dependency, shutdown: Shutdown) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        never = dependency.watch(PROBE_EVERY, || producer.ping(PROBE_TIMEOUT)) => match never {},
    }
}
