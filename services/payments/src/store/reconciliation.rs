//! What the comparison of ledger and gateway needs, and what it found.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Store, StoreError, secs, while_doing};
use crate::ledger::{database_time, timestamp};
use crate::toss::VIRTUAL_ACCOUNT;

/// How the ledger and the gateway can differ over a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The gateway has it, the ledger hasn't.
    NoJournal,
    /// The ledger has it, the gateway hasn't.
    NoTransaction,
    /// They have it with different amounts.
    Amount,
    /// The gateway took a deposit back after the ledger had it.
    DepositReversed,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 4] = [
        Self::NoJournal,
        Self::NoTransaction,
        Self::Amount,
        Self::DepositReversed,
    ];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoJournal => "NO_JOURNAL",
            Self::NoTransaction => "NO_TRANSACTION",
            Self::Amount => "AMOUNT",
            Self::DepositReversed => "DEPOSIT_REVERSED",
        }
    }
}

/// How the ledger has a payment captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captured {
    /// By a deposit of so much, which the bank can take back.
    ByDeposit(i64),
    /// By other means.
    Otherwise,
}

/// A time to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// From here on.
    pub start: Timestamp,
    /// Up to here, but not at.
    pub end: Timestamp,
}

impl Store {
    /// Takes the next slice for the caller, if it is time and nobody else has it. `checked_until` only moves when a
    /// slice was compared to its end.
    pub async fn take_slice(
        &self,
        every: Duration,
        lag: Duration,
        longest: Duration,
    ) -> Result<Option<Slice>, StoreError> {
        let doing = "take a slice of time to compare";
        sqlx::query!(
            "INSERT INTO reconciliation (checked_until, next_at)
             SELECT date_trunc('second', coalesce((SELECT min(created_at) FROM payments), now()))
                 - interval '10 minutes', now()
             ON CONFLICT (one) DO NOTHING",
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        let row = sqlx::query!(
            r#"UPDATE reconciliation SET next_at = now() + make_interval(secs => $1)
               WHERE next_at <= now()
               RETURNING checked_until,
                   least(date_trunc('second', now()) - make_interval(secs => $2),
                         checked_until + make_interval(secs => $3)) AS "until!""#,
            secs(every),
            secs(lag),
            secs(longest),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        Ok(row.map(|row| Slice {
            start: timestamp(row.checked_until),
            end: timestamp(row.until),
        }))
    }

    /// A slice is compared to its end. If that isn't all there is, the next one is due at once.
    pub async fn slice_done(&self, slice: Slice, more: bool) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE reconciliation SET checked_until = greatest(checked_until, $1),
                 next_at = CASE WHEN $2 THEN now() ELSE next_at END",
            database_time(slice.end),
            more,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("record that a slice is compared"))?;
        Ok(())
    }

    /// The journals of these transactions: their amounts by key.
    pub async fn journals_of(&self, keys: &[String]) -> Result<HashMap<String, i64>, StoreError> {
        let rows = sqlx::query!(
            "SELECT transaction_key, amount FROM journals WHERE transaction_key = ANY($1)",
            keys,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing("find the journals of transactions"))?;
        Ok(rows
            .into_iter()
            .map(|row| (row.transaction_key, row.amount))
            .collect())
    }

    /// What the ledger has captured of these payments.
    pub async fn captured_of(
        &self,
        payment_keys: &[String],
    ) -> Result<HashMap<String, Captured>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT payment_key, captured AS "captured!", method FROM payments
               WHERE payment_key = ANY($1) AND state = 'CAPTURED'"#,
            payment_keys,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing("find the captures of payments"))?;
        let captured = rows.into_iter().map(|row| {
            let captured = match row.method.as_deref() {
                Some(VIRTUAL_ACCOUNT) => Captured::ByDeposit(row.captured),
                _ => Captured::Otherwise,
            };
            (row.payment_key, captured)
        });
        Ok(captured.collect())
    }

    /// The transactions whose journals fall into a time.
    pub async fn journals_between(&self, slice: Slice) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query!(
            "SELECT transaction_key FROM journals WHERE gateway_at >= $1 AND gateway_at < $2",
            database_time(slice.start),
            database_time(slice.end),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing("list the journals of a time"))?;
        Ok(rows.into_iter().map(|row| row.transaction_key).collect())
    }

    /// Notes differences, and has the gateway asked about the payments that they are of.
    pub async fn note_differences(
        &self,
        kind: Kind,
        keys: &[String],
        payment_keys: &[String],
    ) -> Result<(), StoreError> {
        let doing = "note differences";
        sqlx::query!(
            "INSERT INTO discrepancies (transaction_key, kind) SELECT unnest($1::text[]), $2
             ON CONFLICT (transaction_key) DO UPDATE SET kind = excluded.kind, resolved_at = NULL",
            keys,
            kind.as_str(),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        sqlx::query!(
            "UPDATE payments SET next_ask_at = least(coalesce(next_ask_at, 'infinity'), now())
             WHERE payment_key = ANY($1) AND state <> 'ASKING'",
            payment_keys,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        Ok(())
    }

    /// Crosses out differences that are gone: a journal came after all.
    pub async fn resolve_differences(&self) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE discrepancies d SET resolved_at = now()
             WHERE kind = 'NO_JOURNAL' AND resolved_at IS NULL
               AND EXISTS (SELECT FROM journals j WHERE j.transaction_key = d.transaction_key)",
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("cross out differences"))?;
        Ok(())
    }

    /// How many differences of a kind stand, and up to when all was compared.
    pub async fn differences(
        &self,
    ) -> Result<(HashMap<String, i64>, Option<Timestamp>), StoreError> {
        let doing = "count differences";
        let rows = sqlx::query!(
            r#"SELECT kind, count(*) AS "count!" FROM discrepancies WHERE resolved_at IS NULL GROUP BY kind"#,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        let until = sqlx::query_scalar!("SELECT checked_until FROM reconciliation")
            .fetch_optional(&self.pool)
            .await
            .map_err(while_doing(doing))?;
        let counts = rows.into_iter().map(|row| (row.kind, row.count)).collect();
        Ok((counts, until.map(timestamp)))
    }
}
