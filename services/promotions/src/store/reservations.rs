//! Claims that orders keep and use, in the transaction of the inbox.
//!
//! The rows of the claims are locked and not their sale's (see [`super::locks`]): what is read here of a claim can't change
//! before it is written, and orders with other claims of the sale go on meanwhile. Of the sale nothing is read that could
//! change, and nothing is counted.

use events::outbox::Messages;
use events::saga::OrderId;
use jiff::Timestamp;
use sale_stock::books::SaleDefinition;
use sale_stock::{ClaimId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ClaimStatus, Doing, Store, StoreError, sales, timestamp};
use crate::reservations::{Claim, Desk, Refusal, Reservation, Standing};

/// A claim as an order would use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscountRow {
    /// Its guest's, neither ended nor over nor with an order.
    pub usable: bool,
    /// The sale as declared: discount and terms.
    pub definition: SaleDefinition,
    /// When the claim ends by itself.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// What a claim of a user is worth, and whether it is there to be used; `None` if the ledger has no such claim of
    /// the user's.
    pub async fn discount_of(
        &self,
        user: UserId,
        claim: ClaimId,
    ) -> Result<Option<DiscountRow>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT s.uid, s.definition, c.expires_at,
                c.status IN ('ACCEPTED', 'ISSUED') AND coalesce(c.expires_at > now(), true) AS "usable!"
            FROM claims c JOIN sales s ON s.uid = c.sale_uid
            WHERE c.claim_id = $1 AND c.user_id = $2"#,
            claim.0,
            user.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("read what a claim is worth")?;
        row.map(|row| {
            Ok(DiscountRow {
                usable: row.usable,
                definition: sales::definition(row.uid, row.definition)?,
                expires_at: row.expires_at.map(timestamp),
            })
        })
        .transpose()
    }
}

/// Locks and reads the reservations of these orders. An order without one has nothing to lock: of two transactions that
/// both make it, the second fails and is done again.
pub async fn lock_reservations(
    connection: &mut PgConnection,
    orders: &[Uuid],
) -> Result<Vec<(OrderId, Reservation)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT order_id, state, refusal, claim_ids FROM reservations
        WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE",
        orders
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let claims = row.claim_ids.into_iter().map(ClaimId).collect();
            let reservation = match row.state.as_str() {
                "RESERVED" => Reservation::Reserved(claims),
                "REDEEMED" => Reservation::Redeemed(claims),
                "RELEASED" => Reservation::Released(claims),
                // The column's check leaves nothing else. A code of a later version is as final.
                _ => {
                    let refusal = row.refusal.as_deref().and_then(Refusal::from_code);
                    Reservation::Refused(refusal.unwrap_or(Refusal::Ended))
                }
            };
            Ok((OrderId(row.order_id), reservation))
        })
        .collect()
}

/// Locks and reads these claims. To be called after [`lock_reservations`].
pub async fn lock_claims(
    connection: &mut PgConnection,
    claims: &[Uuid],
) -> Result<Vec<(ClaimId, Claim)>, sqlx::Error> {
    // Rows are locked after they are sorted, and a claim that had to be waited for is read as its last owner left it.
    // What of the sale is read with it, its kind, never changes.
    let rows = sqlx::query!(
        r#"SELECT c.claim_id, c.user_id, s.kind, c.status, c.order_id,
            coalesce(c.expires_at <= now(), false) AS "over!"
        FROM claims c JOIN sales s ON s.uid = c.sale_uid
        WHERE c.claim_id = ANY($1) ORDER BY c.claim_id FOR NO KEY UPDATE OF c"#,
        claims,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = ClaimId(row.claim_id);
            let claim = Claim {
                user: UserId(row.user_id),
                kind: sales::kind(&row.kind),
                standing: standing(id, ClaimStatus::parse(&row.status), row.order_id)?,
                over: row.over,
            };
            Ok((id, claim))
        })
        .collect()
}

