//! What the saga counts and measures.

use std::sync::LazyLock;

use chassis::metrics::{histogram, int_counter, int_counter_vec, int_gauge};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// From a second in quiet times to the end of a payment window.
const DURATION_BUCKETS_SECONDS: &[f64] = &[
    0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0, 900.0, 1_200.0, 1_800.0, 3_600.0,
];

pub(crate) static SAGAS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_saga_total",
        "Orders that came to an outcome; a confirmed order that is cancelled later counts as both.",
        &["outcome"],
    )
});

pub(crate) static DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "quokka_saga_duration_seconds",
        "From an order's making to its first outcome.",
        DURATION_BUCKETS_SECONDS,
    )
});

pub(crate) static UNPAID: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge(
        "quokka_orders_unpaid",
        "Orders that wait to be paid, those included whose nights are being held.",
    )
});

pub(crate) static REMINDERS: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_saga_reminders_total",
        "Times that an order's unanswered commands were sent again.",
    )
});

/// Shows each of them from the start, as 0: a counter that appears with its first event has no rate for it.
pub(crate) fn register() {
    for outcome in ["confirmed", "cancelled", "expired", "failed"] {
        SAGAS.with_label_values(&[outcome]).inc_by(0);
    }
    LazyLock::force(&DURATION);
    LazyLock::force(&UNPAID);
    LazyLock::force(&REMINDERS);
}
