//! Payments.

use std::time::Duration;

use events::outbox;
use events::saga::{ORDER_REPLIES, OrderId, OrderReply};
use jiff::Timestamp;
use money::Krw;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{Store, StoreError, secs, while_doing};
use crate::ledger::{self, Journal, Movement, database_time, timestamp};
use crate::metrics::PAYMENTS;
use crate::payment::{ANOTHER_PAYMENT, DepositTo, OVERDUE_AFTER, Payment, State};
use crate::toss::{GatewayPayment, means_of};

/// A forged webhook can't have the gateway asked about a payment more often than this.
const ASKED_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// What a confirm begins with.
pub enum Begun {
    /// A payment that wasn't known.
    New(Payment),
    /// One that was.
    Known(Payment),
}

/// Whether a payment may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intended {
    /// Yes, and by the caller: the intent is recorded.
    Yes,
    /// Another payment of the order is under way, waits for its deposit, or is captured. This one is refused.
    AnotherFirst,
    /// Somebody else has gone on with it.
    Elsewhere,
}

/// Payments that the settler is to ask about.
pub type Due = Vec<Payment>;

/// What waits to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// Payments whose outcome isn't known although no call is under way.
    pub payments: i64,
    /// Refunds likewise.
    pub refunds: i64,
    /// Refunds that were refused, and whose money is still here or never was. A deposit that was taken back isn't.
    pub refused: i64,
}

/// Who sent a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookSender {
    /// Somebody who knows what only the gateway and we do, or nobody can know yet: the gateway will be asked.
    Believable,
    /// Somebody who doesn't.
    Forger,
    /// It is about nothing of ours.
    Stranger,
}

pub(super) struct Row {
    pub(super) payment_id: Uuid,
    pub(super) order_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) payment_key: String,
    pub(super) amount: i64,
    pub(super) state: String,
    pub(super) attempt: i32,
    pub(super) captured: Option<i64>,
    pub(super) method: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) refund_account: Option<serde_json::Value>,
    pub(super) deposit_to: Option<serde_json::Value>,
    pub(super) refusal: Option<String>,
    pub(super) approved_at: Option<time::OffsetDateTime>,
    pub(super) asks: i32,
    pub(super) call_under_way: bool,
    pub(super) pay_by: Option<time::OffsetDateTime>,
    pub(super) overdue: bool,
}

impl From<Row> for Payment {
    fn from(row: Row) -> Self {
        Self {
            payment_id: row.payment_id,
            order_id: row.order_id,
            user_id: row.user_id,
            payment_key: row.payment_key,
            amount: row.amount,
            state: State::parse(&row.state).expect("the table's check lists the same states"),
            attempt: row.attempt,
            captured: row.captured,
            method: row.method,
            provider: row.provider,
            secret: row.secret,
            refund_account: row
                .refund_account
                .and_then(|json| serde_json::from_value(json).ok()),
            deposit_to: row
                .deposit_to
                .and_then(|json| serde_json::from_value(json).ok()),
            refusal: row.refusal,
            approved_at: row.approved_at.map(timestamp),
            asks: row.asks,
            call_under_way: row.call_under_way,
            pay_by: row.pay_by.map(timestamp),
            overdue: row.overdue,
        }
    }
}

impl Store {
    /// Notes that a guest wants to pay, before anybody is asked. `lease` is how long the caller has for it before the
    /// settler goes on.
    pub async fn begin(
        &self,
        order_id: Uuid,
        user_id: Uuid,
        payment_key: &str,
        amount: i64,
        lease: Duration,
    ) -> Result<Begun, StoreError> {
        let created = sqlx::query!(
            "INSERT INTO payments (payment_id, order_id, user_id, payment_key, amount, state, next_ask_at)
             VALUES ($1, $2, $3, $4, $5, 'ASKING', now() + make_interval(secs => $6))
             ON CONFLICT ON CONSTRAINT payments_attempt_once DO NOTHING",
            Uuid::now_v7(),
            order_id,
            user_id,
            payment_key,
            amount,
            secs(lease),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("begin a payment"))?;
        let payment = self.payment(order_id, payment_key).await?;
        match payment {
            Some(payment) if created.rows_affected() == 1 => Ok(Begun::New(payment)),
            Some(payment) => Ok(Begun::Known(payment)),
            // Abandoned in between: as gone as the database for a moment.
            None => Err(while_doing("begin a payment")(sqlx::Error::PoolTimedOut)),
        }
    }

