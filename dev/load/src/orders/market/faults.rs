//! A market while something is broken: processes are killed at random moments of their steps, servers restarted, the
//! payment gateway and its webhooks misbehave. And the race of payments with their orders' expiry.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use futures::StreamExt as _;
use futures::future::ready;
use futures::stream;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::buyer::Buyer;
use super::rules::Rule;
use super::seen::Seen;
use super::{Market, Progress, Size, Stock, Verdict};
use crate::checker::Conditions;
use crate::faults::{OUTAGE, server_does, signal};
use crate::orders::address;
use crate::orders::shop::ask_by;
use crate::platform::Platform;

/// Between two kills, after everything was back: what is under way then is killed at any of its steps.
const BETWEEN_MS: std::ops::Range<u64> = 200..3_000;

/// Most kills, or restarts, of one run.
const KILLS_MAX: usize = 10;

/// A fault is over when so many in a hundred of the orders are asked for.
const OVER_AT_PERCENT: usize = 80;

/// How far from its order's expiry a payment is sent, in milliseconds. It takes its time to where the two meet.
const RACE_MS: std::ops::RangeInclusive<i64> = -600..=200;

/// Orders that wait for their expiry at the same time: so few that all can be paid long before it.
const RACES_AT_ONCE: usize = 100;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderFault {
    /// `booking` gets SIGKILL, again and again.
    BookingKilled,
    /// `orders` gets SIGKILL, again and again.
    OrdersKilled,
    /// `payments` gets SIGKILL, again and again.
    PaymentsKilled,
    /// Both parts of `promotions` get SIGKILL, again and again.
    PromotionsKilled,
    /// One of them all, by lot.
    AnyKilled,
    /// Kafka is killed and starts again, twice.
    KafkaRestarted,
    /// PostgreSQL is killed and starts again, twice.
    PostgresRestarted,
    /// The gateway takes the money and doesn't answer, and no webhook tells of it.
    ChargedWithoutAnswer,
    /// The gateway answers after `payments` has given up.
    GatewaySlow,
    /// The gateway answers 409, or 5xx with the money taken or not.
    GatewayErrors,
    /// No webhook comes.
    WebhooksLost,
    /// Webhooks come twice, and late ones before early ones.
    WebhooksRepeatedAndReordered,
    /// Payments come at the very moment at which their orders expire.
    ExpiryRace,
    /// Nothing; for planted bugs that show without a fault.
    Nothing,
}

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Where the simulated payment gateway answers.
    #[arg(long, env = "QUOKKA_TOSS_SIMULATOR_URL", default_value = "http://127.0.0.1:30090", value_parser = address)]
    toss: SocketAddr,
    /// Only these faults; all by default.
    #[arg(long = "order-fault", value_enum)]
    faults: Vec<OrderFault>,
    /// The platform runs with a planted bug: every run must find that this rule is broken.
    #[arg(long, value_enum)]
    expect: Option<Rule>,
    /// What guests want and when kills come follows from it; random if left out, and always printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Orders of each run.
    #[arg(long, default_value_t = 600)]
    orders: usize,
    /// Guests of each run.
    #[arg(long, default_value_t = 100)]
    guests: usize,
    /// Rooms of each type.
    #[arg(long, default_value_t = 8)]
    rooms: usize,
    /// Payments that race with an expiry.
    #[arg(long, default_value_t = 1_000)]
    races: usize,
}

/// Runs a market under each fault; how many runs were not as they must be.
pub(crate) async fn run(platform: &Platform, plan: &Plan) -> anyhow::Result<usize> {
    let faults = if plan.faults.is_empty() {
        let all = OrderFault::value_variants().iter().copied();
        all.filter(|fault| *fault != OrderFault::Nothing).collect()
    } else {
        plan.faults.clone()
    };
    let mut failed = 0;
    for (turn, fault) in faults.iter().enumerate() {
        println!("[{}/{}] orders under {fault:?}", turn + 1, faults.len());
        let as_it_must_be = match under(platform, plan, *fault).await {
            Ok(verdict) => {
                verdict.print();
                match plan.expect {
                    None => verdict.violations() == 0,
                    Some(rule) => verdict.orders.iter().any(|it| it.rule == rule),
                }
            }
            Err(error) => {
                println!("  the run itself failed: {error:#}");
                false
            }
        };
        println!(
            "  {}",
            if as_it_must_be {
                "as it must be"
            } else {
                "NOT as it must be"
            }
        );
        failed += usize::from(!as_it_must_be);
    }
    Ok(failed)
}

