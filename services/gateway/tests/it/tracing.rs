//! Spans as a collector receives them. The collector is a gRPC server made of the protocol's own types.

use std::time::Instant;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tokio::sync::mpsc;

use crate::support::{Gateway, PATIENCE, Raw, Service, Setup, nobody, raw, request};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Receiver(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0
            .send(request.into_inner())
            .map_err(|_| tonic::Status::aborted("nobody listens"))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

struct Collector {
    port: u16,
    received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
}

impl Collector {
    async fn start() -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let port = testkit::free_port();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Receiver(sender)));
        tokio::spawn(server.serve(([127, 0, 0, 1], port).into()));
        testkit::eventually(PATIENCE, || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
        })
        .await;
        Self { port, received }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends the gateway, which sends what it still has; all spans.
    async fn spans(mut self, mut gateway: Gateway) -> Vec<Span> {
        gateway.terminate();
        assert!(gateway.ended().await.success());
        let mut spans = Vec::new();
        while let Ok(request) = self.received.try_recv() {
            let scopes = request
                .resource_spans
                .into_iter()
                .flat_map(|resource| resource.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
        spans
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let attribute = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key)?;
    match attribute.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans
        .iter()
        .find(|span| span.name == name)
        .unwrap_or_else(|| panic!("no span {name} in {spans:#?}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
    let spans = collector.spans(gateway).await;

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
        assert_eq!(attribute(read, key).as_deref(), Some(value), "{key}");
    }
    let passed_on = format!("00-{TRACE}-{}-01", hex(&read.span_id));
    assert_eq!(users.only().header("traceparent"), [passed_on]);

    let refused = named(&spans, "DELETE /v1/users/me");
    let status = attribute(refused, "http.response.status_code");
    assert_eq!(status.as_deref(), Some("405"));
    let unset = refused.status.as_ref().map_or(0, |status| status.code);
    assert_eq!(unset, StatusCode::Unset as i32);

    let failed = named(&spans, "GET /v1/time-sales");
    assert_eq!(failed.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("503"));
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
