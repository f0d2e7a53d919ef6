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
use events::saga::{BOOKING_COMMANDS, ORDER_REPLIES, PAYMENTS_COMMANDS, PROMOTIONS_COMMANDS};
use sqlx::migrate::Migrator;

use crate::api::{self, Api};
use crate::config::Settings;
use crate::desk::Desk;
use crate::peers::Peers;
use crate::replies::Replies;
use crate::{expiry, metrics};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Whose consumers share the partitions of the answers: those of one platform.
fn group(namespace: &str) -> String {
    format!("{namespace}.orders")
}

/// Connections: four partitions of answers, the relay, the scheduler, and the API's.
const CONNECTIONS_MAX: u32 = 16;

/// Starts the service: it listens when this returns, and ends when what it returns has run. Kafka and PostgreSQL may
/// be away.
pub async fn start(settings: Settings) -> anyhow::Result<Server> {
    metrics::register();
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    let options = PoolOptions {
        connections_max: CONNECTIONS_MAX,
        ..PoolOptions::default()
    };
    let pool = postgres::connect_lazy(&settings.database_url, "orders", options)
        .context("use the database")?;
    let schema = Schema::of(&MIGRATIONS)
        .with(idempotency::MIGRATION)
        .with(outbox::MIGRATION)
        .with(inbox::MIGRATION);
    let database = readiness.dependency("postgres");
    shutdown.task(
        "postgres",
        postgres::keep(pool.clone(), schema, database, shutdown.token()),
    );

    let peers = Peers::new(
        settings.stays_url.clone(),
        settings.promotions_url.clone(),
        settings.peer_timeout,
    )
    .context("set up the HTTP client")?;
    let desk = Arc::new(Desk::new(pool.clone(), peers, settings.times));
    background(&settings, &pool, &desk, &shutdown)?;

    let verifier = Verifier::from_jwks_url(
        settings.jwks_url.clone(),
        &settings.jwt_issuer,
        &readiness,
        &shutdown,
    );
    let idempotency = Idempotency::new(pool, &shutdown).scoped_to_caller(verifier.clone());
    let api = Api { desk, verifier };
    let http = api::routes(Some(idempotency)).into_router(api.clone());
    let internal = api::internal_routes(api);
    let surround = |routes| chassis::http::router(routes, HttpOptions::default());
    Ok(Server::bind(Serve {
        http: Some((settings.http_addr, surround(http))),
        internal: Some((settings.internal_addr, surround(internal))),
        ops: settings.process.ops_addr,
        readiness,
        grace: settings.process.shutdown_grace,
        shutdown,
    })
    .await?)
}

/// Starts the service and serves until the process is told to end.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    Ok(start(settings).await?.run().await?)
}

fn background(
    settings: &Settings,
    pool: &sqlx::PgPool,
    desk: &Arc<Desk>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let brokers = &settings.kafka_brokers;
    let instance = &settings.process.instance;
    let topics = [
        BOOKING_COMMANDS,
        PROMOTIONS_COMMANDS,
        PAYMENTS_COMMANDS,
        ORDER_REPLIES,
    ]
    .map(|topic| (topic, settings.saga_partitions));
    shutdown.job(
        "topics",
        events::topics::ensure_until(brokers.clone(), topics.to_vec(), shutdown.token()),
    );
    let producer = ProducerSettings::new(brokers, instance);
    let relay = Relay::new(pool.clone(), &producer).context("set up the Kafka producer")?;
    shutdown.task("outbox", relay.run(shutdown.token()));

    let consumer = ConsumerSettings::new(brokers, group(&settings.process.namespace), instance);
    let inbox = Inbox::new(pool.clone(), consumer, [ORDER_REPLIES])?;
    let replies = Replies {
        desk: Arc::clone(desk),
    };
    shutdown.task("inbox", inbox.run(replies, shutdown.token()));
    shutdown.task("expiry", expiry::run(Arc::clone(desk), shutdown.token()));
    shutdown.task("count", expiry::count(Arc::clone(desk), shutdown.token()));
    Ok(())
}
