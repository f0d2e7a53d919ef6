//! Stores that go away and come back, and a process that is told to end.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::StatusCode;
use testkit::{Kafka, Postgres, Redis, eventually};
use uuid::Uuid;

use crate::platform::{Answer, PATIENCE, Platform, Stores, rows_of};

/// 503 with `Retry-After` and one of these codes.
fn assert_come_back(answer: &Answer, codes: &[&str]) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(codes.contains(&answer.code()), "{answer:?}");
    assert!(answer.retry_after.is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_kafka_hung_nobody_is_told_yes_and_asking_again_tells() {
    let kafka = Kafka::start().await.unwrap();
    let stores = Stores {
        brokers: kafka.brokers(),
        ..Stores::shared().await
    };
    let platform = Platform::on(stores).await;
    let campaign = platform.campaign(5);
    platform.open(&campaign).await;
    let user = Uuid::new_v4();
    kafka.freeze().unwrap();
    assert_come_back(&platform.claim(&campaign, user).await, &["CLAIM_UNKNOWN"]);
    kafka.thaw().unwrap();
    let yes = eventually(PATIENCE, async || {
        let answer = platform.claim(&campaign, user).await;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
    .await;
    let pool = platform.pool().await;
    eventually(PATIENCE, async || rows_of(&pool, campaign.uid).await == 1).await;
    let again = platform.claim(&campaign, user).await;
    assert_eq!(again.claim_id(), yes.claim_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_redis_is_rebuilt_and_no_yes_is_forgotten() {
    let redis = Redis::start().await.unwrap();
    let stores = Stores {
        redis_url: redis.url(),
        ..Stores::shared().await
    };
    let platform = Platform::on(stores).await;
    let campaign = platform.campaign(2);
    platform.open(&campaign).await;
    eventually(PATIENCE, async || platform.is_ready().await).await;
    let user = Uuid::new_v4();
    let first = platform.claim(&campaign, user).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");

    redis.kill().await.unwrap();
    assert_come_back(
        &platform.claim(&campaign, user).await,
        &["UNAVAILABLE", "CLAIM_UNKNOWN"],
    );
    eventually(PATIENCE, async || !platform.is_ready().await).await;
    redis.resume().await.unwrap();
    let again = eventually(PATIENCE, async || {
        let answer = platform.claim(&campaign, user).await;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            assert_come_back(&answer, &["UNAVAILABLE", "CLAIM_UNKNOWN", "RECOVERING"]);
            Err(answer)
        }
    })
    .await;
    assert_eq!(
        (again.status, again.claim_id()),
        (StatusCode::OK, first.claim_id())
    );
    assert_eq!(
        platform.claim(&campaign, Uuid::new_v4()).await.status,
        StatusCode::CREATED
    );
    assert_eq!(
        platform.claim(&campaign, Uuid::new_v4()).await.code(),
        "SOLD_OUT"
    );
    eventually(PATIENCE, async || platform.is_ready().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_go_on_without_postgresql() {
    let postgres = Postgres::start().await.unwrap();
    let stores = Stores {
        database: postgres.create_database().await.unwrap(),
        ..Stores::shared().await
    };
    let platform = Platform::on(stores).await;
    let campaign = platform.campaign(5);
    platform.open(&campaign).await;
    postgres.stop().await.unwrap();
    let user = Uuid::new_v4();
    let claim = platform.claim(&campaign, user).await;
    assert_eq!(claim.status, StatusCode::CREATED, "{claim:?}");
    assert_come_back(&platform.get("/v1/coupons", user).await, &["UNAVAILABLE"]);
    postgres.resume().await.unwrap();
    let pool = platform.pool().await;
    eventually(PATIENCE, async || rows_of(&pool, campaign.uid).await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_everything_away_at_the_start_the_process_waits_and_works() {
    let redis = Redis::start().await.unwrap();
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let kafka = Kafka::start().await.unwrap();
    redis.kill().await.unwrap();
    postgres.stop().await.unwrap();
    kafka.stop().await.unwrap();
    let stores = Stores {
        redis_url: redis.url(),
        brokers: kafka.brokers(),
        database,
    };
    let platform = Platform::on(stores).await;
    let campaign = platform.campaign(5);
    assert_come_back(
        &platform.claim(&campaign, Uuid::new_v4()).await,
        &["UNAVAILABLE"],
    );
    assert!(!platform.is_ready().await);

    redis.resume().await.unwrap();
    postgres.resume().await.unwrap();
    kafka.resume().await.unwrap();
    platform.open(&campaign).await;
    eventually(PATIENCE, async || platform.is_ready().await).await;
    assert_eq!(
        platform.claim(&campaign, Uuid::new_v4()).await.status,
        StatusCode::CREATED
    );
}

/// A second API process beside the platform's own, ended by SIGTERM while it is busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_told_to_end_loses_nothing_it_said_yes_to() {
    let platform = Arc::new(Platform::start().await);
    let campaign = platform.campaign(100_000);
    platform.open(&campaign).await;
    let (http, ops) = (testkit::free_port(), testkit::free_port());
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_promotions"))
        .arg("api")
        .env_clear()
        .env("QUOKKA_HTTP_ADDR", format!("127.0.0.1:{http}"))
        .env("QUOKKA_OPS_ADDR", format!("127.0.0.1:{ops}"))
        .env("QUOKKA_DATABASE_URL", &platform.stores.database.url)
        .env("QUOKKA_REDIS_URL", &platform.stores.redis_url)
        .env("QUOKKA_KAFKA_BROKERS", &platform.stores.brokers)
        .env("QUOKKA_JWKS_URL", platform.jwks.url())
        .env("QUOKKA_LOG", "warn")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ready = format!("http://127.0.0.1:{ops}/readyz");
    eventually(PATIENCE, async || {
        let answer = platform.client.get(&ready).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;

    let ended = Arc::new(AtomicBool::new(false));
    let url = format!(
        "http://127.0.0.1:{http}{}/claims",
        platform.path_of(&campaign)
    );
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (platform, url, ended) = (Arc::clone(&platform), url.clone(), Arc::clone(&ended));
        callers.spawn(async move {
            let mut yes = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let token = platform.issuer.token(Uuid::new_v4());
                let Ok(answer) = platform.client.post(&url).bearer_auth(token).send().await else {
                    continue;
                };
                if answer.status() == StatusCode::CREATED {
                    let body: serde_json::Value = answer.json().await.unwrap();
                    yes.push(body["claimId"].as_str().unwrap().parse::<Uuid>().unwrap());
                }
            }
            yes
        });
    }
    let pool = platform.pool().await;
    eventually(PATIENCE, async || rows_of(&pool, campaign.uid).await > 50).await;
    let pid = child.id().unwrap().to_string();
    let told = tokio::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert!(told.success());
    let status = child.wait().await.unwrap();
    ended.store(true, Ordering::Relaxed);
    assert_eq!(status.code(), Some(0));

    let yes: Vec<Uuid> = callers.join_all().await.into_iter().flatten().collect();
    let missing = async || {
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM unnest($1::uuid[]) AS y(id) WHERE id NOT IN (SELECT claim_id FROM claims)",
        )
        .bind(&yes)
        .fetch_one(&pool)
        .await
        .unwrap()
    };
    eventually(PATIENCE, async || missing().await == 0).await;
}
