//! Puts the service together and serves it.

use anyhow::Context as _;
use chassis::auth::Verifier;
use chassis::health::Readiness;
use chassis::http::HttpOptions;
use chassis::postgres::{PoolOptions, Schema};
use chassis::serve::{Serve, Server, Shutdown};
use events::consumer::ConsumerSettings;
use events::inbox::{self, Inbox};
use events::outbox::{self, Relay};
use events::producer::ProducerSettings;
use events::saga::{ORDER_REPLIES, PAYMENTS_COMMANDS};
use events::topics;
use sqlx::migrate::Migrator;

use crate::api::{self, ApiState};
use crate::config::Config;
use crate::metrics;
use crate::orders::Orders;
use crate::reconciler::{self, Pace};
use crate::refunds::Commands;
use crate::settler;
use crate::store::Store;
use crate::toss::Toss;
use crate::work::{Times, Work};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// For guests, the settler's workers, the inbox and the relay.
const CONNECTIONS_MAX: u32 = 16;

/// Serves until the process is told to end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let (server, _) = bind(config).await?;
    server.run().await?;
    Ok(())
}

/// The service with its listeners open, and what ends it.
pub async fn bind(config: Config) -> anyhow::Result<(Server, Shutdown)> {
    metrics::register();
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    let pool_options = PoolOptions {
        connections_max: CONNECTIONS_MAX,
        ..PoolOptions::default()
    };
    let pool = chassis::postgres::connect_lazy(&config.database_url, "payments", pool_options)
        .context("use the database")?;
    let schema = Schema::of(&MIGRATIONS)
        .with(outbox::MIGRATION)
        .with(inbox::MIGRATION);
    let database = readiness.dependency("postgres");
    let keep = chassis::postgres::keep(pool.clone(), schema, database, shutdown.token());
    shutdown.task("postgres", keep);

    let made = [PAYMENTS_COMMANDS, ORDER_REPLIES].map(|topic| (topic, config.saga_partitions));
    let brokers = config.kafka_brokers.clone();
    shutdown.job(
        "topics",
        topics::ensure_until(brokers, made.to_vec(), shutdown.token()),
    );
    let instance = config.process.instance.clone();
    let relay = Relay::new(
        pool.clone(),
        &ProducerSettings::new(&config.kafka_brokers, &instance),
    )
    .context("set up the Kafka producer")?;
    shutdown.task("outbox", relay.run(shutdown.token()));
    let consumer = ConsumerSettings::new(&config.kafka_brokers, &config.kafka_group, &instance);
    let commands = Inbox::new(pool.clone(), consumer, [PAYMENTS_COMMANDS])?;
    shutdown.task("inbox", commands.run(Commands, shutdown.token()));

    let store = Store::new(pool);
    let toss = Toss::new(
        config.toss_url.clone(),
        config.toss_secret_key.clone(),
        config.toss_timeout,
    )?;
    let orders = Orders::new(config.orders_url.clone(), config.orders_timeout)?;
    let work = Work::new(store.clone(), toss.clone(), orders, Times::of(&config));
    shutdown.task(
        "settler",
        settler::run(work.clone(), config.settle_every, shutdown.token()),
    );
    shutdown.task(
        "reconciler",
        reconciler::run(store, toss, Pace::of(&config), shutdown.token()),
    );

    let verifier = Verifier::from_jwks_url(
        config.jwks_url.clone(),
        &config.jwt_issuer,
        &readiness,
        &shutdown,
    );
    let state = ApiState::new(work, verifier, &config, &shutdown);
    let options = HttpOptions {
        request_timeout: config.confirm_wait + HttpOptions::default().request_timeout,
        ..HttpOptions::default()
    };
    let serve = Serve {
        http: Some((
            config.http_addr,
            chassis::http::router(api::routes().into_router(state), options),
        )),
        internal: None,
        ops: config.process.ops_addr,
        readiness,
        grace: config.process.shutdown_grace,
        shutdown: shutdown.clone(),
    };
    Ok((Server::bind(serve).await?, shutdown))
}
