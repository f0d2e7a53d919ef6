//! Puts the service together and serves it.

use std::sync::Arc;
use std::time::Duration;

use chassis::auth::{StaticKeys, Verifier};
use chassis::health::Readiness;
use chassis::http::HttpOptions;
use chassis::idempotency::{self, Idempotency};
use chassis::postgres::{PoolOptions, Schema};
use chassis::serve::{Serve, Shutdown};
use sqlx::migrate::Migrator;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState, ForwardedHops};
use crate::config::Config;
use crate::guesses::Guesses;
use crate::hashing::Hashing;
use crate::identity::Identity;
use crate::metrics;
use crate::store::Store;
use crate::tokens::AccessTokens;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The largest body there is has an address, a name and a password.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Dead sessions take room and nothing else, so there is no hurry.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Serves until the process is told to end.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    metrics::register();
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    let pool =
        chassis::postgres::connect_lazy(&config.database_url, "users", PoolOptions::default())?;
    let store = Store::new(pool.clone());
    let schema = Schema::of(&MIGRATIONS).with(idempotency::MIGRATION);
    let database = readiness.dependency("postgres");
    shutdown.task(
        "postgres",
        chassis::postgres::keep(pool.clone(), schema, database, shutdown.token()),
    );
    shutdown.task("sweep", sweep(store.clone(), shutdown.token()));

    let idempotency = Idempotency::new(pool, &shutdown)
        .with_fingerprint_key(config.signing_key.derive("idempotency fingerprints"));
    let tokens = AccessTokens::new(
        config.signing_key,
        config.previous_key,
        config.issuer.clone(),
        config.access_ttl,
    );
    // Its own tokens are checked with the keys in hand: asking itself by HTTP, it would wait for itself at start.
    let keys = StaticKeys::from_jwks_json(&serde_json::to_vec(tokens.jwks())?)?;
    let state = ApiState {
        identity: Arc::new(Identity {
            store,
            hashing: Hashing::new(&config.hashing)?,
            guesses: Guesses::new(),
            tokens,
            session_life: config.session_life,
        }),
        verifier: Verifier::from_static(keys, &config.issuer),
        forwarded_hops: ForwardedHops(config.forwarded_hops),
    };
    let options = HttpOptions {
        body_limit_bytes: BODY_BYTES_MAX,
        ..HttpOptions::default()
    };
    chassis::serve::run(Serve {
        http: Some((
            config.http_addr,
            chassis::http::router(api::routes(Some(idempotency)).into_router(state), options),
        )),
        internal: None,
        ops: config.process.ops_addr,
        readiness,
        grace: config.process.shutdown_grace,
        shutdown,
    })
    .await?;
    Ok(())
}

/// Removes sessions that are over, a bounded number at a time.
async fn sweep(store: Store, stop: CancellationToken) {
    let mut pause = SWEEP_EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let more = store.sweep_sessions().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "sessions that are over stay until the next sweep");
            false
        });
        pause = if more { Duration::ZERO } else { SWEEP_EVERY };
    }
}
