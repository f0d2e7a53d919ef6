//! Every SQL statement of the service. All of them but the lists run in a transaction of whoever calls: an order's row
//! is read under its lock before anything about the order is decided.

mod row;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use self::row::{Row, sql_date, sql_time, timestamp};
use crate::pricing::Price;
use crate::refunds::Policy;
use crate::saga::{End, PaymentKey, Saga, StepName};
use crate::stay::StayDates;

/// An order with all there is to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name.
    pub order_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// Which room type.
    pub room_type_id: Uuid,
    /// Of which stay.
    pub stay_id: Uuid,
    /// Of which host.
    pub host_id: Uuid,
    /// The stay's name when it was ordered.
    pub stay_name: String,
    /// Where the stay is.
    pub region: String,
    /// When.
    pub dates: StayDates,
    /// How many people.
    pub guests: u16,
    /// How it is refunded once it is confirmed.
    pub policy: Policy,
    /// The coupon that was given.
    pub coupon_id: Option<Uuid>,
    /// The time-sale claim that was given.
    pub sale_claim_id: Option<Uuid>,
    /// The claims that it uses.
    pub claim_ids: Vec<Uuid>,
    /// What it costs and why.
    pub price: Price,
    /// Where it is.
    pub saga: Saga,
    /// The account that its guest is to pay into.
    pub deposit: Option<Deposit>,
    /// How often in a row it was reminded of what wasn't answered.
    pub reminders: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was first confirmed.
    pub confirmed_at: Option<Timestamp>,
    /// When it first came to nothing.
    pub ended_at: Option<Timestamp>,
}

/// A virtual account that waits for its guest's deposit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deposit {
    /// Of which payment.
    pub payment_key: String,
    /// At which bank, by the gateway's code.
    pub bank_code: Option<String>,
    /// The account's number.
    pub account_number: Option<String>,
    /// Until when the gateway takes it.
    pub due_at: Option<Timestamp>,
}

/// One entry of an order's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub event: String,
    /// The phase before.
    pub from_phase: String,
    /// The phase after.
    pub to_phase: String,
    /// A code or an amount.
    pub detail: Option<String>,
}

macro_rules! select {
    ($tail:tt $(, $argument:expr)*) => {
        sqlx::query_as!(
            Row,
            "SELECT order_id, user_id, room_type_id, stay_id, host_id, stay_name, region, check_in, check_out, guests,
                    cancellation, coupon_id, sale_claim_id, claim_ids, price AS \"price: Json<Price>\", total, end_as,
                    hold_nights, reserve_discount, take_payment, confirm_booking, redeem_discount, booking_id,
                    payment_key, settled_by, captured, refund_due, refunded, deposit AS \"deposit: Json<Deposit>\",
                    expires_at, reminders, created_at, confirmed_at, ended_at
             FROM orders " + $tail
            $(, $argument)*
        )
    };
}

/// The server's clock: replicas whose own go wrong agree on who was in time.
pub async fn now(connection: &mut PgConnection) -> Result<Timestamp, sqlx::Error> {
    let now = sqlx::query_scalar!("SELECT clock_timestamp() AS \"now!\"")
        .fetch_one(connection)
        .await?;
    Ok(timestamp(now))
}

