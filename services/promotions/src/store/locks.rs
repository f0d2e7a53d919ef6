//! Which rows are locked, and in which order.
//!
//! - The sale's row, by whoever records claims, ends them or counts them, and by whoever changes the sale. Its count,
//!   its slots, how far its log is read and its terms are looked at, checked and written as one step.
//! - A claim's row, by whoever changes what has been recorded of it. Orders keep, use and let go of claims under this
//!   lock alone: that a claim is active, its slot and its unit stay what they are, so that nothing of the sale is looked
//!   at, and orders with claims of one sale wait neither for each other nor for the log. Who ends claims holds the
//!   sale's row and theirs: one that is read as its guest's to give back, or as due, can't go to an order before it ends.
//!
//! They are taken in this order: reservations, sales, claims, and several of a kind in the order of their ids. Whoever
//! waits for a row holds only such as come before it, so that no two wait for each other. A new reservation is inserted
//! when no lock is to be taken any more, and several again in the order of their ids.

use sale_stock::SaleUid;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Doing, StoreError};

/// Locks a sale's row.
pub(super) async fn sale(connection: &mut PgConnection, uid: SaleUid) -> Result<(), StoreError> {
    sqlx::query!("SELECT uid FROM sales WHERE uid = $1 FOR UPDATE", uid.0)
        .fetch_one(connection)
        .await
        .doing("lock a sale")?;
    Ok(())
}

/// Locks the rows of these claims, as far as there are any. The next statement sees what their last owners committed.
pub(super) async fn claims(
    connection: &mut PgConnection,
    claims: &[Uuid],
) -> Result<(), StoreError> {
    if claims.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "SELECT claim_id FROM claims WHERE claim_id = ANY($1) ORDER BY claim_id FOR NO KEY UPDATE",
        claims
    )
    .fetch_all(connection)
    .await
    .doing("lock claims")?;
    Ok(())
}
