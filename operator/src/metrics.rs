//! What the operator counts. The drift of each sale under the contract's name, `quokka_sale_drift`, is the ledger's;
//! the operator measures it by itself and shows it under a name of its own, so that no sum counts it twice.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was written to the API.
    Changed,
    /// Everything was as it should be.
    Unchanged,
    /// It failed and is tried again.
    Failed,
}

static RECONCILIATIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    chassis::metrics::int_counter_vec(
        "quokka_operator_reconciliations_total",
        "Looks at a resource, by its kind and what came of it: changed, unchanged or failed.",
        &["kind", "outcome"],
    )
});

static DRIFT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    chassis::metrics::int_gauge_vec(
        "quokka_operator_sale_drift",
        "Units that Redis holds as claimed beyond the ledger's (or, below zero, short of them), when last measured at rest.",
        &["sale"],
    )
});

static LEADER: LazyLock<IntGauge> = LazyLock::new(|| {
    chassis::metrics::int_gauge(
        "quokka_operator_leader",
        "Whether this replica leads (1) or waits for the lease (0).",
    )
});

/// Shows every metric from the start, with zeros: an alert on one that isn't there never fires.
pub fn init() {
    for kind in ["TimeSale", "CouponCampaign"] {
        for outcome in ["changed", "unchanged", "failed"] {
            RECONCILIATIONS.with_label_values(&[kind, outcome]);
        }
    }
    LEADER.set(0);
}

pub(crate) fn reconciled(kind: &str, outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Changed => "changed",
        Outcome::Unchanged => "unchanged",
        Outcome::Failed => "failed",
    };
    RECONCILIATIONS.with_label_values(&[kind, outcome]).inc();
}

pub(crate) fn drift(sale: &str, units: i64) {
    DRIFT.with_label_values(&[sale]).set(units);
}

pub(crate) fn forget(sale: &str) {
    // It may never have been measured.
    let _ = DRIFT.remove_label_values(&[sale]);
}

pub(crate) fn leading(leads: bool) {
    LEADER.set(leads.into());
    if !leads {
        // What was measured is the next leader's to say.
        DRIFT.reset();
    }
}
