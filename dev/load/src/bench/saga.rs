//! Orders a second through the whole saga, and where their time goes: the nights held, the coupon reserved, the money
//! taken by the simulated payment gateway, the booking confirmed, the coupon redeemed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::booking::Plan;
use super::latencies::Latencies;
use super::median;
use super::process::Account;
use super::servers::Servers;
use super::shop::{Customer, Shop, asked, text};
use crate::http::Connection;

/// Orders one after the other, in quiet times.
const QUIET: usize = 40;

/// Orders before anything is measured: connections are made, statements prepared, caches filled.
const WARM_UP: usize = 200;

/// How long an order may take to get from one state to the next.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the orders that are waited for are looked at, all with one statement.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the history calls the end of each step, and what the step is.
const STEPS: [(&str, &str); 5] = [
    ("NIGHTS_HELD", "hold the nights"),
    ("DISCOUNT_RESERVED", "reserve the coupon"),
    ("PAYMENT_CAPTURED", "take the payment"),
    ("BOOKING_CONFIRMED", "confirm the booking"),
    ("DISCOUNT_REDEEMED", "redeem the coupon"),
];

/// Measures orders one at a time and many at once.
pub(crate) async fn run(plan: &Plan, servers: &Servers) -> anyhow::Result<()> {
    println!("starting every service that an order passes");
    let shop = Arc::new(Shop::open(servers).await?);
    let warm = shop.customers(servers, WARM_UP, plan.at_once).await?;
    buy(&shop, warm, plan.at_once).await?;

    println!("orders in quiet times, {QUIET} one after the other");
    let customers = shop.customers(servers, QUIET, 1).await?;
    let quiet = buy(&shop, customers, 1).await?;
    print_steps(&shop, &[quiet]).await?;

    let Plan {
        orders,
        rounds,
        at_once,
        ..
    } = *plan;
    println!(
        "orders through the whole saga, {orders} in each of {rounds} rounds, {at_once} at once"
    );
    let mut account = Account::new(shop.processes(servers)?);
    let mut bought = Vec::new();
    for round in 1..=rounds {
        let customers = shop.customers(servers, orders, at_once).await?;
        account.begin()?;
        let these = buy(&shop, customers, at_once).await?;
        account.end()?;
        println!("  round {round}: {:.0} orders/s", these.per_second());
        bought.push(these);
    }
    let rates = bought.iter().map(Bought::per_second).collect();
    println!(
        "  orders from the wish to the booking               {:>8.0}/s",
        median(rates)
    );
    print_steps(&shop, &bought).await?;
    account.print("order", orders * rounds);
    Ok(())
}

/// What became of a round.
struct Bought {
    took: Duration,
    orders: Vec<Uuid>,
    /// Until a guest has the order's answer, and the payment's.
    ordered: Latencies,
    paid: Latencies,
}

impl Bought {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            took: Duration::ZERO,
            orders: Vec::new(),
            ordered: Latencies::new()?,
            paid: Latencies::new()?,
        })
    }

    fn add(&mut self, more: Self) -> anyhow::Result<()> {
        self.orders.extend(more.orders);
        self.ordered.add(&more.ordered)?;
        self.paid.add(&more.paid)?;
        Ok(())
    }

    fn per_second(&self) -> f64 {
        self.orders.len() as f64 / self.took.as_secs_f64()
    }
}

/// Every customer orders, pays and gets a booking, `at_once` of them at the same time.
async fn buy(shop: &Arc<Shop>, customers: Vec<Customer>, at_once: usize) -> anyhow::Result<Bought> {
    let (customers, next) = (Arc::new(customers), Arc::new(AtomicUsize::new(0)));
    let waiting = Arc::new(Waiting::default());
    let watch = tokio::spawn(Arc::clone(&waiting).watch(Arc::clone(shop)));
    let began = Instant::now();
    let workers = (0..at_once).map(|_| {
        let (customers, next) = (Arc::clone(&customers), Arc::clone(&next));
        let (shop, waiting) = (Arc::clone(shop), Arc::clone(&waiting));
        tokio::spawn(async move {
            let mut bought = Bought::new()?;
            let mut connections = (Connection::new(shop.orders), Connection::new(shop.payments));
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(customer) = customers.get(number) else {
                    return anyhow::Ok(bought);
                };
                let wish = (number, customer);
                buy_one(&shop, &waiting, &mut connections, wish, &mut bought).await?;
            }
        })
    });
    let workers = futures::future::join_all(workers).await;
    let took = began.elapsed();
    watch.abort();
    let mut bought = Bought::new()?;
    for worker in workers {
        bought.add(worker??)?;
    }
    bought.took = took;
    Ok(bought)
}

