//! Every limit: what is over it is refused, what is at it passes.

use tokio::io::AsyncWriteExt as _;

use crate::support::{
    Gateway, Issuer, Raw, Service, Setup, eventually, raw, raw_service, read_some, request,
};

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_its_length_is_said() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_BODY_BYTES_MAX", "1000")
        .start()
        .await;

    assert_eq!(
        raw(&gateway, request("POST", "/v1/users", &[], &[b'a'; 1000]))
            .await
            .status,
        200
    );
    assert_eq!(users.only().body.len(), 1000);

    let answer = raw(&gateway, request("POST", "/v1/users", &[], &[b'a'; 1001])).await;
    answer.assert_problem(413, "PAYLOAD_TOO_LARGE");
    assert!(answer.closes());

    // Of a body that is much larger, the client may still be sending when the answer comes.
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send("POST /v1/users HTTP/1.1\r\nhost: a\r\ncontent-length: 700000\r\n\r\n")
        .await;
    let _ = connection.try_send(vec![b'a'; 700_000]).await;
    connection
        .answer()
        .await
        .assert_problem(413, "PAYLOAD_TOO_LARGE");

    let mut connection = Raw::connect(&gateway).await;
    connection
        .send(request(
            "POST",
            "/v1/users",
            &[("transfer-encoding", "chunked")],
            b"",
        ))
        .await;
    for _ in 0..3 {
        let _ = connection
            .try_send(format!("190\r\n{}\r\n", "a".repeat(400)))
            .await;
    }
    connection
        .answer()
        .await
        .assert_problem(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(users.seen().len(), 1);
}

/// What takes a body that is larger than others.
const CALENDAR: &str = "/v1/room-types/1/calendar";

async fn gateway_of_stays(stays: &Service, client_timeout: &str) -> (Gateway, Issuer) {
    let setup = Setup::new()
        .await
        .env(
            "QUOKKA_UPSTREAMS",
            format!("quokka-stays={}", stays.address),
        )
        .env("QUOKKA_GATEWAY_CLIENT_TIMEOUT", client_timeout);
    setup.start().await
}

