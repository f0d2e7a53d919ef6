//! What the gateway counts, besides the duration of requests that every process measures.

use std::sync::LazyLock;

use chassis::{metrics, problem::Code};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use crate::upstreams::Service;

static ENDPOINTS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    metrics::int_gauge_vec(
        "quokka_gateway_endpoints",
        "Endpoints of a service that requests can be passed on to.",
        &["service"],
    )
});

static SENT_AGAIN: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::int_counter_vec(
        "quokka_gateway_sent_again_total",
        "Requests that were sent to a service once more because the first connection failed.",
        &["service"],
    )
});

static REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    metrics::int_counter_vec(
        "quokka_gateway_refusals_total",
        "Requests that the gateway answered itself, by the problem's code.",
        &["code"],
    )
});

/// Connections that clients have open.
pub(crate) static CONNECTIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    metrics::int_gauge(
        "quokka_gateway_connections",
        "Connections that clients have open.",
    )
});

/// Bytes of requests' bodies in memory, of which there is a most.
pub(crate) static BODY_BYTES_HELD: LazyLock<IntGauge> = LazyLock::new(|| {
    metrics::int_gauge(
        "quokka_gateway_body_bytes_held",
        "Bytes of requests' bodies that are in memory.",
    )
});

/// Notes how many endpoints a service has.
pub(crate) fn endpoints(service: Service, count: usize) {
    ENDPOINTS
        .with_label_values(&[service.name()])
        .set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// Notes that a request is sent once more.
pub(crate) fn sent_again(service: Service) {
    SENT_AGAIN.with_label_values(&[service.name()]).inc();
}

/// Notes an answer of the gateway's own.
pub(crate) fn refused(code: Code) {
    REFUSALS.with_label_values(&[code.as_str()]).inc();
}
