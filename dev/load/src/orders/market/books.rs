//! What the stores hold of a market, and the payment gateway: rows as they are, judged elsewhere.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use hyper::header::HeaderValue;
use jiff::tz::{TimeZone, offset};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sqlx::FromRow;
use sqlx::postgres::PgPool;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::http::{Call, Connection};
use crate::orders::shop::{Toss, ask_by};
use crate::platform::Platform;

/// Most transactions of one page of the gateway's.
const PAGE: usize = 5_000;

/// An order's row.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Order {
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) room_type_id: Uuid,
    pub(crate) check_in: Date,
    pub(crate) check_out: Date,
    pub(crate) claim_ids: Vec<Uuid>,
    pub(crate) total: i64,
    pub(crate) phase: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// An entry of an order's history.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Entry {
    pub(crate) order_id: Uuid,
    pub(crate) seq: i32,
    pub(crate) at: OffsetDateTime,
    pub(crate) event: String,
    pub(crate) from_phase: String,
    pub(crate) to_phase: String,
}

/// A room night.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Night {
    pub(crate) room_type_id: Uuid,
    pub(crate) night: Date,
    pub(crate) allotment: i32,
    pub(crate) reserved: i32,
}

/// What an order holds.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Hold {
    pub(crate) order_id: Uuid,
    pub(crate) state: String,
    pub(crate) room_type_id: Option<Uuid>,
    pub(crate) check_in: Option<Date>,
    pub(crate) check_out: Option<Date>,
}

/// A booking.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Booking {
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) room_type_id: Uuid,
    pub(crate) check_in: Date,
    pub(crate) check_out: Date,
    pub(crate) status: String,
}

/// A payment, or a try of one.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Payment {
    pub(crate) order_id: Uuid,
    pub(crate) payment_key: String,
    pub(crate) state: String,
}

/// A journal of the payment ledger, with what its entries come to.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct Journal {
    pub(crate) order_id: Uuid,
    pub(crate) payment_key: String,
    pub(crate) kind: String,
    pub(crate) transaction_key: String,
    pub(crate) amount: i64,
    /// Of all entries; to be 0.
    pub(crate) sum: i64,
    /// Of those above 0.
    pub(crate) debits: i64,
}

/// A claim in the ledger of promotions.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Claim {
    pub(crate) claim_id: Uuid,
    pub(crate) sale_uid: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) status: String,
    pub(crate) claimed_at: OffsetDateTime,
    pub(crate) ended_at: Option<OffsetDateTime>,
    pub(crate) order_id: Option<Uuid>,
}

/// What an order keeps, used or let go of.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Reservation {
    pub(crate) order_id: Uuid,
    pub(crate) state: String,
}

/// Money that moved at the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) transaction_key: String,
    pub(crate) payment_key: String,
    pub(crate) order_id: Uuid,
    pub(crate) captured: bool,
    pub(crate) amount: i64,
}

/// Everything that is held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    pub(crate) orders: Vec<Order>,
    pub(crate) history: Vec<Entry>,
    pub(crate) nights: Vec<Night>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) bookings: Vec<Booking>,
    pub(crate) payments: Vec<Payment>,
    pub(crate) journals: Vec<Journal>,
    /// As they were while guests were still at it.
    pub(crate) journals_before: Vec<Journal>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) reservations: Vec<Reservation>,
    pub(crate) moved: Vec<Moved>,
    /// What the gateway says it holds, by payment.
    pub(crate) balances: HashMap<String, i64>,
}

/// Where it is read from.
pub(crate) struct Stores {
    orders: PgPool,
    booking: PgPool,
    payments: PgPool,
    promotions: PgPool,
    toss_key: HeaderValue,
    /// What is read is of these room types and these sales.
    room_types: Vec<Uuid>,
    sales: Vec<Uuid>,
    since: Timestamp,
}

impl Stores {
    /// The stores, seen from now on.
    pub(crate) async fn open(
        platform: &Platform,
        room_types: Vec<Uuid>,
        sales: Vec<Uuid>,
    ) -> anyhow::Result<Self> {
        let key = platform.secret("quokka-toss", "secretKey").await?;
        let basic = BASE64_STANDARD.encode(format!("{key}:"));
        let mut toss_key = HeaderValue::from_str(&format!("Basic {basic}"))?;
        toss_key.set_sensitive(true);
        Ok(Self {
            orders: platform.database("orders").await?,
            booking: platform.database("booking").await?,
            payments: platform.database("payments").await?,
            promotions: platform.database("promotions").await?,
            toss_key,
            room_types,
            sales,
            since: Timestamp::now(),
        })
    }

