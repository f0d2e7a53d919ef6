//! What happens when an endpoint fails: one more attempt where that can do no harm, and a problem otherwise.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncWriteExt as _, sync::Notify};

use crate::support::{Raw, Service, Setup, nobody, raw, raw_service, read_some, request};

/// Accepts, reads the request, and hangs up without an answer, counting.
async fn hangs_up() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = raw_service(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            read_some(&mut stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    (address, count)
}

#[tokio::test]
async fn requests_are_spread_over_the_endpoints() {
    let (one, other) = (Service::start("one").await, Service::start("other").await);
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[one.address, other.address], &[])
        .start()
        .await;
    for _ in 0..60 {
        assert_eq!(
            raw(&gateway, request("GET", "/v1/users/x", &[], b""))
                .await
                .status,
            200
        );
    }
    assert!(
        one.seen().len() > 5 && other.seen().len() > 5,
        "{} {}",
        one.seen().len(),
        other.seen().len()
    );
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_costs_nobody_an_answer() {
    let there = Service::start("there").await;
    let setup = Setup::new()
        .await
        .upstreams(&[nobody().await, there.address], &[]);
    let (gateway, _issuer) = setup.start().await;
    for index in 0..40 {
        // Whatever the method: nothing of the request had left.
        let answer = raw(
            &gateway,
            request("POST", "/v1/sessions", &[], format!("{index}").as_bytes()),
        )
        .await;
        assert_eq!(answer.status, 200);
    }
    let bodies: Vec<_> = there
        .seen()
        .iter()
        .map(|seen| String::from_utf8(seen.body.to_vec()).unwrap())
        .collect();
    assert_eq!(
        bodies,
        (0..40).map(|index| index.to_string()).collect::<Vec<_>>()
    );
    assert!(
        gateway
            .metric(r#"quokka_gateway_sent_again_total{service="quokka-users"}"#)
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn without_an_endpoint_the_service_is_unavailable() {
    let (gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[nobody().await, nobody().await], &[])
        .start()
        .await;
    let mut connection = Raw::connect(&gateway).await;
    for _ in 0..2 {
        // None is known.
        connection
            .send(request("GET", "/v1/time-sales", &[], b""))
            .await;
        connection
            .answer()
            .await
            .assert_problem(503, "UPSTREAM_UNAVAILABLE");
    }
    // None can be reached.
    raw(&gateway, request("POST", "/v1/users", &[], b"{}"))
        .await
        .assert_problem(503, "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn a_lost_request_is_sent_again_only_if_that_changes_nothing() {
    let (address, count) = hangs_up().await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[address], &[address])
        .start()
        .await;
    let bearer = issuer.bearer();
    let with_token = [("authorization", bearer.as_str())];
    let with_key = [("idempotency-key", "k")];
    for (method, path, headers, times) in [
        ("POST", "/v1/sessions", &[][..], 1),
        // Keys that a service doesn't look at change nothing.
        ("POST", "/v1/sessions", &with_key[..], 1),
        ("POST", "/v1/sessions/refresh", &with_key[..], 1),
        ("POST", "/v1/users", &with_key[..], 2),
        ("GET", "/v1/users/x", &[][..], 2),
        ("POST", "/v1/time-sales/jeju/claims", &with_token[..], 2),
        ("DELETE", "/v1/time-sales/jeju/claims/1", &with_token[..], 2),
    ] {
        count.store(0, Ordering::SeqCst);
        raw(&gateway, request(method, path, headers, b"{}"))
            .await
            .assert_problem(502, "UPSTREAM_FAILED");
        assert_eq!(count.load(Ordering::SeqCst), times, "{method} {path}");
    }
}

#[tokio::test]
async fn a_lost_request_is_sent_to_another_endpoint_with_its_whole_body() {
    let there = Service::start("there").await;
    let (address, count) = hangs_up().await;
    let (gateway, issuer) = Setup::new()
        .await
        .upstreams(&[], &[address, there.address])
        .start()
        .await;
    let bearer = issuer.bearer();
    let body = vec![b'a'; 60_000];
    for _ in 0..30 {
        let bytes = request(
            "POST",
            "/v1/time-sales/jeju/claims",
            &[("authorization", &bearer)],
            &body,
        );
        assert_eq!(raw(&gateway, bytes).await.status, 200);
    }
    assert!(
        count.load(Ordering::SeqCst) > 0,
        "the failing endpoint was never chosen"
    );
    assert_eq!(there.seen().len(), 30);
    assert!(there.seen().iter().all(|seen| seen.body == body));
}

/// Services close connections that they have not used for long, or end; a request may be on its way just then.
#[tokio::test]
async fn a_kept_connection_that_the_service_closed_costs_nobody_an_answer() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let address = raw_service(move |mut stream| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            for requests in 0.. {
                // The first connection ends with its second request unanswered.
                if read_some(&mut stream).await.is_empty() || (first && requests == 1) {
                    return;
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await
                    .unwrap();
            }
        }
    })
    .await;
    let (gateway, _issuer) = Setup::new().await.upstreams(&[address], &[]).start().await;
    let mut connection = Raw::connect(&gateway).await;
    for _ in 0..5 {
        connection
            .send(request("GET", "/v1/users/x", &[], b""))
            .await;
        assert_eq!(connection.answer().await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let address = raw_service(|mut stream| async move {
        read_some(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await
            .unwrap();
    })
    .await;
    let (gateway, _issuer) = Setup::new().await.upstreams(&[address], &[]).start().await;
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send(request("GET", "/v1/users/x", &[], b""))
        .await;
    // An answer of a known length leaves when it is there, so that half of one may never leave.
    let answer = connection.rest().await;
    assert!(
        answer.is_empty() || (answer.starts_with(b"HTTP/1.1 200 OK") && answer.ends_with(b"half")),
        "a cut answer must not look whole"
    );
}

#[tokio::test]
async fn an_answer_of_pieces_is_passed_on_piece_by_piece_and_breaks_off_with_its_last() {
    let seen = Arc::new(Notify::new());
    let until_seen = Arc::clone(&seen);
    let address = raw_service(move |mut stream| {
        let until_seen = Arc::clone(&until_seen);
        async move {
            read_some(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
                .await
                .unwrap();
            until_seen.notified().await;
        }
    })
    .await;
    let (gateway, _issuer) = Setup::new().await.upstreams(&[address], &[]).start().await;
    let mut connection = Raw::connect(&gateway).await;
    connection
        .send(request("GET", "/v1/users/x", &[], b""))
        .await;
    let begun = connection.until(b"4\r\nhalf\r\n").await;
    assert!(begun.starts_with(b"HTTP/1.1 200 OK"));
    seen.notify_one();
    let rest = connection.rest().await;
    assert!(rest.is_empty(), "a cut answer must not look whole");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_bad_gateway() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let address = raw_service(move |mut stream| async move {
            read_some(&mut stream).await;
            let _ = stream.write_all(nonsense.as_bytes()).await;
        })
        .await;
        let (gateway, _issuer) = Setup::new().await.upstreams(&[address], &[]).start().await;
        raw(&gateway, request("POST", "/v1/sessions", &[], b"{}"))
            .await
            .assert_problem(502, "UPSTREAM_FAILED");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.env("QUOKKA_GATEWAY_IN_FLIGHT_MAX", "1").start().await;
    let mut leaving = Raw::connect(&gateway).await;
    leaving
        .send(request("GET", "/v1/users/x", &[("x-test-hold", "1")], b""))
        .await;
    users.holds(1).await;
    drop(leaving);
    crate::support::eventually(|| async {
        (raw(&gateway, request("GET", "/v1/users/x", &[], b""))
            .await
            .status
            == 200)
            .then_some(())
    })
    .await;
    let series = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="499""#;
    assert_eq!(gateway.metric(series).await, 1.0);
}
