//! Puts the service together and serves it.

use std::sync::Arc;

use chassis::auth::Verifier;
use chassis::health::{Dependency, Readiness};
use chassis::http::HttpOptions;
use chassis::postgres::{PoolOptions, Schema, migrate, probe};
use chassis::serve::{Serve, Server, Shutdown};
use events::consumer::ConsumerSettings;
use events::inbox::{self, Handler, Inbox};
use events::outbox::{self, Relay};
use events::producer::ProducerSettings;
use events::{saga, topics};
use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use tokio_util::sync::CancellationToken;

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
    let pool = chassis::postgres::connect_lazy(&config.database_url, "booking", options)?;
    let verifier = Verifier::from_jwks_url(
        config.jwks_url.clone(),
        &config.jwt_issuer,
        &readiness,
        &shutdown,
    );
    background(&config, &pool, readiness.dependency("postgres"), &shutdown)?;
    let api = Api(Arc::new(api::Parts { pool, verifier }));
    let server = Server::bind(Serve {
        http: Some((
            config.http_addr,
            chassis::http::router(api::routes(api), HttpOptions::default()),
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

fn background(
    config: &Config,
    pool: &PgPool,
    database: Dependency,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let migrated = CancellationToken::new();
    shutdown.task(
        "postgres",
        keep(pool.clone(), database, migrated.clone(), shutdown.token()),
    );

    let partitions = topics::saga(config.saga_partitions);
    shutdown.job(
        "topics",
        topics::ensure_until(config.kafka_brokers.clone(), partitions, shutdown.token()),
    );

    let producer = ProducerSettings::new(&config.kafka_brokers, &config.process.instance);
    let relay = Relay::new(pool.clone(), &producer)?;
    shutdown.task(
        "outbox",
        after(
            migrated.clone(),
            shutdown.token(),
            relay.run(shutdown.token()),
        ),
    );

    read(
        config,
        pool,
        COMMANDS_GROUP,
        saga::BOOKING_COMMANDS,
        Commands,
        &migrated,
        shutdown,
    )?;
    read(
        config,
        pool,
        CALENDAR_GROUP,
        saga::CALENDAR,
        Calendar,
        &migrated,
        shutdown,
    )?;

    let expiry = expiry::run(pool.clone(), config.hold_expiry_every, shutdown.token());
    shutdown.task("expiry", after(migrated, shutdown.token(), expiry));
    Ok(())
}

/// Has the messages of a topic handled once the tables are there.
fn read<H: Handler>(
    config: &Config,
    pool: &PgPool,
    group: &'static str,
    topic: &'static str,
    handler: H,
    migrated: &CancellationToken,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let settings = ConsumerSettings::new(&config.kafka_brokers, group, &config.process.instance);
    let inbox = Inbox::new(pool.clone(), settings, [topic])?;
    let (migrated, stop) = (migrated.clone(), shutdown.token());
    shutdown.task(group, async move {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = migrated.cancelled() => {}
        }
        inbox.run(handler, stop).await
    });
    Ok(())
}

/// Does the work once the tables are there, unless the process ends before.
async fn after(
    migrated: CancellationToken,
    stop: CancellationToken,
    work: impl Future<Output = ()>,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = migrated.cancelled() => {}
    }
    work.await;
}

/// Brings the database up to date, says so, and then tells whether it is there.
async fn keep(
    pool: PgPool,
    database: Dependency,
    migrated: CancellationToken,
    stop: CancellationToken,
) -> Result<(), MigrateError> {
    let work = async {
        migrate(&pool, &schema(), &database).await?;
        migrated.cancel();
        match probe(&pool, &database).await {}
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        end = work => end,
    }
}
