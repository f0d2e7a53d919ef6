//! Puts the service together and serves it.

use std::sync::Arc;

use anyhow::Context as _;
use chassis::auth::Verifier;
use chassis::health::Readiness;
use chassis::http::HttpOptions;
use chassis::postgres::{self, PoolOptions, Schema};
use chassis::serve::{Serve, Server, Shutdown};
use events::consumer::ConsumerSettings;
use events::inbox::{self, Handler, Inbox};
use events::outbox::{self, Relay};
use events::producer::ProducerSettings;
use events::{saga, topics};
use sqlx::PgPool;
use sqlx::migrate::Migrator;

use crate::api::{self, Api};
use crate::calendar::Calendar;
use crate::commands::Commands;
use crate::config::Config;
use crate::{expiry, metrics};

/// The tables of the service.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Whose offsets those of the commands are.
const COMMANDS_GROUP: &str = "booking-commands";
/// Whose offsets those of the calendars are.
const CALENDAR_GROUP: &str = "booking-calendar";

/// Four partitions of each inbox at the same time, the relay, expiry, and what requests take.
const CONNECTIONS_MAX: u32 = 16;

/// Everything that must be in the database.
pub fn schema() -> Schema {
    Schema::of(&MIGRATIONS)
        .with(outbox::MIGRATION)
        .with(inbox::MIGRATION)
}

/// Starts the service: it listens when this returns, and ends when what it returns has run. PostgreSQL and Kafka may
/// be away; requests don't need Kafka, so the service is ready without it.
pub async fn start(config: Config) -> anyhow::Result<Server> {
    metrics::register();
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    let options = PoolOptions {
        connections_max: CONNECTIONS_MAX,
        ..PoolOptions::default()
    };
    let pool = postgres::connect_lazy(&config.database_url, "booking", options)
        .context("use the database")?;
    let database = readiness.dependency("postgres");
    shutdown.task(
        "postgres",
        postgres::keep(pool.clone(), schema(), database, shutdown.token()),
    );
    let verifier = Verifier::from_jwks_url(
        config.jwks_url.clone(),
        &config.jwt_issuer,
        &readiness,
        &shutdown,
    );
    background(&config, &pool, &shutdown)?;
    let api = Api(Arc::new(api::Parts { pool, verifier }));
    let server = Server::bind(Serve {
        http: Some((
            config.http_addr,
            chassis::http::router(api::routes().into_router(api), HttpOptions::default()),
        )),
        internal: None,
        ops: config.process.ops_addr,
        readiness,
        grace: config.process.shutdown_grace,
        shutdown,
    })
    .await?;
    Ok(server)
}

/// Serves until the process is told to end.
pub async fn run(config: Config) -> anyhow::Result<()> {
    Ok(start(config).await?.run().await?)
}

fn background(config: &Config, pool: &PgPool, shutdown: &Shutdown) -> anyhow::Result<()> {
    let partitions = topics::saga(config.saga_partitions);
    shutdown.job(
        "topics",
        topics::ensure_until(config.kafka_brokers.clone(), partitions, shutdown.token()),
    );
    let producer = ProducerSettings::new(&config.kafka_brokers, &config.process.instance);
    let relay = Relay::new(pool.clone(), &producer).context("set up the Kafka producer")?;
    shutdown.task("outbox", relay.run(shutdown.token()));

    let commands = (COMMANDS_GROUP, saga::BOOKING_COMMANDS);
    read(config, pool, commands, Commands, shutdown)?;
    let calendar = (CALENDAR_GROUP, saga::CALENDAR);
    read(config, pool, calendar, Calendar, shutdown)?;
    shutdown.task(
        "expiry",
        expiry::run(pool.clone(), config.hold_expiry_every, shutdown.token()),
    );
    Ok(())
}

/// Has the messages of a topic handled.
fn read<H: Handler>(
    config: &Config,
    pool: &PgPool,
    (group, topic): (&'static str, &'static str),
    handler: H,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let settings = ConsumerSettings::new(&config.kafka_brokers, group, &config.process.instance);
    let inbox = Inbox::new(pool.clone(), settings, [topic])?;
    shutdown.task(group, inbox.run(handler, shutdown.token()));
    Ok(())
}
