//! The API as guests see it.

use std::collections::{HashMap, HashSet};

use events::consumer::{BatchConsumer, Consumed, ConsumerSettings};
use events::{Record, SaleEvent};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use sale_stock::books::SaleDefinition;
use serde_json::json;
use testkit::{eventually, unique_name};
use uuid::Uuid;

use crate::platform::{PATIENCE, Platform, rows_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_is_claimed_recorded_and_listed() {
    let platform = Platform::start().await;
    let campaign = platform.campaign(5);
    platform.open(&campaign).await;
    let user = Uuid::new_v4();

    let first = platform.claim(&campaign, user).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(first.body["campaignId"], json!(campaign.name));
    assert_eq!(
        (&first.body["sequence"], &first.body["status"]),
        (&json!(1), &json!("ACCEPTED"))
    );
    assert!(
        first.body["claimedAt"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .is_ok()
    );
    assert_eq!(first.body.get("expiresAt"), None);

    let again = platform.claim(&campaign, user).await;
    assert_eq!(
        (again.status, again.claim_id()),
        (StatusCode::OK, first.claim_id())
    );

    let path = format!("/v1/claims/{}", first.claim_id());
    let recorded = eventually(PATIENCE, async || {
        let claim = platform.get(&path, user).await;
        match (claim.status, claim.body["status"].as_str()) {
            (StatusCode::OK, Some("ISSUED")) => Ok(claim.body),
            // The ledger has not read it yet: it is a claim from the yes on.
            (StatusCode::OK, Some("ACCEPTED")) => Err(claim),
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(recorded["campaignId"], json!(campaign.name));
    assert_eq!(
        platform.get(&path, Uuid::new_v4()).await.code(),
        "CLAIM_NOT_FOUND"
    );

    let coupons = platform.get("/v1/coupons", user).await;
    let coupon = &coupons.body["items"][0];
    assert_eq!(
        (&coupon["couponId"], &coupon["status"]),
        (&first.body["claimId"], &json!("ISSUED"))
    );
    assert_eq!(
        coupon["discount"],
        json!({"percent": 10, "maxAmount": 20_000})
    );
    assert_eq!(
        platform.get("/v1/coupons", Uuid::new_v4()).await.body["items"],
        json!([])
    );
    assert_eq!(rows_of(&platform.pool().await, campaign.uid).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_sale_claim_is_given_back_once_and_sold_again() {
    let platform = Platform::start().await;
    let sale = platform.time_sale(1);
    platform.open(&sale).await;
    let (user, other) = (Uuid::new_v4(), Uuid::new_v4());

    let claim = platform.claim(&sale, user).await;
    assert_eq!(
        (claim.status, &claim.body["timeSaleId"]),
        (StatusCode::CREATED, &json!(sale.name))
    );
    let at = |name: &str| {
        claim.body[name]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
    };
    assert_eq!(
        at("expiresAt").duration_since(at("claimedAt")),
        SignedDuration::from_mins(10)
    );
    let sold_out = platform.claim(&sale, other).await;
    assert_eq!(
        (sold_out.status, sold_out.code()),
        (StatusCode::CONFLICT, "SOLD_OUT")
    );

    let stranger = platform.give_back(&sale, claim.claim_id(), other).await;
    assert_eq!(
        (stranger.status, stranger.code()),
        (StatusCode::NOT_FOUND, "CLAIM_NOT_FOUND")
    );
    for _ in 0..2 {
        let back = platform.give_back(&sale, claim.claim_id(), user).await;
        assert_eq!(back.status, StatusCode::NO_CONTENT, "{back:?}");
    }
    let next = eventually(PATIENCE, async || {
        let next = platform.claim(&sale, other).await;
        if next.status == StatusCode::CREATED {
            Ok(next)
        } else {
            Err(next)
        }
    })
    .await;
    assert_ne!(next.claim_id(), claim.claim_id());
    let ended = platform
        .get(&format!("/v1/claims/{}", claim.claim_id()), user)
        .await;
    assert_eq!(ended.body["status"], json!("RETURNED"));
    // Late and repeated: the next holder keeps the unit.
    assert_eq!(
        platform
            .give_back(&sale, claim.claim_id(), user)
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    let kept = platform.claim(&sale, other).await;
    assert_eq!(
        (kept.status, kept.claim_id()),
        (StatusCode::OK, next.claim_id())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_shows_its_terms_and_what_is_left() {
    let platform = Platform::start().await;
    let sale = platform.time_sale(7);
    platform.open(&sale).await;
    platform.claim(&sale, Uuid::new_v4()).await;
    let path = platform.path_of(&sale);
    let shown = eventually(PATIENCE, async || {
        let shown = platform.get(&path, Uuid::new_v4()).await.body;
        if shown["stock"] == json!({"total": 7, "remaining": 6}) {
            Ok(shown)
        } else {
            Err(shown)
        }
    })
    .await;
    assert_eq!(shown["id"], json!(sale.name));
    assert_eq!(shown["target"], json!({"regions": ["jeju"]}));
    let listed = platform.get("/v1/time-sales", Uuid::new_v4()).await.body;
    assert_eq!(listed["items"][0]["id"], json!(sale.name));
    assert_eq!(
        platform
            .get("/v1/coupon-campaigns", Uuid::new_v4())
            .await
            .body["items"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaigns_are_listed_page_by_page() {
    let platform = Platform::start().await;
    let mut names = HashSet::new();
    for _ in 0..3 {
        let campaign = platform.campaign(1);
        platform.open(&campaign).await;
        names.insert(campaign.name);
    }
    let (mut seen, mut pages, mut token) = (HashSet::new(), 0, String::new());
    loop {
        let path = format!("/v1/coupon-campaigns?pageSize=2{token}");
        let page = platform.get(&path, Uuid::new_v4()).await.body;
        for item in page["items"].as_array().unwrap() {
            assert!(seen.insert(item["id"].as_str().unwrap().to_owned()));
        }
        pages += 1;
        match page["nextPageToken"].as_str() {
            Some(next) => token = format!("&pageToken={next}"),
            None => break,
        }
    }
    assert_eq!((seen, pages), (names, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_the_window_and_while_paused_nothing_is_sold() {
    let platform = Platform::start().await;
    let now = Timestamp::now();
    let hour = SignedDuration::from_hours(1);
    let cases = [
        (
            "NOT_STARTED",
            SaleDefinition {
                starts: now + hour,
                ends: now + hour + hour,
                ..platform.campaign(5)
            },
        ),
        (
            "ENDED",
            SaleDefinition {
                starts: now - hour - hour,
                ends: now - hour,
                ..platform.campaign(5)
            },
        ),
        (
            "PAUSED",
            SaleDefinition {
                paused: true,
                ..platform.campaign(5)
            },
        ),
    ];
    for (code, campaign) in cases {
        platform.open(&campaign).await;
        let refused = platform.claim(&campaign, Uuid::new_v4()).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::CONFLICT, code),
            "{refused:?}"
        );
        assert_eq!(rows_of(&platform.pool().await, campaign.uid).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_can_not_be_taken_is_a_problem() {
    let platform = Platform::start().await;
    let campaign = platform.campaign(5);
    platform.open(&campaign).await;
    let user = Uuid::new_v4();
    let token = platform.issuer.token(user);
    let path = format!("{}/claims", platform.path_of(&campaign));
    let post = || platform.request(Method::POST, &path).bearer_auth(&token);
    let get = |path: &str| platform.request(Method::GET, path).bearer_auth(&token);

    let unknown = unique_name("nothing");
    let other_kind = format!("/v1/time-sales/{}/claims", campaign.name);
    let cases = [
        (
            platform.request(Method::POST, &path),
            401,
            "UNAUTHENTICATED",
        ),
        (
            platform
                .request(Method::POST, &path)
                .bearer_auth("no.such.token"),
            401,
            "UNAUTHENTICATED",
        ),
        (
            platform
                .request(Method::POST, &path)
                .bearer_auth(platform.issuer.expired_token(user)),
            401,
            "UNAUTHENTICATED",
        ),
        (
            platform
                .request(Method::POST, &other_kind)
                .bearer_auth(&token),
            404,
            "SALE_NOT_FOUND",
        ),
        (
            get(&format!("/v1/coupon-campaigns/{unknown}")),
            404,
            "SALE_NOT_FOUND",
        ),
        (get("/v1/claims/not-an-id"), 400, "INVALID_REQUEST"),
        (
            get(&format!("/v1/claims/{}", Uuid::now_v7())),
            404,
            "CLAIM_NOT_FOUND",
        ),
        (get("/v1/coupons?pageSize=0"), 400, "INVALID_REQUEST"),
        (get("/v1/coupons?pageToken=zzz"), 400, "INVALID_REQUEST"),
        (get("/v1/coupons?colour=red"), 400, "INVALID_REQUEST"),
        (post().json(&json!({"quantity": 2})), 400, "INVALID_REQUEST"),
        (post().body("{"), 400, "INVALID_REQUEST"),
        (
            post().header("Idempotency-Key", "k".repeat(256)),
            400,
            "IDEMPOTENCY_KEY_INVALID",
        ),
        (post().body(vec![b' '; 100_000]), 413, "PAYLOAD_TOO_LARGE"),
        (
            platform.request(Method::PUT, &path).bearer_auth(&token),
            405,
            "METHOD_NOT_ALLOWED",
        ),
        (get("/v1/nothing"), 404, "NOT_FOUND"),
        (get("/v1/noop"), 404, "NOT_FOUND"),
    ];
    for (request, status, code) in cases {
        let answer = platform.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{answer:?}"
        );
        assert_eq!(answer.body["status"], json!(status));
    }
    assert_eq!(rows_of(&platform.pool().await, campaign.uid).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_tell_a_users_claims_apart_where_the_limit_allows_several() {
    let platform = Platform::start().await;
    let campaign = SaleDefinition {
        per_user_limit: 2,
        ..platform.campaign(10)
    };
    platform.open(&campaign).await;
    let token = platform.issuer.token(Uuid::new_v4());
    let path = format!("{}/claims", platform.path_of(&campaign));
    let claim = async |key: &str| {
        platform
            .send(
                platform
                    .request(Method::POST, &path)
                    .bearer_auth(&token)
                    .header("Idempotency-Key", key),
            )
            .await
    };
    let (one, two) = (claim("one").await, claim("two").await);
    assert_eq!(
        (one.status, two.status),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    assert_ne!(one.claim_id(), two.claim_id());
    let again = claim("\"one\"").await;
    assert_eq!(
        (again.status, again.claim_id()),
        (StatusCode::OK, one.claim_id())
    );
    let full = claim("three").await;
    assert_eq!(
        (full.status, full.claim_id()),
        (StatusCode::OK, two.claim_id())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_sells_each_unit_once_and_each_yes_is_in_the_ledger() {
    const STOCK: usize = 40;
    const USERS: usize = 120;
    let platform = std::sync::Arc::new(Platform::start().await);
    let campaign = platform.campaign(u32::try_from(STOCK).unwrap());
    platform.open(&campaign).await;
    let mut calls = tokio::task::JoinSet::new();
    let users: Vec<Uuid> = (0..USERS).map(|_| Uuid::new_v4()).collect();
    for user in users.iter().cycle().take(USERS * 4).copied() {
        let (platform, campaign) = (std::sync::Arc::clone(&platform), campaign.clone());
        calls.spawn(async move { (user, platform.claim(&campaign, user).await) });
    }
    let mut claims: HashMap<Uuid, HashSet<String>> = HashMap::new();
    let mut created = 0;
    for (user, answer) in calls.join_all().await {
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => {
                created += usize::from(answer.status == StatusCode::CREATED);
                claims
                    .entry(user)
                    .or_default()
                    .insert(answer.claim_id().to_owned());
            }
            _ => assert_eq!(answer.code(), "SOLD_OUT", "{answer:?}"),
        }
    }
    assert_eq!((created, claims.len()), (STOCK, STOCK));
    assert!(
        claims.values().all(|of_user| of_user.len() == 1),
        "{claims:?}"
    );

    let pool = platform.pool().await;
    eventually(PATIENCE, async || {
        rows_of(&pool, campaign.uid).await == STOCK as i64
    })
    .await;
    let rows: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT user_id, claim_id FROM claims WHERE sale_uid = $1")
            .bind(campaign.uid.0)
            .fetch_all(&pool)
            .await
            .unwrap();
    for (user, claim) in rows {
        assert!(claims[&user].contains(&claim.to_string()));
    }
    eventually(PATIENCE, async || {
        let books = platform.books(campaign.uid).await.unwrap();
        books.unsettled == 0 && books.lag == Some(0)
    })
    .await;
    let metrics = platform.metrics().await;
    let accepted = format!(
        "quokka_claims_total{{kind=\"COUPON_CAMPAIGN\",outcome=\"accepted\",sale=\"{}\"}} {STOCK}",
        campaign.name
    );
    assert!(metrics.contains(&accepted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claims_record_carries_the_trace_of_its_request() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let platform = Platform::start().await;
    let campaign = platform.campaign(1);
    platform.open(&campaign).await;
    let path = format!("{}/claims", platform.path_of(&campaign));
    let request = platform
        .request(Method::POST, &path)
        .bearer_auth(platform.issuer.token(Uuid::new_v4()))
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(platform.send(request).await.status, StatusCode::CREATED);

    let settings = ConsumerSettings::new(&platform.stores.brokers, unique_name("group"), "test");
    let consumer = BatchConsumer::new(&settings).unwrap();
    consumer.subscribe(&[&campaign.topic]).unwrap();
    let trace = eventually(PATIENCE, async || {
        let batches = consumer
            .next_batch(100, 1 << 20, PATIENCE)
            .await
            .unwrap_or_default();
        let records = batches.into_iter().flat_map(|batch| batch.records);
        let claims = |record: &Consumed| {
            matches!(
                Record::decode(&record.value).unwrap().event,
                SaleEvent::Claims { .. }
            )
        };
        records.filter(claims).find_map(|record| record.trace)
    })
    .await;
    assert_eq!(trace.span_context().trace_id().to_string(), TRACE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_wrong_settings_names_every_mistake() {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_promotions"))
        .arg("api")
        .env_clear()
        .env("QUOKKA_REDIS_URL", "http://wrong")
        .env("QUOKKA_SHUTDOWN_GRACE", "soon")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for name in [
        "QUOKKA_DATABASE_URL",
        "QUOKKA_REDIS_URL",
        "QUOKKA_KAFKA_BROKERS",
        "QUOKKA_JWKS_URL",
        "QUOKKA_SHUTDOWN_GRACE",
    ] {
        assert!(said.contains(name), "{name} is not named in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_made_again_under_the_same_name_counts_from_the_start() {
    let platform = Platform::start().await;
    let first = platform.campaign(5);
    platform.open(&first).await;
    for _ in 0..3 {
        platform.claim(&first, Uuid::new_v4()).await;
    }
    let second = SaleDefinition {
        name: first.name.clone(),
        ..platform.campaign(5)
    };
    // Between two of the API's readings: it sees one go and the other come at once.
    let mut swap = platform.pool().await.begin().await.unwrap();
    sqlx::query("UPDATE sales SET removed_at = now() WHERE uid = $1")
        .bind(first.uid.0)
        .execute(&mut *swap)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO sales (uid, name, kind, definition, generation, stock, slots, coupon_valid_ms, topic, partitions)
        SELECT $2, name, kind, jsonb_set(jsonb_set(definition, '{uid}', to_jsonb($2::text)), '{topic}', to_jsonb($3)),
            1, stock, slots, coupon_valid_ms, $3, partitions
        FROM sales WHERE uid = $1",
    )
    .bind(first.uid.0)
    .bind(second.uid.0)
    .bind(&second.topic)
    .execute(&mut *swap)
    .await
    .unwrap();
    platform.create_topic(&second.topic).await;
    swap.commit().await.unwrap();
    platform.wait_open(&second).await;
    eventually(PATIENCE, async || {
        platform.claim(&second, Uuid::new_v4()).await.status == StatusCode::CREATED
    })
    .await;
    let accepted = format!(
        "quokka_claims_total{{kind=\"COUPON_CAMPAIGN\",outcome=\"accepted\",sale=\"{}\"}} 1\n",
        first.name
    );
    // The series is there, and has not gone with the first sale's.
    let metrics = platform.metrics().await;
    assert!(metrics.contains(&accepted), "{metrics}");
}
