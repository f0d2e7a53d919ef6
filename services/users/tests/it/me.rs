//! GET and PATCH /v1/users/me

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::process::file;
use crate::service::Service;

/// What a good token says, with changes.
fn claims(user_id: &str, changes: &Value) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({
        "iss": "quokka", "aud": "quokka-api", "sub": user_id, "iat": now, "exp": now + 60, "jti": "1", "roles": ["guest"],
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn sign(pem: &str, kid: &str, claims: &Value) -> String {
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    jsonwebtoken::encode(
        &header,
        claims,
        &EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
    )
    .unwrap()
}

#[tokio::test]
async fn the_owner_sees_the_profile_of_sign_up() {
    let service = Service::start().await;
    let made = service
        .post(
            "/v1/users",
            &json!({"email": "Kim@example.com", "password": "correct horse", "name": "Kim"}),
        )
        .await;
    let token = service
        .sign_in("kim@EXAMPLE.com", "correct horse")
        .await
        .text("accessToken");
    let seen = service.me(&token).await;
    assert_eq!((seen.status, &seen.body), (200, &made.body));
}

#[tokio::test]
async fn a_new_name_is_kept_and_nothing_else_can_be_changed() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    let token = service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("accessToken");
    let patch = async |body: Value| {
        service
            .send(
                service
                    .request("PATCH", "/v1/users/me")
                    .bearer_auth(&token)
                    .json(&body),
            )
            .await
    };
    let mut expected = service.me(&token).await.body;
    expected["name"] = json!("김민지");
    let changed = patch(json!({"name": " 김민지 "})).await;
    assert_eq!((changed.status, &changed.body), (200, &expected));
    for bad in [
        json!({}),
        json!({"name": ""}),
        json!({"name": null}),
        json!({"name": "Kim", "roles": ["admin"]}),
    ] {
        let answer = patch(bad.clone()).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!("INVALID_REQUEST")),
            "{bad}"
        );
    }
    assert_eq!(service.me(&token).await.body, expected);
}

#[tokio::test]
async fn without_a_good_token_nothing_is_shown() {
    let key = testkit::TokenIssuer::new();
    let key_file = file(key.private_pem());
    let service =
        Service::start_with(&[("QUOKKA_SIGNING_KEY_FILE", key_file.path().to_str().unwrap())])
            .await;
    let user_id = service.sign_up("kim@example.com", "correct horse").await;
    let jwks = service
        .send(service.request("GET", "/.well-known/jwks.json"))
        .await;
    let kid = jwks.body["keys"][0]["kid"].as_str().unwrap().to_owned();
    let signed = |changes: Value| sign(key.private_pem(), &kid, &claims(&user_id, &changes));
    assert_eq!(
        service.me(&signed(json!({}))).await.status,
        200,
        "the changes below are what makes it bad"
    );

    let title = "A valid access token is needed";
    let past = jiff::Timestamp::now().as_second() - 1;
    service.me(&signed(json!({"exp": past}))).await.is_problem(
        401,
        "UNAUTHENTICATED",
        title,
        "the access token has expired",
    );
    let thief = testkit::TokenIssuer::new();
    for bad in [
        "x".to_owned(),
        signed(json!({"iss": "somebody"})),
        signed(json!({"aud": "something"})),
        signed(json!({"sub": "nobody"})),
        sign(thief.private_pem(), &kid, &claims(&user_id, &json!({}))),
        sign(
            thief.private_pem(),
            "another",
            &claims(&user_id, &json!({})),
        ),
    ] {
        let answer = service.me(&bad).await;
        answer.is_problem(
            401,
            "UNAUTHENTICATED",
            title,
            "the access token is not valid",
        );
        assert_eq!(
            answer.headers["www-authenticate"],
            r#"Bearer realm="quokka", error="invalid_token""#
        );
    }
    let answer = service.send(service.request("GET", "/v1/users/me")).await;
    answer.is_problem(
        401,
        "UNAUTHENTICATED",
        title,
        "send Authorization: Bearer with an access token",
    );
    assert_eq!(
        answer.headers["www-authenticate"],
        r#"Bearer realm="quokka""#
    );
}

#[tokio::test]
async fn the_token_of_an_account_that_is_gone_is_refused() {
    let service = Service::start().await;
    service.sign_up("kim@example.com", "correct horse").await;
    let token = service
        .sign_in("kim@example.com", "correct horse")
        .await
        .text("accessToken");
    service.execute("DELETE FROM users").await;
    let answer = service.me(&token).await;
    answer.is_problem(
        401,
        "UNAUTHENTICATED",
        "A valid access token is needed",
        "the token's account does not exist",
    );
}
