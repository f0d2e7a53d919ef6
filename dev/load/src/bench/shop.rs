//! Every service that an order passes, a stay with rooms for all, and guests with coupons.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::Method;
use hyper::header::HeaderValue;
use jiff::tz::{TimeZone, offset};
use jiff::{SignedDuration, Span, Timestamp};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::Instant;
use toss_simulator::{Means, NewSession, Settings, Simulator};
use uuid::Uuid;

use super::process::Program;
use super::promotions::Promotions;
use super::servers::{Servers, free_addresses};
use crate::guests::Guest;
use crate::http::{Call, Connection};

/// Room types, so that orders are spread as in a town and not all for one room.
const ROOM_TYPES: usize = 50;

/// Nights on offer from the day after tomorrow on.
const NIGHTS: i64 = 60;

/// Rooms of each type on each night: more than a run orders.
const ALLOTMENT: u32 = 10_000;

/// What a night costs, in won.
const NIGHT_WON: i64 = 100_000;

const SECRET_KEY: &str = "test_sk_bench";

const PATIENCE: Duration = Duration::from_secs(30);

/// A guest with a coupon to be used.
pub(crate) struct Customer {
    pub(crate) guest: Guest,
    pub(crate) coupon: String,
}

/// Everything that runs while orders are measured; it ends when this is dropped.
pub(crate) struct Shop {
    /// Where guests order and pay.
    pub(crate) orders: SocketAddr,
    pub(crate) payments: SocketAddr,
    /// The database of orders.
    pub(crate) pool: PgPool,
    toss: Simulator,
    room_types: Vec<String>,
    promotions: Promotions,
    programs: Vec<(&'static str, Program)>,
}

impl Shop {
    /// Starts everything, makes a stay and waits until its rooms can be held.
    pub(crate) async fn open(servers: &Servers) -> anyhow::Result<Self> {
        let promotions = Promotions::start(servers).await?;
        let [stays, quotes, booking, orders, asked, payments] = free_addresses();
        let databases = [
            servers.postgres.create_database().await?,
            servers.postgres.create_database().await?,
            servers.postgres.create_database().await?,
            servers.postgres.create_database().await?,
        ];
        let [of_stays, of_booking, of_orders, of_payments] = &databases;
        let toss = Simulator::start(Settings::new(SECRET_KEY)).await?;
        let webhooks = "/v1/payments/webhooks/toss";
        toss.send_webhooks_to(format!("http://{payments}{webhooks}"));
        let url = |at: SocketAddr| format!("http://{at}");
        let settings = [
            (
                "stays",
                vec![
                    ("QUOKKA_DATABASE_URL", of_stays.url.clone()),
                    ("QUOKKA_HTTP_ADDR", stays.to_string()),
                    ("QUOKKA_INTERNAL_ADDR", quotes.to_string()),
                ],
            ),
            (
                "booking",
                vec![
                    ("QUOKKA_DATABASE_URL", of_booking.url.clone()),
                    ("QUOKKA_HTTP_ADDR", booking.to_string()),
                ],
            ),
            (
                "orders",
                vec![
                    ("QUOKKA_DATABASE_URL", of_orders.url.clone()),
                    ("QUOKKA_HTTP_ADDR", orders.to_string()),
                    ("QUOKKA_INTERNAL_ADDR", asked.to_string()),
                    ("QUOKKA_STAYS_URL", url(quotes)),
                    ("QUOKKA_PROMOTIONS_URL", url(promotions.ledger)),
                ],
            ),
            (
                "payments",
                vec![
                    ("QUOKKA_DATABASE_URL", of_payments.url.clone()),
                    ("QUOKKA_HTTP_ADDR", payments.to_string()),
                    ("QUOKKA_ORDERS_URL", url(asked)),
                    ("QUOKKA_TOSS_URL", toss.url()),
                    ("QUOKKA_TOSS_SECRET_KEY", SECRET_KEY.to_owned()),
                ],
            ),
        ];
        let mut programs = Vec::new();
        for (name, more) in settings {
            programs.push((name, servers.program(name, &[], &more).await?));
        }
        let host = servers.signer.somebody(&["host"])?;
        let room_types = offer(stays, &host).await?;
        until_offered(&of_booking.pool().await?).await?;
        Ok(Self {
            orders,
            payments,
            pool: of_orders.pool().await?,
            toss,
            room_types,
            promotions,
            programs,
        })
    }

    /// The processes under measurement, by name.
    pub(crate) fn processes(&self, servers: &Servers) -> anyhow::Result<Vec<(&'static str, u32)>> {
        let mut processes = Vec::new();
        for (name, program) in &self.programs {
            processes.push((*name, program.pid()?));
        }
        let ledger = self.promotions.ledger_program.pid()?;
        processes.push(("promotions ledger", ledger));
        let postgres = servers.postgres.pid().context("PostgreSQL has ended")?;
        processes.push(("PostgreSQL", postgres));
        let kafka = servers.kafka.pid().context("Kafka has ended")?;
        processes.push(("Kafka", kafka));
        processes.push(("this load, Toss", std::process::id()));
        Ok(processes)
    }

