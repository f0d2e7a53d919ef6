use axum::{Router, body::Body, extract::FromRef, response::Redirect, routing::get as on_get};
use chassis::{
    auth::{AuthError, Caller, StaticKeys, Verifier},
    health::Readiness,
    problem::Problem,
    serve::Shutdown,
};
use http::{Request, header};
use serde_json::json;
use testkit::{JwksServer, TokenIssuer, eventually};
use uuid::Uuid;

use super::{Answer, PATIENCE, get, send, served};

#[derive(Clone, FromRef)]
struct AppState {
    verifier: Verifier,
}

async fn hosts_only(caller: Caller) -> Result<String, Problem> {
    caller.require_role("host")?;
    Ok(caller.user_id.to_string())
}

fn api(verifier: Verifier) -> Router {
    served(
        Router::new()
            .route(
                "/me",
                on_get(async |caller: Caller| caller.user_id.to_string()),
            )
            .route("/hosts", on_get(hosts_only))
            .route(
                "/maybe",
                on_get(async |caller: Option<Caller>| caller.is_some().to_string()),
            )
            .with_state(AppState { verifier }),
    )
}

fn fixed(issuer: &TokenIssuer) -> Verifier {
    let keys = StaticKeys::from_jwks_json(issuer.jwks().to_string().as_bytes()).unwrap();
    Verifier::from_static(keys, "quokka")
}

async fn get_as(api: &Router, path: &str, authorization: &str) -> Answer {
    let request = Request::get(path)
        .header(header::AUTHORIZATION, authorization)
        .body(Body::empty())
        .unwrap();
    send(api, request).await
}

#[tokio::test]
async fn the_bearer_of_a_good_token_is_known_again_and_again() {
    let (issuer, user) = (TokenIssuer::new(), Uuid::new_v4());
    let api = api(fixed(&issuer));
    let token = issuer.token(user);
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let answer = get_as(&api, "/me", &format!("{scheme} {token}")).await;
        assert_eq!(answer.body, user.to_string());
    }
    let other = StaticKeys::from_public_pem(issuer.kid(), issuer.public_pem().as_bytes()).unwrap();
    let caller = Verifier::from_static(other, "quokka")
        .verify(&token)
        .await
        .unwrap();
    assert_eq!(caller.user_id, user);
}

#[tokio::test]
async fn roles_decide_what_a_caller_may() {
    let (issuer, user) = (TokenIssuer::new(), Uuid::new_v4());
    let api = api(fixed(&issuer));
    let host = format!(
        "Bearer {}",
        issuer.token_with_roles(user, &["guest", "host"])
    );
    assert_eq!(get_as(&api, "/hosts", &host).await.status, 200);
    let guest = format!("Bearer {}", issuer.token_with_roles(user, &["guest"]));
    get_as(&api, "/hosts", &guest)
        .await
        .problem(403, "FORBIDDEN");
}

#[tokio::test]
async fn a_bad_token_is_401_with_a_challenge() {
    let (issuer, user) = (TokenIssuer::new(), Uuid::new_v4());
    let api = api(fixed(&issuer));
    let good = issuer.token(user);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = good.split_once('.').unwrap();
    let other_payload = issuer.token(Uuid::new_v4());
    let swapped = format!(
        "{head}.{}.{signature}",
        other_payload.split('.').nth(1).unwrap()
    );
    let bad = [
        String::new(),
        "nonsense".to_owned(),
        "a.b.c".to_owned(),
        format!("{signed}."),
        format!("{good}x"),
        swapped,
        // {"alg":"none","typ":"JWT"}
        format!(
            "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
            signed.split_once('.').unwrap().1
        ),
        "x".repeat(10_000),
        issuer.expired_token(user),
        issuer.token_with(user, json!({"iss": "somebody else"})),
        issuer.token_with(user, json!({"aud": "another-api"})),
        issuer.token_with(user, json!({"sub": "not a uuid"})),
        issuer.token_with(user, json!({"sub": null})),
        issuer.token_with(user, json!({"exp": null})),
        issuer.token_with(user, json!({"iss": null})),
        issuer.token_with(user, json!({"aud": null})),
        TokenIssuer::new().token(user),
    ];
    for token in bad {
        let answer = get_as(&api, "/me", &format!("Bearer {token}")).await;
        answer.problem(401, "UNAUTHENTICATED");
        let challenge = answer.headers[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        get_as(&api, "/maybe", &format!("Bearer {token}"))
            .await
            .problem(401, "UNAUTHENTICATED");
    }
    get(&api, "/me").await.problem(401, "UNAUTHENTICATED");
    get_as(&api, "/me", "Basic dXNlcjpwYXNz")
        .await
        .problem(401, "UNAUTHENTICATED");
    assert_eq!(get(&api, "/maybe").await.body, false);
}

#[tokio::test]
async fn a_remembered_token_expires_all_the_same() {
    let (issuer, user) = (TokenIssuer::new(), Uuid::new_v4());
    let verifier = fixed(&issuer);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = issuer.token_with(user, json!({"exp": now + 2}));
    assert_eq!(verifier.verify(&token).await.unwrap().user_id, user);
    eventually(PATIENCE, || async {
        verifier.verify(&token).await == Err(AuthError::Expired)
    })
    .await;
}

#[tokio::test]
async fn nothing_is_said_about_any_token_before_the_first_keys_are_here() {
    let issuer = TokenIssuer::new();
    let users = JwksServer::start(issuer.jwks()).await.unwrap();
    users.set_up(false);
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let verifier = Verifier::from_jwks_url(
        users.url().parse().unwrap(),
        "quokka",
        &readiness,
        &shutdown,
    );
    let api = api(verifier.clone());
    let bearer = format!("Bearer {}", issuer.token(Uuid::new_v4()));
    assert!(!readiness.is_ready());
    let answer = get_as(&api, "/me", &bearer).await;
    answer.problem(503, "UNAVAILABLE");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));

    users.set_up(true);
    eventually(PATIENCE, || async { readiness.is_ready() }).await;
    assert_eq!(get_as(&api, "/me", &bearer).await.status, 200);

    // The keys last fetched stay good while users is down.
    users.set_up(false);
    let another = format!("Bearer {}", issuer.token(Uuid::new_v4()));
    assert_eq!(get_as(&api, "/me", &another).await.status, 200);
    assert!(readiness.is_ready());
}