async fn under(platform: &Platform, plan: &Plan, fault: OrderFault) -> anyhow::Result<Verdict> {
    set_gateway(plan.toss, &json!({})).await?;
    let size = Size {
        market_orders: plan.orders,
        market_guests: plan.guests,
        rooms: plan.rooms,
        seed: Some(plan.seed.unwrap_or_else(rand::random)),
    };
    let stock = if fault == OrderFault::ExpiryRace {
        Stock {
            room_types: 1,
            rooms: plan.races,
            nights: 1,
            claims: plan.races / 4 + 1,
        }
    } else {
        Stock::of(size)
    };
    let market = Market::open(platform, plan.toss, stock).await?;
    let seen = disturbed(&market, plan, size, fault).await;
    // Also when something failed: what comes next wants a whole platform.
    let repaired = repair(platform, plan.toss, fault).await;
    let seen = seen?;
    repaired?;
    let before = market.stores.journals().await?;
    let ended = market.until_ended().await?;
    println!(
        "  ended        the last order {:.1} s after the last guest",
        ended.as_secs_f64()
    );
    let verdict = market.judged(&seen, before, Conditions::Disturbed).await?;
    market.close().await?;
    Ok(verdict)
}

async fn disturbed(
    market: &Market<'_>,
    plan: &Plan,
    size: Size,
    fault: OrderFault,
) -> anyhow::Result<Seen> {
    if fault == OrderFault::ExpiryRace {
        return race(market, plan.races, size.seed()).await;
    }
    let progress = Progress::default();
    let left = AtomicBool::new(false);
    let visited = async {
        let seen = market.visited(size, &progress).await;
        left.store(true, Ordering::Relaxed);
        seen
    };
    let over = || {
        left.load(Ordering::Relaxed)
            || progress.orders() * 100 >= size.market_orders * OVER_AT_PERCENT
    };
    let (seen, made) = tokio::join!(visited, make(market, plan, size.seed(), fault, over));
    made?;
    seen
}

/// Makes the fault until it is over.
async fn make(
    market: &Market<'_>,
    plan: &Plan,
    seed: u64,
    fault: OrderFault,
    over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    const KILLED: [&str; 5] = [
        "booking",
        "orders",
        "payments",
        "promotions",
        "promotions-ledger",
    ];
    match fault {
        OrderFault::BookingKilled => kill(market, &KILLED[..1], seed, over).await,
        OrderFault::OrdersKilled => kill(market, &KILLED[1..2], seed, over).await,
        OrderFault::PaymentsKilled => kill(market, &KILLED[2..3], seed, over).await,
        OrderFault::PromotionsKilled => kill(market, &KILLED[3..], seed, over).await,
        OrderFault::AnyKilled => kill(market, &KILLED, seed, over).await,
        OrderFault::KafkaRestarted => restart("kafka", seed, over).await,
        OrderFault::PostgresRestarted => restart("postgres", seed, over).await,
        OrderFault::Nothing | OrderFault::ExpiryRace => Ok(()),
        OrderFault::ChargedWithoutAnswer
        | OrderFault::GatewaySlow
        | OrderFault::GatewayErrors
        | OrderFault::WebhooksLost
        | OrderFault::WebhooksRepeatedAndReordered => {
            set_gateway(plan.toss, &at_the_gateway(fault, seed)).await?;
            while !over() {
                sleep(Duration::from_millis(100)).await;
            }
            set_gateway(plan.toss, &json!({})).await
        }
    }
}

/// What the simulated gateway is asked to do wrong.
fn at_the_gateway(fault: OrderFault, seed: u64) -> Value {
    match fault {
        OrderFault::ChargedWithoutAnswer => {
            json!({"seed": seed, "chargeAndDropAnswer": 0.3, "webhooksLost": 1.0})
        }
        // Longer than `payments` waits on a platform for tests.
        OrderFault::GatewaySlow => json!({"seed": seed, "slow": 0.2, "slowMillis": 6_000}),
        OrderFault::GatewayErrors => {
            json!({"seed": seed, "conflict": 0.15, "serverError": 0.15, "chargeAndServerError": 0.15})
        }
        OrderFault::WebhooksLost => json!({"seed": seed, "webhooksLost": 1.0}),
        OrderFault::WebhooksRepeatedAndReordered => {
            json!({"seed": seed, "webhooksRepeated": 0.5, "webhooksReordered": 0.5})
        }
        _ => json!({}),
    }
}

async fn set_gateway(toss: SocketAddr, faults: &Value) -> anyhow::Result<()> {
    let mut connection = crate::http::Connection::new(toss);
    let path = "/simulator/faults";
    let told = ask_by(
        &mut connection,
        Method::PUT,
        path,
        |call| call,
        Some(faults),
    )
    .await?;
    told.is(200)?;
    Ok(())
}