    /// New guests, each with a coupon that the ledger knows.
    pub(crate) async fn customers(
        &self,
        servers: &Servers,
        count: usize,
        at_once: usize,
    ) -> anyhow::Result<Vec<Customer>> {
        let starts = Timestamp::now() - SignedDuration::from_secs(60);
        let sale = self.promotions.open_sale(count, starts).await?;
        let guests = Arc::new(servers.signer.guests(count)?);
        let next = Arc::new(AtomicUsize::new(0));
        let claims = (0..at_once).map(|_| {
            let (guests, next) = (Arc::clone(&guests), Arc::clone(&next));
            let (at, path) = (self.promotions.api, sale.claims_path.clone());
            tokio::spawn(async move {
                let mut connection = Connection::new(at);
                let mut customers = Vec::new();
                while let Some(guest) = guests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let claim = asked(&mut connection, Method::POST, &path, guest, None).await?;
                    customers.push(Customer {
                        guest: guest.clone(),
                        coupon: text(&claim, "claimId")?,
                    });
                }
                anyhow::Ok(customers)
            })
        });
        let mut customers = Vec::new();
        for claimed in futures::future::join_all(claims).await {
            customers.extend(claimed??);
        }
        self.promotions.drained(&sale, count).await?;
        Ok(customers)
    }

    /// What a guest asks for: two nights, with the coupon. The `number`th wish is for other rooms than the one before.
    pub(crate) fn wish(&self, number: usize, customer: &Customer) -> anyhow::Result<Value> {
        let ahead = i64::try_from(number)? % (NIGHTS - 1);
        let check_in = first_night()?.checked_add(Span::new().days(ahead))?;
        let check_out = check_in.checked_add(Span::new().days(2))?;
        Ok(json!({
            "roomTypeId": self.room_types[number % self.room_types.len()],
            "checkIn": check_in, "checkOut": check_out, "guests": 2, "couponId": customer.coupon,
        }))
    }

    /// What the guest does in the payment window; the payment key.
    pub(crate) fn window(&self, order: Uuid, amount: i64) -> anyhow::Result<String> {
        let session = NewSession {
            order_id: order.to_string(),
            order_name: "Two nights".to_owned(),
            amount,
            means: Means::Card,
            refund_account: None,
            refuse: None,
        };
        let key = self.toss.authenticate(session);
        key.map_err(|refusal| anyhow::anyhow!("the payment window: {refusal:?}"))
    }
}

/// The first night on offer, as the calendar in Seoul has it.
fn first_night() -> anyhow::Result<jiff::civil::Date> {
    let today = Timestamp::now().to_zoned(TimeZone::fixed(offset(9))).date();
    Ok(today.checked_add(Span::new().days(2))?)
}

/// Makes a stay with its room types and a calendar for each; their ids.
async fn offer(stays: SocketAddr, host: &Guest) -> anyhow::Result<Vec<String>> {
    let mut connection = Connection::new(stays);
    let stay = json!({
        "name": "Bench", "region": "jeju", "lat": 33.4, "lng": 126.5, "amenities": [], "cancellation": "FLEXIBLE",
    });
    let stay = asked(&mut connection, Method::POST, "/v1/stays", host, Some(stay)).await?;
    let room_types = format!("/v1/stays/{}/room-types", text(&stay, "id")?);
    let days = first_night()?.series(Span::new().days(1));
    let nights: Vec<Value> = days
        .take(usize::try_from(NIGHTS + 1)?)
        .map(|night| json!({"date": night, "price": NIGHT_WON, "allotment": ALLOTMENT}))
        .collect();
    let mut ids = Vec::new();
    for number in 1..=ROOM_TYPES {
        let body = json!({"name": format!("Room {number}"), "capacity": 2});
        let made = asked(&mut connection, Method::POST, &room_types, host, Some(body));
        let id = text(&made.await?, "id")?;
        let path = format!("/v1/room-types/{id}/calendar");
        let body = Some(json!({"nights": nights}));
        asked(&mut connection, Method::PUT, &path, host, body).await?;
        ids.push(id);
    }
    Ok(ids)
}

/// Waits until booking has heard of all nights.
async fn until_offered(booking: &PgPool) -> anyhow::Result<()> {
    let all = i64::try_from(ROOM_TYPES)? * (NIGHTS + 1);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let offered: i64 = sqlx::query_scalar("SELECT count(*) FROM room_nights")
            .fetch_one(booking)
            .await?;
        if offered == all {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "booking knows of {offered} nights of {all}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for something as a guest; the answer, which must be a success.
pub(crate) async fn asked(
    connection: &mut Connection,
    method: Method,
    path: &str,
    guest: &Guest,
    body: Option<Value>,
) -> anyhow::Result<Value> {
    let asked = format!("{method} {path}");
    let key = (method == Method::POST).then(|| HeaderValue::try_from(Uuid::new_v4().to_string()));
    let call = Call {
        method,
        body: body.map(|body| body.to_string().into()).unwrap_or_default(),
        key: key.transpose()?,
        ..Call::post(path.parse()?, Some(guest.authorization.clone()))
    };
    let answer = connection.send(&call, PATIENCE).await;
    let answer = answer.map_err(|no| anyhow::anyhow!("{asked}: no answer ({no:?})"))?;
    let said = String::from_utf8_lossy(&answer.body);
    ensure!(
        answer.status.is_success(),
        "{asked}: {} {said}",
        answer.status
    );
    serde_json::from_str(&said).with_context(|| format!("{asked}: {said}"))
}

/// A field that is a text.
pub(crate) fn text(of: &Value, name: &str) -> anyhow::Result<String> {
    let text = of[name].as_str().map(str::to_owned);
    text.with_context(|| format!("no {name} in {of}"))
}
