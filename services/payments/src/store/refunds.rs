//! Refunds: promised under the lock of their payment, so that they can't exceed what was captured.

use std::time::Duration;

use events::outbox;
use events::saga::{ORDER_REPLIES, OrderId, OrderReply};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::payments::{Row, tell_orders, won_of};
use super::{Store, StoreError, secs, while_doing};
use crate::ledger::{self, Journal, Movement};
use crate::metrics::REFUNDS;
use crate::payment::{OpenRefund, Payment};
use crate::toss::Cancel;

/// Why a refund isn't even tried.
const NOTHING_CAPTURED: &str = "NOTHING_CAPTURED";
const EXCEEDS_CAPTURE: &str = "EXCEEDS_CAPTURE";

/// What a refund comes to at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The gateway will be asked for it.
    Promised,
    /// It was asked for before.
    Known,
    /// There isn't that much to give back. Nothing is done; a person must look.
    Refused(&'static str),
}

/// Takes a refund on, in the inbox's transaction. Guards "refunds <= capture": the payment's row is locked before what
/// is left of it is looked at, and the table's check stands behind that.
pub async fn accept(
    tx: &mut Transaction<'static, Postgres>,
    order_id: Uuid,
    refund_id: Uuid,
    amount: i64,
    reason: &str,
) -> Result<Accepted, sqlx::Error> {
    // Two deliveries at once of the same refund: the second waits here for the first.
    let payment = sqlx::query!(
        r#"SELECT payment_id, captured AS "captured!", refunded FROM payments
           WHERE order_id = $1 AND state = 'CAPTURED' FOR UPDATE"#,
        order_id,
    )
    .fetch_optional(&mut **tx)
    .await?;
    let known = sqlx::query!(
        "SELECT state, amount, refusal FROM refunds WHERE refund_id = $1",
        refund_id
    )
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(known) = known {
        let reply = match known.state.as_str() {
            "DONE" => OrderReply::PaymentRefunded {
                order_id: OrderId(order_id),
                refund_id,
                amount: won_of(known.amount),
            },
            "REFUSED" => refused(order_id, refund_id, &known.refusal.unwrap_or_default()),
            _ => return Ok(Accepted::Known),
        };
        outbox::put(tx, ORDER_REPLIES, &order_id.to_string(), &reply).await?;
        return Ok(Accepted::Known);
    }
    let refusal = match &payment {
        None => Some(NOTHING_CAPTURED),
        Some(payment) if amount <= 0 || amount > payment.captured - payment.refunded => {
            Some(EXCEEDS_CAPTURE)
        }
        Some(_) => None,
    };
    let payment_id = payment.as_ref().map(|payment| payment.payment_id);
    sqlx::query!(
        "INSERT INTO refunds (refund_id, payment_id, order_id, amount, reason, state, refusal, next_ask_at)
         VALUES ($1, $2, $3, $4, $5, CASE WHEN $6::text IS NULL THEN 'INTENT' ELSE 'REFUSED' END, $6,
                 CASE WHEN $6::text IS NULL THEN now() END)",
        refund_id,
        payment_id,
        order_id,
        amount,
        reason,
        refusal,
    )
    .execute(&mut **tx)
    .await?;
    if let Some(refusal) = refusal {
        let reply = refused(order_id, refund_id, refusal);
        outbox::put(tx, ORDER_REPLIES, &order_id.to_string(), &reply).await?;
        return Ok(Accepted::Refused(refusal));
    }
    sqlx::query!(
        "UPDATE payments SET refunded = refunded + $2, updated_at = now() WHERE payment_id = $1",
        payment_id,
        amount,
    )
    .execute(&mut **tx)
    .await?;
    Ok(Accepted::Promised)
}

fn refused(order_id: Uuid, refund_id: Uuid, code: &str) -> OrderReply {
    OrderReply::PaymentRefundRefused {
        order_id: OrderId(order_id),
        refund_id,
        code: code.to_owned(),
    }
}

impl Store {
    /// Takes refunds to work on, each for one settler at a time: for as long as `lease` they aren't due.
    pub async fn due_refunds(
        &self,
        max: i64,
        lease: Duration,
    ) -> Result<Vec<OpenRefund>, StoreError> {
        let doing = "take refunds to work on";
        let due = sqlx::query!(
            r#"UPDATE refunds r SET next_ask_at = now() + make_interval(secs => $2), asks = r.asks + 1
               FROM (SELECT refund_id FROM refunds WHERE next_ask_at <= now() ORDER BY next_ask_at
                     LIMIT $1 FOR UPDATE SKIP LOCKED) due
               WHERE r.refund_id = due.refund_id
               RETURNING r.refund_id, r.payment_id AS "payment_id!", r.amount, r.reason, r.attempt, r.asks,
                   r.call_until > now() AS "call_under_way!""#,
            max,
            secs(lease),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        let ids: Vec<Uuid> = due.iter().map(|row| row.payment_id).collect();
        let payments = sqlx::query_as!(
            Row,
            r#"SELECT payment_id, order_id, user_id, payment_key, amount, state, attempt, captured, method, provider,
                      secret, refund_account, deposit_to, refusal, approved_at, asks,
                      call_until > now() AS "call_under_way!", pay_by, false AS "overdue!"
               FROM payments WHERE payment_id = ANY($1)"#,
            &ids,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        let payments: Vec<Payment> = payments.into_iter().map(Payment::from).collect();
        let with_payment = due.into_iter().filter_map(|row| {
            let payment = payments
                .iter()
                .find(|payment| payment.payment_id == row.payment_id)?;
            Some(OpenRefund {
                refund_id: row.refund_id,
                payment: payment.clone(),
                amount: row.amount,
                reason: row.reason,
                attempt: row.attempt,
                asks: row.asks,
                call_under_way: row.call_under_way,
            })
        });
        Ok(with_payment.collect())
    }

    /// A cancel is about to be called: until when it may be under way.
    pub async fn call_refund(&self, refund_id: Uuid, call: Duration) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE refunds SET call_until = now() + make_interval(secs => $2),
                 next_ask_at = now() + make_interval(secs => $2)
             WHERE refund_id = $1 AND state = 'INTENT'",
            refund_id,
            secs(call),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("record that a refund is called for"))?;
        Ok(())
    }