#[tokio::test]
async fn a_calendar_may_be_larger_than_other_bodies() {
    const MOST: usize = 128 * 1024;
    let stays = Service::start("stays").await;
    let (gateway, issuer) = gateway_of_stays(&stays, "10s").await;
    let bearer = issuer.bearer();
    let token = ("authorization", bearer.as_str());
    let mut connection = Raw::connect(&gateway).await;
    // Each of them on the same connection: a body that was passed on as it came leaves nothing behind.
    for bytes in [MOST, 64 * 1024 + 1, 64 * 1024] {
        let body: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        connection
            .send(request("PUT", CALENDAR, &[token], &body))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        assert_eq!(stays.seen().last().unwrap().body, body);
    }
    connection
        .send(format!(
            "PUT {CALENDAR} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\nexpect: 100-continue\r\ncontent-length: {MOST}\r\n\r\n"
        ))
        .await;
    assert_eq!(connection.answer().await.status, 100);
    connection.send(vec![b'a'; MOST]).await;
    assert_eq!(connection.answer().await.status, 200);

    let large = vec![b'a'; MOST];
    let seen = stays.seen().len();
    for (fields, path, body, status, code) in [
        (
            &[token][..],
            CALENDAR,
            &[&large[..], b"a"].concat(),
            413,
            "PAYLOAD_TOO_LARGE",
        ),
        (
            &[token],
            "/v1/room-types/1/else",
            &large,
            413,
            "PAYLOAD_TOO_LARGE",
        ),
        (&[], CALENDAR, &large, 401, "UNAUTHENTICATED"),
    ] {
        raw(&gateway, request("PUT", path, fields, body))
            .await
            .assert_problem(status, code);
    }
    // Of a body in chunks nobody knows how large it is going to be.
    let chunked = [token, ("transfer-encoding", "chunked")];
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send(request("PUT", CALENDAR, &chunked, b""))
        .await;
    let _ = connection
        .try_send(format!("{:x}\r\n{}\r\n", 70_000, "a".repeat(70_000)))
        .await;
    connection
        .answer()
        .await
        .assert_problem(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(stays.seen().len(), seen);
}

#[tokio::test]
async fn a_calendar_that_stops_or_drips_is_given_up() {
    let stays = Service::start("stays").await;
    let (gateway, issuer) = gateway_of_stays(&stays, "300ms").await;
    let bearer = issuer.bearer();
    let head = format!(
        "PUT {CALENDAR} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\ncontent-length: 100000\r\n\r\n"
    );
    let mut stopped = Raw::connect(&gateway).await;
    stopped.send(format!("{head}abc")).await;
    stopped
        .answer()
        .await
        .assert_problem(408, "REQUEST_TIMEOUT");

    let mut dripping = Raw::connect(&gateway).await;
    dripping.send(head).await;
    for _ in 0..500 {
        if dripping.try_send("a").await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    dripping
        .answer()
        .await
        .assert_problem(408, "REQUEST_TIMEOUT");
    assert!(stays.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_it_sends_a_body() {
    let users = Service::start("users").await;
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let mut connection = Raw::connect(&gateway).await;
    connection.send("POST /v1/users HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n").await;
    connection
        .answer()
        .await
        .assert_problem(413, "PAYLOAD_TOO_LARGE");

    let mut connection = Raw::connect(&gateway).await;
    connection.send("POST /v1/users HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    assert_eq!(connection.answer().await.status, 100);
    connection.send("{}").await;
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(users.only().body, "{}");
}

#[tokio::test]
async fn a_head_over_the_limits_is_refused() {
    let users = Service::start("users").await;
    let setup = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .env("QUOKKA_GATEWAY_HEADER_BYTES_MAX", "2000");
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_HEADER_FIELDS_MAX", "10")
        .start()
        .await;

    let long = "a".repeat(1900);
    assert_eq!(
        raw(
            &gateway,
            request("GET", "/v1/users/x", &[("x-long", &long)], b"")
        )
        .await
        .status,
        200
    );
    let long = "a".repeat(2000);
    let answer = raw(
        &gateway,
        request("GET", "/v1/users/x", &[("x-long", &long)], b""),
    )
    .await;
    answer.assert_problem(431, "HEADER_TOO_LARGE");
    let answer = raw(
        &gateway,
        request("GET", &format!("/v1/users/{long}"), &[], b""),
    )
    .await;
    answer.assert_problem(431, "HEADER_TOO_LARGE");

    let names: Vec<_> = (0..10).map(|index| format!("x-{index}")).collect();
    let ten: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(
        raw(&gateway, request("GET", "/v1/users/x", &ten[..9], b""))
            .await
            .status,
        200
    );
    raw(&gateway, request("GET", "/v1/users/x", &ten, b""))
        .await
        .assert_problem(431, "HEADER_TOO_LARGE");

    // A head that never ends is cut off at the limit, not kept in memory.
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send("GET /v1/users/x HTTP/1.1\r\nhost: a\r\nx: ")
        .await;
    while connection.try_send(&[b'a'; 500]).await.is_ok() {
        if gateway
            .metric(r#"quokka_gateway_refusals_total{code="HEADER_TOO_LARGE"}"#)
            .await
            >= 4.0
        {
            break;
        }
    }
    connection
        .answer()
        .await
        .assert_problem(431, "HEADER_TOO_LARGE");
    assert_eq!(users.seen().len(), 2);
}

#[tokio::test]
async fn as_many_fields_as_are_taken_are_taken_by_a_service_too() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.start().await;
    let names: Vec<_> = (0..96).map(|index| format!("x-{index}")).collect();
    let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    // With Host there is one more.
    let answer = raw(&gateway, request("GET", "/v1/users/x", &fields[1..], b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(users.only().headers.len(), 100);
    raw(&gateway, request("GET", "/v1/users/x", &fields, b""))
        .await
        .assert_problem(431, "HEADER_TOO_LARGE");
}

#[tokio::test]
async fn a_head_that_drips_is_given_up() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_CLIENT_TIMEOUT", "300ms")
        .start()
        .await;
    let mut connection = Raw::connect(&gateway).await;
    // Each byte comes well within the timeout; the head as a whole doesn't.
    for byte in "GET /v1/users/x HTTP/1.1\r\nhost: a\r\nx-long: abcdefghijklmnopqrstuvwxyz".bytes()
    {
        if connection.try_send([byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    connection
        .answer()
        .await
        .assert_problem(408, "REQUEST_TIMEOUT");
    assert!(users.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_stops_or_drips_is_given_up() {
    let users = Service::start("users").await;
    let setup = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .env("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "600ms");
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_CLIENT_TIMEOUT", "300ms")
        .start()
        .await;

    let mut connection = Raw::connect(&gateway).await;
    connection
        .send("POST /v1/users HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc")
        .await;
    connection
        .answer()
        .await
        .assert_problem(408, "REQUEST_TIMEOUT");

    let mut connection = Raw::connect(&gateway).await;
    connection
        .send("POST /v1/users HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n")
        .await;
    for _ in 0..50 {
        if connection.try_send("a").await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    connection
        .answer()
        .await
        .assert_problem(408, "REQUEST_TIMEOUT");
}

/// Connections that have sent the head of a request and are told to go on, but don't.
async fn slow_posts(gateway: &Gateway, count: usize) -> Vec<Raw> {
    let head = "POST /v1/users HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..count {
        let mut connection = Raw::connect(gateway).await;
        connection.send(head).await;
        assert_eq!(connection.answer().await.status, 100);
        slow.push(connection);
    }
    slow
}

#[tokio::test]
async fn those_who_send_slowly_keep_nobody_out() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.env("QUOKKA_GATEWAY_IN_FLIGHT_MAX", "2").start().await;
    let slow = slow_posts(&gateway, 20).await;

    let answer = raw(&gateway, request("POST", "/v1/users", &[], b"{}")).await;
    assert_eq!(answer.status, 200);
    let seen = users.only();
    assert_eq!(seen.body, "{}");

    for mut connection in slow {
        connection.send([b'a'; 1000]).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    assert!(users.seen()[1..].iter().all(|seen| seen.body.len() == 1000));
}

#[tokio::test]
async fn no_more_bytes_of_bodies_are_held_than_there_is_room_for() {
    let users = Service::start("users").await;
    let setup = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .env("QUOKKA_GATEWAY_BODY_BYTES_MAX", "1000");
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_BODY_BYTES_HELD_MAX", "1000")
        .start()
        .await;
    let mut slow = slow_posts(&gateway, 1).await.remove(0);
    slow.send([b'a'; 900]).await;
    let more = request("POST", "/v1/users", &[], &[b'b'; 200]);
    let held = "quokka_gateway_body_bytes_held";
    eventually(|| async { (gateway.metric(held).await == 900.0).then_some(()) }).await;
    raw(&gateway, &more).await.assert_problem(503, "OVERLOADED");

    slow.send([b'a'; 100]).await;
    assert_eq!(slow.answer().await.status, 200);
    eventually(|| async { (raw(&gateway, &more).await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn a_connection_without_a_request_ends() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_IDLE_TIMEOUT", "300ms")
        .start()
        .await;
    let mut silent = Raw::connect(&gateway).await;
    assert!(silent.rest().await.is_empty());
    let mut used = Raw::connect(&gateway).await;
    used.send(request("GET", "/v1/users/x", &[], b"")).await;
    assert_eq!(used.answer().await.status, 200);
    assert!(used.rest().await.is_empty());
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_is_a_gateway_timeout() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "300ms")
        .start()
        .await;
    for method in ["GET", "POST"] {
        let answer = raw(
            &gateway,
            request(method, "/v1/users/x", &[("x-test-hold", "1")], b"{}"),
        )
        .await;
        answer.assert_problem(504, "GATEWAY_TIMEOUT");
    }
    // It isn't asked again: it may still be at it.
    assert_eq!(users.seen().len(), 2);
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_off() {
    let service = raw_service(|mut stream| async move {
        read_some(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            .await
            .unwrap();
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let setup = Setup::new().await.upstreams(&[service], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "400ms")
        .start()
        .await;
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send(request("GET", "/v1/users/x", &[], b""))
        .await;
    let got = connection.rest().await;
    // What was on its way may be lost with the rest.
    assert!(got.len() < 1000, "{} bytes", got.len());
}

#[tokio::test]
async fn more_requests_than_are_taken_at_once_are_refused_and_room_comes_back() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.env("QUOKKA_GATEWAY_IN_FLIGHT_MAX", "3").start().await;
    let held = request("GET", "/v1/users/x", &[("x-test-hold", "1")], b"");
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut connection = Raw::connect(&gateway).await;
        connection.send(&held).await;
        waiting.push(connection);
    }
    users.holds(3).await;
    raw(&gateway, request("GET", "/v1/users/x", &[], b""))
        .await
        .assert_problem(503, "OVERLOADED");

    users.release();
    for mut connection in waiting {
        assert_eq!(connection.answer().await.status, 200);
    }
    eventually(|| async {
        (raw(&gateway, request("GET", "/v1/users/x", &[], b""))
            .await
            .status
            == 200)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_connections_than_are_taken_at_once_are_refused() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup
        .env("QUOKKA_GATEWAY_CONNECTIONS_MAX", "2")
        .start()
        .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = Raw::connect(&gateway).await;
        connection
            .send(request("GET", "/v1/users/x", &[], b""))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        open.push(connection);
    }
    let mut third = Raw::connect(&gateway).await;
    let answer = third.answer().await;
    answer.assert_problem(503, "OVERLOADED");
    assert!(answer.closes());
    // Who has sent a request by then gets the answer too, and no reset.
    let mut fourth = Raw::connect(&gateway).await;
    fourth.send(request("GET", "/v1/users/x", &[], b"")).await;
    fourth.answer().await.assert_problem(503, "OVERLOADED");
    fourth.assert_ends_in_order().await;
    assert_eq!(gateway.metric("quokka_gateway_connections").await, 2.0);

    drop(open);
    eventually(|| async {
        let mut connection = Raw::connect(&gateway).await;
        connection
            .try_send(request("GET", "/v1/users/x", &[], b""))
            .await
            .ok()?;
        connection
            .try_answer()
            .await
            .filter(|answer| answer.status == 200)
    })
    .await;
}
