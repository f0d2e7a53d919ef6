use std::time::Duration;

use chassis::{
    health::Readiness,
    postgres::{PoolOptions, Schema, connect_lazy, is_unavailable, keep},
    problem::Problem,
};
use secrecy::SecretString;
use sqlx::{
    PgPool, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};
use testkit::{Postgres, eventually, unique_name};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS greetings (text text PRIMARY KEY)";

/// Fails as a server that is shutting down does, until there is a table `permit`.
const PERMITTED: &str = "DO $$ BEGIN
    IF to_regclass('permit') IS NULL THEN RAISE EXCEPTION 'not yet' USING ERRCODE = '57P03'; END IF;
END $$";

/// The migrations of one version of a service, numbered from 1.
fn migrations(statements: &[&'static str]) -> Migrator {
    let migration = |(at, sql): (usize, &&'static str)| {
        let version = i64::try_from(at).unwrap() + 1;
        Migration::new(
            version,
            "test".into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(statements.iter().enumerate().map(migration).collect())
}

/// A task that keeps a schema, and what is known of it.
struct Kept {
    pool: PgPool,
    readiness: Readiness,
}

impl Kept {
    fn start(url: String, options: PoolOptions, schema: Schema) -> Self {
        let pool = connect_lazy(&SecretString::from(url), "test", options).unwrap();
        let readiness = Readiness::new();
        tokio::spawn(keep(
            pool.clone(),
            schema,
            readiness.dependency("postgres"),
            CancellationToken::new(),
        ));
        Self { pool, readiness }
    }

    async fn until_ready(&self) {
        eventually(PATIENCE, || async { self.readiness.is_ready() }).await;
    }

    /// Waits until /readyz gives a reason with this in it.
    async fn until_missing(&self, reason: &str) {
        eventually(PATIENCE, || async {
            let missing = self.readiness.report().missing;
            missing
                .iter()
                .any(|missing| missing.reason.contains(reason))
        })
        .await;
    }
}

fn options() -> PoolOptions {
    PoolOptions {
        acquire_timeout: Duration::from_millis(500),
        ..PoolOptions::default()
    }
}

#[tokio::test]
async fn a_service_starts_without_its_database_and_gets_ready_when_it_comes() {
    let server = Postgres::start().await.unwrap();
    let database = server.create_database().await.unwrap();
    server.stop().await.unwrap();

    let pool = connect_lazy(&SecretString::from(database.url), "test", options()).unwrap();
    let readiness = Readiness::new();
    let stop = CancellationToken::new();
    let schema = Schema::default().with(TABLE);
    let keeper = tokio::spawn(keep(
        pool.clone(),
        schema,
        readiness.dependency("postgres"),
        stop.clone(),
    ));

    let error = sqlx::query("SELECT 1").execute(&pool).await.unwrap_err();
    assert!(is_unavailable(&error), "{error}");
    assert_eq!(Problem::from(error).status(), 503);
    assert!(!readiness.is_ready());

    server.resume().await.unwrap();
    eventually(PATIENCE, || async { readiness.is_ready() }).await;
    let insert = || sqlx::query("INSERT INTO greetings VALUES ('hello')").execute(&pool);
    insert().await.unwrap();
    let taken = insert().await.unwrap_err();
    assert!(chassis::postgres::is_unique_violation(
        &taken,
        "greetings_pkey"
    ));
    assert!(!chassis::postgres::is_unique_violation(&taken, "another"));
    assert_eq!(Problem::from(taken).status(), 500);

    server.kill().await.unwrap();
    eventually(PATIENCE, || async { !readiness.is_ready() }).await;
    server.resume().await.unwrap();
    eventually(PATIENCE, || async { readiness.is_ready() }).await;

    stop.cancel();
    keeper.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_schema_that_cant_work_ends_its_task_with_the_reason() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let pool = connect_lazy(&SecretString::from(database.url), "test", options()).unwrap();
    let dependency = Readiness::new().dependency("postgres");
    let schema = Schema::default().with("CREATE NONSENSE");
    let end = keep(pool, schema, dependency, CancellationToken::new()).await;
    assert!(end.unwrap_err().to_string().contains("NONSENSE"));
}

#[tokio::test]
async fn a_database_that_a_newer_version_has_migrated_is_taken_and_one_that_was_changed_is_not() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let pool = database.pool().await.unwrap();
    let newer = migrations(&[TABLE, "CREATE TABLE farewells (text text)"]);
    Schema::of(&newer).apply(&pool).await.unwrap();
    Schema::of(&migrations(&[TABLE]))
        .apply(&pool)
        .await
        .unwrap();
    let changed = migrations(&["CREATE TABLE greetings (id int)"]);
    let error = Schema::of(&changed).apply(&pool).await.unwrap_err();
    assert!(matches!(error, MigrateError::VersionMismatch(1)), "{error}");
}

#[tokio::test]
async fn a_migration_may_take_longer_than_a_statement() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let options = PoolOptions {
        statement_timeout: Duration::from_millis(50),
        ..options()
    };
    let slow = migrations(&["SELECT pg_sleep(0.5)"]);
    let kept = Kept::start(database.url, options, Schema::of(&slow).with(TABLE));
    kept.until_ready().await;
    let error = sqlx::query("SELECT pg_sleep(60)")
        .execute(&kept.pool)
        .await
        .unwrap_err();
    assert!(is_unavailable(&error), "{error}");
}

#[tokio::test]
async fn a_migration_that_failed_for_now_is_tried_again_and_leaves_no_lock() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let direct = database.pool().await.unwrap();
    let kept = Kept::start(
        database.url,
        options(),
        Schema::of(&migrations(&[PERMITTED])),
    );
    kept.until_missing("not yet").await;
    eventually(PATIENCE, || async {
        let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
             WHERE l.locktype = 'advisory' AND d.datname = current_database()";
        let locks: i64 = sqlx::query_scalar(locks).fetch_one(&direct).await.unwrap();
        locks == 0
    })
    .await;
    sqlx::query("CREATE TABLE permit ()")
        .execute(&direct)
        .await
        .unwrap();
    kept.until_ready().await;
}

