//! What the gateway answers itself: every one a problem with its code, and nothing reaches a service.

use serde_json::json;
use testkit::TokenIssuer;
use uuid::Uuid;

use crate::support::{Raw, Service, Setup, nobody, raw, request};

#[tokio::test]
async fn what_is_not_served_is_not_found() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    for path in [
        "/",
        "/v1",
        "/v1/usersx",
        "/internal/v1/sales/1",
        "/livez",
        "/metrics",
        "/v1/users/../../metrics",
        "//v1/users",
    ] {
        raw(&gateway, request("GET", path, &[], b""))
            .await
            .assert_problem(404, "NOT_FOUND");
    }
    assert!(users.seen().is_empty());
}

#[tokio::test]
async fn a_wrong_method_says_which_are_right() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    for (method, path, allow) in [
        ("GET", "/v1/users", "POST"),
        ("DELETE", "/v1/users/me", "GET, PATCH, HEAD"),
        ("GET", "/v1/sessions", "POST, DELETE"),
        ("PATCH", "/v1/time-sales/jeju/claims/1", "DELETE"),
        ("TRACE", "/v1/users", "GET, HEAD, POST, PUT, PATCH, DELETE"),
        (
            "CONNECT",
            "quokka.example:80",
            "GET, HEAD, POST, PUT, PATCH, DELETE",
        ),
    ] {
        let answer = raw(&gateway, request(method, path, &[], b"")).await;
        answer.assert_problem(405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.headers["allow"], allow, "{method} {path}");
    }
    assert!(users.seen().is_empty());
}

#[tokio::test]
async fn a_route_that_needs_a_token_refuses_without_a_good_one() {
    let promotions = Service::start("promotions").await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[], &[promotions.address])
        .start()
        .await;
    let somebody_else = format!("Bearer {}", TokenIssuer::new().token(Uuid::new_v4()));
    let bad = [
        (None, r#"Bearer realm="quokka""#),
        (Some("Basic eDp5".to_owned()), r#"Bearer realm="quokka""#),
        (
            Some("Bearer nonsense".to_owned()),
            r#"Bearer realm="quokka", error="invalid_token""#,
        ),
        (
            Some(somebody_else),
            r#"Bearer realm="quokka", error="invalid_token""#,
        ),
        (
            Some(issuer.expired()),
            r#"Bearer realm="quokka", error="invalid_token""#,
        ),
        (
            Some(issuer.bearer_with(json!({ "iss": "somebody" }))),
            r#"Bearer realm="quokka", error="invalid_token""#,
        ),
        (
            Some(issuer.bearer_with(json!({ "aud": "something" }))),
            r#"Bearer realm="quokka", error="invalid_token""#,
        ),
        (
            Some(issuer.bearer_with(json!({ "exp": null }))),
            r#"Bearer realm="quokka", error="invalid_token""#,
        ),
    ];
    for (bearer, challenge) in bad {
        let headers: Vec<_> = bearer
            .iter()
            .map(|bearer| ("authorization", bearer.as_str()))
            .collect();
        let answer = raw(
            &gateway,
            request("POST", "/v1/time-sales/jeju/claims", &headers, b"{}"),
        )
        .await;
        answer.assert_problem(401, "UNAUTHENTICATED");
        assert_eq!(answer.headers["www-authenticate"], challenge, "{bearer:?}");
    }
    assert!(promotions.seen().is_empty());
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_none_is_needed_except_where_a_new_one_is_got() {
    let users = Service::start("users").await;
    let promotions = Service::start("promotions").await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[promotions.address])
        .start()
        .await;
    let expired = issuer.expired();
    let expired = [("authorization", expired.as_str())];

    raw(&gateway, request("GET", "/v1/time-sales", &expired, b""))
        .await
        .assert_problem(401, "UNAUTHENTICATED");
    assert_eq!(
        raw(&gateway, request("GET", "/v1/time-sales", &[], b""))
            .await
            .status,
        200
    );
    assert_eq!(
        raw(
            &gateway,
            request("POST", "/v1/sessions/refresh", &expired, b"{}")
        )
        .await
        .status,
        200
    );
    assert_eq!(promotions.only().target, "/v1/time-sales");
}

#[tokio::test]
async fn while_the_keys_are_not_there_nobody_is_let_in_and_the_gateway_is_not_ready() {
    let promotions = Service::start("promotions").await;
    let setup = Setup::new().await.upstreams(&[], &[promotions.address]);
    let jwks_url = format!("http://{}/jwks.json", nobody().await);
    let (gateway, issuer) = setup.env("QUOKKA_JWKS_URL", jwks_url).start_unready().await;

    let bearer = issuer.bearer();
    let answer = raw(
        &gateway,
        request("GET", "/v1/coupons", &[("authorization", &bearer)], b""),
    )
    .await;
    answer.assert_problem(503, "UNAVAILABLE");
    assert_eq!(gateway.readyz().await, Some(503));
    // What needs no token works.
    assert_eq!(
        raw(&gateway, request("GET", "/v1/time-sales", &[], b""))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_malformed() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    for bytes in [
        "nonsense\r\n\r\n",
        "GET /v1/users/x HTTP/1.1\r\n\r\n",
        "GET /v1/users/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /v1/users/x HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
        "GET /v1/users/x HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET /v1/users/x HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET /v1/us ers/x HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET v1/users HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /v1/users HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "POST /v1/users HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/users HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/users HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
    ] {
        let mut connection = Raw::connect(&gateway).await;
        connection.send(bytes).await;
        let answer = connection.answer().await;
        answer.assert_problem(400, "MALFORMED_REQUEST");
        assert!(answer.closes(), "{bytes:?}");
        assert!(
            connection.rest().await.is_empty(),
            "{bytes:?}: the connection must end"
        );
    }
    assert!(users.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_malformed() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send(request(
            "POST",
            "/v1/users",
            &[("transfer-encoding", "chunked")],
            b"",
        ))
        .await;
    connection.send("nonsense\r\n").await;
    connection
        .answer()
        .await
        .assert_problem(400, "MALFORMED_REQUEST");
    assert!(users.seen().is_empty());
}

#[tokio::test]
async fn a_connection_header_that_names_what_the_service_must_see_is_refused() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    for nominated in ["x-forwarded-for", "host"] {
        let answer = raw(
            &gateway,
            request("GET", "/v1/users/x", &[("connection", nominated)], b""),
        )
        .await;
        answer.assert_problem(400, "MALFORMED_REQUEST");
    }
    assert!(users.seen().is_empty());
}
