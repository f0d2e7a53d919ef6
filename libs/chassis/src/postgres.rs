//! PostgreSQL as every service uses it: a pool that never fails at start, migrations that wait for the server, and
//! errors that become the right answers. Statements of traced requests have spans; nobody has to ask for them.

mod spans;

use std::{borrow::Cow, convert::Infallible, str::FromStr as _, time::Duration};

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

/// A migration works as long as it needs, an index over a large table included. What it waits for is bounded: everybody
/// who wants a table queues behind a migration that waits for it.
const SCHEMA_SESSION: [(&str, &str); 2] = [("statement_timeout", "0"), ("lock_timeout", "10s")];

/// How a pool behaves.
#[derive(Debug, Clone, Copy)]
pub struct PoolOptions {
    /// How many connections at most.
    pub connections_max: u32,
    /// How long a statement waits for a connection before the caller is told UNAVAILABLE.
    pub acquire_timeout: Duration,
    /// How long the server works on one statement before it gives up.
    pub statement_timeout: Duration,
    /// How long the server waits within a transaction for its next statement before it ends the session. A process
    /// that hangs, or whose machine is gone, must not keep what it had locked.
    pub idle_in_transaction_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(5),
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
        .options(
            [
                ("statement_timeout", options.statement_timeout),
                (
                    "idle_in_transaction_session_timeout",
                    options.idle_in_transaction_timeout,
                ),
            ]
            .map(|(name, time)| (name, time.as_millis().to_string())),
        );
    spans::connects_to(&connect);
    Ok(PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .connect_lazy_with(connect))
}

/// Everything that must be in a database before its service works.
#[derive(Debug, Default)]
pub struct Schema {
    migrator: Option<Migrator>,
    statements: Vec<&'static str>,
}

impl Schema {
    /// The migrations of a service: `static MIGRATIONS: Migrator = sqlx::migrate!()`.
    ///
    /// A database that a newer version has migrated further is up to date too: in a roll-out a replica of this version
    /// may start again after that. One that was changed after it ran is still an error.
    pub fn of(migrator: &Migrator) -> Self {
        let mut migrator = Migrator::with_migrations(migrator.iter().cloned().collect());
        migrator.set_ignore_missing(true);
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
        // A connection that ends with this: its timeouts are not for others, and the lock under which migrations run is
        // the session's, so that one which fails would leave it to the pool.
        let connect = PgConnectOptions::clone(&pool.connect_options()).options(SCHEMA_SESSION);
        let single = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(pool.options().get_acquire_timeout())
            .connect_lazy_with(connect);
        let applied = self.apply_on(&single).await;
        single.close().await;
        applied
    }

    async fn apply_on(&self, pool: &PgPool) -> Result<(), MigrateError> {
        if let Some(migrator) = &self.migrator {
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
            Err(error) if is_passing(&error) => {
                dependency.set_unready(&error);
                warn!(%error, "database is not up to date, trying again");
                sleep(PROBE_EVERY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a migration may work next time. One that names a table which isn't there is wrong for good, though the same
/// error elsewhere means that migrations are yet to come.
fn is_passing(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    is_unavailable(error) && code_of(error).as_deref() != Some(UNDEFINED_TABLE)
}

/// Tells `dependency` every second whether the server answers and takes writes. It never returns.
pub async fn probe(pool: &PgPool, dependency: &Dependency) -> Infallible {
    let ask = || async {
        let recovering = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(pool);
        match timeout(PROBE_TIMEOUT, recovering).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => Err("the server is a standby and takes no writes".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
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

/// Whether an error says that the server can't do its work now, for instance because it is gone, full, shutting down,
/// restored or a standby, and asking again later may work.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(_) => code_of(error).is_some_and(|code| is_unavailable_code(&code)),
        _ => false,
    }
}

fn code_of(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// Statements are checked against the schema when they are compiled, so a table that isn't there is one that
/// migrations are yet to make.
const UNDEFINED_TABLE: &str = "42P01";

/// SQLSTATE classes and codes, from PostgreSQL's appendix A.
fn is_unavailable_code(code: &str) -> bool {
    const CLASSES: &[&str] = &[
        "08",  // connection exception
        "28",  // invalid authorization: a password that is being changed
        "40",  // transaction rollback: serialization, deadlock
        "53",  // insufficient resources: disk, memory, connections
        "57P", // operator intervention: shutting down, starting
        "58",  // system error: I/O, files
    ];
    const CODES: &[&str] = &[
        "25006", // read-only transaction: the server is a standby
        "25P03", // idle in transaction: this process hung
        "3D000", // the database isn't made yet
        "55P03", // lock not available
        "57014", // query canceled: it took too long
        UNDEFINED_TABLE,
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
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

#[cfg(test)]
mod tests {
    use super::is_unavailable_code;

    #[test]
    fn a_server_that_cant_work_now_is_told_from_a_mistake_of_ours() {
        for code in [
            "08006", "25006", "28000", "28P01", "3D000", "40001", "40P01", "42P01", "53100",
            "53200", "53300", "55P03", "57014", "57P01", "57P03", "58000", "58030", "58P01",
        ] {
            assert!(is_unavailable_code(code), "{code}");
        }
        for code in [
            "22003", "23505", "25001", "25P02", "3F000", "42501", "42601", "42703", "55000",
            "57000", "XX000", "XX001",
        ] {
            assert!(!is_unavailable_code(code), "{code}");
        }
    }
}
