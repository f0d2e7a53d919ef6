//! Claims that end by time, and units that go back to stock.

use sale_stock::{ClaimId, EntryRef, SaleUid, UserId};

use super::{Doing, Store, StoreError, claims::slot};

impl Store {
    /// Living sales with claims that are due to expire.
    pub async fn sales_with_due_claims(&self, limit: u32) -> Result<Vec<SaleUid>, StoreError> {
        let rows = sqlx::query!(
            "SELECT DISTINCT sale_uid FROM claims WHERE status = 'ACCEPTED' AND expires_at <= now() LIMIT $1",
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .doing("look for claims that are due")?;
        Ok(rows.into_iter().map(|row| SaleUid(row.sale_uid)).collect())
    }

    /// Expires claims of a sale whose time is over by the database's clock, at most so many, and returns them. The
    /// units of a drained sale go nowhere.
    pub async fn expire_due(&self, uid: SaleUid, limit: u32) -> Result<Vec<EntryRef>, StoreError> {
        let doing = "expire claims";
        let mut tx = self.pool.begin().await.doing(doing)?;
        sqlx::query!("SELECT uid FROM sales WHERE uid = $1 FOR UPDATE", uid.0)
            .fetch_one(&mut *tx)
            .await
            .doing(doing)?;
        // The compare and set: under the sale's lock, what is ACCEPTED now ends now or not at all.
        let rows = sqlx::query!(
            "UPDATE claims c SET status = 'EXPIRED', ended_at = now(),
                released_at = CASE WHEN s.drained_at IS NOT NULL THEN now() END
            FROM sales s
            WHERE s.uid = c.sale_uid AND c.claim_id IN (
                SELECT claim_id FROM claims
                WHERE sale_uid = $1 AND status = 'ACCEPTED' AND expires_at <= now()
                ORDER BY expires_at LIMIT $2)
            RETURNING c.claim_id, c.user_id, c.slot",
            uid.0,
            i64::from(limit),
        )
        .fetch_all(&mut *tx)
        .await
        .doing(doing)?;
        sqlx::query!(
            "UPDATE sales SET claimed = claimed - $2 WHERE uid = $1",
            uid.0,
            i64::try_from(rows.len()).unwrap_or(i64::MAX),
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(rows
            .into_iter()
            .map(|row| EntryRef {
                user: UserId(row.user_id),
                slot: slot(row.slot),
                claim: ClaimId(row.claim_id),
            })
            .collect())
    }

    /// Ended claims of a sale whose entries may still stand in Redis.
    pub async fn unreleased(&self, uid: SaleUid, limit: u32) -> Result<Vec<EntryRef>, StoreError> {
        let rows = sqlx::query!(
            "SELECT claim_id, user_id, slot FROM claims
            WHERE sale_uid = $1 AND ended_at IS NOT NULL AND released_at IS NULL
            ORDER BY ended_at LIMIT $2",
            uid.0,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .doing("look for units to release")?;
        Ok(rows
            .into_iter()
            .map(|row| EntryRef {
                user: UserId(row.user_id),
                slot: slot(row.slot),
                claim: ClaimId(row.claim_id),
            })
            .collect())
    }

    /// Notes that the entries are gone from Redis.
    pub async fn set_released(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        let claims: Vec<_> = claims.iter().map(|claim| claim.0).collect();
        sqlx::query!(
            "UPDATE claims SET released_at = now()
            WHERE claim_id = ANY($1) AND ended_at IS NOT NULL AND released_at IS NULL",
            &claims,
        )
        .execute(&self.pool)
        .await
        .doing("note released units")?;
        Ok(())
    }
}
