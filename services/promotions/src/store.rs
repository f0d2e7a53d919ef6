//! Every SQL statement of promotions. Which rows are locked for what, and in which order, says [`locks`].

mod batch;
mod claims;
mod endings;
mod locks;
mod recovery;
mod reservations;
mod sales;

pub use batch::{BatchOutcome, BatchRecord};
pub use claims::{ClaimRow, ClaimStatus, CouponRow};
pub use endings::DueSale;
pub use recovery::RecoveryBegin;
pub use reservations::{DiscountRow, lock_claims, lock_reservations, write_desk};
pub(crate) use sales::gate_terms;
pub use sales::{LedgerCounts, PutOutcome, SaleRow};

use sqlx::PgPool;
use time::OffsetDateTime;

/// A statement that failed, and what it was for.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct StoreError {
    doing: &'static str,
    #[source]
    source: sqlx::Error,
}

impl StoreError {
    /// The database answered, and will answer the same again: waiting doesn't help.
    pub fn is_final(&self) -> bool {
        matches!(
            &self.source,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound
        ) || matches!(&self.source, sqlx::Error::Database(error) if !is_transient(error.as_ref()))
    }
}

fn is_transient(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_none_or(|code| is_transient_code(&code))
}

/// Connection trouble, a server that starts or stops, a lock or a deadlock: classes 08, 40, 53, 55, 57, 58. A server
/// that takes no writes (25006) is a standby, until it is promoted or the address leads elsewhere; a database that
/// doesn't exist (3D000) is about to be made or restored.
fn is_transient_code(code: &str) -> bool {
    ["08", "40", "53", "55", "57", "58", "25006", "3D000"]
        .iter()
        .any(|start| code.starts_with(start))
}

/// Names what a statement was for.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError { doing, source })
    }
}

/// The ledger's database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// On connections of the given pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!(r#"SELECT 1 AS "one!""#)
            .fetch_one(&self.pool)
            .await
            .doing("ask the database for a sign of life")?;
        Ok(())
    }
}

/// The migrations of the ledger's database.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// A time as the database has it, for everyone else.
fn timestamp(time: OffsetDateTime) -> jiff::Timestamp {
    // Both reach beyond the years 1 to 9999; the conversion saturates rather than fails.
    jiff::Timestamp::from_nanosecond(time.unix_timestamp_nanos()).unwrap_or(jiff::Timestamp::MAX)
}

/// A time in Unix milliseconds as the database takes it.
fn instant(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The columns that hold counts are checked to be in range; what isn't is kept at the bound, where it is noticed.
fn count(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::is_transient_code;

    #[test]
    fn a_failover_of_the_database_is_waited_for() {
        for code in ["08006", "40P01", "57P01", "25006", "3D000"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["23505", "23514", "25001", "42P01"] {
            assert!(!is_transient_code(code), "{code}");
        }
    }
}
