//! The trace that a request belongs to: its client's, or a new one.
//!
//! Every request has an id, for problem answers and for the services behind. Only one whose trace is exported pays for
//! a span.

use std::sync::LazyLock;

use chassis::{
    http::method_name,
    telemetry::{self, TraceContext},
};
use http::StatusCode;
use pingora::http::RequestHeader;
use seldom::Seldom;
use tracing::{Span, field};

/// A request's part of a trace.
pub(crate) struct Trace {
    context: TraceContext,
    span: Option<Span>,
}

impl Trace {
    /// A trace of its own, for what isn't a request yet.
    pub(crate) fn none() -> Self {
        Self {
            context: TraceContext::root(),
            span: None,
        }
    }

    /// Starts the part of a request to `route`.
    pub(crate) fn begin(request: &RequestHeader, route: &'static str) -> Self {
        // Anybody can say that a trace is to be exported: from outside that is a wish, and there is a limit to those.
        let parent = TraceContext::from_headers(&request.headers).map(TraceContext::wished);
        let unexported = || parent.map_or_else(TraceContext::root, TraceContext::child);
        if !telemetry::may_start_trace(parent.map(|parent| parent.sampled)) {
            return Self {
                context: unexported(),
                span: None,
            };
        }
        let span = server_span(request, route);
        if let Some(parent) = parent {
            telemetry::span_parent(&span, parent);
        }
        let context = span.in_scope(telemetry::current).unwrap_or_else(unexported);
        Self {
            context,
            span: Some(span),
        }
    }

    /// What is passed on, and shown in problems.
    pub(crate) fn context(&self) -> TraceContext {
        self.context
    }

    /// Ends the span, if there is one. A 4xx leaves its status unset: it is the client's mistake.
    pub(crate) fn end(&mut self, status: StatusCode) {
        let Some(span) = self.span.take() else { return };
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", status.as_str());
        }
    }

    /// Logs that a service failed a request; in an outage, one line a second for all of them.
    pub(crate) fn warn(&self, error: &str, status: u16, answer_begun: bool) {
        static TELLINGS: LazyLock<Seldom> = LazyLock::new(Seldom::new);
        let Some(unsaid) = TELLINGS.turn() else {
            return;
        };
        let (trace_id, span_id) = (self.context.trace_id_hex(), self.context.span_id_hex());
        tracing::warn!(
            trace_id = trace_id.as_str(),
            span_id = span_id.as_str(),
            error,
            status,
            answer_begun,
            unsaid,
            "a request failed"
        );
    }
}

fn server_span(request: &RequestHeader, route: &'static str) -> Span {
    let method = method_name(&request.method);
    let name = if route.is_empty() {
        method.to_owned()
    } else {
        format!("{method} {route}")
    };
    tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = (!route.is_empty()).then_some(route),
        http.response.status_code = field::Empty,
        url.path = request.uri.path(),
        url.scheme = "http",
        error.type = field::Empty,
    )
}