    /// Nothing is known yet: when to ask again, and whether the next call is a new attempt.
    pub async fn postpone_refund(
        &self,
        refund_id: Uuid,
        pause: Duration,
        call_over: bool,
        next_attempt: bool,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE refunds SET next_ask_at = now() + make_interval(secs => $2), attempt = attempt + $3,
                 call_until = CASE WHEN $4 THEN now() ELSE call_until END
             WHERE refund_id = $1 AND state = 'INTENT'",
            refund_id,
            secs(pause),
            i32::from(next_attempt),
            call_over,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("postpone a refund"))?;
        Ok(())
    }

    /// The gateway won't give it back: what was promised is free again, `orders` is told, and a person must look.
    pub async fn refuse_refund(&self, refund_id: Uuid, code: &str) -> Result<bool, StoreError> {
        let doing = "record a refused refund";
        let mut tx = self.pool.begin().await.map_err(while_doing(doing))?;
        // The payment first, as everybody who changes a refund does.
        sqlx::query!(
            "SELECT payment_id FROM payments WHERE payment_id = (SELECT payment_id FROM refunds WHERE refund_id = $1)
             FOR UPDATE",
            refund_id,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        let first = sqlx::query!(
            "WITH refused AS (
                 UPDATE refunds SET state = 'REFUSED', refusal = $2, next_ask_at = NULL, updated_at = now()
                 WHERE refund_id = $1 AND state = 'INTENT' RETURNING payment_id, amount
             )
             UPDATE payments p SET refunded = p.refunded - refused.amount, updated_at = now()
             FROM refused WHERE p.payment_id = refused.payment_id
             RETURNING p.order_id",
            refund_id,
            code,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        let Some(row) = first else { return Ok(false) };
        let reply = refused(row.order_id, refund_id, code);
        tell_orders(&mut tx, row.order_id, &reply, doing).await?;
        tx.commit().await.map_err(while_doing(doing))?;
        REFUNDS.with_label_values(&["refused"]).inc();
        Ok(true)
    }

    /// Posts a movement that gave money back: one of our refunds, whose answer goes to `orders`, or one that somebody
    /// made at the gateway. What somebody gives back there is the refund that had been refused, if there is one of just
    /// this amount. False if it was posted before.
    pub async fn given_back(&self, payment: &Payment, cancel: &Cancel) -> Result<bool, StoreError> {
        let doing = "record a refund";
        let Some(transaction_key) = cancel.transaction_key.clone() else {
            return Ok(false);
        };
        let mut tx = self.pool.begin().await.map_err(while_doing(doing))?;
        sqlx::query!(
            "SELECT payment_id FROM payments WHERE payment_id = $1 FOR UPDATE",
            payment.payment_id
        )
        .fetch_one(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        // Only the first movement of a refund settles it; another one of the same refund would be a double one, and is
        // posted as what it is.
        let settled = sqlx::query!(
            r#"UPDATE refunds r SET state = 'DONE', transaction_key = $2, next_ask_at = NULL, updated_at = now()
               FROM (SELECT refund_id, state FROM refunds
                     WHERE payment_id = $3 AND amount = $4 AND state IN ('INTENT', 'REFUSED')
                         AND (refund_id = $1 OR ($1::uuid IS NULL AND state = 'REFUSED'))
                     ORDER BY created_at LIMIT 1) before
               WHERE r.refund_id = before.refund_id
               RETURNING r.refund_id, before.state = 'INTENT' AS "promised!""#,
            cancel.refund_id(),
            transaction_key,
            payment.payment_id,
            cancel.cancel_amount,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        let refund = settled.as_ref().map(|row| row.refund_id);
        let journal = Journal {
            payment_id: payment.payment_id,
            order_id: payment.order_id,
            movement: Movement::Refund(refund),
            transaction_key,
            amount: cancel.cancel_amount,
            at: cancel.at(),
        };
        let posted = ledger::post(&mut tx, &journal)
            .await
            .map_err(while_doing(doing))?;
        if !posted {
            // Rolls back: posted before, its refund is settled.
            return Ok(false);
        }
        if let Some(refund_id) = refund {
            let reply = OrderReply::PaymentRefunded {
                order_id: OrderId(payment.order_id),
                refund_id,
                amount: won_of(cancel.cancel_amount),
            };
            tell_orders(&mut tx, payment.order_id, &reply, doing).await?;
        }
        // Not promised before. If promises stand that leave no room, this fails and is tried again after them.
        if settled.is_none_or(|refund| !refund.promised) {
            sqlx::query!(
                "UPDATE payments SET refunded = refunded + $2, updated_at = now() WHERE payment_id = $1",
                payment.payment_id,
                cancel.cancel_amount,
            )
            .execute(&mut *tx)
            .await
            .map_err(while_doing(doing))?;
        }
        tx.commit().await.map_err(while_doing(doing))?;
        if refund.is_some() {
            REFUNDS.with_label_values(&["done"]).inc();
        }
        Ok(true)
    }
}
