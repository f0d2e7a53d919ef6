//! What the service counts beyond its requests. The statics register themselves when they are first touched.

use std::sync::LazyLock;

use chassis::metrics::{gauge, int_counter, int_gauge};
use prometheus::{Gauge, IntCounter, IntGauge};

/// Time sales whose discounts are known.
pub(crate) static DISCOUNTS: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge(
        "quokka_stays_discounts",
        "Time sales whose discounts are known, those included that have not started.",
    )
});

/// Redis was away.
pub(crate) static DISCOUNTS_UNREAD: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_stays_discounts_unread_total",
        "Readings of the discounts in Redis that failed.",
    )
});

/// Stays that can be found.
pub(crate) static INDEXED_STAYS: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge(
        "quokka_stays_indexed",
        "Stays in this process's search index.",
    )
});

/// What the index takes.
pub(crate) static INDEX_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge(
        "quokka_stays_index_bytes",
        "Memory that this process's search index takes.",
    )
});

/// How stale searches may be.
pub(crate) static INDEX_AGE: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "quokka_stays_index_age_seconds",
        "Since the search index last heard from the database; what changed later may be missing.",
    )
});

/// The index was behind.
pub(crate) static INDEX_CAUGHT_UP: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_stays_index_caught_up_total",
        "Times that the search index had to read again what it had missed.",
    )
});

/// Shows each of them from the start, as 0.
pub(crate) fn register() {
    LazyLock::force(&DISCOUNTS);
    LazyLock::force(&DISCOUNTS_UNREAD);
    LazyLock::force(&INDEXED_STAYS);
    LazyLock::force(&INDEX_BYTES);
    LazyLock::force(&INDEX_AGE);
    LazyLock::force(&INDEX_CAUGHT_UP);
}