    /// A payment, if there is one.
    pub async fn payment(
        &self,
        order_id: Uuid,
        payment_key: &str,
    ) -> Result<Option<Payment>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT payment_id, order_id, user_id, payment_key, amount, state, attempt, captured, method, provider,
                      secret, refund_account, deposit_to, refusal, approved_at, asks,
                      call_until > now() AS "call_under_way!", pay_by,
                      coalesce(pay_by <= now() - make_interval(secs => $3), false) AS "overdue!"
               FROM payments WHERE order_id = $1 AND payment_key = $2"#,
            order_id,
            payment_key,
            secs(OVERDUE_AFTER),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing("read a payment"))?;
        Ok(row.map(Payment::from))
    }

    /// Forgets a payment that `orders` said no to: nobody else was told of it.
    pub async fn abandon(&self, payment_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "DELETE FROM payments WHERE payment_id = $1 AND state = 'ASKING'",
            payment_id
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("abandon a payment"))?;
        Ok(())
    }

    /// Records that the gateway is about to be called. Guards "at most one capture per order": the unique index lets
    /// one payment of an order be an intent, wait or be captured. `pay_by` is how long the order may be paid.
    pub async fn intend(
        &self,
        payment: &Payment,
        call: Duration,
        pay_by: Option<Timestamp>,
    ) -> Result<Intended, StoreError> {
        let intended = sqlx::query!(
            "UPDATE payments SET state = 'INTENT', asks = 0, updated_at = now(), last_asked_at = now(),
                 call_until = now() + make_interval(secs => $2), next_ask_at = now() + make_interval(secs => $2),
                 pay_by = $3
             WHERE payment_id = $1 AND state = 'ASKING'",
            payment.payment_id,
            secs(call),
            pay_by.map(database_time),
        )
        .execute(&self.pool)
        .await;
        match intended {
            Ok(done) if done.rows_affected() == 1 => Ok(Intended::Yes),
            Ok(_) => Ok(Intended::Elsewhere),
            Err(error) if chassis::postgres::is_unique_violation(&error, "payments_one_live") => {
                self.refuse(payment.payment_id, ANOTHER_PAYMENT).await?;
                Ok(Intended::AnotherFirst)
            }
            Err(error) => Err(while_doing("record an intent")(error)),
        }
    }

    /// A call is sent again: until when it may be under way.
    pub async fn call_again(&self, payment_id: Uuid, call: Duration) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE payments SET call_until = now() + make_interval(secs => $2),
                 next_ask_at = now() + make_interval(secs => $2)
             WHERE payment_id = $1 AND state = 'INTENT'",
            payment_id,
            secs(call),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("record that a call is sent again"))?;
        Ok(())
    }

    /// Nothing is known yet: when to ask again, and whether the next call is a new attempt.
    pub async fn postpone(
        &self,
        payment_id: Uuid,
        pause: Duration,
        call_over: bool,
        next_attempt: bool,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE payments SET next_ask_at = now() + make_interval(secs => $2), attempt = attempt + $3,
                 call_until = CASE WHEN $4 THEN now() ELSE call_until END
             WHERE payment_id = $1 AND state IN ('ASKING', 'INTENT', 'WAITING')",
            payment_id,
            secs(pause),
            i32::from(next_attempt),
            call_over,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("postpone a question"))?;
        Ok(())
    }

    /// The gateway said no. False if the outcome was known before.
    pub async fn refuse(&self, payment_id: Uuid, code: &str) -> Result<bool, StoreError> {
        let doing = "record a refused payment";
        let mut tx = self.pool.begin().await.map_err(while_doing(doing))?;
        let refused = sqlx::query!(
            "UPDATE payments SET state = 'REFUSED', refusal = $2, next_ask_at = NULL, updated_at = now()
             WHERE payment_id = $1 AND state IN ('ASKING', 'INTENT', 'WAITING')
             RETURNING order_id, payment_key",
            payment_id,
            code,
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        let Some(row) = refused else { return Ok(false) };
        let reply = OrderReply::PaymentRefused {
            order_id: OrderId(row.order_id),
            payment_key: row.payment_key,
            code: code.to_owned(),
        };
        tell_orders(&mut tx, row.order_id, &reply, doing).await?;
        tx.commit().await.map_err(while_doing(doing))?;
        PAYMENTS.with_label_values(&["refused"]).inc();
        Ok(true)
    }

    /// A virtual account was issued. `orders` is told where the guest is to pay, and that nothing was captured, so that
    /// the order may expire. It is asked about every `poll`, and when the order's time is over.
    pub async fn wait_for_deposit(
        &self,
        payment_id: Uuid,
        gateway: &GatewayPayment,
        poll: Duration,
    ) -> Result<bool, StoreError> {
        let doing = "record a virtual account";
        let account = gateway.virtual_account.as_ref();
        let deposit_to = account.map(|account| DepositTo {
            bank_code: account.bank_code.clone(),
            account_number: account.account_number.clone(),
            due_date: account.due_date.clone(),
        });
        let refund_account = account.and_then(|account| account.refund_receive_account.clone());
        let due_at = deposit_to.as_ref().and_then(DepositTo::due_at);
        let (bank_code, account_number) = account.map_or((None, None), |account| {
            (account.bank_code.clone(), account.account_number.clone())
        });
        let mut tx = self.pool.begin().await.map_err(while_doing(doing))?;
        let waiting = sqlx::query!(
            "UPDATE payments SET state = 'WAITING', method = $2, secret = $3, deposit_to = $4, refund_account = $5,
                 next_ask_at = least(now() + make_interval(secs => $6),
                     greatest(coalesce(pay_by, 'infinity'), now()) + make_interval(secs => $7)),
                 asks = 0, updated_at = now(), call_until = now()
             WHERE payment_id = $1 AND state = 'INTENT'
             RETURNING order_id, payment_key",
            payment_id,
            means_of(gateway.method.as_deref()),
            gateway.secret,
            deposit_to.and_then(|to| serde_json::to_value(to).ok()),
            refund_account.and_then(|account| serde_json::to_value(account).ok()),
            secs(poll),
            secs(OVERDUE_AFTER),
        )
        .fetch_optional(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        let Some(row) = waiting else { return Ok(false) };
        let reply = OrderReply::DepositAwaited {
            order_id: OrderId(row.order_id),
            payment_key: row.payment_key,
            bank_code,
            account_number,
            due_at_ms: due_at.map(Timestamp::as_millisecond),
        };
        tell_orders(&mut tx, row.order_id, &reply, doing).await?;
        tx.commit().await.map_err(while_doing(doing))?;
        PAYMENTS.with_label_values(&["waiting"]).inc();
        Ok(true)
    }

    /// Money was taken: state, journals and the answer to `orders`, at once. False if that was known before; what was
    /// given back since is posted in any case.
    pub async fn capture(
        &self,
        payment: &Payment,
        gateway: &GatewayPayment,
        capture_key: &str,
    ) -> Result<bool, StoreError> {
        let doing = "record a capture";
        let mut tx = self.pool.begin().await.map_err(while_doing(doing))?;
        let captured = sqlx::query!(
            "UPDATE payments SET state = 'CAPTURED', captured = $2, method = $3, provider = $4,
                 secret = coalesce($5, secret), approved_at = $6, refusal = NULL, next_ask_at = NULL, updated_at = now()
             WHERE payment_id = $1 AND state IN ('INTENT', 'WAITING', 'REFUSED')",
            payment.payment_id,
            gateway.total_amount,
            means_of(gateway.method.as_deref()),
            gateway.provider(),
            gateway.secret,
            database_time(gateway.captured_at()),
        )
        .execute(&mut *tx)
        .await
        .map_err(while_doing(doing))?;
        let won = captured.rows_affected() == 1;
        if won {
            let journal = Journal {
                payment_id: payment.payment_id,
                order_id: payment.order_id,
                movement: Movement::Capture,
                transaction_key: capture_key.to_owned(),
                amount: gateway.total_amount,
                at: gateway.captured_at(),
            };
            ledger::post(&mut tx, &journal)
                .await
                .map_err(while_doing(doing))?;
            let reply = OrderReply::PaymentCaptured {
                order_id: OrderId(payment.order_id),
                payment_key: payment.payment_key.clone(),
                amount: won_of(gateway.total_amount),
            };
            tell_orders(&mut tx, payment.order_id, &reply, doing).await?;
        }
        tx.commit().await.map_err(while_doing(doing))?;
        if won {
            PAYMENTS.with_label_values(&["captured"]).inc();
        }
        Ok(won)
    }

    /// Nothing more is to be asked about a payment whose outcome is known, unless a webhook has come meanwhile: then it
    /// is due sooner than whoever asks about it has it leased for.
    pub async fn rest(&self, payment_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE payments SET next_ask_at = NULL WHERE payment_id = $1 AND state IN ('CAPTURED', 'REFUSED')
                 AND next_ask_at > now() + make_interval(secs => $2)",
            payment_id,
            secs(ASKED_AT_MOST_EVERY),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("let a payment rest"))?;
        Ok(())
    }

    /// A deposit is there. That it was once taken back is forgotten, even where a person has noted it as settled:
    /// should it be taken back again, a person is told again.
    pub async fn deposit_stands(&self, payment_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "DELETE FROM discrepancies d USING journals j
             WHERE j.payment_id = $1 AND d.transaction_key = j.transaction_key AND d.kind = 'DEPOSIT_REVERSED'",
            payment_id,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("forget that a deposit was taken back"))?;
        Ok(())
    }

    /// The gateway took a captured deposit back: its journal stands, so the two differ. It is asked about again after
    /// a while, if it can come again. False if that was known, or a person has noted it as settled.
    pub async fn reversed(
        &self,
        payment_id: Uuid,
        again_after: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let doing = "note that a deposit was taken back";
        let noted = sqlx::query!(
            "INSERT INTO discrepancies (transaction_key, kind)
             SELECT transaction_key, 'DEPOSIT_REVERSED' FROM journals WHERE payment_id = $1 AND kind = 'CAPTURE'
             ON CONFLICT (transaction_key) DO UPDATE SET kind = excluded.kind, resolved_at = NULL
                 WHERE discrepancies.kind <> excluded.kind",
            payment_id,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        sqlx::query!(
            "UPDATE payments SET next_ask_at = now() + make_interval(secs => $2)
             WHERE payment_id = $1 AND state = 'CAPTURED'",
            payment_id,
            again_after.map(secs),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        Ok(noted.rows_affected() == 1)
    }

    /// Takes payments to ask about, each for one settler at a time: for as long as `lease` they aren't due.
    pub async fn due_payments(&self, max: i64, lease: Duration) -> Result<Due, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"UPDATE payments p
               SET next_ask_at = now() + make_interval(secs => $2), asks = asks + 1, last_asked_at = now()
               FROM (SELECT payment_id FROM payments WHERE next_ask_at <= now() ORDER BY next_ask_at LIMIT $1
                     FOR UPDATE SKIP LOCKED) due
               WHERE p.payment_id = due.payment_id
               RETURNING p.payment_id, order_id, user_id, payment_key, amount, state, attempt, captured, method,
                   provider, secret, refund_account, deposit_to, refusal, approved_at, asks,
                   call_until > now() AS "call_under_way!", pay_by,
                   coalesce(pay_by <= now() - make_interval(secs => $3), false) AS "overdue!""#,
            max,
            secs(lease),
            secs(OVERDUE_AFTER),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing("take payments to ask about"))?;
        Ok(rows.into_iter().map(Payment::from).collect())
    }

    /// A webhook about an order, maybe naming the payment. It only ever has the gateway asked.
    pub async fn webhook(
        &self,
        order_id: Uuid,
        payment_key: Option<&str>,
        secret: Option<&str>,
    ) -> Result<WebhookSender, StoreError> {
        let doing = "look a webhook up";
        let found = sqlx::query!(
            "SELECT payment_id, secret FROM payments
             WHERE order_id = $1 AND ($2::text IS NULL OR payment_key = $2) AND state <> 'ASKING'
             ORDER BY created_at DESC LIMIT 16",
            order_id,
            payment_key,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        if found.is_empty() {
            return Ok(WebhookSender::Stranger);
        }
        // Before the first answer the secret isn't known here. Such a webhook is worth one question.
        let believable: Vec<Uuid> = found
            .into_iter()
            .filter(|row| {
                row.secret
                    .as_deref()
                    .is_none_or(|known| is_same(known, secret))
            })
            .map(|row| row.payment_id)
            .collect();
        if believable.is_empty() {
            return Ok(WebhookSender::Forger);
        }
        sqlx::query!(
            "UPDATE payments SET next_ask_at = least(coalesce(next_ask_at, 'infinity'),
                 greatest(now(), last_asked_at + make_interval(secs => $2)))
             WHERE payment_id = ANY($1) AND state <> 'ASKING'",
            &believable,
            secs(ASKED_AT_MOST_EVERY),
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing(doing))?;
        Ok(WebhookSender::Believable)
    }

    /// What waits to be settled.
    pub async fn unsettled(&self) -> Result<Unsettled, StoreError> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM payments WHERE state IN ('ASKING', 'INTENT') AND next_ask_at IS NOT NULL
                           AND call_until < now()) AS "payments!",
                      (SELECT count(*) FROM refunds WHERE state = 'INTENT' AND next_ask_at IS NOT NULL
                           AND call_until < now()) AS "refunds!",
                      (SELECT count(*) FROM refunds r LEFT JOIN payments p USING (payment_id)
                       WHERE r.state = 'REFUSED' AND r.resolved_at IS NULL
                           AND (p.payment_id IS NULL OR p.refunded < p.captured)
                           AND NOT EXISTS (
                               SELECT FROM journals j JOIN discrepancies d USING (transaction_key)
                               WHERE j.payment_id = p.payment_id AND d.kind = 'DEPOSIT_REVERSED'
                           )) AS "refused!""#,
        )
        .fetch_one(&self.pool)
        .await
        .map_err(while_doing("count what isn't settled"))?;
        Ok(Unsettled {
            payments: row.payments,
            refunds: row.refunds,
            refused: row.refused,
        })
    }
}

pub(super) async fn tell_orders(
    tx: &mut Transaction<'static, Postgres>,
    order_id: Uuid,
    reply: &OrderReply,
    doing: &'static str,
) -> Result<(), StoreError> {
    let connection: &mut PgConnection = tx;
    outbox::put(connection, ORDER_REPLIES, &order_id.to_string(), reply)
        .await
        .map_err(while_doing(doing))?;
    Ok(())
}

pub(super) fn won_of(amount: i64) -> Krw {
    Krw::new(amount).expect("the table's check keeps amounts above zero")
}

/// Without telling by the time it takes how much of it is right.
fn is_same(known: &str, given: Option<&str>) -> bool {
    let given = given.unwrap_or_default().as_bytes();
    let known = known.as_bytes();
    known.len() == given.len()
        && known
            .iter()
            .zip(given)
            .fold(0, |different, (a, b)| different | (a ^ b))
            == 0
}
