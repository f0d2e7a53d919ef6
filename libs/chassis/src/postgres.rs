//! PostgreSQL as every service uses it: a pool that never fails at start, migrations that wait for the server, and
//! errors that become the right answers. Statements of traced requests have spans; nobody has to ask for them.

mod spans;

use std::{convert::Infallible, str::FromStr as _, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::{health::Dependency, problem::Problem};

pub(crate) use spans::StatementSpans;

/// How often the server is asked whether it is there.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long a probe may take before the server counts as gone.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The advisory lock under which schemas of several replicas take turns ("quokka" as bytes).
const SCHEMA_LOCK: i64 = 0x71_75_6f_6b_6b_61;

/// How a pool behaves.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// How many connections at most.
    pub connections_max: u32,
    /// How long a statement waits for a connection before the caller is told UNAVAILABLE.
    pub acquire_timeout: Duration,
    /// How long the server works on one statement before it gives up.
    pub statement_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(10),
        }
    }
}

/// A URL that isn't one of a PostgreSQL database. The URL itself isn't told: it has a password.
#[derive(Debug, thiserror::Error)]
#[error("not the URL of a PostgreSQL database: give postgres://user:password@host:5432/database")]
pub struct UrlError;

/// A pool for the database at `url`. No connection is made before the first statement, so this works while the
/// server is gone; `application` is the name under which the server lists the connections.
pub fn connect_lazy(
    url: &SecretString,
    application: &str,
    options: PoolOptions,
) -> Result<PgPool, UrlError> {
    let connect = PgConnectOptions::from_str(url.expose_secret())
        .map_err(|_| UrlError)?
        .application_name(application)
        .options([(
            "statement_timeout",
            options.statement_timeout.as_millis().to_string(),
        )]);
    Ok(PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .connect_lazy_with(connect))
}

/// Everything that must be in a database before its service works.
#[derive(Debug, Default)]
pub struct Schema {
    migrator: Option<&'static Migrator>,
    statements: Vec<&'static str>,
}

impl Schema {
    /// The migrations of a service: `static MIGRATIONS: Migrator = sqlx::migrate!()`.
    pub fn of(migrator: &'static Migrator) -> Self {
        Self {
            migrator: Some(migrator),
            statements: Vec::new(),
        }
    }

    /// Adds statements that belong to a library, such as [`crate::idempotency::MIGRATION`]. They are run at every
    /// start, so they must do nothing the second time.
    pub fn with(mut self, statements: &'static str) -> Self {
        self.statements.push(statements);
        self
    }

    /// Brings the database up to date, once.
    pub async fn apply(&self, pool: &PgPool) -> Result<(), MigrateError> {
        if let Some(migrator) = self.migrator {
            migrator.run(pool).await?;
        }
        if !self.statements.is_empty() {
            let mut tx = pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(SCHEMA_LOCK)
                .execute(&mut *tx)
                .await?;
            for statements in &self.statements {
                sqlx::raw_sql(*statements).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// Brings the database up to date, waiting for the server as long as it takes; `dependency` is unready meanwhile.
/// The error is one that waiting can't mend, such as a migration that was changed after it ran.
pub async fn migrate(
    pool: &PgPool,
    schema: &Schema,
    dependency: &Dependency,
) -> Result<(), MigrateError> {
    loop {
        match schema.apply(pool).await {
            Ok(()) => {
                info!(dependency = dependency.name(), "database is up to date");
                return Ok(());
            }
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))
                if is_unavailable(&error) =>
            {
                dependency.set_unready(&error);
                sleep(PROBE_EVERY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tells `dependency` every second whether the server answers. It never returns.
pub async fn probe(pool: &PgPool, dependency: &Dependency) -> Infallible {
    let ask = || async {
        match timeout(PROBE_TIMEOUT, sqlx::query("SELECT 1").execute(pool)).await {
            Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    };
    dependency.watch(PROBE_EVERY, ask).await
}

/// [`migrate`], then [`probe`] until the process ends: the one background task of a service's database.
///
/// ```no_run
/// # use chassis::{health::Readiness, postgres::{Schema, keep}, serve::Shutdown};
/// # fn watch(pool: sqlx::PgPool, readiness: &Readiness, shutdown: &Shutdown) {
/// let schema = Schema::default().with(chassis::idempotency::MIGRATION);
/// shutdown.task("postgres", keep(pool, schema, readiness.dependency("postgres"), shutdown.token()));
/// # }
/// ```
pub async fn keep(
    pool: PgPool,
    schema: Schema,
    dependency: Dependency,
    stop: tokio_util::sync::CancellationToken,
) -> Result<(), MigrateError> {
    let work = async {
        migrate(&pool, &schema, &dependency).await?;
        match probe(&pool, &dependency).await {}
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        end = work => end,
    }
}

/// Whether an error says that the server is gone, full or shutting down, and asking again later may work.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database
            .code()
            .is_some_and(|code| is_unavailable_code(&code)),
        _ => false,
    }
}

/// SQLSTATE classes and codes, from PostgreSQL's appendix A.
fn is_unavailable_code(code: &str) -> bool {
    let connection_exception = code.starts_with("08");
    let operator_intervention = code.starts_with("57P");
    let too_many_connections = code == "53300";
    let query_canceled = code == "57014";
    let lock_not_available = code == "55P03";
    let serialization = code.starts_with("40");
    connection_exception
        || operator_intervention
        || too_many_connections
        || query_canceled
        || lock_not_available
        || serialization
}

/// Whether an error says that a row with this unique key is there already; `constraint` is the key's name.
pub fn is_unique_violation(error: &sqlx::Error, constraint: &str) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation() && error.constraint() == Some(constraint))
}

impl From<sqlx::Error> for Problem {
    /// 503 with `Retry-After` where [`is_unavailable`]; otherwise a mistake of ours.
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            warn!(%error, "database unavailable");
            Self::unavailable("the database is not there")
        } else {
            Self::internal(format_args!("database: {error}"))
        }
    }
}
