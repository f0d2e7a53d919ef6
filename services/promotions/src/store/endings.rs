//! Claims that end by time, and units that go back to stock.

use sale_stock::{ClaimId, EntryRef, SaleUid, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ClaimStatus, Doing, Store, StoreError, claims::entry, locks};

impl Store {
    /// Sales with claims that are due to expire.
    pub async fn sales_with_due_claims(&self, limit: u32) -> Result<Vec<DueSale>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT DISTINCT s.uid, s.closed_at IS NOT NULL AS "closed!"
            FROM claims c JOIN sales s ON s.uid = c.sale_uid
            WHERE c.status = 'ACCEPTED' AND c.expires_at <= now() LIMIT $1"#,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .doing("look for sales with claims that are due")?;
        Ok(rows
            .into_iter()
            .map(|row| DueSale {
                uid: SaleUid(row.uid),
                closed: row.closed,
            })
            .collect())
    }

    /// Claims of a sale whose time is over by the database's clock, at most so many, the first ones first.
    pub async fn due_claims(&self, uid: SaleUid, limit: u32) -> Result<Vec<EntryRef>, StoreError> {
        let rows = sqlx::query!(
            "SELECT claim_id, user_id, slot FROM claims
            WHERE sale_uid = $1 AND status = 'ACCEPTED' AND expires_at <= now()
            ORDER BY expires_at LIMIT $2",
            uid.0,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .doing("look for claims that are due")?;
        Ok(rows
            .into_iter()
            .map(|row| entry(row.user_id, row.slot, row.claim_id))
            .collect())
    }

    /// Expires these claims of a sale as far as they are still to be used and due, and returns those. The units of a
    /// drained sale go nowhere.
    pub async fn expire(
        &self,
        uid: SaleUid,
        claims: &[EntryRef],
    ) -> Result<Vec<EntryRef>, StoreError> {
        let doing = "expire claims";
        let ids: Vec<Uuid> = claims.iter().map(|entry| entry.claim.0).collect();
        let mut tx = self.pool.begin().await.doing(doing)?;
        locks::sale(&mut tx, uid).await?;
        locks::claims(&mut tx, &ids).await?;
        // The compare and set: what is ACCEPTED now ends now or not at all, and is counted once.
        let rows = sqlx::query!(
            "UPDATE claims c SET status = 'EXPIRED', ended_at = now(),
                released_at = CASE WHEN s.drained_at IS NOT NULL THEN now() END
            FROM sales s
            WHERE s.uid = c.sale_uid AND c.sale_uid = $1 AND c.claim_id = ANY($2)
                AND c.status = 'ACCEPTED' AND c.expires_at <= now()
            RETURNING c.claim_id, c.user_id, c.slot",
            uid.0,
            &ids,
        )
        .fetch_all(&mut *tx)
        .await
        .doing(doing)?;
        free(&mut tx, uid, rows.len()).await?;
        tx.commit().await.doing(doing)?;
        Ok(rows
            .into_iter()
            .map(|row| entry(row.user_id, row.slot, row.claim_id))
            .collect())
    }

    /// Ends a claim that its user gives back, unless it was used or has ended; answers what it is then, `None` if the
    /// user has no such claim of the sale. For closed sales: of others the log says what is given back.
    pub async fn return_claim(
        &self,
        uid: SaleUid,
        user: UserId,
        claim: ClaimId,
    ) -> Result<Option<ClaimStatus>, StoreError> {
        let doing = "give a claim back";
        let mut tx = self.pool.begin().await.doing(doing)?;
        locks::sale(&mut tx, uid).await?;
        // The same compare and set. One row, which the statement itself locks.
        let ended = sqlx::query!(
            "UPDATE claims c SET status = 'RETURNED', ended_at = now(),
                released_at = CASE WHEN s.drained_at IS NOT NULL THEN now() END
            FROM sales s
            WHERE s.uid = c.sale_uid AND c.sale_uid = $1 AND c.user_id = $2 AND c.claim_id = $3
                AND c.status = 'ACCEPTED'",
            uid.0,
            user.0,
            claim.0,
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        free(&mut tx, uid, usize::from(ended.rows_affected() > 0)).await?;
        let row = sqlx::query!(
            "SELECT status FROM claims WHERE sale_uid = $1 AND user_id = $2 AND claim_id = $3",
            uid.0,
            user.0,
            claim.0,
        )
        .fetch_optional(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(row.map(|row| ClaimStatus::parse(&row.status)))
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
            .map(|row| entry(row.user_id, row.slot, row.claim_id))
            .collect())
    }

    /// Notes that the entries are gone from Redis.
    pub async fn set_released(&self, claims: &[ClaimId]) -> Result<(), StoreError> {
        let claims: Vec<_> = claims.iter().map(|claim| claim.0).collect();
        sqlx::query!(
            "WITH locked AS (
                SELECT claim_id FROM claims
                WHERE claim_id = ANY($1) AND ended_at IS NOT NULL AND released_at IS NULL
                ORDER BY claim_id FOR NO KEY UPDATE
            )
            UPDATE claims c SET released_at = now() FROM locked WHERE c.claim_id = locked.claim_id",
            &claims,
        )
        .execute(&self.pool)
        .await
        .doing("note released units")?;
        Ok(())
    }
}

/// A sale with claims that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueSale {
    /// Which.
    pub uid: SaleUid,
    /// Closed for good.
    pub closed: bool,
}

/// So many claims of the sale have ended. To be called with the sale's row locked.
async fn free(tx: &mut PgConnection, uid: SaleUid, units: usize) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE sales SET claimed = claimed - $2 WHERE uid = $1",
        uid.0,
        i64::try_from(units).unwrap_or(i64::MAX),
    )
    .execute(tx)
    .await
    .doing("count ended claims")?;
    Ok(())
}
