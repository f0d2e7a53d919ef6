//! What the claim path counts and measures.

use std::sync::LazyLock;

use chassis::metrics::{LATENCY_BUCKETS_SECONDS, histogram, int_counter_vec};
use prometheus::{Histogram, IntCounter, IntCounterVec};
use sale_stock::books::SaleKind;

use crate::claims::Answer;

static CLAIMS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_claims_total",
        "Claim requests answered.",
        &["sale", "kind", "outcome"],
    )
});

/// How long claim requests took, whatever they were answered.
pub(super) static DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "quokka_claim_duration_seconds",
        "Time to answer a claim request, its append included.",
        LATENCY_BUCKETS_SECONDS,
    )
});

const OUTCOMES: [&str; 9] = [
    "accepted",
    "repeated",
    "sold_out",
    "not_started",
    "ended",
    "paused",
    "recovering",
    "unknown",
    "unavailable",
];

/// The counters of one sale, looked up once. They vanish with the sale.
#[derive(Debug)]
pub(super) struct ClaimCounters {
    sale: String,
    kind: SaleKind,
    counters: [IntCounter; OUTCOMES.len()],
}

impl ClaimCounters {
    pub(super) fn new(sale: &str, kind: SaleKind) -> Self {
        let counters =
            OUTCOMES.map(|outcome| CLAIMS.with_label_values(&[sale, kind.as_str(), outcome]));
        Self {
            sale: sale.to_owned(),
            kind,
            counters,
        }
    }

    pub(super) fn count(&self, answer: Answer) {
        let index = match answer {
            Answer::Accepted(_) => 0,
            Answer::Repeated(_) => 1,
            Answer::SoldOut => 2,
            Answer::NotStarted => 3,
            Answer::Ended => 4,
            Answer::Paused => 5,
            Answer::Recovering => 6,
            Answer::Unknown => 7,
            Answer::Unavailable => 8,
        };
        self.counters[index].inc();
    }

    /// Forgets the sale's label values; a sale of the same name starts from 0.
    pub(super) fn remove(&self) {
        for outcome in OUTCOMES {
            // They may be gone already.
            let _ = CLAIMS.remove_label_values(&[self.sale.as_str(), self.kind.as_str(), outcome]);
        }
    }
}
