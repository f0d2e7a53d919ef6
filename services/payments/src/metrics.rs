//! What the service counts beyond its requests. The statics register themselves when they are first touched.

use std::sync::LazyLock;

use chassis::metrics::{int_counter_vec, int_gauge, int_gauge_vec};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

/// Calls of the gateway, by what they came to: `done`, `refused` or `unknown`.
pub static GATEWAY_REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_payment_gateway_requests_total",
        "Requests to the payment gateway, by outcome: done, refused or unknown.",
        &["outcome"],
    )
});

/// Payments, by what became of them.
pub static PAYMENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_payments_total",
        "Payments, by outcome: captured, refused or waiting (for a deposit).",
        &["outcome"],
    )
});

/// Refunds, by what became of them. A refused one needs a person.
pub static REFUNDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_refunds_total",
        "Refunds, by outcome: done or refused.",
        &["outcome"],
    )
});

/// Webhooks, by whether they were believed.
pub static WEBHOOKS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_payment_webhooks_total",
        "Webhooks of the payment gateway: asked (the gateway is asked about it), forged, or unknown.",
        &["outcome"],
    )
});

/// Payments and refunds whose outcome isn't known although their call is over.
pub static UNSETTLED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    int_gauge_vec(
        "quokka_payments_unsettled",
        "Payments and refunds whose outcome is not known although no call is under way.",
        &["kind"],
    )
});

/// Refunds that were refused and still wait for a person.
pub static REFUNDS_REFUSED: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge(
        "quokka_refunds_refused",
        "Refunds that were refused while money of their payment is held, or without any. A person must see to them.",
    )
});

/// Differences between ledger and gateway that stand.
pub static DISCREPANCIES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    int_gauge_vec(
        "quokka_payment_discrepancies",
        "Transactions in which ledger and gateway differ: no_journal, no_transaction, amount or deposit_reversed. Must be 0.",
        &["kind"],
    )
});

/// When ledger and gateway were last compared to the end.
pub static RECONCILED_AT: LazyLock<IntGauge> = LazyLock::new(|| {
    int_gauge(
        "quokka_payment_reconciled_timestamp_seconds",
        "Up to when ledger and gateway have been compared, in seconds since 1970.",
    )
});

/// Shows each of them from the start: a counter that appears with its first event has no rate for it.
pub fn register() {
    for outcome in ["done", "refused", "unknown"] {
        GATEWAY_REQUESTS.with_label_values(&[outcome]);
    }
    for outcome in ["captured", "refused", "waiting"] {
        PAYMENTS.with_label_values(&[outcome]);
    }
    for outcome in ["done", "refused"] {
        REFUNDS.with_label_values(&[outcome]);
    }
    for outcome in ["asked", "forged", "unknown"] {
        WEBHOOKS.with_label_values(&[outcome]);
    }
    for kind in ["payment", "refund"] {
        UNSETTLED.with_label_values(&[kind]);
    }
    LazyLock::force(&REFUNDS_REFUSED);
    for kind in ["no_journal", "no_transaction", "amount", "deposit_reversed"] {
        DISCREPANCIES.with_label_values(&[kind]);
    }
    LazyLock::force(&RECONCILED_AT);
}
