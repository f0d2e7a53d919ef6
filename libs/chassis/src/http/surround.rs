//! What surrounds every handler: trace context, metric, limits, and a problem for what goes wrong outside of it.
//!
//! This is on the path of every claim, so it is one service and not seven: one future, no lock, and a span only for
//! a request whose trace is exported.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    Router,
    body::HttpBody as _,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    response::{IntoResponse as _, Response},
    routing::Route,
};
use futures::FutureExt as _;
use http::StatusCode;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{HttpOptions, extract::too_large, measure};
use crate::{
    problem::{Problem, common},
    telemetry::{self, TraceContext},
};

pub(super) fn router(routes: Router, options: HttpOptions) -> Router {
    routes
        .method_not_allowed_fallback(async || {
            common::METHOD_NOT_ALLOWED.problem("this path takes only the methods named in Allow")
        })
        .fallback(async || common::NOT_FOUND.problem("nothing is at this path"))
        .layer(DefaultBodyLimit::max(options.body_limit_bytes))
        .layer(Surround { options })
}

#[derive(Clone)]
struct Surround {
    options: HttpOptions,
}

impl Layer<Route> for Surround {
    type Service = Surrounded;

    fn layer(&self, inner: Route) -> Surrounded {
        Surrounded {
            inner,
            options: self.options,
        }
    }
}

#[derive(Clone)]
struct Surrounded {
    inner: Route,
    options: HttpOptions,
}

impl Service<Request> for Surrounded {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let started = Instant::now();
        let parent = TraceContext::from_headers(request.headers());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = measure::method_name(request.method());

        if telemetry::may_start_trace(parent.map(|parent| parent.sampled)) {
            let span = server_span(&request, method, route.as_ref());
            let answer = answer(self.inner.clone(), request, self.options).instrument(span.clone());
            return Box::pin(async move {
                let response = answer.await;
                record_outcome(&span, response.status());
                measure::observe(method, template(route.as_ref()), response.status(), started);
                Ok(response)
            });
        }
        let context = parent.map_or_else(TraceContext::root, TraceContext::child);
        let answer =
            telemetry::in_context(context, answer(self.inner.clone(), request, self.options));
        Box::pin(async move {
            let response = answer.await;
            measure::observe(method, template(route.as_ref()), response.status(), started);
            Ok(response)
        })
    }
}

/// The handler's answer, or the problem that stands in for it: too large, too slow, panicked.
async fn answer(mut inner: Route, request: Request, options: HttpOptions) -> Response {
    // A body of known size is refused before anything happens; one of unknown size when it grows too large.
    if request.body().size_hint().lower() > options.body_limit_bytes as u64 {
        return too_large().into_response();
    }
    // A call may panic before it has a future, so it is made inside one.
    let handled = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
    match tokio::time::timeout(options.request_timeout, handled).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        // The panic hook has logged what and where.
        Ok(Err(_)) => Problem::internal("a handler panicked").into_response(),
        Err(_) => common::TIMED_OUT
            .problem("ask again, with the same Idempotency-Key")
            .retry_after(1)
            .into_response(),
    }
}

fn template(route: Option<&MatchedPath>) -> &str {
    route.map_or("", MatchedPath::as_str)
}

fn server_span(request: &Request, method: &'static str, route: Option<&MatchedPath>) -> Span {
    let name = match route {
        Some(route) => format!("{method} {}", route.as_str()),
        None => method.to_owned(),
    };
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route.map(MatchedPath::as_str),
        http.response.status_code = field::Empty,
        url.path = request.uri().path(),
        url.scheme = request.uri().scheme_str().unwrap_or("http"),
        error.type = field::Empty,
    );
    let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
    // An error means that nothing listens to this span.
    let _ = span.set_parent(parent);
    span
}

/// A 4xx leaves the status unset: it is the caller's mistake, not the server's.
fn record_outcome(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
}

struct Headers<'a>(&'a http::HeaderMap);

impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
