use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes},
    response::{IntoResponse, Response},
    routing::post as on_post,
};
use chassis::{
    auth::{StaticKeys, Verifier},
    http::HttpOptions,
    idempotency::{Idempotency, MIGRATION},
    postgres::Schema,
    problem::Problem,
    serve::Shutdown,
};
use http::{Method, Request, StatusCode, header};
use sqlx::PgPool;
use testkit::{Postgres, TokenIssuer, eventually};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Answer, PATIENCE, json, send, served};

/// An API that counts how often its handlers run.
struct Fixture {
    api: Router,
    pool: PgPool,
    issuer: TokenIssuer,
    created: Arc<AtomicUsize>,
    /// Lets one waiting handler go on.
    go: Arc<Notify>,
}

impl Fixture {
    async fn new() -> Self {
        let pool = Postgres::shared()
            .await
            .create_database()
            .await
            .unwrap()
            .pool()
            .await
            .unwrap();
        let schema = Schema::default().with(MIGRATION);
        schema.apply(&pool).await.unwrap();
        schema.apply(&pool).await.unwrap();
        let issuer = TokenIssuer::new();
        let keys = StaticKeys::from_jwks_json(issuer.jwks().to_string().as_bytes()).unwrap();
        let verifier = Verifier::from_static(keys, "quokka");
        let (created, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));