/// An error says that the table's checks don't hold.
fn standing(
    claim: ClaimId,
    status: ClaimStatus,
    order: Option<Uuid>,
) -> Result<Standing, sqlx::Error> {
    Ok(match (status, order.map(OrderId)) {
        (ClaimStatus::Accepted | ClaimStatus::Issued, _) => Standing::Free,
        (ClaimStatus::Reserved, Some(order)) => Standing::Reserved(order),
        (ClaimStatus::Used, Some(order)) => Standing::Used(order),
        (ClaimStatus::Returned | ClaimStatus::Expired, _) => Standing::Ended,
        (ClaimStatus::Reserved | ClaimStatus::Used, None) => {
            let reason = format!("claim {claim} is {} by no order", status.as_str());
            return Err(sqlx::Error::Decode(reason.into()));
        }
    })
}

/// Writes what the desk has become, and the answers.
pub async fn write_desk(
    connection: &mut PgConnection,
    desk: &Desk,
    answers: Messages,
) -> Result<(), sqlx::Error> {
    write_reservations(connection, desk).await?;
    write_claims(connection, desk).await?;
    Ok(answers.put(connection).await?)
}

async fn write_reservations(connection: &mut PgConnection, desk: &Desk) -> Result<(), sqlx::Error> {
    for (order, reservation) in desk.changed() {
        let (state, refusal) = match reservation {
            Reservation::Reserved(_) => ("RESERVED", None),
            Reservation::Redeemed(_) => ("REDEEMED", None),
            Reservation::Released(_) => ("RELEASED", None),
            Reservation::Refused(refusal) => ("REFUSED", Some(refusal.code())),
        };
        let claims: Vec<Uuid> = reservation.claims().map(|claim| claim.0).collect();
        if desk.is_new(order) {
            // Made by another transaction meanwhile: this one fails on the key, and finds it when it is done again.
            sqlx::query!(
                "INSERT INTO reservations (order_id, state, refusal, claim_ids) VALUES ($1, $2, $3, $4)",
                order.0,
                state,
                refusal,
                &claims,
            )
            .execute(&mut *connection)
            .await?;
        } else {
            sqlx::query!(
                "UPDATE reservations SET state = $2, refusal = $3, changed_at = now() WHERE order_id = $1",
                order.0,
                state,
                refusal,
            )
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(())
}

async fn write_claims(connection: &mut PgConnection, desk: &Desk) -> Result<(), sqlx::Error> {
    let moved: Vec<_> = desk.moved().collect();
    if moved.is_empty() {
        return Ok(());
    }
    let status = |claim: &Claim| status_of(claim).0.as_str().to_owned();
    let ids: Vec<Uuid> = moved.iter().map(|moved| moved.claim.0).collect();
    let before: Vec<String> = moved.iter().map(|moved| status(&moved.before)).collect();
    let now: Vec<String> = moved.iter().map(|moved| status(&moved.now)).collect();
    let orders: Vec<Option<Uuid>> = moved.iter().map(|moved| status_of(&moved.now).1).collect();
    // The compare and set. The unit stays what it is, sold to its guest: nothing is counted here.
    let done = sqlx::query!(
        "UPDATE claims c SET status = t.now, order_id = t.order_id
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) AS t (claim_id, before, now, order_id)
        WHERE c.claim_id = t.claim_id AND c.status = t.before",
        &ids,
        &before,
        &now,
        &orders as _,
    )
    .execute(connection)
    .await?;
    if done.rows_affected() == ids.len() as u64 {
        Ok(())
    } else {
        // Somebody has changed claims without their locks.
        let reason = format!("{} of {} claims changed", done.rows_affected(), ids.len());
        Err(sqlx::Error::Protocol(reason))
    }
}

/// As the table has it: the status, and whose order.
fn status_of(claim: &Claim) -> (ClaimStatus, Option<Uuid>) {
    match claim.standing {
        Standing::Free => (ClaimStatus::free(claim.kind), None),
        Standing::Reserved(order) => (ClaimStatus::Reserved, Some(order.0)),
        Standing::Used(order) => (ClaimStatus::Used, Some(order.0)),
        // Nothing here ends a claim, so that none that has ended is written.
        Standing::Ended => (ClaimStatus::Expired, None),
    }
}
