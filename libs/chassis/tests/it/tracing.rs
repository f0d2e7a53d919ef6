//! Spans as a collector receives them. The service is this test binary again, since a process has one telemetry.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use axum::{Router, body::Body, extract::State, routing::get as on_get};
use chassis::{
    http::Path,
    postgres::{PoolOptions, connect_lazy},
    problem::Problem,
    telemetry::{self, TelemetryConfig, TraceContext},
};
use http::{HeaderMap, Request};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use secrecy::SecretString;
use sqlx::PgPool;
use testkit::collector::{Collector, attribute, hex, named, spans_of};

use super::{get, send, served};

/// The database of the process that makes spans.
const DATABASE: &str = "CHASSIS_TEST_DATABASE";
/// Where it sends them.
const ENDPOINT: &str = "CHASSIS_TEST_OTLP";

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00";

/// Not a test of its own: makes some spans, sends them, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn traced_process() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else {
        return;
    };
    let guard = telemetry::init(&TelemetryConfig {
        service_name: "greeter".to_owned(),
        namespace: "quokka".to_owned(),
        version: "1.2.3".to_owned(),
        instance: "greeter-0".to_owned(),
        log_filter: "info".to_owned(),
        otlp_endpoint: Some(endpoint.parse().unwrap()),
    })
    .unwrap();
    let database = SecretString::from(std::env::var(DATABASE).unwrap());
    let pool = connect_lazy(&database, "greeter", PoolOptions::default()).unwrap();
    tracing_log::log::warn!(target: "librdkafka", "broker is gone");
    let api = served(
        Router::new()
            .route("/greetings/{name}", on_get(greet))
            .with_state(pool)
            .route(
                "/broken",
                on_get(async || -> Result<(), Problem> { Err(Problem::internal("broken")) }),
            ),
    );
    for (path, traceparent) in [
        ("/greetings/ada", Some(PARENT)),
        ("/greetings/unseen", Some(UNSAMPLED)),
        ("/broken", None),
        ("/nowhere", None),
    ] {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        if let Some(traceparent) = traceparent {
            request
                .headers_mut()
                .insert("traceparent", traceparent.parse().unwrap());
        }
        let answer = send(&api, request).await;
        println!("answered {path} {}", answer.body);
    }
    let batch = tracing::info_span!(
        "batch",
        otel.name = "process quokka.claims",
        otel.kind = "consumer"
    );
    telemetry::link(&batch, TraceContext::parse(PARENT).unwrap());
    drop(batch.entered());
    guard.shutdown().await;
}

/// Asks the database in a task of its own, and answers the header that a call to another service would have.
async fn greet(State(pool): State<PgPool>, Path(name): Path<String>) -> Result<String, Problem> {
    let ask = async move {
        let sql = "SELECT length($1) AS letters FROM pg_catalog.pg_class LIMIT 1";
        sqlx::query(sql).bind(name).execute(&pool).await
    };
    tokio::spawn(telemetry::propagate(ask)).await.unwrap()?;
    let mut headers = HeaderMap::new();
    telemetry::inject_headers(&mut headers);
    Ok(headers["traceparent"].to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_named_and_filled_as_the_conventions_say() {
    let mut collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let database = testkit::Postgres::shared()
        .await
        .create_database()
        .await
        .unwrap();
    let namespace = database.name.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tracing::traced_process", "--nocapture"])
            .env(ENDPOINT, endpoint)
            .env(DATABASE, database.url)
            .stderr(Stdio::inherit())
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");

    let received = collector.received();
    for resource_spans in &received {
        let resource = &resource_spans.resource.as_ref().unwrap().attributes;
        for (key, value) in [
            ("service.name", "greeter"),
            ("service.namespace", "quokka"),
            ("service.version", "1.2.3"),
            ("service.instance.id", "greeter-0"),
        ] {
            assert_eq!(attribute(resource, key).as_deref(), Some(value), "{key}");
        }
    }
    let spans = spans_of(received);

    let greeting = named(&spans, "GET /greetings/{name}");
    assert_eq!(hex(&greeting.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(hex(&greeting.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(greeting.kind(), SpanKind::Server);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/greetings/{name}"),
        ("http.response.status_code", "200"),
        ("url.path", "/greetings/ada"),
        ("url.scheme", "http"),
    ] {
        assert_eq!(
            attribute(&greeting.attributes, key).as_deref(),
            Some(value),
            "{key}"
        );
    }

    let select = named(&spans, "SELECT pg_catalog.pg_class");
    assert_eq!(
        select.parent_span_id, greeting.span_id,
        "spawned work is still part of the request"
    );
    assert_eq!(select.kind(), SpanKind::Client);
    for (key, value) in [
        ("db.system.name", "postgresql"),
        ("db.namespace", namespace.as_str()),
        ("db.operation.name", "SELECT"),
        ("db.query.summary", "SELECT pg_catalog.pg_class"),
        (
            "db.query.text",
            "SELECT length($1) AS letters FROM pg_catalog.pg_class LIMIT 1",
        ),
    ] {
        assert_eq!(
            attribute(&select.attributes, key).as_deref(),
            Some(value),
            "{key}"
        );
    }
    let outgoing = format!(
        "00-{}-{}-01",
        hex(&greeting.trace_id),
        hex(&greeting.span_id)
    );
    assert!(said.contains(&outgoing), "{outgoing} in {said}");

    let kafka = said
        .lines()
        .find(|line| line.contains("broker is gone"))
        .unwrap();
    assert!(
        kafka.contains(r#""level":"WARN","target":"librdkafka""#),
        "{kafka}"
    );

    let broken = named(&spans, "GET /broken");
    assert_eq!(broken.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(
        attribute(&broken.attributes, "error.type").as_deref(),
        Some("500")
    );
    let lost = spans
        .iter()
        .find(|span| attribute(&span.attributes, "url.path").as_deref() == Some("/nowhere"))
        .unwrap();
    assert_eq!(lost.name, "GET");
    assert_eq!(
        lost.status
            .as_ref()
            .map_or(StatusCode::Unset, |status| status.code()),
        StatusCode::Unset
    );

    let batch = named(&spans, "process quokka.claims");
    assert_eq!(hex(&batch.links[0].span_id), "00f067aa0ba902b7");

    assert_eq!(
        spans.len(),
        5,
        "the caller that doesn't sample gets no span: {spans:#?}"
    );
    assert!(
        said.contains("00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-"),
        "but its trace goes on: {said}"
    );
}

#[tokio::test]
async fn work_that_a_request_spawns_keeps_its_trace() {
    let spawned = async || {
        let inside =
            async { telemetry::current().map(|context| context.trace_id_hex().to_string()) };
        tokio::spawn(telemetry::propagate(inside))
            .await
            .unwrap()
            .unwrap_or_default()
    };
    let api = served(Router::new().route("/spawn", on_get(spawned)));
    let request = Request::get("/spawn")
        .header("traceparent", UNSAMPLED)
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        send(&api, request).await.body,
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    );
    let alone = get(&api, "/spawn").await;
    assert_eq!(alone.body.as_str().map(str::len), Some(32));
    assert!(telemetry::current().is_none());
    tokio::time::timeout(Duration::from_secs(1), telemetry::propagate(async {}))
        .await
        .unwrap();
}
