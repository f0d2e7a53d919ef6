//! Trace context in record headers, as the W3C writes it.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A `traceparent` header: version 00, trace id, span id, flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(SpanContext);

impl TraceParent {
    /// The header's name.
    pub const HEADER: &str = "traceparent";

    /// Of the span that is current; `None` where nothing is traced.
    pub fn current() -> Option<Self> {
        let context = Span::current().context();
        let span = context.span().span_context().clone();
        span.is_valid().then_some(Self(span))
    }

    /// From a header's value; `None` if it isn't one.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(Self(context))
    }

    /// For a link from the consumer's span to the producer's.
    pub fn span_context(&self) -> SpanContext {
        self.0.clone()
    }

    /// Makes `span`, which must not have been entered yet, a part of the trace, caused by the header's span.
    pub fn continue_in(&self, span: &Span) {
        // An error means that nothing listens to this span.
        let _ = span.set_parent(Context::new().with_remote_span_context(self.span_context()));
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.0.trace_id(),
            self.0.span_id(),
            self.0.trace_flags()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_survives_reading_and_writing() {
        let parent = TraceParent::parse(HEADER.as_bytes()).map(|parent| parent.to_string());
        assert_eq!(parent.as_deref(), Some(HEADER));
    }

    #[test]
    fn what_is_no_header_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-xyz-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
