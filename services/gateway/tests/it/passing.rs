//! What is passed on, and how it looks to the service.

use serde_json::json;

use crate::support::{Raw, Service, Setup, eventually, raw, request};

#[tokio::test]
async fn a_request_and_its_answer_pass_unchanged() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;

    let client = reqwest::Client::new();
    let answer = client
        .post(gateway.url("/v1/users/a%2Fb?x=1&y=%20z"))
        .header("x-test-status", "201")
        .header("idempotency-key", "k1")
        .header("accept-language", "ko")
        .body(r#"{"email":"a@example.com"}"#)
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["cache-control"], "private");
    assert_eq!(
        answer.json::<serde_json::Value>().await.unwrap()["server"],
        "users"
    );
    let seen = users.only();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/v1/users/a%2Fb?x=1&y=%20z")
    );
    assert_eq!(seen.body, r#"{"email":"a@example.com"}"#);
    assert_eq!(seen.header("idempotency-key"), ["k1"]);
    assert_eq!(seen.header("accept-language"), ["ko"]);
    assert_eq!(seen.header("host"), [gateway.http.to_string()]);
}

#[tokio::test]
async fn each_path_goes_to_its_service() {
    let users = Service::start("users").await;
    let promotions = Service::start("promotions").await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[promotions.address])
        .start()
        .await;
    let client = reqwest::Client::new();

    for (method, path, server) in [
        ("POST", "/v1/users", "users"),
        ("GET", "/v1/users/me", "users"),
        ("PATCH", "/v1/users/me", "users"),
        ("POST", "/v1/sessions", "users"),
        ("DELETE", "/v1/sessions", "users"),
        ("POST", "/v1/sessions/refresh", "users"),
        ("GET", "/v1/coupon-campaigns", "promotions"),
        ("GET", "/v1/coupon-campaigns/spring", "promotions"),
        ("POST", "/v1/coupon-campaigns/spring/claims", "promotions"),
        ("GET", "/v1/coupons", "promotions"),
        ("GET", "/v1/time-sales", "promotions"),
        ("GET", "/v1/time-sales/jeju", "promotions"),
        ("POST", "/v1/time-sales/jeju/claims", "promotions"),
        ("DELETE", "/v1/time-sales/jeju/claims/1", "promotions"),
        ("GET", "/v1/claims/1", "promotions"),
    ] {
        let request = client
            .request(method.parse().unwrap(), gateway.url(path))
            .header("authorization", issuer.bearer());
        let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(
            answer,
            json!({ "server": server, "target": path }),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn headers_of_the_connection_and_of_the_platform_stay_outside() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;

    let headers = [
        ("connection", "keep-alive, x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic eDp5"),
        ("upgrade", "h2c"),
        ("x-quokka-user", "somebody"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "1.1.1.1"),
        ("authorization-like", "stays"),
    ];
    assert_eq!(
        raw(&gateway, request("GET", "/v1/users/x", &headers, b""))
            .await
            .status,
        200
    );

    let seen = users.only();
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "te",
        "proxy-authorization",
        "upgrade",
        "x-quokka-user",
        "x-real-ip",
    ] {
        assert!(
            seen.header(name).is_empty(),
            "{name}: {:?}",
            seen.header(name)
        );
    }
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.header("x-forwarded-host"), ["quokka.example"]);
    assert_eq!(seen.header("authorization-like"), ["stays"]);
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8")
        .start()
        .await;

    let headers = [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
    ];
    raw(&gateway, request("GET", "/v1/users/x", &headers, b"")).await;

    let seen = users.only();
    assert_eq!(seen.header("x-forwarded-for"), ["203.0.113.7, 127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn the_token_is_passed_on() {
    let promotions = Service::start("promotions").await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[], &[promotions.address])
        .start()
        .await;
    let bearer = issuer.bearer();
    let answer = raw(
        &gateway,
        request("GET", "/v1/coupons", &[("authorization", &bearer)], b""),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(promotions.only().header("authorization"), [bearer]);
}

#[tokio::test]
async fn a_trace_is_continued_and_one_is_started_where_there_is_none() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";

    let ours = format!("00-{trace}-00f067aa0ba902b7-00");
    let headers = [("traceparent", ours.as_str()), ("tracestate", "a=b")];
    raw(&gateway, request("GET", "/v1/users/x", &headers, b"")).await;
    let headers = [("traceparent", "00-nonsense"), ("tracestate", "a=b")];
    raw(&gateway, request("GET", "/v1/users/x", &headers, b"")).await;
    let refused = raw(
        &gateway,
        request("GET", "/nowhere", &[("traceparent", &ours)], b""),
    )
    .await;

    let seen = users.seen();
    let [continued] = seen[0].header("traceparent")[..] else {
        panic!("{seen:?}")
    };
    assert!(
        continued.starts_with(&format!("00-{trace}-")) && continued != ours,
        "{continued}"
    );
    assert_eq!(seen[0].header("tracestate"), ["a=b"]);
    let [started] = seen[1].header("traceparent")[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(started.len(), ours.len());
    assert!(seen[1].header("tracestate").is_empty());
    assert_eq!(refused.json()["traceId"], trace);
}

#[tokio::test]
async fn a_connection_is_used_again_after_answers_of_any_kind() {
    let users = Service::start("users").await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let bearer = issuer.bearer();
    let mut connection = Raw::connect(&gateway).await;
    for round in 0..3 {
        connection
            .send(request("GET", "/v1/users/x", &[], b""))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        connection
            .send(request("POST", "/v1/users", &[], b"{\"a\":1}"))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        connection
            .send(request("POST", "/v1/users/me", &[], b"{\"a\":1}"))
            .await;
        connection
            .answer()
            .await
            .assert_problem(405, "METHOD_NOT_ALLOWED");
        connection
            .send(request("GET", "/v1/users/me", &[], b""))
            .await;
        connection
            .answer()
            .await
            .assert_problem(401, "UNAUTHENTICATED");
        connection
            .send(request(
                "GET",
                "/v1/users/me",
                &[("authorization", &bearer)],
                b"",
            ))
            .await;
        assert_eq!(connection.answer().await.status, 200, "round {round}");
    }
}

#[tokio::test]
async fn a_head_may_come_in_any_pieces_and_its_body_with_it() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let whole = request("POST", "/v1/users", &[], b"0123456789");
    for cut in [
        1,
        5,
        30,
        whole.len() - 12,
        whole.len() - 11,
        whole.len() - 10,
        whole.len() - 3,
    ] {
        let mut connection = Raw::connect(&gateway).await;
        connection.send(&whole[..cut]).await;
        tokio::task::yield_now().await;
        connection.send(&whole[cut..]).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    assert!(users.seen().iter().all(|seen| seen.body == "0123456789"));
}

#[tokio::test]
async fn a_chunked_body_passes() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let head = request(
        "POST",
        "/v1/users",
        &[("transfer-encoding", "chunked")],
        b"",
    );
    let mut connection = Raw::connect(&gateway).await;
    connection.send(&head).await;
    connection.send("3\r\nabc\r\n").await;
    connection.send("4;ext=1\r\ndefg\r\n0\r\n\r\n").await;
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(users.only().body, "abcdefg");
}