#[tokio::test]
async fn a_database_that_is_not_made_yet_is_waited_for() {
    let server = Postgres::shared().await;
    let name = unique_name("late").replace('-', "_");
    let kept = Kept::start(server.url(&name), options(), Schema::default().with(TABLE));
    kept.until_missing("does not exist").await;
    let error = sqlx::query("SELECT 1")
        .execute(&kept.pool)
        .await
        .unwrap_err();
    assert_eq!(Problem::from(error).status(), 503);

    let beside = server.create_database().await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create)
        .execute(&beside.pool().await.unwrap())
        .await
        .unwrap();
    kept.until_ready().await;
}

#[tokio::test]
async fn a_standby_is_not_ready_until_it_is_promoted() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let direct = database.pool().await.unwrap();
    // A server that says of itself what the table says.
    let pretend = format!(
        "CREATE TABLE recovery (going_on bool);
         INSERT INTO recovery VALUES (true);
         CREATE FUNCTION public.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT going_on FROM public.recovery';
         ALTER DATABASE {} SET search_path = public, pg_catalog",
        database.name
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(pretend))
        .execute(&direct)
        .await
        .unwrap();
    let kept = Kept::start(database.url, options(), Schema::default().with(TABLE));
    kept.until_missing("standby").await;
    let promote = "UPDATE public.recovery SET going_on = false";
    sqlx::query(promote).execute(&direct).await.unwrap();
    kept.until_ready().await;
}

#[tokio::test]
async fn what_asks_before_the_tables_are_made_is_told_to_come_back() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let pool = database.pool().await.unwrap();
    let error = sqlx::query("SELECT text FROM greetings")
        .execute(&pool)
        .await
        .unwrap_err();
    assert_eq!(Problem::from(error).status(), 503);
    // A migration that does so is wrong for good.
    let schema = Schema::of(&migrations(&["ALTER TABLE greetings ADD COLUMN at date"]));
    let dependency = Readiness::new().dependency("postgres");
    let end = keep(pool, schema, dependency, CancellationToken::new()).await;
    assert!(end.unwrap_err().to_string().contains("greetings"));
}

#[tokio::test]
async fn replicas_that_start_at_once_take_turns() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let pool = database.pool().await.unwrap();
    let schemas: Vec<Schema> = (0..8).map(|_| Schema::default().with(TABLE)).collect();
    let applied = futures::future::join_all(schemas.iter().map(|schema| schema.apply(&pool))).await;
    assert!(applied.iter().all(Result::is_ok), "{applied:?}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_unavailable() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let options = PoolOptions {
        statement_timeout: Duration::from_millis(50),
        ..options()
    };
    let pool = connect_lazy(&SecretString::from(database.url), "test", options).unwrap();
    let error = sqlx::query("SELECT pg_sleep(60)")
        .execute(&pool)
        .await
        .unwrap_err();
    assert!(is_unavailable(&error), "{error}");
}

#[tokio::test]
async fn a_transaction_that_hangs_loses_its_locks() {
    let database = Postgres::shared().await.create_database().await.unwrap();
    let direct = database.pool().await.unwrap();
    sqlx::query("CREATE TABLE greetings AS SELECT 1 AS id")
        .execute(&direct)
        .await
        .unwrap();
    let options = PoolOptions {
        idle_in_transaction_timeout: Duration::from_millis(50),
        ..options()
    };
    let pool = connect_lazy(&SecretString::from(database.url), "test", options).unwrap();
    let locks = "SELECT id FROM greetings FOR UPDATE";
    let mut hanging = pool.begin().await.unwrap();
    sqlx::query(locks).execute(&mut *hanging).await.unwrap();
    let taken = timeout(PATIENCE, sqlx::query(locks).execute(&direct)).await;
    assert!(taken.is_ok_and(|taken| taken.is_ok()));
    let error = sqlx::query(locks).execute(&mut *hanging).await.unwrap_err();
    assert!(is_unavailable(&error), "{error}");
}

#[tokio::test]
async fn a_wrong_url_is_told_without_its_password() {
    for url in ["not a url", "mysql://root:hunter2@host/db"] {
        let Err(error) = connect_lazy(&SecretString::from(url), "test", options()) else {
            continue;
        };
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert!(connect_lazy(&SecretString::from("not a url"), "test", options()).is_err());
}
