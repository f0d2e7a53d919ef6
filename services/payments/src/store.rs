//! Every SQL statement of the service but the ledger's own. An outcome, its journal and the answer to `orders` are one
//! transaction, and every outcome is written from the state that it follows from: writing it twice does nothing.

mod payments;
mod reconciliation;
mod refunds;

use std::time::Duration;

use sqlx::PgPool;

pub use payments::{Begun, Due, Intended, WebhookSender};
pub use reconciliation::{Captured, Kind, Slice};
pub use refunds::{Accepted, accept as accept_refund};

/// A statement that failed, and what it was for.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct StoreError {
    doing: &'static str,
    /// What went wrong.
    #[source]
    pub source: sqlx::Error,
}

fn while_doing<E: Into<sqlx::Error>>(doing: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError {
        doing,
        source: source.into(),
    }
}

/// Payments, refunds and what is known of the gateway's books, in PostgreSQL.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// In the database of `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

fn secs(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
