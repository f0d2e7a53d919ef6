//! Which traces are exported: those whose caller says so, and of those that start here at most a fixed number a second.
//!
//! In quiet times that is every one. In the minute of a sale, when thousands of requests a second would each pay for
//! a span, it is a sample, and the rest pay nothing.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::TraceContext;

/// Traces that may start in one process in one second: at about 3 microseconds a span, under a thousandth of a core.
const TRACES_PER_SECOND_MAX: u64 = 100;

static EXPORTING: AtomicBool = AtomicBool::new(false);
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The second that is being counted, in the upper half, and the traces started in it, in the lower.
static WINDOW: AtomicU64 = AtomicU64::new(0);

/// From now on spans are worth making.
pub(super) fn exporting() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Whether a request should make a span: `sampled` is what its caller said, if it had a trace.
pub fn may_start_trace(sampled: Option<bool>) -> bool {
    EXPORTING.load(Ordering::Relaxed)
        && sampled.unwrap_or_else(|| started_this_second() < TRACES_PER_SECOND_MAX)
}

impl TraceContext {
    /// The same context as a process at the edge takes it. From inside, `sampled` is the word of whoever started the
    /// trace; from outside it is a wish, which is granted to no more of them than may start here.
    pub fn wished(self) -> Self {
        Self {
            sampled: self.sampled && take_one(),
            ..self
        }
    }
}

/// The sampler of the whole process: the parent's decision, or the limit where there is none.
pub(super) fn sampler() -> Sampler {
    Sampler::ParentBased(Box::new(PerSecond))
}

#[derive(Debug, Clone)]
struct PerSecond;

impl ShouldSample for PerSecond {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let decision = if take_one() {
            SamplingDecision::RecordAndSample
        } else {
            SamplingDecision::Drop
        };
        let trace_state = parent.map_or_else(TraceState::default, |cx| {
            cx.span().span_context().trace_state().clone()
        });
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state,
        }
    }
}

fn this_second() -> u64 {
    STARTED.elapsed().as_secs() + 1
}

fn started_this_second() -> u64 {
    let window = WINDOW.load(Ordering::Relaxed);
    if window >> 32 == this_second() {
        window & u64::from(u32::MAX)
    } else {
        0
    }
}

/// Counts one more trace in this second; false when the second is full.
fn take_one() -> bool {
    let second = this_second();
    WINDOW
        .try_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
            let started = if window >> 32 == second {
                window & u64::from(u32::MAX)
            } else {
                0
            };
            (started < TRACES_PER_SECOND_MAX).then_some(second << 32 | (started + 1))
        })
        .is_ok()
}
