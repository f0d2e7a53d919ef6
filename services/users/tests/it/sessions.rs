//! POST and DELETE /v1/sessions

use futures::future::join_all;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::process::PATIENCE;
use crate::service::{Answer, Service, problem};

const WRONG: (&str, &str) = (
    "INVALID_CREDENTIALS",
    "The e-mail address or the password is wrong",
);

#[tokio::test]
async fn a_sign_in_gives_tokens_that_the_published_keys_prove() {
    let service = Service::start_with(&[
        ("QUOKKA_ACCESS_TOKEN_TTL", "10m"),
        ("QUOKKA_JWT_ISSUER", "quokka-test"),
    ])
    .await;
    let user_id = service.sign_up("kim@example.com", "correct horse").await;
    let before = jiff::Timestamp::now().as_second();
    let answer = service.sign_in("Kim@Example.com", "correct horse").await;
    let (access, refresh) = (answer.text("accessToken"), answer.text("refreshToken"));
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.body,
        json!({"accessToken": access, "refreshToken": refresh, "expiresIn": 600})
    );
    assert_eq!(answer.headers["cache-control"], "no-store");

    let jwks = service
        .send(service.request("GET", "/.well-known/jwks.json"))
        .await;
    let keys: JwkSet = serde_json::from_value(jwks.body).unwrap();
    let kid = jsonwebtoken::decode_header(&access).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&["quokka-test"]);
    validation.set_audience(&["quokka-api"]);
    let claims = jsonwebtoken::decode::<Value>(&access, &key, &validation)
        .unwrap()
        .claims;
    let issued = claims["iat"].as_i64().unwrap();
    assert!((before..=jiff::Timestamp::now().as_second()).contains(&issued));
    claims["jti"]
        .as_str()
        .unwrap()
        .parse::<uuid::Uuid>()
        .unwrap();
    assert_eq!(
        claims,
        json!({
            "iss": "quokka-test", "aud": "quokka-api", "sub": user_id, "roles": ["guest"], "iat": issued,
            "exp": issued + 600, "jti": claims["jti"],
        })
    );
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_answered_alike() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    for (email, password) in [
        ("kim@example.com", "correct hors"),
        ("kim@example.com", ""),
        ("lee@example.com", "correct horse"),
    ] {
        let answer = service.sign_in(email, password).await;
        answer.is_problem(401, WRONG.0, WRONG.1, "sign up first, or check both");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    assert_eq!(service.count("SELECT count(*) FROM sessions").await, 0);
}

