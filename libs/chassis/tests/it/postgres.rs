use std::time::Duration;

use chassis::{
    health::Readiness,
    postgres::{PoolOptions, Schema, connect_lazy, is_unavailable, keep},
    problem::Problem,
};
use secrecy::SecretString;
use testkit::{Postgres, eventually};
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS greetings (text text PRIMARY KEY)";

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
async fn a_wrong_url_is_told_without_its_password() {
    for url in ["not a url", "mysql://root:hunter2@host/db"] {
        let Err(error) = connect_lazy(&SecretString::from(url), "test", options()) else {
            continue;
        };
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert!(connect_lazy(&SecretString::from("not a url"), "test", options()).is_err());
}