async fn buy_one(
    shop: &Shop,
    waiting: &Waiting,
    (orders, payments): &mut (Connection, Connection),
    (number, customer): (usize, &Customer),
    bought: &mut Bought,
) -> anyhow::Result<()> {
    let guest = &customer.guest;
    let wish = Some(shop.wish(number, customer)?);
    let began = Instant::now();
    let order = asked(orders, Method::POST, "/v1/orders", guest, wish).await?;
    bought.ordered.record(began.elapsed())?;
    let amount = order["amount"].as_i64();
    let amount = amount.with_context(|| format!("no amount in {order}"))?;
    let order: Uuid = text(&order, "orderId")?.parse()?;
    waiting.until(order, "AWAITING_PAYMENT").await?;
    let key = shop.window(order, amount)?;
    let body = Some(json!({"paymentKey": key, "orderId": order, "amount": amount}));
    let began = Instant::now();
    asked(payments, Method::POST, "/v1/payments/confirm", guest, body).await?;
    bought.paid.record(began.elapsed())?;
    waiting.until(order, "CONFIRMED").await?;
    bought.orders.push(order);
    Ok(())
}

/// Orders that somebody waits for. They are looked up together, in the database: guests who ask for one each would be a
/// good part of the load.
#[derive(Default)]
struct Waiting(Mutex<HashMap<Uuid, (&'static str, oneshot::Sender<String>)>>);

impl Waiting {
    fn orders(&self) -> MutexGuard<'_, HashMap<Uuid, (&'static str, oneshot::Sender<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, order: Uuid, phase: &'static str) -> anyhow::Result<()> {
        let (tell, told) = oneshot::channel();
        self.orders().insert(order, (phase, tell));
        let waited = tokio::time::timeout(PATIENCE, told).await;
        let reached = waited.with_context(|| format!("order {order} is not {phase} in time"))??;
        if reached != phase {
            bail!("order {order} is {reached} instead of {phase}");
        }
        Ok(())
    }

    /// Tells who waits, for as long as it runs.
    async fn watch(self: Arc<Self>, shop: Arc<Shop>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let orders: Vec<Uuid> = self.orders().keys().copied().collect();
            if orders.is_empty() {
                continue;
            }
            let phases: Result<Vec<(Uuid, String)>, _> =
                sqlx::query_as("SELECT order_id, phase FROM orders WHERE order_id = ANY ($1)")
                    .bind(orders)
                    .fetch_all(&shop.pool)
                    .await;
            // One that can't be read is waited for until its time is over.
            for (order, phase) in phases.unwrap_or_default() {
                let mut waiting = self.orders();
                let ended = matches!(phase.as_str(), "CANCELLED" | "EXPIRED" | "FAILED");
                let reached = |(wanted, _): &(&str, _)| *wanted == phase || ended;
                if waiting.get(&order).is_some_and(reached)
                    && let Some((_, tell)) = waiting.remove(&order)
                {
                    // Who has given up isn't told.
                    let _ = tell.send(phase);
                }
            }
        }
    }
}

/// Prints how long each step took, from the orders' own histories.
async fn print_steps(shop: &Shop, bought: &[Bought]) -> anyhow::Result<()> {
    let orders = bought.iter().flat_map(|bought| &bought.orders).copied();
    let orders: Vec<Uuid> = orders.collect();
    let steps: Vec<(String, f64, f64, f64)> = sqlx::query_as(
        "SELECT event, sum(ms), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms),
            percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
        FROM (SELECT event, (1000 * extract(epoch FROM at - lag(at) OVER (PARTITION BY order_id ORDER BY seq)))::float8 AS ms
            FROM order_history WHERE order_id = ANY ($1)) AS steps
        WHERE ms IS NOT NULL GROUP BY event",
    )
    .bind(&orders)
    .fetch_all(&shop.pool)
    .await?;
    let of = |event: &str| {
        let step = steps.iter().find(|(name, ..)| name == event);
        step.with_context(|| format!("no order's history has {event}"))
    };
    let mut all_ms = 0.0;
    for (event, _) in STEPS {
        all_ms += of(event)?.1;
    }
    println!("    step                        p50 ms   p99 ms   share");
    for (event, step) in STEPS {
        let (_, sum_ms, p50, p99) = of(event)?;
        let share = sum_ms / all_ms * 100.0;
        println!("    {step:<25} {p50:>8.1} {p99:>8.1}  {share:>4.0} %");
    }
    println!(
        "    all of these, the mean    {:>8.1}",
        all_ms / orders.len() as f64
    );
    let (_, _, p50, p99) = of("PAYMENT_BEGUN")?;
    println!("    (the guest's own time     {p50:>8.1} {p99:>8.1})");
    let (mut ordered, mut paid) = (Latencies::new()?, Latencies::new()?);
    for bought in bought {
        ordered.add(&bought.ordered)?;
        paid.add(&bought.paid)?;
    }
    for (what, answers) in [
        ("answer to the order", ordered),
        ("answer to the payment", paid),
    ] {
        let (p50, p99) = (answers.quantile_ms(0.5), answers.quantile_ms(0.99));
        println!("    {what:<25} {p50:>8.1} {p99:>8.1}");
    }
    Ok(())
}
