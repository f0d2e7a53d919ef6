//! Metrics of the process's one registry, and how they are shown.
//!
//! The constructors register at once and are made for statics:
//!
//! ```
//! use std::sync::LazyLock;
//!
//! static CLAIMS: LazyLock<prometheus::IntCounterVec> =
//!     LazyLock::new(|| chassis::metrics::int_counter_vec("greetings_total", "Greetings given.", &["language"]));
//! CLAIMS.with_label_values(&["ko"]).inc();
//! ```
//!
//! They panic if the name is taken or malformed: a mistake of the program that its first test meets.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, TextEncoder, core::Collector,
};

/// Buckets, in seconds, for what answers within milliseconds: those that OpenTelemetry recommends for HTTP, and
/// finer ones below its first.
pub const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident($($extra:ident: $extra_type:ty),*) -> $type:ty = $make:expr;)+) => {$(
        $(#[$doc])*
        pub fn $name(name: &str, help: &str $(, $extra: $extra_type)*) -> $type {
            let make = $make;
            register(name, make(name, help $(, $extra)*))
        }
    )+};
}

constructors! {
    /// A counter without labels.
    int_counter() -> IntCounter = |name, help| IntCounter::new(name, help);
    /// A counter with labels, all of them bounded.
    int_counter_vec(labels: &[&str]) -> IntCounterVec = |name, help, labels| IntCounterVec::new(Opts::new(name, help), labels);
    /// A whole number that goes up and down.
    int_gauge() -> IntGauge = |name, help| IntGauge::new(name, help);
    /// Whole numbers that go up and down, with labels, all of them bounded.
    int_gauge_vec(labels: &[&str]) -> IntGaugeVec = |name, help, labels| IntGaugeVec::new(Opts::new(name, help), labels);
    /// A number that goes up and down.
    gauge() -> Gauge = |name, help| Gauge::new(name, help);
    /// Numbers that go up and down, with labels, all of them bounded.
    gauge_vec(labels: &[&str]) -> GaugeVec = |name, help, labels| GaugeVec::new(Opts::new(name, help), labels);
    /// A histogram with the given upper bounds; [`LATENCY_BUCKETS_SECONDS`] for what is measured in seconds.
    histogram(buckets: &[f64]) -> Histogram =
        |name: &str, help: &str, buckets: &[f64]| Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()));
    /// A histogram with labels, all of them bounded.
    histogram_vec(labels: &[&str], buckets: &[f64]) -> HistogramVec =
        |name: &str, help: &str, labels: &[&str], buckets: &[f64]| HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels);
}

fn register<C: Collector + Clone + 'static>(name: &str, made: prometheus::Result<C>) -> C {
    made.and_then(|metric| {
        prometheus::default_registry()
            .register(Box::new(metric.clone()))
            .map(|()| metric)
    })
    .unwrap_or_else(|error| panic!("metric {name}: {error}"))
}

/// Everything the registry holds, in Prometheus's text format; process metrics included.
pub fn render() -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&prometheus::gather())
}

/// Answers /metrics.
pub async fn handler() -> Response {
    match render() {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                TextEncoder::new().format_type().to_owned(),
            )],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics can't be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
