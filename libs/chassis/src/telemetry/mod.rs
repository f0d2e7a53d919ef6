//! Logs, traces and the trace context that ties them to requests and messages.
//!
//! Logs are JSON lines on standard output; a line inside a request or span carries its `trace_id` and `span_id`.
//! Traces go out by OTLP where an endpoint is set. Every request has a trace context, exported or not, so that a
//! problem answer and the log lines behind it can be put together; see [`TraceContext`].

mod context;
mod log;
mod sampler;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::PanicHookInfo,
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Level, Metadata, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, filter, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};
use url::Url;

use crate::postgres::StatementSpans;

pub use context::{
    Hex, SpanId, TRACEPARENT, TraceContext, TraceId, current, inject, inject_headers, link,
    propagate, span_parent,
};
pub(crate) use context::{in_context, untraced};
pub use sampler::may_start_trace;

/// How long exported spans may take to leave at the end of a process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Who the process is, and where what it says goes.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// `service.name`, such as `promotions-api`.
    pub service_name: String,
    /// `service.namespace`: the platform's namespace.
    pub namespace: String,
    /// `service.version`.
    pub version: String,
    /// `service.instance.id`: the pod's name.
    pub instance: String,
    /// What is logged: a `tracing` filter such as `info,sqlx=warn`.
    pub log_filter: String,
    /// The OTLP gRPC endpoint; without it no trace is exported.
    pub otlp_endpoint: Option<Url>,
}

/// Why telemetry can't start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter can't be read.
    #[error("log filter: {0}")]
    LogFilter(String),
    /// The exporter of traces can't be made.
    #[error("trace exporter: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Telemetry of this process was started before.
    #[error("telemetry was started twice")]
    StartedTwice,
}

/// Starts logs and traces for the whole process, and makes panics log lines. Call it once, inside the tokio runtime, before anything is logged.
pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let log_filter = parse_log_filter(&config.log_filter)?;
    let provider = config
        .otlp_endpoint
        .as_ref()
        .map(|endpoint| provider(config, endpoint))
        .transpose()?;
    let tracer = provider.as_ref().map(|provider| provider.tracer("quokka"));
    let spans = tracer.clone().map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(
                filter::dynamic_filter_fn(|metadata, _| is_traced(metadata) && !untraced())
                    .with_max_level_hint(LevelFilter::INFO)
                    .with_callsite_filter(|metadata| {
                        if is_traced(metadata) {
                            Interest::sometimes()
                        } else {
                            Interest::never()
                        }
                    }),
            )
    });
    let statements =
        tracer.map(|tracer| StatementSpans::new(tracer).with_filter(StatementSpans::filter()));
    // This takes in the records of the `log` crate too, which Kafka's client writes.
    Registry::default()
        .with(log::JsonLines::stdout().with_filter(log_filter))
        .with(spans)
        .with(statements)
        .try_init()
        .map_err(|_| TelemetryError::StartedTwice)?;
    std::panic::set_hook(Box::new(log_panic));
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    if let Some(provider) = &provider {
        sampler::exporting();
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    Ok(TelemetryGuard { provider })
}

/// A panic as a log line: with the trace it belongs to, and with its backtrace where `RUST_BACKTRACE` asks for one.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic
        .payload_as_str()
        .unwrap_or("something that is no text");
    let backtrace = Backtrace::capture();
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        thread = std::thread::current().name(),
        backtrace = (backtrace.status() == BacktraceStatus::Captured)
            .then(|| tracing::field::display(&backtrace)),
        "panicked: {message}"
    );
}

/// Whether a log filter can be read, for the check of settings.
pub(crate) fn check_log_filter(text: &str) -> Result<(), TelemetryError> {
    parse_log_filter(text).map(drop)
}

fn parse_log_filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| TelemetryError::LogFilter(error.to_string()))
}

fn provider(config: &TelemetryConfig, endpoint: &Url) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .build()?;
    let resource = Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", config.service_name.clone()),
            KeyValue::new("service.namespace", config.namespace.clone()),
            KeyValue::new("service.version", config.version.clone()),
            KeyValue::new("service.instance.id", config.instance.clone()),
        ])
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler::sampler())
        .with_resource(resource)
        .build())
}

/// What is worth a place in a trace. The exporter's own work must not be: it would trace itself for ever.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    const EXPORTER: [&str; 5] = ["h2", "hyper", "tonic", "tower", "opentelemetry"];
    *metadata.level() <= Level::INFO
        && !EXPORTER
            .iter()
            .any(|name| metadata.target().starts_with(name))
}

/// Keeps telemetry running; what is still to be exported leaves when it is shut down or dropped.
#[must_use = "dropping it ends the export of traces"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl TelemetryGuard {
    /// Sends what is still to be sent, for a few seconds at most.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            // The exporter blocks its caller while the runtime sends.
            let _ = tokio::task::spawn_blocking(move || flush(&provider)).await;
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // Off the runtime's thread, for the same reason; the runtime may be gone, and then nothing is sent.
            let _ = std::thread::spawn(move || flush(&provider)).join();
        }
    }
}

fn flush(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
        tracing::warn!(%error, "the last traces were not exported");
    }
}
