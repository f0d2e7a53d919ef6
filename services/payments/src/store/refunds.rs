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
use crate::payment::{OVERDUE_AFTER, OpenRefund, Payment};
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
    /// Somebody has given all of it back at the gateway already.
    GivenBack,
    /// There isn't that much to give back. Nothing is done; a person must look.
    Refused(&'static str),
}

/// What is to be done about a refund.
enum Due {
    /// The gateway is to give this much back.
    Give(i64),
    /// Somebody has, lastly by this transaction.
    Given(String),
    /// It can't be.
    Nothing(&'static str),
}

/// Takes a refund on, in the inbox's transaction. Guards "refunds <= capture": the payment's row is locked before what
/// is left of it is looked at, and the table's check stands behind that. Where somebody has given a part back at the
/// gateway, the refund is of the rest.
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
            "DONE" => done(order_id, refund_id, known.amount),
            "REFUSED" => refused(order_id, refund_id, &known.refusal.unwrap_or_default()),
            _ => return Ok(Accepted::Known),
        };
        outbox::put(tx, ORDER_REPLIES, &order_id.to_string(), &reply).await?;
        return Ok(Accepted::Known);
    }
    let payment_id = payment.as_ref().map(|payment| payment.payment_id);
    let due = match payment {
        None => Due::Nothing(NOTHING_CAPTURED),
        Some(payment) => {
            let held = payment.captured - payment.refunded;
            due_of(tx, payment.payment_id, held, amount).await?
        }
    };
    let (state, amount, refusal, given_by) = match &due {
        Due::Give(left) => ("INTENT", *left, None, None),
        Due::Given(by) => ("DONE", amount, None, Some(by.as_str())),
        Due::Nothing(refusal) => ("REFUSED", amount, Some(*refusal), None),
    };
    sqlx::query!(
        "INSERT INTO refunds (refund_id, payment_id, order_id, amount, reason, state, refusal, transaction_key,
             next_ask_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, CASE WHEN $6 = 'INTENT' THEN now() END)",
        refund_id,
        payment_id,
        order_id,
        amount,
        reason,
        state,
        refusal,
        given_by,
    )
    .execute(&mut **tx)
    .await?;
    let (reply, accepted) = match due {
        Due::Give(amount) => {
            sqlx::query!(
                "UPDATE payments SET refunded = refunded + $2, updated_at = now() WHERE payment_id = $1",
                payment_id,
                amount,
            )
            .execute(&mut **tx)
            .await?;
            return Ok(Accepted::Promised);
        }
        Due::Given(_) => (done(order_id, refund_id, amount), Accepted::GivenBack),
        Due::Nothing(code) => (refused(order_id, refund_id, code), Accepted::Refused(code)),
    };
    outbox::put(tx, ORDER_REPLIES, &order_id.to_string(), &reply).await?;
    Ok(accepted)
}

/// Of a payment of which so much is held. What is missing must have been given back by hand; otherwise the refund isn't
/// made at all, and a person must look.
async fn due_of(
    tx: &mut Transaction<'static, Postgres>,
    payment_id: Uuid,
    held: i64,
    amount: i64,
) -> Result<Due, sqlx::Error> {
    if (1..=held).contains(&amount) {
        return Ok(Due::Give(amount));
    }
    let by_hand = sqlx::query!(
        r#"SELECT coalesce(sum(amount), 0)::int8 AS "amount!", max(transaction_key) AS transaction_key
           FROM journals j WHERE payment_id = $1 AND kind = 'REFUND' AND refund_id IS NULL
               AND NOT EXISTS (SELECT FROM refunds r WHERE r.transaction_key = j.transaction_key)"#,
        payment_id,
    )
    .fetch_one(&mut **tx)
    .await?;
    let explained = amount > 0 && amount <= held + by_hand.amount;
    Ok(match by_hand.transaction_key {
        Some(_) if explained && held > 0 => Due::Give(held),
        Some(by) if explained => Due::Given(by),
        _ => Due::Nothing(EXCEEDS_CAPTURE),
    })
}

fn done(order_id: Uuid, refund_id: Uuid, amount: i64) -> OrderReply {
    OrderReply::PaymentRefunded {
        order_id: OrderId(order_id),
        refund_id,
        amount: won_of(amount),
    }
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
                      call_until > now() AS "call_under_way!", pay_by,
                      coalesce(pay_by <= now() - make_interval(secs => $2), false) AS "overdue!"
               FROM payments WHERE payment_id = ANY($1)"#,
            &ids,
            secs(OVERDUE_AFTER),
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
    /// made at the gateway. What somebody gives back there is the refund that had been refused, once the pieces add up
    /// to it, or nothing is held any more. False if it was posted before.
    pub async fn given_back(&self, payment: &Payment, cancel: &Cancel) -> Result<bool, StoreError> {
        let doing = "record a refund";
        let Some(transaction_key) = cancel.transaction_key.clone() else {
            return Ok(false);
        };
        let mut tx = self.pool.begin().await.map_err(while_doing(doing))?;
        let held = sqlx::query_scalar!(
            r#"SELECT coalesce(captured, 0) - refunded AS "held!" FROM payments WHERE payment_id = $1 FOR UPDATE"#,
            payment.payment_id
        )
        .fetch_one(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        // Only the first movement of a refund settles it; another one of the same refund would be a double one, and is
        // posted as what it is.
        let settled = sqlx::query!(
            r#"UPDATE refunds r SET state = 'DONE', transaction_key = $2, next_ask_at = NULL, updated_at = now()
               FROM (SELECT refund_id, state FROM refunds f
                     WHERE payment_id = $3 AND state IN ('INTENT', 'REFUSED')
                         AND (refund_id = $1 OR ($1::uuid IS NULL AND state = 'REFUSED' AND ($5 OR amount <= $4 + (
                             SELECT coalesce(sum(j.amount), 0)::int8 FROM journals j
                             WHERE j.payment_id = $3 AND j.kind = 'REFUND' AND j.refund_id IS NULL
                                 AND j.posted_at >= f.created_at
                         ))))
                     ORDER BY amount = $4 DESC, created_at LIMIT 1) before
               WHERE r.refund_id = before.refund_id
               RETURNING r.refund_id, r.amount,
                   CASE before.state WHEN 'INTENT' THEN r.amount ELSE 0 END AS "promised!""#,
            cancel.refund_id(),
            transaction_key,
            payment.payment_id,
            cancel.cancel_amount,
            held <= cancel.cancel_amount,
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
        if let Some(refund) = &settled {
            let reply = done(payment.order_id, refund.refund_id, refund.amount);
            tell_orders(&mut tx, payment.order_id, &reply, doing).await?;
        }
        // What wasn't promised before. If promises stand that leave no room, this fails and is tried again after them.
        let promised = settled.map_or(0, |refund| refund.promised);
        if cancel.cancel_amount != promised {
            sqlx::query!(
                "UPDATE payments SET refunded = refunded + $2, updated_at = now() WHERE payment_id = $1",
                payment.payment_id,
                cancel.cancel_amount - promised,
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
