//! Spans as a collector receives them.

use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use testkit::collector::{Collector, attribute, hex, named, spans_of};

use crate::support::{Gateway, Raw, Service, Setup, nobody, raw, request};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Ends the gateway, which sends what it still has; all spans.
async fn spans_at_the_end(mut collector: Collector, mut gateway: Gateway) -> Vec<Span> {
    gateway.terminate();
    assert!(gateway.ended().await.success());
    spans_of(collector.received())
}

#[tokio::test]
async fn a_request_is_a_server_span_named_and_filled_as_the_conventions_say() {
    let collector = Collector::start().await;
    let users = Service::start("users").await;
    let setup = Setup::new()
        .await
        .upstreams(&[users.address], &[nobody().await]);
    let (gateway, issuer) = setup
        .env("QUOKKA_OTLP_ENDPOINT", collector.endpoint())
        .start()
        .await;
    let (bearer, parent) = (issuer.bearer(), format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let headers = [
        ("authorization", bearer.as_str()),
        ("traceparent", parent.as_str()),
    ];
    raw(&gateway, request("GET", "/v1/users/me", &headers, b"")).await;
    raw(&gateway, request("DELETE", "/v1/users/me", &[], b"")).await;
    raw(&gateway, request("GET", "/v1/time-sales", &[], b"")).await;
    let warning = crate::support::eventually(|| async {
        let said = gateway.log();
        said.into_iter()
            .find(|line| line.contains("a request failed"))
    })
    .await;
    let spans = spans_at_the_end(collector, gateway).await;

    let read = named(&spans, "GET /v1/users/me");
    assert_eq!(read.kind(), SpanKind::Server);
    assert_eq!(hex(&read.trace_id), TRACE);
    assert_eq!(hex(&read.parent_span_id), "00f067aa0ba902b7");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/v1/users/me"),
        ("http.response.status_code", "200"),
        ("url.path", "/v1/users/me"),
        ("url.scheme", "http"),
    ] {
        assert_eq!(
            attribute(&read.attributes, key).as_deref(),
            Some(value),
            "{key}"
        );
    }
    let passed_on = format!("00-{TRACE}-{}-01", hex(&read.span_id));
    assert_eq!(users.only().header("traceparent"), [passed_on]);

    let refused = named(&spans, "DELETE /v1/users/me");
    let status = attribute(&refused.attributes, "http.response.status_code");
    assert_eq!(status.as_deref(), Some("405"));
    let unset = refused.status.as_ref().map_or(0, |status| status.code);
    assert_eq!(unset, StatusCode::Unset as i32);

    let failed = named(&spans, "GET /v1/time-sales");
    assert_eq!(failed.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(
        attribute(&failed.attributes, "error.type").as_deref(),
        Some("503")
    );
    for (field, id) in [("trace_id", &failed.trace_id), ("span_id", &failed.span_id)] {
        let said = format!("\"{field}\":\"{}\"", hex(id));
        assert!(warning.contains(&said), "{said} in {warning}");
    }
}

#[tokio::test]
async fn clients_that_ask_for_traces_get_no_more_than_may_start() {
    const REQUESTS: usize = 1500;
    /// What the whole process may start in a second.
    const PER_SECOND: usize = 100;
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.start().await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let one = request("GET", "/v1/users/x", &[("traceparent", &parent)], b"");
    let mut connection = Raw::connect(&gateway).await;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        connection.send(&one).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;

    let seen = users.seen();
    let sampled = seen
        .iter()
        .filter(|seen| seen.header("traceparent")[0].ends_with("-01"))
        .count();
    assert!(
        (1..=seconds * PER_SECOND).contains(&sampled),
        "{sampled} in {seconds} seconds"
    );
    assert!(
        seen.iter()
            .all(|seen| seen.header("traceparent")[0].contains(TRACE)),
        "the trace stays the client's"
    );
}
