//! What a recovery asks and tells the ledger.

use std::time::Duration;

use sale_stock::{Epoch, KeyHash, RebuiltEntry, SaleUid, Sequence, Slot, UnixMillis, UserId};

use super::{Doing, Store, StoreError, claims::entry};

/// What trying to begin a recovery came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryBegin {
    /// It is the caller's, in this epoch.
    Won(Epoch),
    /// The epoch was not the one the caller saw, or someone else is at it.
    Lost,
}

impl Store {
    /// Takes the next epoch by compare and set. `above` is an epoch met elsewhere (a gate written before the database
    /// was restored from a backup): the one taken is higher.
    pub async fn begin_recovery(
        &self,
        uid: SaleUid,
        seen: Epoch,
        above: Epoch,
        owner: &str,
        lease: Duration,
    ) -> Result<RecoveryBegin, StoreError> {
        let row = sqlx::query!(
            "UPDATE sales SET epoch = greatest(epoch, $3) + 1, recovery_owner = $4,
                recovery_lease_until = now() + make_interval(secs => $5), recovery_requested_at = NULL
            WHERE uid = $1 AND epoch = $2 AND removed_at IS NULL AND drained_at IS NULL
                AND (recovery_lease_until IS NULL OR recovery_lease_until <= now() OR recovery_owner = $4)
            RETURNING epoch",
            uid.0,
            seen.0.cast_signed(),
            above.0.cast_signed(),
            owner,
            lease.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await
        .doing("begin a recovery")?;
        Ok(row.map_or(RecoveryBegin::Lost, |row| {
            RecoveryBegin::Won(Epoch(row.epoch.unsigned_abs()))
        }))
    }

    /// Whether the epoch is still the highest given out.
    pub async fn epoch_is(&self, uid: SaleUid, epoch: Epoch) -> Result<bool, StoreError> {
        let row = sqlx::query!(
            r#"SELECT epoch = $2 AS "current!" FROM sales WHERE uid = $1"#,
            uid.0,
            epoch.0.cast_signed()
        )
        .fetch_optional(&self.pool)
        .await
        .doing("check a sale's epoch")?;
        Ok(row.is_some_and(|row| row.current))
    }

    /// Whether the fence of the epoch has been read in each of the first so many partitions (R9).
    pub async fn fenced(
        &self,
        uid: SaleUid,
        epoch: Epoch,
        partitions: u32,
    ) -> Result<bool, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "fenced!" FROM positions WHERE sale_uid = $1 AND epoch >= $2 AND partition < $3"#,
            uid.0,
            epoch.0.cast_signed(),
            i32::try_from(partitions).unwrap_or(i32::MAX),
        )
        .fetch_one(&self.pool)
        .await
        .doing("look for a fence")?;
        Ok(row.fenced >= i64::from(partitions))
    }

    /// Active claims in the order of user and slot, from after the given one.
    pub async fn active_claims(
        &self,
        uid: SaleUid,
        after: Option<(UserId, Slot)>,
        limit: u32,
    ) -> Result<Vec<RebuiltEntry>, StoreError> {
        let (user, slot) = after.map_or((uuid::Uuid::nil(), -1), |(user, slot)| {
            (user.0, i16::from(slot.0))
        });
        let rows = sqlx::query!(
            "SELECT claim_id, user_id, slot, key_hash, seq, claimed_at FROM claims
            WHERE sale_uid = $1 AND ended_at IS NULL AND (user_id, slot) > ($2, $3)
            ORDER BY user_id, slot LIMIT $4",
            uid.0,
            user,
            slot,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .doing("read active claims for a rebuild")?;
        Ok(rows
            .into_iter()
            .map(|row| RebuiltEntry {
                entry: entry(row.user_id, row.slot, row.claim_id),
                sequence: Sequence(row.seq.unsigned_abs()),
                key: KeyHash::from_i64(row.key_hash),
                claimed_at: UnixMillis(super::timestamp(row.claimed_at).as_millisecond()),
            })
            .collect())
    }

    /// The gate of the epoch is written, and the lease is over. What was voided in earlier epochs needs no memory any
    /// more: their claims are behind a fence in every partition.
    pub async fn finish_recovery(&self, uid: SaleUid, epoch: Epoch) -> Result<(), StoreError> {
        let doing = "finish a recovery";
        let mut tx = self.pool.begin().await.doing(doing)?;
        sqlx::query!(
            "UPDATE sales SET opened_epoch = greatest(opened_epoch, $2), recovery_owner = NULL,
                recovery_lease_until = NULL, recovery_reason = NULL
            WHERE uid = $1 AND epoch = $2",
            uid.0,
            epoch.0.cast_signed(),
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        sqlx::query!(
            "DELETE FROM voided_claims WHERE sale_uid = $1 AND epoch < $2",
            uid.0,
            epoch.0.cast_signed()
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)
    }

    /// The closed sale's log has been read up to a fence behind which nothing counts. `false` if the epoch is not the
    /// sale's any more.
    pub async fn set_drained(&self, uid: SaleUid, epoch: Epoch) -> Result<bool, StoreError> {
        let doing = "note that a sale is drained";
        let mut tx = self.pool.begin().await.doing(doing)?;
        let done = sqlx::query!(
            "UPDATE sales SET drained_at = now(), opened_epoch = epoch, recovery_owner = NULL,
                recovery_lease_until = NULL, recovery_requested_at = NULL
            WHERE uid = $1 AND epoch = $2 AND closed_at IS NOT NULL",
            uid.0,
            epoch.0.cast_signed(),
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        // Nothing is for sale any more: there is nothing to give back to, and no late record to remember a void for.
        sqlx::query!(
            "WITH locked AS (
                SELECT claim_id FROM claims
                WHERE sale_uid = $1 AND ended_at IS NOT NULL AND released_at IS NULL
                ORDER BY claim_id FOR NO KEY UPDATE
            )
            UPDATE claims c SET released_at = now() FROM locked WHERE c.claim_id = locked.claim_id",
            uid.0,
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        sqlx::query!("DELETE FROM voided_claims WHERE sale_uid = $1", uid.0)
            .execute(&mut *tx)
            .await
            .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(true)
    }

    /// Goes back to the beginning of a partition whose log turned out to end before the given position.
    pub async fn rewind(
        &self,
        uid: SaleUid,
        partition: i32,
        position: i64,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE positions SET next_offset = 0 WHERE sale_uid = $1 AND partition = $2 AND next_offset = $3",
            uid.0,
            partition,
            position,
        )
        .execute(&self.pool)
        .await
        .doing("go back in a sale's log")?;
        Ok(())
    }

    /// Asks whoever is the sale's steward for a recovery. `false` if there is no such living sale.
    pub async fn request_recovery(&self, uid: SaleUid, reason: &str) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE sales SET recovery_requested_at = coalesce(recovery_requested_at, now()), recovery_reason = $2
            WHERE uid = $1 AND removed_at IS NULL AND drained_at IS NULL",
            uid.0,
            reason,
        )
        .execute(&self.pool)
        .await
        .doing("ask for a recovery")?;
        Ok(done.rows_affected() > 0)
    }
}