    /// How many orders have not come to an end.
    pub(crate) async fn unfinished(&self) -> anyhow::Result<i64> {
        sqlx::query_scalar(
            "SELECT count(*) FROM orders WHERE room_type_id = ANY ($1)
                AND phase NOT IN ('CONFIRMED', 'CANCELLED', 'EXPIRED', 'FAILED')
                AND phase NOT LIKE 'REFUND_REFUSED_%'",
        )
        .bind(&self.room_types)
        .fetch_one(&self.orders)
        .await
        .context("counting unfinished orders")
    }

    /// Where the unfinished orders are, for whoever reads of a run that failed.
    pub(crate) async fn phases(&self) -> anyhow::Result<Vec<(String, i64)>> {
        sqlx::query_as(
            "SELECT phase, count(*) FROM orders WHERE room_type_id = ANY ($1) GROUP BY phase ORDER BY phase",
        )
        .bind(&self.room_types)
        .fetch_all(&self.orders)
        .await
        .context("counting orders by phase")
    }

    /// Whether one of these events happened to an order since then.
    pub(crate) async fn happened_since(
        &self,
        events: &[&str],
        since: Timestamp,
    ) -> anyhow::Result<bool> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM order_history JOIN orders USING (order_id)
                WHERE room_type_id = ANY ($1) AND event = ANY ($2) AND at > to_timestamp($3))",
        )
        .bind(&self.room_types)
        .bind(events)
        .bind(since.as_millisecond() as f64 / 1_000.0)
        .fetch_one(&self.orders)
        .await
        .context("looking whether anything happens to orders")
    }

    /// The payment ledger as it is now.
    pub(crate) async fn journals(&self) -> anyhow::Result<Vec<Journal>> {
        let orders: Vec<Uuid> =
            sqlx::query_scalar("SELECT order_id FROM orders WHERE room_type_id = ANY ($1)")
                .bind(&self.room_types)
                .fetch_all(&self.orders)
                .await
                .context("reading which orders there are")?;
        self.journals_of(&orders).await
    }

    async fn journals_of(&self, orders: &[Uuid]) -> anyhow::Result<Vec<Journal>> {
        sqlx::query_as(
            "SELECT j.order_id, p.payment_key, j.kind, j.transaction_key, j.amount,
                coalesce(sum(e.amount), 0)::bigint AS sum,
                coalesce(sum(e.amount) FILTER (WHERE e.amount > 0), 0)::bigint AS debits
            FROM journals j JOIN payments p USING (payment_id) LEFT JOIN entries e USING (journal_id)
            WHERE j.order_id = ANY ($1) GROUP BY j.journal_id, p.payment_key ORDER BY j.journal_id",
        )
        .bind(orders)
        .fetch_all(&self.payments)
        .await
        .context("reading the payment ledger")
    }

    /// Everything, as it is at rest.
    pub(crate) async fn read(&self, toss: &Toss) -> anyhow::Result<Books> {
        let orders: Vec<Order> = sqlx::query_as(
            "SELECT order_id, user_id, room_type_id, check_in, check_out, claim_ids, total, phase, expires_at
            FROM orders WHERE room_type_id = ANY ($1)",
        )
        .bind(&self.room_types)
        .fetch_all(&self.orders)
        .await
        .context("reading orders")?;
        let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id).collect();
        let history = sqlx::query_as(
            "SELECT order_id, seq, at, event, from_phase, to_phase
            FROM order_history WHERE order_id = ANY ($1) ORDER BY order_id, seq",
        )
        .bind(&ids)
        .fetch_all(&self.orders)
        .await
        .context("reading the orders' history")?;
        let moved = self.moved(toss, &ids).await?;
        let balances = balances(toss, &moved).await?;
        Ok(Books {
            orders,
            history,
            moved,
            balances,
            journals: self.journals_of(&ids).await?,
            ..self.of_peers(&ids).await?
        })
    }

    async fn of_peers(&self, orders: &[Uuid]) -> anyhow::Result<Books> {
        let nights = sqlx::query_as(
            "SELECT room_type_id, night, allotment, reserved FROM room_nights WHERE room_type_id = ANY ($1)",
        )
        .bind(&self.room_types)
        .fetch_all(&self.booking)
        .await
        .context("reading room nights")?;
        let holds = sqlx::query_as(
            "SELECT order_id, state, room_type_id, check_in, check_out
            FROM holds WHERE room_type_id = ANY ($1) OR order_id = ANY ($2)",
        )
        .bind(&self.room_types)
        .bind(orders)
        .fetch_all(&self.booking)
        .await
        .context("reading holds")?;
        let bookings = sqlx::query_as(
            "SELECT order_id, user_id, room_type_id, check_in, check_out, status
            FROM bookings WHERE room_type_id = ANY ($1) OR order_id = ANY ($2)",
        )
        .bind(&self.room_types)
        .bind(orders)
        .fetch_all(&self.booking)
        .await
        .context("reading bookings")?;
        let payments = sqlx::query_as(
            "SELECT order_id, payment_key, state FROM payments WHERE order_id = ANY ($1)",
        )
        .bind(orders)
        .fetch_all(&self.payments)
        .await
        .context("reading payments")?;
        let claims = sqlx::query_as(
            "SELECT claim_id, sale_uid, user_id, status, claimed_at, ended_at, order_id
            FROM claims WHERE sale_uid = ANY ($1)",
        )
        .bind(&self.sales)
        .fetch_all(&self.promotions)
        .await
        .context("reading claims")?;
        let reservations =
            sqlx::query_as("SELECT order_id, state FROM reservations WHERE order_id = ANY ($1)")
                .bind(orders)
                .fetch_all(&self.promotions)
                .await
                .context("reading reservations")?;
        Ok(Books {
            nights,
            holds,
            bookings,
            payments,
            claims,
            reservations,
            ..Books::default()
        })
    }

    /// The gateway's own list of what moved for these orders.
    async fn moved(&self, toss: &Toss, orders: &[Uuid]) -> anyhow::Result<Vec<Moved>> {
        let ours: HashSet<&Uuid> = orders.iter().collect();
        let minute = SignedDuration::from_mins(1);
        let local = |at: Timestamp| {
            let there = at.to_zoned(TimeZone::fixed(offset(9)));
            there.strftime("%Y-%m-%dT%H:%M:%S").to_string()
        };
        let between = format!(
            "/v1/transactions?startDate={}&endDate={}&limit={PAGE}",
            local(self.since - minute),
            local(Timestamp::now() + minute)
        );
        let (mut moved, mut after) = (Vec::new(), None::<String>);
        loop {
            let path = match &after {
                Some(key) => format!("{between}&startingAfter={key}"),
                None => between.clone(),
            };
            let authorized = |call| Call {
                authorization: Some(self.toss_key.clone()),
                ..call
            };
            let mut connection = Connection::new(toss.at);
            let told = ask_by(&mut connection, Method::GET, &path, authorized, None).await?;
            let page: Vec<Transaction> = serde_json::from_value(told.is(200)?)?;
            after = page.last().map(|last| last.transaction_key.clone());
            let whole = page.len() == PAGE;
            for transaction in page {
                let Ok(order_id) = transaction.order_id.parse() else {
                    continue;
                };
                if ours.contains(&order_id) {
                    moved.push(Moved {
                        transaction_key: transaction.transaction_key,
                        payment_key: transaction.payment_key,
                        order_id,
                        captured: transaction.status == "DONE",
                        amount: transaction.amount,
                    });
                }
            }
            if !whole {
                return Ok(moved);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    transaction_key: String,
    payment_key: String,
    order_id: String,
    status: String,
    amount: i64,
}

/// What the gateway says it holds of each payment that ever moved money.
async fn balances(toss: &Toss, moved: &[Moved]) -> anyhow::Result<HashMap<String, i64>> {
    let keys: HashSet<&str> = moved.iter().map(|one| one.payment_key.as_str()).collect();
    let mut connection = Connection::new(toss.at);
    let mut balances = HashMap::new();
    for key in keys {
        let held = toss.held_by(&mut connection, key).await?;
        balances.insert(key.to_owned(), held);
    }
    Ok(balances)
}
