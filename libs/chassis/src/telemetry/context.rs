//! The trace context of a request or message, by W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
//!
//! A request whose trace is exported has a tracing span, and its context is the span's. Every other request has a
//! context of its own in a task-local, which costs two random numbers instead of a span.

use std::{fmt, ops::Deref};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::Injector,
    trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState},
};
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use opentelemetry::trace::{SpanId, TraceId};

/// The header that carries the context, over HTTP and in Kafka records alike.
pub const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The length of a traceparent of version 00.
const TRACEPARENT_LEN: usize = 55;

tokio::task_local! {
    /// The context of the request that this task works on, where it has no span.
    static UNTRACED: TraceContext;
}

/// Which trace something belongs to, and which span of it caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span in it.
    pub span_id: SpanId,
    /// Whether the trace is exported.
    pub sampled: bool,
}

impl TraceContext {
    /// The start of a trace of its own, not exported.
    pub fn root() -> Self {
        Self {
            trace_id: TraceId::from_bytes(rand::random::<u128>().max(1).to_be_bytes()),
            span_id: random_span_id(),
            sampled: false,
        }
    }

    /// Another span of the same trace.
    pub fn child(self) -> Self {
        Self {
            span_id: random_span_id(),
            ..self
        }
    }

    /// Reads a `traceparent`. `None` for anything malformed, as the recommendation asks: a new trace starts then.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        let (exact, version_00) = (bytes.len() == TRACEPARENT_LEN, bytes.starts_with(b"00"));
        // A later version may go on, after another hyphen.
        if !exact && (version_00 || bytes.get(TRACEPARENT_LEN) != Some(&b'-')) {
            return None;
        }
        if [2, 35, 52].iter().any(|at| bytes[*at] != b'-') {
            return None;
        }
        hex_u128(&bytes[..2]).filter(|version| *version != 0xff)?;
        let trace_id = hex_u128(&bytes[3..35]).filter(|id| *id != 0)?;
        let span_id = hex_u128(&bytes[36..52]).filter(|id| *id != 0)?;
        let flags = hex_u128(&bytes[53..55])?;
        Some(Self {
            trace_id: TraceId::from_bytes(trace_id.to_be_bytes()),
            span_id: SpanId::from_bytes((span_id as u64).to_be_bytes()),
            sampled: flags & 1 == 1,
        })
    }

    /// The context that a request's headers carry.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
    }

    /// The value of the `traceparent` header: what to put into an outgoing request or Kafka record.
    pub fn traceparent(self) -> Hex<TRACEPARENT_LEN> {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace_id.to_bytes());
        write_hex(&mut text[36..52], &self.span_id.to_bytes());
        text[54] = if self.sampled { b'1' } else { b'0' };
        Hex(text)
    }

    /// The trace's id as people know it.
    pub fn trace_id_hex(self) -> Hex<32> {
        let mut text = [0; 32];
        write_hex(&mut text, &self.trace_id.to_bytes());
        Hex(text)
    }

    /// The span's id as people know it.
    pub fn span_id_hex(self) -> Hex<16> {
        let mut text = [0; 16];
        write_hex(&mut text, &self.span_id.to_bytes());
        Hex(text)
    }

    /// As OpenTelemetry has it, received from somebody else.
    fn remote(self) -> SpanContext {
        let flags = if self.sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        SpanContext::new(
            self.trace_id,
            self.span_id,
            flags,
            true,
            TraceState::default(),
        )
    }
}

/// A short ASCII text that needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits and hyphens are ASCII")
    }
}

impl<const N: usize> Deref for Hex<N> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The context of what runs now: of the current span if it is traced, or else of the request.
pub fn current() -> Option<TraceContext> {
    of_span().or_else(|| UNTRACED.try_with(|context| *context).ok())
}

fn of_span() -> Option<TraceContext> {
    Context::map_current(|cx| {
        if !cx.has_active_span() {
            return None;
        }
        let span = cx.span();
        let context = span.span_context();
        context.is_valid().then(|| TraceContext {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            sampled: context.is_sampled(),
        })
    })
}

/// Puts the current context into what goes out: HTTP headers, the headers of a record, anything.
pub fn inject(carrier: &mut impl Injector) {
    let Some(context) = current() else { return };
    carrier.set(TRACEPARENT, context.traceparent().as_str().to_owned());
    let state = Context::map_current(|cx| cx.span().span_context().trace_state().header());
    if !state.is_empty() {
        carrier.set(TRACESTATE, state);
    }
}

/// Puts the current context into the headers of an outgoing request.
pub fn inject_headers(headers: &mut HeaderMap) {
    inject(&mut Headers(headers));
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(key.as_bytes()),
            HeaderValue::from_str(&value),
        ) {
            self.0.insert(name, value);
        }
    }
}

/// Links `span` to what caused it without being its parent: a batch to each of the messages in it.
pub fn link(span: &Span, cause: TraceContext) {
    span.add_link(cause.remote());
}

/// Makes `span` a part of the trace that `parent` belongs to. To be called before the span is entered.
pub fn span_parent(span: &Span, parent: TraceContext) {
    // An error means that the span isn't traced, or has started: nothing that the caller could do better.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent.remote()));
}

/// Runs `future` in the trace of the caller: for work of a request that is spawned as a task of its own.
pub fn propagate<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let untraced = UNTRACED.try_with(|context| *context).ok();
    let future = future.instrument(Span::current());
    async move {
        match untraced {
            Some(context) => UNTRACED.scope(context, future).await,
            None => future.await,
        }
    }
}

/// Runs `future`, a request without a span, in `context`.
pub(crate) fn in_context<F: Future>(
    context: TraceContext,
    future: F,
) -> impl Future<Output = F::Output> {
    UNTRACED.scope(context, future)
}

/// Whether this task works on a request that isn't traced, and so should make no spans.
pub(crate) fn untraced() -> bool {
    UNTRACED.try_with(|_| ()).is_ok()
}

fn random_span_id() -> SpanId {
    SpanId::from_bytes(rand::random::<u64>().max(1).to_be_bytes())
}

/// Lower-case hexadecimal digits as a number; the recommendation forbids upper case.
fn hex_u128(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_survives_the_round_trip() {
        let context = TraceContext::parse(TEXT).expect("an example of the recommendation");
        assert!(context.sampled);
        assert_eq!(
            context.trace_id_hex().as_str(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.span_id_hex().as_str(), "00f067aa0ba902b7");
        assert_eq!(context.traceparent().as_str(), TEXT);
    }

    #[test]
    fn a_malformed_traceparent_is_none() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-é",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_may_be_longer() {
        let later = TEXT.replacen("00", "01", 1) + "-more";
        assert!(TraceContext::parse(&later).is_some());
    }
}
