//! The double-entry ledger: one journal for each movement of money at the gateway, each summing to nothing.
//!
//! The database refuses a journal that doesn't balance, a second one for the same transaction, refunds beyond the
//! capture, and any change to what was posted; this module only writes what would be accepted.

use jiff::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// An account of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// What the gateway owes us.
    Gateway,
    /// What we owe for orders: services to come, or money to give back.
    Guests,
}

impl Account {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "GATEWAY",
            Self::Guests => "GUESTS",
        }
    }
}

/// Why money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// It was taken.
    Capture,
    /// It was given back; by which refund, if by one of ours.
    Refund(Option<Uuid>),
}

/// A journal to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Of which payment.
    pub payment_id: Uuid,
    /// Of which order.
    pub order_id: Uuid,
    /// Why.
    pub movement: Movement,
    /// The gateway's name of the movement.
    pub transaction_key: String,
    /// In won, above zero.
    pub amount: i64,
    /// When the gateway says it was.
    pub at: Timestamp,
}

impl Journal {
    /// Its lines: debits above zero, credits below.
    pub fn entries(&self) -> [(Account, i64); 2] {
        match self.movement {
            Movement::Capture => [
                (Account::Gateway, self.amount),
                (Account::Guests, -self.amount),
            ],
            Movement::Refund(_) => [
                (Account::Guests, self.amount),
                (Account::Gateway, -self.amount),
            ],
        }
    }
}

/// Posts a journal. False if the transaction has one already: then nothing is done.
pub async fn post(connection: &mut PgConnection, journal: &Journal) -> Result<bool, sqlx::Error> {
    let journal_id = Uuid::now_v7();
    let (kind, refund_id) = match journal.movement {
        Movement::Capture => ("CAPTURE", None),
        Movement::Refund(refund_id) => ("REFUND", refund_id),
    };
    // Guards "each gateway transaction has one journal": the unique key decides between posters.
    let posted = sqlx::query!(
        "INSERT INTO journals (journal_id, payment_id, order_id, kind, transaction_key, refund_id, amount, gateway_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (transaction_key) DO NOTHING",
        journal_id,
        journal.payment_id,
        journal.order_id,
        kind,
        journal.transaction_key,
        refund_id,
        journal.amount,
        database_time(journal.at),
    )
    .execute(&mut *connection)
    .await?;
    if posted.rows_affected() == 0 {
        return Ok(false);
    }
    let [(first, debit), (second, credit)] = journal.entries();
    debug_assert_eq!(debit + credit, 0, "a journal sums to 0");
    sqlx::query!(
        "INSERT INTO entries (journal_id, line, account, amount) VALUES ($1, 1, $2, $3), ($1, 2, $4, $5)",
        journal_id,
        first.as_str(),
        debit,
        second.as_str(),
        credit,
    )
    .execute(connection)
    .await?;
    Ok(true)
}

/// A time as the database has it, to the second: the gateway knows no finer.
pub(crate) fn database_time(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The other way round.
pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_journal_sums_to_nothing(amount in 1..=i64::MAX, refund: bool) {
            let journal = Journal {
                payment_id: Uuid::nil(),
                order_id: Uuid::nil(),
                movement: if refund { Movement::Refund(None) } else { Movement::Capture },
                transaction_key: "t".to_owned(),
                amount,
                at: Timestamp::UNIX_EPOCH,
            };
            prop_assert_eq!(journal.entries().iter().map(|(_, amount)| amount).sum::<i64>(), 0);
        }
    }
}