#[tokio::test]
async fn a_new_key_is_fetched_when_first_met_and_unknown_ones_not_for_ever() {
    let (old, new) = (TokenIssuer::new(), TokenIssuer::new());
    let users = JwksServer::start(old.jwks()).await.unwrap();
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let verifier = Verifier::from_jwks_url(
        users.url().parse().unwrap(),
        "quokka",
        &readiness,
        &shutdown,
    );
    eventually(PATIENCE, || async { readiness.is_ready() }).await;
    let old_token = old.token(Uuid::new_v4());
    verifier.verify(&old_token).await.unwrap();

    // `users` has turned to a new key and published the old one no longer.
    users.publish(new.jwks());
    let new_token = new.token(Uuid::new_v4());
    eventually(PATIENCE, || verifier.verify(&new_token)).await;
    assert_eq!(
        verifier.verify(&old_token).await,
        Err(AuthError::Invalid),
        "remembered, but its key is gone"
    );

    let before = users.requests();
    for _ in 0..100 {
        let forged = TokenIssuer::new().token(Uuid::new_v4());
        assert_eq!(verifier.verify(&forged).await, Err(AuthError::Invalid));
    }
    assert!(
        users.requests() <= before + 2,
        "{} requests for 100 forged tokens",
        users.requests() - before
    );
}

#[tokio::test]
async fn keys_are_not_fetched_from_where_a_redirect_points() {
    let users = JwksServer::start(TokenIssuer::new().jwks()).await.unwrap();
    let target = users.url().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let redirect = Router::new().route(
        "/jwks.json",
        on_get(async move || Redirect::temporary(&target)),
    );
    tokio::spawn(async move { axum::serve(listener, redirect).await });
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let _verifier = Verifier::from_jwks_url(url.parse().unwrap(), "quokka", &readiness, &shutdown);
    eventually(PATIENCE, || async {
        let missing = readiness.report().missing;
        missing.iter().any(|missing| missing.reason.contains("307"))
    })
    .await;
    assert_eq!(users.requests(), 0);
}

#[tokio::test]
async fn a_key_that_cant_be_read_does_not_take_the_others_with_it() {
    let issuer = TokenIssuer::new();
    let set = json!({"keys": [
        {"kty": "of the future", "kid": "f"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "not base64!"},
        {"kid": "nothing else"},
        7,
        issuer.jwk(),
    ]});
    let keys = StaticKeys::from_jwks_json(set.to_string().as_bytes()).unwrap();
    let verifier = Verifier::from_static(keys, "quokka");
    let user = Uuid::new_v4();
    let caller = verifier.verify(&issuer.token(user)).await.unwrap();
    assert_eq!(caller.user_id, user);
}

#[test]
fn keys_of_other_kinds_are_not_ours() {
    let rsa =
        json!({"keys": [{"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB", "alg": "RS256"}]});
    assert!(StaticKeys::from_jwks_json(rsa.to_string().as_bytes()).is_err());
    assert!(StaticKeys::from_jwks_json(b"{}").is_err());
    assert!(StaticKeys::from_public_pem("k", b"-----BEGIN NOTHING-----").is_err());
}
