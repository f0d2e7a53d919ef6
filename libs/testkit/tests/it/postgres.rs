use sqlx::Row as _;
use testkit::{Postgres, eventually};

use super::{PATIENCE, is_listening};

#[tokio::test]
async fn every_database_is_its_own() {
    let postgres = Postgres::shared().await;
    let (one, other) = (
        postgres.create_database().await.unwrap(),
        postgres.create_database().await.unwrap(),
    );
    assert_ne!(one.name, other.name);
    let pool = one.pool().await.unwrap();
    sqlx::query("CREATE TABLE t (n int)")
        .execute(&pool)
        .await
        .unwrap();
    let elsewhere = sqlx::query("SELECT 1 FROM t")
        .execute(&other.pool().await.unwrap())
        .await;
    assert!(elsewhere.is_err());
}

#[tokio::test]
async fn it_survives_a_restart_and_a_kill_with_its_data() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let pool = database.pool().await.unwrap();
    sqlx::query("CREATE TABLE t (n int)")
        .execute(&pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO t VALUES (1)")
        .execute(&pool)
        .await
        .unwrap();

    postgres.restart().await.unwrap();
    eventually(PATIENCE, || {
        sqlx::query("INSERT INTO t VALUES (2)").execute(&pool)
    })
    .await;

    postgres.kill().await.unwrap();
    assert!(!is_listening(postgres.port()).await);
    postgres.resume().await.unwrap();
    let row = eventually(PATIENCE, || {
        sqlx::query("SELECT sum(n) FROM t").fetch_one(&pool)
    })
    .await;
    assert_eq!(row.get::<i64, _>(0), 3);
}