#[tokio::test]
async fn an_absolute_target_and_head_requests_are_understood() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;

    assert_eq!(
        raw(
            &gateway,
            request("GET", "http://quokka.example/v1/users/x?y", &[], b"")
        )
        .await
        .status,
        200
    );
    assert_eq!(users.only().target, "/v1/users/x?y");

    let mut connection = Raw::connect(&gateway).await;
    connection
        .send("HEAD /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    let answer = String::from_utf8(connection.rest().await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_asks_for_a_websocket_is_passed_on_as_a_plain_request() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "abc"),
        ("sec-websocket-version", "13"),
    ];
    assert_eq!(
        raw(&gateway, request("GET", "/v1/users/socket", &headers, b""))
            .await
            .status,
        200
    );
    assert!(
        users.only().header("upgrade").is_empty() && users.only().header("connection").is_empty()
    );
}

#[tokio::test]
async fn requests_are_measured_under_their_route() {
    let users = Service::start("users").await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let bearer = issuer.bearer();
    raw(
        &gateway,
        request("GET", "/v1/users/me", &[("authorization", &bearer)], b""),
    )
    .await;
    raw(&gateway, request("GET", "/v1/users/me", &[], b"")).await;
    raw(&gateway, request("GET", "/v1/users/123", &[], b"")).await;
    raw(&gateway, request("GET", "/v1/users/456", &[], b"")).await;
    raw(&gateway, request("BREW", "/coffee", &[], b"")).await;
    raw(&gateway, "nonsense\r\n\r\n").await;

    let count = "http_server_request_duration_seconds_count";
    for (labels, requests) in [
        (
            r#"http_request_method="GET",http_response_status_code="200",http_route="/v1/users/me""#,
            1.0,
        ),
        (
            r#"http_request_method="GET",http_response_status_code="401",http_route="/v1/users/me""#,
            1.0,
        ),
        (
            r#"http_request_method="GET",http_response_status_code="200",http_route="/v1/users/{*path}""#,
            2.0,
        ),
        (
            r#"http_request_method="_OTHER",http_response_status_code="404",http_route="""#,
            1.0,
        ),
        (
            r#"http_request_method="_OTHER",http_response_status_code="400",http_route="""#,
            1.0,
        ),
    ] {
        // The answer arrives before it is counted.
        let series = format!("{count}{{{labels}}}");
        eventually(|| async { (gateway.metric(&series).await == requests).then_some(()) }).await;
    }
    assert!(
        gateway
            .metric(r#"quokka_gateway_refusals_total{code="NOT_FOUND"}"#)
            .await
            >= 1.0
    );
}