/// How long a service that was killed may take until it is at work again: Kafka has to give up its dead reader first.
const AT_WORK_WITHIN: Duration = Duration::from_secs(20);

/// What happens to orders while a component is at work.
fn at_work(component: &str) -> &'static [&'static str] {
    match component {
        "booking" => &["NIGHTS_HELD", "HOLD_REFUSED", "NIGHTS_RELEASED"],
        "payments" => &["PAYMENT_CAPTURED", "PAYMENT_REFUSED", "PAYMENT_REFUNDED"],
        "promotions-ledger" => &[
            "DISCOUNT_RESERVED",
            "DISCOUNT_REDEEMED",
            "DISCOUNT_RELEASED",
        ],
        _ => &["PLACED"],
    }
}

/// All processes of one of these components at a time get SIGKILL, at random moments. Their pods go with them: a
/// container that is killed again and again would be left dead for longer and longer.
async fn kill(
    market: &Market<'_>,
    components: &[&str],
    seed: u64,
    over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let platform = market.platform;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    while !over() && kills < KILLS_MAX {
        sleep(Duration::from_millis(rng.random_range(BETWEEN_MS))).await;
        let Some(component) = components.choose(&mut rng) else {
            break;
        };
        let program = component.trim_end_matches("-ledger");
        let pods = format!("app.kubernetes.io/component={component}");
        let killed = platform.pods(&pods).await?;
        for pod in &killed {
            let uid = pod.metadata.uid.as_deref();
            signal(platform, "KILL", program, None, uid).await?;
            platform.forget(pod).await?;
        }
        kills += 1;
        let killed_at = Timestamp::now();
        platform.until_replaced(&pods, &killed).await?;
        // One that isn't at work yet would be killed at no step.
        let until = Instant::now() + AT_WORK_WITHIN;
        while !over() && Instant::now() < until {
            let happened = market.stores.happened_since(at_work(component), killed_at);
            if happened.await.unwrap_or(false) {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    println!("  the faults   {kills} kills");
    ensure!(
        kills > 0,
        "nothing was killed: nothing is shown by this run"
    );
    Ok(())
}

async fn restart(server: &str, seed: u64, over: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut restarts = 0;
    while !over() && restarts < 2 {
        sleep(Duration::from_millis(rng.random_range(BETWEEN_MS))).await;
        server_does("kill", server).await?;
        sleep(OUTAGE).await;
        server_does("start", server).await?;
        restarts += 1;
        sleep(OUTAGE).await;
    }
    println!("  the faults   {restarts} restarts");
    ensure!(
        restarts > 0,
        "nothing was restarted: nothing is shown by this run"
    );
    Ok(())
}

async fn repair(platform: &Platform, toss: SocketAddr, fault: OrderFault) -> anyhow::Result<()> {
    set_gateway(toss, &json!({})).await?;
    match fault {
        OrderFault::KafkaRestarted => server_does("start", "kafka").await?,
        OrderFault::PostgresRestarted => server_does("start", "postgres").await?,
        _ => {}
    }
    for component in [
        "booking",
        "orders",
        "payments",
        "promotions",
        "promotions-ledger",
    ] {
        platform.until_ready(&format!("quokka-{component}")).await?;
    }
    Ok(())
}

/// Each guest orders once, and pays around the moment of the order's expiry.
async fn race(market: &Market<'_>, races: usize, seed: u64) -> anyhow::Result<Seen> {
    println!("  seed         {seed}: {races} payments at their orders' expiry");
    // Some of the outcomes aren't known at once.
    let faults = json!({
        "seed": seed, "chargeAndDropAnswer": 0.05, "slow": 0.3, "slowMillis": 700,
    });
    set_gateway(market.toss.at, &faults).await?;
    let mut rng = StdRng::seed_from_u64(seed);
    let guests = market.signer.guests(races)?;
    let visits = guests.into_iter().enumerate().map(|(number, guest)| {
        let by = SignedDuration::from_millis(rng.random_range(RACE_MS));
        Buyer::new(market, guest, seed, number).pay_at_the_last_moment(by)
    });
    let visits: Vec<_> = visits.collect();
    let seen = stream::iter(visits)
        .buffer_unordered(RACES_AT_ONCE)
        .fold(Seen::default(), |all, seen| ready(all.and(seen)))
        .await;
    let ended = |as_told: &str| {
        let told = seen.told.iter();
        told.filter(|told| told.status == as_told).count()
    };
    let (paid, expired) = (ended("CONFIRMED"), ended("EXPIRED"));
    println!("  the race     {paid} paid in time, {expired} expired");
    ensure!(
        paid.min(expired) * 20 >= races,
        "hardly anybody lost, or won: nothing is shown by this run"
    );
    Ok(seen)
}
