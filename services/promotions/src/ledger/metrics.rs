//! What the ledger role measures. A sale's series go when the sale does.

use std::sync::LazyLock;

use chassis::metrics::{int_counter, int_counter_vec, int_gauge, int_gauge_vec};
use events::saga::OrderReply;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::core::Dropped;
use super::recovery::Cause;

macro_rules! metrics {
    ($($name:ident: $type:ty = $make:ident($metric:literal, $help:literal $(, $labels:expr)?);)+) => {
        $(pub(super) static $name: LazyLock<$type> = LazyLock::new(|| $make($metric, $help $(, $labels)?));)+
    };
}

metrics! {
    REFUSED: IntCounterVec = int_counter_vec(
        "quokka_claims_refused_by_ledger_total",
        "Claims of the log that the ledger had no stock or no room under the user's limit for. Must stay 0.",
        &["sale"]
    );
    DROPPED: IntCounterVec = int_counter_vec(
        "quokka_ledger_claims_dropped_total",
        "Claims of the log that are not in the ledger, by reason: epoch and void were never acknowledged.",
        &["sale", "reason"]
    );
    RECORDED: IntCounterVec = int_counter_vec(
        "quokka_ledger_claims_recorded_total",
        "Claims written to the ledger.",
        &["sale"]
    );
    SKIPPED: IntCounterVec = int_counter_vec(
        "quokka_ledger_records_skipped_total",
        "Records that could not be read (garbage) or belong to another sale (foreign).",
        &["reason"]
    );
    PARTITIONS: IntGauge = int_gauge(
        "quokka_ledger_partitions",
        "Partitions of sales' logs that this process reads."
    );
    LAG: IntGaugeVec = int_gauge_vec(
        "quokka_ledger_lag",
        "Records of a sale's log that the ledger has not applied.",
        &["topic"]
    );
    REMAINING: IntGaugeVec = int_gauge_vec(
        "quokka_sale_stock_remaining",
        "Units that the gate has left to sell.",
        &["sale"]
    );
    DRIFT: IntGaugeVec = int_gauge_vec(
        "quokka_sale_drift",
        "Entries that Redis holds as recorded and the ledger doesn't know (positive), or the other way round (negative).",
        &["sale"]
    );
    GATE_OPEN: IntGaugeVec = int_gauge_vec(
        "quokka_sale_gate_open",
        "Whether the sale's gate stands open in the running Redis (1) or is shut, lost or stale (0).",
        &["sale"]
    );
    RECOVERIES: IntCounterVec = int_counter_vec(
        "quokka_recoveries_total",
        "Attempts to put a sale's stock right, by cause and outcome.",
        &["sale", "cause", "outcome"]
    );
    EXPIRED: IntCounter = int_counter(
        "quokka_claims_expired_total",
        "Claims of time sales that were not used in time."
    );
    VOIDED: IntCounterVec = int_counter_vec(
        "quokka_claims_voided_total",
        "Claims that nobody was told yes for and that the settling gave up.",
        &["sale"]
    );
    BATCH_FAILURES: IntCounter = int_counter(
        "quokka_ledger_batch_failures_total",
        "Batches that could not be applied and are read again."
    );
    ANSWERS: IntCounterVec = int_counter_vec(
        "quokka_promotions_answers_total",
        "Answers to orders' commands. One whose transaction is done again counts again.",
        &["answer"]
    );
    EFFECTS_LOST: IntCounter = int_counter(
        "quokka_ledger_effects_lost_total",
        "Batches whose marks could not be set in Redis; the settling makes up for them."
    );
}

/// Makes the series of the answers exist.
pub(super) fn begin_answers() {
    for answer in ["reserved", "refused", "redeemed", "released"] {
        ANSWERS.with_label_values(&[answer]);
    }
}

/// Counts an answer to an order.
pub(super) fn answered(reply: &OrderReply) {
    let answer = match reply {
        OrderReply::DiscountReserved { .. } => "reserved",
        OrderReply::DiscountRefused { .. } => "refused",
        OrderReply::DiscountRedeemed { .. } => "redeemed",
        OrderReply::DiscountReleased { .. } => "released",
        _ => return,
    };
    ANSWERS.with_label_values(&[answer]).inc();
}

/// Makes a sale's series exist, so that the first count is seen as an increase.
pub(super) fn begin(sale: &str) {
    REFUSED.with_label_values(&[sale]);
    RECORDED.with_label_values(&[sale]);
    for reason in Dropped::ALL {
        DROPPED.with_label_values(&[sale, reason.as_str()]);
    }
}

/// A sale whose gate is shut, lost or not to be seen has nothing left to sell, and nothing to compare.
pub(super) fn shut(sale: &str) {
    GATE_OPEN.with_label_values(&[sale]).set(0);
    // An error says that there was no such series.
    let _ = REMAINING.remove_label_values(&[sale]);
    let _ = DRIFT.remove_label_values(&[sale]);
}

/// A sale that another process tends now is measured there.
pub(super) fn hand_over(sale: &str, topic: &str) {
    // An error says that there was no such series.
    let _ = LAG.remove_label_values(&[topic]);
    let _ = REMAINING.remove_label_values(&[sale]);
    let _ = DRIFT.remove_label_values(&[sale]);
    let _ = GATE_OPEN.remove_label_values(&[sale]);
}

/// Forgets a sale that is removed.
pub(super) fn end(sale: &str, topic: &str) {
    hand_over(sale, topic);
    let _ = REFUSED.remove_label_values(&[sale]);
    let _ = RECORDED.remove_label_values(&[sale]);
    let _ = VOIDED.remove_label_values(&[sale]);
    for reason in Dropped::ALL {
        let _ = DROPPED.remove_label_values(&[sale, reason.as_str()]);
    }
    for cause in Cause::ALL {
        for outcome in ["done", "failed"] {
            let _ = RECOVERIES.remove_label_values(&[sale, cause.as_str(), outcome]);
        }
    }
}
