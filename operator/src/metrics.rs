//! What the operator counts. The drift of each sale under the contract's name, `quokka_sale_drift`, is the ledger's;
//! the operator measures it by itself and shows it under a name of its own, so that no sum counts it twice.

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
};

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

static WATCH_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    chassis::metrics::int_counter_vec(
        "quokka_operator_watch_failures_total",
        "Times that the watch of a kind of resource failed and was begun again.",
        &["kind"],
    )
});

static NOT_READY: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    chassis::metrics::int_gauge_vec(
        "quokka_operator_sales_not_ready",
        "Resources of a kind whose condition Ready isn't True, or that can't be read.",
        &["kind"],
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
        WATCH_FAILURES.with_label_values(&[kind]);
        NOT_READY.with_label_values(&[kind]).set(0);
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

pub(crate) fn watch_failed(kind: &str) {
    WATCH_FAILURES.with_label_values(&[kind]).inc();
}

/// Counts the resources of a kind that are not ready, for as long as this lives.
pub(crate) struct NotReady {
    shown: IntGauge,
    names: Mutex<HashSet<String>>,
}

impl NotReady {
    pub(crate) fn of(kind: &str) -> Self {
        let shown = NOT_READY.with_label_values(&[kind]);
        shown.set(0);
        Self {
            shown,
            names: Mutex::default(),
        }
    }

    /// Says how the resource of a name was found.
    pub(crate) fn set(&self, name: &str, not_ready: bool) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if not_ready {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
        self.shown
            .set(i64::try_from(names.len()).unwrap_or(i64::MAX));
    }
}

impl Drop for NotReady {
    fn drop(&mut self) {
        // What was found is the next leader's to say.
        self.shown.set(0);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_counted_once_while_it_is_not_ready() {
        let kind = "Tested";
        let not_ready = NotReady::of(kind);
        let shown = || NOT_READY.with_label_values(&[kind]).get();
        for (name, is, counted) in [
            ("a", true, 1),
            ("a", true, 1),
            ("b", true, 2),
            ("c", false, 2),
            ("a", false, 1),
        ] {
            not_ready.set(name, is);
            assert_eq!(shown(), counted, "{name} {is}");
        }
        drop(not_ready);
        assert_eq!(shown(), 0, "another leads");
    }
}