        let count = Arc::clone(&created);
        let create = async move |body: Bytes| created_answer(&count, &body);
        let (count, gate) = (Arc::clone(&created), Arc::clone(&go));
        let slow = async move |body: Bytes| {
            gate.notified().await;
            created_answer(&count, &body)
        };
        let count = Arc::clone(&created);
        let panic = async move || -> StatusCode {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose")
        };
        let idempotency = Idempotency::new(pool.clone(), &Shutdown::new());
        let routes = Router::new()
            .route("/things", on_post(create.clone()).get(async || "list"))
            .route("/shelves/{shelf}/things", on_post(create.clone()))
            .route("/slow", on_post(slow))
            .route("/panic", on_post(panic))
            .route_layer(idempotency.clone());
        let own = Router::new()
            .route("/own", on_post(create.clone()))
            .route_layer(idempotency.clone().scoped_to_caller(verifier));
        let strict = Router::new()
            .route("/strict", on_post(create))
            .route_layer(idempotency.required());
        Self {
            api: served(routes.merge(own).merge(strict)),
            pool,
            issuer,
            created,
            go,
        }
    }

    async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        send(&self.api, keyed(path, key, body)).await
    }

    fn created(&self) -> usize {
        self.created.load(Ordering::SeqCst)
    }

    async fn keys(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM idempotency_keys")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// Makes a thing, or refuses with the status that the body asks for.
fn created_answer(count: &AtomicUsize, body: &Bytes) -> Response {
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    let status = std::str::from_utf8(body)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(StatusCode::CREATED);
    (
        status,
        [(header::LOCATION, format!("/things/{number}"))],
        format!("{{\"number\":{number}}}"),
    )
        .into_response()
}

fn keyed(path: &str, key: &str, body: &str) -> Request<Body> {
    let mut request = json(Method::POST, path, body);
    request
        .headers_mut()
        .insert("idempotency-key", key.parse().unwrap());
    request
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_whole() {
    let fixture = Fixture::new().await;
    let first = fixture.post("/things", "k", "{}").await;
    assert_eq!(
        (first.status.as_u16(), first.body["number"].as_u64()),
        (201, Some(1))
    );
    for key in ["k", "\"k\""] {
        let again = fixture.post("/things", key, "{}").await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.headers[header::LOCATION], "/things/1");
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(fixture.created(), 1);
}

#[tokio::test]
async fn the_same_key_with_another_request_is_422() {
    let fixture = Fixture::new().await;
    fixture.post("/shelves/a/things", "k", "{}").await;
    fixture
        .post("/shelves/a/things", "k", r#"{"other":1}"#)
        .await
        .problem(422, "IDEMPOTENCY_KEY_REUSED");
    fixture
        .post("/shelves/b/things", "k", "{}")
        .await
        .problem(422, "IDEMPOTENCY_KEY_REUSED");
    fixture
        .post("/shelves/a/things?x=1", "k", "{}")
        .await
        .problem(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(fixture.created(), 1);
    assert_eq!(
        fixture.post("/things", "k", "{}").await.status,
        201,
        "another route is another scope"
    );
}

#[tokio::test]
async fn two_callers_never_share_a_key() {
    let fixture = Fixture::new().await;
    let (ada, bob) = (
        fixture.issuer.token(Uuid::new_v4()),
        fixture.issuer.token(Uuid::new_v4()),
    );
    for (token, number) in [(&ada, 1), (&bob, 2), (&ada, 1), (&bob, 2)] {
        let mut request = keyed("/own", "k", "{}");
        request.headers_mut().insert(
            header::AUTHORIZATION,
            format!("Bearer {token}").parse().unwrap(),
        );
        assert_eq!(send(&fixture.api, request).await.body["number"], number);
    }
    // Without a token it is the handler's to refuse; nothing is kept.
    fixture.post("/own", "k", "{}").await;
    assert_eq!(fixture.keys().await, 2);
}

#[tokio::test]
async fn refusals_are_not_kept() {
    let fixture = Fixture::new().await;
    for status in ["400", "401", "404", "409", "422", "500", "503"] {
        for _ in 0..2 {
            let answer = fixture.post("/things", "k", status).await;
            assert_eq!(answer.status.as_str(), status);
        }
    }
    assert_eq!((fixture.created(), fixture.keys().await), (14, 0));
    assert_eq!(fixture.post("/things", "k", "{}").await.status, 201);
}

#[tokio::test]
async fn a_panic_gives_the_key_back() {
    let fixture = Fixture::new().await;
    for _ in 0..2 {
        fixture
            .post("/panic", "k", "{}")
            .await
            .problem(500, "INTERNAL");
    }
    assert_eq!((fixture.created(), fixture.keys().await), (2, 0));
}

#[tokio::test]
async fn a_key_in_flight_is_409_and_then_answered() {
    let fixture = Fixture::new().await;
    let api = fixture.api.clone();
    let first = tokio::spawn(async move { send(&api, keyed("/slow", "k", "{}")).await });
    eventually(PATIENCE, || async { fixture.keys().await == 1 }).await;
    let second = fixture.post("/slow", "k", "{}").await;
    second.problem(409, "IDEMPOTENCY_IN_FLIGHT");
    assert!(second.headers.contains_key(header::RETRY_AFTER));
    fixture.go.notify_one();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(
        fixture.post("/slow", "k", "{}").await.headers["idempotency-replayed"],
        "true"
    );
    assert_eq!(fixture.created(), 1);
}

#[tokio::test]
async fn a_caller_that_went_away_finds_the_answer_later() {
    let fixture = Fixture::new().await;
    let api = fixture.api.clone();
    let gone = tokio::spawn(async move { send(&api, keyed("/slow", "k", "{}")).await });
    eventually(PATIENCE, || async { fixture.keys().await == 1 }).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    fixture.go.notify_one();
    let later = eventually(PATIENCE, || async {
        let answer = fixture.post("/slow", "k", "{}").await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    assert_eq!(later.body["number"], 1);
    assert_eq!(fixture.created(), 1);
}

#[tokio::test]
async fn the_lease_of_a_dead_owner_ends() {
    let fixture = Fixture::new().await;
    fixture.post("/things", "k", "{}").await;
    // As a process leaves it that died between the note and the answer.
    let die = "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL, leased_until = now() + interval '1 hour'";
    sqlx::query(die).execute(&fixture.pool).await.unwrap();
    fixture
        .post("/things", "k", "{}")
        .await
        .problem(409, "IDEMPOTENCY_IN_FLIGHT");
    sqlx::query("UPDATE idempotency_keys SET leased_until = now() - interval '1 ms'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    fixture
        .post("/things", "k", r#"{"other":1}"#)
        .await
        .problem(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(fixture.post("/things", "k", "{}").await.body["number"], 2);
    assert_eq!(
        fixture.post("/things", "k", "{}").await.body["number"],
        2,
        "the second owner's answer is kept"
    );
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let fixture = Fixture::new().await;
    fixture.post("/things", "k", "{}").await;
    let age = |hours: i32| {
        sqlx::query("UPDATE idempotency_keys SET created_at = now() - make_interval(hours => $1)")
            .bind(hours)
    };
    age(23).execute(&fixture.pool).await.unwrap();
    assert_eq!(fixture.post("/things", "k", "{}").await.body["number"], 1);
    age(25).execute(&fixture.pool).await.unwrap();
    assert_eq!(
        fixture.post("/things", "k", r#"{"other":1}"#).await.body["number"],
        2
    );
}

#[tokio::test]
async fn of_many_at_once_one_runs() {
    let fixture = Fixture::new().await;
    let answers =
        futures::future::join_all((0..20).map(|_| fixture.post("/things", "k", "{}"))).await;
    assert_eq!(fixture.created(), 1);
    for answer in answers {
        if answer.status != 201 {
            answer.problem(409, "IDEMPOTENCY_IN_FLIGHT");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_missing_or_malformed_is_told() {
    let fixture = Fixture::new().await;
    let bare = json(Method::POST, "/strict", "{}");
    send(&fixture.api, bare)
        .await
        .problem(400, "IDEMPOTENCY_KEY_MISSING");
    fixture
        .post("/strict", &"k".repeat(256), "{}")
        .await
        .problem(400, "IDEMPOTENCY_KEY_INVALID");
    assert_eq!(
        fixture.post("/strict", &"k".repeat(255), "{}").await.status,
        201
    );
    assert_eq!(
        send(&fixture.api, json(Method::POST, "/things", "{}"))
            .await
            .status,
        201,
        "optional elsewhere"
    );
    assert_eq!(super::get(&fixture.api, "/things").await.status, 200);
    let large = "x".repeat(HttpOptions::default().body_limit_bytes + 1);
    fixture
        .post("/things", "large", &large)
        .await
        .problem(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn without_the_database_nothing_is_begun() {
    let server = Postgres::start().await.unwrap();
    let pool = server
        .create_database()
        .await
        .unwrap()
        .pool()
        .await
        .unwrap();
    Schema::default()
        .with(MIGRATION)
        .apply(&pool)
        .await
        .unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let handler = async move || -> Result<(), Problem> {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let options =
        sqlx::postgres::PgPoolOptions::new().acquire_timeout(std::time::Duration::from_millis(300));
    let lazy = options.connect_lazy_with((*pool.connect_options()).clone());
    let layer = Idempotency::new(lazy, &Shutdown::new());
    let api = served(
        Router::new()
            .route("/things", on_post(handler))
            .route_layer(layer),
    );
    server.stop().await.unwrap();
    send(&api, keyed("/things", "k", "{}"))
        .await
        .problem(503, "UNAVAILABLE");
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}