/// Adds an order. Guards "one order for each Idempotency-Key of a guest": false if there is one already.
pub async fn insert(
    connection: &mut PgConnection,
    order: &Order,
    request_key: &[u8; 32],
) -> Result<bool, sqlx::Error> {
    let steps = &order.saga.steps;
    let inserted = sqlx::query!(
        "INSERT INTO orders (order_id, user_id, request_key, room_type_id, stay_id, host_id, stay_name, region,
             check_in, check_out, guests, cancellation, coupon_id, sale_claim_id, claim_ids, price, total, phase,
             hold_nights, reserve_discount, take_payment, confirm_booking, redeem_discount, expires_at, created_at,
             updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             $23, $24, $25, $25)
         ON CONFLICT ON CONSTRAINT orders_request DO NOTHING",
        order.order_id,
        order.user_id,
        request_key.as_slice(),
        order.room_type_id,
        order.stay_id,
        order.host_id,
        order.stay_name,
        order.region,
        sql_date(order.dates.check_in),
        sql_date(order.dates.check_out),
        i16::try_from(order.guests).unwrap_or(i16::MAX),
        order.policy.as_str(),
        order.coupon_id,
        order.sale_claim_id,
        &order.claim_ids,
        Json(&order.price) as _,
        order.saga.total.get(),
        order.saga.phase().as_str(),
        steps[StepName::HoldNights].as_str(),
        steps[StepName::ReserveDiscount].as_str(),
        steps[StepName::TakePayment].as_str(),
        steps[StepName::ConfirmBooking].as_str(),
        steps[StepName::RedeemDiscount].as_str(),
        sql_time(order.saga.expires_at),
        sql_time(order.created_at),
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Keeps where an order is. To be called with its row locked.
pub async fn save(
    connection: &mut PgConnection,
    order: &Order,
    now: Timestamp,
    due_at: Option<Timestamp>,
) -> Result<(), sqlx::Error> {
    let Saga {
        steps, money, end, ..
    } = &order.saga;
    sqlx::query!(
        "UPDATE orders SET phase = $2, end_as = $3, hold_nights = $4, reserve_discount = $5, take_payment = $6,
             confirm_booking = $7, redeem_discount = $8, booking_id = $9, payment_key = $10, settled_by = $11,
             captured = $12, refund_due = $13, refunded = $14, due_at = $15, reminders = $16, updated_at = $17,
             confirmed_at = $18, ended_at = $19
         WHERE order_id = $1",
        order.order_id,
        order.saga.phase().as_str(),
        end.map(End::as_str),
        steps[StepName::HoldNights].as_str(),
        steps[StepName::ReserveDiscount].as_str(),
        steps[StepName::TakePayment].as_str(),
        steps[StepName::ConfirmBooking].as_str(),
        steps[StepName::RedeemDiscount].as_str(),
        order.saga.booking,
        money.payment_key.as_ref().map(PaymentKey::as_str),
        money.settled_by.map(sql_time),
        money.captured.get(),
        money.refund_due.get(),
        money.refunded.get(),
        due_at.map(sql_time),
        i32::try_from(order.reminders).unwrap_or(i32::MAX),
        sql_time(now),
        order.confirmed_at.map(sql_time),
        order.ended_at.map(sql_time),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps where the guest is to pay, or that there is no such account. To be called with the order's row locked.
pub async fn set_deposit(
    connection: &mut PgConnection,
    order_id: Uuid,
    deposit: Option<&Deposit>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE orders SET deposit = $2 WHERE order_id = $1",
        order_id,
        deposit.map(Json) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds an entry to an order's history. To be called with its row locked.
pub async fn note(
    connection: &mut PgConnection,
    order_id: Uuid,
    entry: &HistoryEntry,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO order_history (order_id, seq, at, event, from_phase, to_phase, detail)
         SELECT $1, coalesce(max(seq), 0) + 1, $2, $3, $4, $5, $6 FROM order_history WHERE order_id = $1",
        order_id,
        sql_time(entry.at),
        entry.event,
        entry.from_phase,
        entry.to_phase,
        entry.detail,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Reads an order and locks its row. Guards "one winner": of two that decide about an order, the second sees what the
/// first decided.
pub async fn lock(
    connection: &mut PgConnection,
    order_id: Uuid,
) -> Result<Option<Order>, sqlx::Error> {
    let row = select!("WHERE order_id = $1 FOR UPDATE", order_id)
        .fetch_optional(connection)
        .await?;
    row.map(Order::try_from).transpose()
}

/// Reads and locks orders that are due. Guards "expired once": what another replica looks at is left to it, and a row
/// that is paid for meanwhile isn't due when its lock is had.
pub async fn lock_due(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<Order>, sqlx::Error> {
    let rows = select!(
        "WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Order::try_from).collect()
}

/// The order that a guest made with this key.
pub async fn by_request(
    pool: &PgPool,
    user_id: Uuid,
    request_key: &[u8; 32],
) -> Result<Option<Order>, sqlx::Error> {
    let row = select!(
        "WHERE user_id = $1 AND request_key = $2",
        user_id,
        request_key.as_slice()
    )
    .fetch_optional(pool)
    .await?;
    row.map(Order::try_from).transpose()
}

/// A guest's order with its history: both as they were at one moment, or the history may tell of what the order isn't yet.
pub async fn find(
    pool: &PgPool,
    user_id: Uuid,
    order_id: Uuid,
) -> Result<Option<(Order, Vec<HistoryEntry>)>, sqlx::Error> {
    let one_moment = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    let mut tx = pool.begin_with(one_moment).await?;
    let row = select!("WHERE order_id = $1 AND user_id = $2", order_id, user_id)
        .fetch_optional(&mut *tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let found = (Order::try_from(row)?, history(&mut tx, order_id).await?);
    tx.commit().await?;
    Ok(Some(found))
}

/// A guest's orders, latest first, from behind `before`.
pub async fn list(
    pool: &PgPool,
    user_id: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Order>, sqlx::Error> {
    let rows = select!(
        "WHERE user_id = $1 AND order_id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
         ORDER BY order_id DESC LIMIT $3",
        user_id,
        before,
        limit
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Order::try_from).collect()
}

/// What happened to an order, first things first.
async fn history(
    connection: &mut PgConnection,
    order_id: Uuid,
) -> Result<Vec<HistoryEntry>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT at, event, from_phase, to_phase, detail FROM order_history WHERE order_id = $1 ORDER BY seq",
        order_id
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| HistoryEntry {
            at: timestamp(row.at),
            event: row.event,
            from_phase: row.from_phase,
            to_phase: row.to_phase,
            detail: row.detail,
        })
        .collect())
}

/// How many orders wait to be paid.
pub async fn unpaid(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT count(*) AS \"count!\" FROM orders WHERE phase IN ('HOLDING', 'AWAITING_PAYMENT', 'PAYING')"
    )
    .fetch_one(pool)
    .await
}