#[tokio::test]
async fn what_can_not_be_a_sign_in_is_refused() {
    let service = Service::start().await;
    for (body, pointer) in [
        (
            json!({"email": "kim", "password": "correct horse"}),
            "#/email",
        ),
        (
            json!({"email": "kim@example.com", "password": "x".repeat(129)}),
            "#/password",
        ),
        (
            json!({"email": "kim@example.com", "password": 1}),
            "#/password",
        ),
        (
            json!({"email": "kim@example.com", "password": "correct horse", "remember": true}),
            "#/remember",
        ),
        (json!({"email": "kim@example.com"}), "#"),
        (json!({}), "#"),
    ] {
        let answer = service.post("/v1/sessions", &body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!("INVALID_REQUEST")),
            "{body}"
        );
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_for_the_account_and_for_no_other() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    service.sign_up("lee@example.com", "correct horse").await;
    // An address without an account is slowed down the same way, so that this can't tell them apart.
    for email in ["kim@example.com", "nobody@example.com"] {
        for guess in 0..10 {
            assert_eq!(
                service
                    .sign_in(email, &format!("guess {guess}"))
                    .await
                    .status,
                401,
                "{email} {guess}"
            );
        }
        let answer = service.sign_in(email, "correct horse").await;
        answer.is_problem(
            429,
            "TOO_MANY_WRONG_PASSWORDS",
            "Too many wrong passwords",
            "wait before the next try",
        );
        let wait: u64 = answer.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert_eq!(
        service
            .sign_in("lee@example.com", "correct horse")
            .await
            .status,
        201
    );
    let (_, metrics) = service.ops("/metrics").await;
    assert!(
        metrics.contains("\nquokka_users_sign_ins_slowed_total 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn who_guesses_at_an_account_from_elsewhere_does_not_keep_its_owner_out() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    let sign_in = |password: String, source: &'static str| {
        let request = service
            .request("POST", "/v1/sessions")
            .header("x-forwarded-for", source)
            .json(&json!({"email": "kim@example.com", "password": password}));
        service.send(request)
    };
    for guess in 0..10 {
        let answer = sign_in(format!("guess {guess}"), "198.51.100.7").await;
        assert_eq!(answer.status, 401, "{guess}: {answer:?}");
    }
    let right = || "correct horse".to_owned();
    assert_eq!(sign_in(right(), "198.51.100.7").await.status, 429);
    assert_eq!(sign_in(right(), "198.51.100.8").await.status, 201);
}

#[tokio::test]
async fn guesses_at_once_get_no_further_than_guesses_in_a_row() {
    let service = Service::start_with(&[("QUOKKA_HASHING_WORKERS", "2")]).await;
    service.sign_up("kim@example.com", "correct horse").await;
    let guesses: Vec<String> = (0..60).map(|guess| format!("guess {guess}")).collect();
    let answers = join_all(
        guesses
            .iter()
            .map(|guess| service.sign_in("kim@example.com", guess)),
    )
    .await;
    let looked_at = answers.iter().filter(|answer| answer.status == 401).count();
    // Ten in a row, and what the other worker had begun meanwhile.
    assert!((10..=11).contains(&looked_at), "{looked_at}");
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 401 || answer.status == 429),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_source_that_guesses_at_many_accounts_is_slowed_down_and_can_not_pretend_to_be_another() {
    let service = Service::start().await;
    let sign_in = |email: String, forwarded: &'static str| {
        let body = json!({"email": email, "password": "a guess"});
        let request = service
            .request("POST", "/v1/sessions")
            .header("x-forwarded-for", forwarded)
            .json(&body);
        service.send(request)
    };
    for guest in 0..200 {
        let answer = sign_in(format!("guest{guest}@example.com"), "198.51.100.7").await;
        assert!(answer.status == 401, "{guest}: {answer:?}");
    }
    // Two a second are forgiven meanwhile, so one try may pass; five in a row may not.
    let refused = async |forwarded| {
        for guest in 0..5 {
            if sign_in(format!("fresh{guest}@example.com"), forwarded)
                .await
                .status
                == 429
            {
                return true;
            }
        }
        false
    };
    testkit::eventually(PATIENCE, async || refused("198.51.100.7").await).await;
    assert!(
        refused("10.1.1.1, 198.51.100.7").await,
        "what the guest wrote itself is not believed"
    );
    assert!(!refused("198.51.100.8").await);
}

#[tokio::test]
async fn a_hash_of_other_parameters_is_renewed_at_sign_in() {
    let before = Service::start().await;
    before.sign_up("kim@example.com", "correct horse").await;
    let after = Service::on(
        &before.database_url,
        &[("QUOKKA_ARGON2_MEMORY_KIB", "2048")],
    )
    .await;
    let renewed =
        "SELECT count(*) FROM users WHERE password_hash LIKE '$argon2id$v=19$m=2048,t=1,p=1$%'";
    assert_eq!(
        after.sign_in("kim@example.com", "wrong horse").await.status,
        401
    );
    assert_eq!(after.count(renewed).await, 0);
    assert_eq!(
        after
            .sign_in("kim@example.com", "correct horse")
            .await
            .status,
        201
    );
    assert_eq!(after.count(renewed).await, 1);
    assert_eq!(
        after
            .sign_in("kim@example.com", "correct horse")
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn more_people_at_once_than_can_be_served_are_told_to_come_back_and_the_rest_is_served() {
    let slow = [
        ("QUOKKA_HASHING_WORKERS", "1"),
        ("QUOKKA_HASHING_QUEUE", "0"),
        ("QUOKKA_ARGON2_MEMORY_KIB", "65536"),
    ];
    let service = Service::start_with(&slow).await;
    let mut refused: Vec<Answer> = Vec::new();
    for round in 0..20 {
        let emails: Vec<String> = (0..8)
            .map(|guest| format!("guest{round}-{guest}@example.com"))
            .collect();
        let answers = join_all(
            emails
                .iter()
                .map(|email| service.sign_in(email, "correct horse")),
        )
        .await;
        assert!(
            answers.iter().any(|answer| answer.status == 401),
            "{answers:?}"
        );
        refused.extend(answers.into_iter().filter(|answer| answer.status != 401));
        if !refused.is_empty() {
            break;
        }
    }
    assert!(!refused.is_empty(), "nobody was turned away");
    for answer in refused {
        answer.is_problem(
            503,
            "OVERLOADED",
            "Too many requests at once",
            "too many people sign up or in right now",
        );
        assert_eq!(answer.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn signing_out_ends_every_session_of_the_caller_and_of_nobody_else() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    service.sign_up("lee@example.com", "correct horse").await;
    let phone = service.sign_in("kim@example.com", "correct horse").await;
    let laptop = service.sign_in("kim@example.com", "correct horse").await;
    let other = service.sign_in("lee@example.com", "correct horse").await;
    let delete =
        |token: String| service.send(service.request("DELETE", "/v1/sessions").bearer_auth(token));
    let answer = delete(phone.text("accessToken")).await;
    assert_eq!((answer.status, &answer.body), (204, &Value::Null));
    assert_eq!(
        delete(phone.text("accessToken")).await.status,
        204,
        "once more changes nothing"
    );
    assert_eq!(
        service.refresh(&phone.text("refreshToken")).await.status,
        401
    );
    assert_eq!(
        service.refresh(&laptop.text("refreshToken")).await.status,
        401
    );
    assert_eq!(
        service.refresh(&other.text("refreshToken")).await.status,
        201
    );
    let answer = service
        .send(service.request("DELETE", "/v1/sessions"))
        .await;
    let mut expected = problem(
        401,
        "UNAUTHENTICATED",
        "A valid access token is needed",
        &answer,
    );
    expected["detail"] = json!("send Authorization: Bearer with an access token");
    assert_eq!((answer.status, answer.body), (401, expected));
}

#[tokio::test]
async fn an_account_holds_fifty_sessions_and_the_one_unused_for_longest_goes_first() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    let first = service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("refreshToken");
    let second = service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("refreshToken");
    let first = service.refresh(&first).await.text("refreshToken");
    for _ in 0..49 {
        assert_eq!(
            service
                .sign_in("kim@example.com", "correct horse")
                .await
                .status,
            201
        );
    }
    assert_eq!(
        service
            .count("SELECT count(*) FROM sessions WHERE ended_at IS NULL")
            .await,
        50
    );
    assert_eq!(service.refresh(&second).await.status, 401);
    assert_eq!(service.refresh(&first).await.status, 201);
}
