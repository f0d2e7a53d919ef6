//! Spans without a collector: those of one thread, where one process with one telemetry would be too much for a test.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{Context, trace::TracerProvider as _};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanProcessor},
};
use tracing::{level_filters::LevelFilter, subscriber::DefaultGuard};
use tracing_subscriber::layer::SubscriberExt as _;

pub use opentelemetry_sdk::trace::SpanData;

/// Listens to the spans of the thread that made it, until it is dropped. What a test spawns is of its thread only on a
/// runtime of one thread, as `#[tokio::test]` has it.
pub struct Spans {
    ended: Ended,
    _provider: SdkTracerProvider,
    _listening: DefaultGuard,
}

impl Spans {
    /// Listens from now on.
    pub fn of_this_thread() -> Self {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(ended.clone())
            .build();
        let traced = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry()
            .with(LevelFilter::INFO)
            .with(traced);
        Self {
            ended,
            _provider: provider,
            _listening: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Those that have ended by now.
    pub fn ended(&self) -> Vec<SpanData> {
        let ended = self.ended.0.lock();
        ended.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug, Clone, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Ended {
    fn on_start(&self, _span: &mut Span, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
