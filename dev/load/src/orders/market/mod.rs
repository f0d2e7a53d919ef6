//! Many guests on few rooms at once, with coupons and a time sale: some pay, some cancel, some walk away, some have a card
//! that is refused. Then the books of every service and of the payment gateway are held against what the guests saw.

mod books;
mod buyer;
pub(crate) mod faults;
pub(crate) mod rules;
mod seen;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use hyper::Method;
use jiff::civil::Date;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use self::books::Stores;
use self::buyer::Buyer;
use self::rules::{Offer, Terms, Violation};
use self::seen::{Paid, Placed, Seen};
use super::shop::{AHEAD_DAYS, Guided, REGION, Toss, day, text};
use super::{NIGHT, expires_soon};
use crate::checker::{self, Conditions, Ending};
use crate::e2e::{PATIENCE, open_sale, wait_until_open};
use crate::guests::TokenSigner;
use crate::platform::{Declaration, Declared, Kind, Platform};

/// An order that nobody pays ends within this after the last guest has left and the last fault has stopped: its time to
/// be paid is a part of it.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// How long stores may take to agree about claims.
const CLAIMS_REST: Duration = Duration::from_secs(90);

/// Long enough for an order, short enough that some claims are never ordered with and go back to stock.
const CLAIM_TTL: &str = "45s";

/// How large a market is.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Size {
    /// Orders that are asked for.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) market_orders: usize,
    /// Guests who order at once, each one order after another.
    #[arg(long, default_value_t = 500)]
    pub(crate) market_guests: usize,
    /// Rooms of each of the room types.
    #[arg(long, default_value_t = 20)]
    pub(crate) rooms: usize,
    /// What guests want follows from it; random if left out, and always printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

impl Size {
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }
}

/// How far a run is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    ordered: AtomicUsize,
}

impl Progress {
    fn ordered(&self) {
        self.ordered.fetch_add(1, Ordering::Relaxed);
    }

    /// Orders asked for so far.
    pub(crate) fn orders(&self) -> usize {
        self.ordered.load(Ordering::Relaxed)
    }
}

/// What is on offer, and to whom guests turn.
pub(crate) struct Market<'a> {
    platform: &'a Platform,
    toss: Toss,
    signer: TokenSigner,
    room_types: Vec<Uuid>,
    first_night: Date,
    nights: i32,
    sale: Declared,
    campaign: Declared,
    stores: Stores,
}

/// How much there is of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stock {
    pub(crate) room_types: usize,
    /// Of each type on each night.
    pub(crate) rooms: usize,
    pub(crate) nights: i32,
    /// Coupons, and units of the time sale.
    pub(crate) claims: usize,
}

impl Stock {
    pub(crate) fn of(size: Size) -> Self {
        Self {
            room_types: 5,
            rooms: size.rooms,
            nights: 10,
            claims: (size.market_guests / 4).max(1),
        }
    }
}

impl<'a> Market<'a> {
    /// Opens one, and waits until its rooms can be held and its claims taken.
    pub(crate) async fn open(
        platform: &'a Platform,
        toss: std::net::SocketAddr,
        stock: Stock,
    ) -> anyhow::Result<Self> {
        let signer = platform.token_signer().await?;
        let host = Guided::on(platform, &signer.somebody(&["host"])?);
        let first_night = day(Timestamp::now()).checked_add(Span::new().days(AHEAD_DAYS))?;
        let room_types = offer_rooms(&host, first_night, stock).await?;
        let sale = Declaration {
            region: REGION,
            ..open_sale(Kind::TimeSale, stock.claims, CLAIM_TTL)
        };
        let sale = platform.declare(sale).await?;
        let campaign = open_sale(Kind::CouponCampaign, stock.claims, "");
        let campaign = platform.declare(campaign).await?;
        for declared in [&sale, &campaign] {
            wait_until_open(platform, declared).await?;
        }
        let sales = vec![sale.uid.parse()?, campaign.uid.parse()?];
        let market = Self {
            stores: Stores::open(platform, room_types.clone(), sales).await?,
            platform,
            toss: Toss { at: toss },
            signer,
            room_types,
            first_night,
            nights: stock.nights,
            sale,
            campaign,
        };
        for room_type in &market.room_types {
            market.until_held(*room_type).await?;
        }
        Ok(market)
    }

    /// A day, as so many from the first night.
    fn day(&self, after: i32) -> Date {
        let span = Span::new().days(after);
        // A market is some days of the next months.
        self.first_night
            .checked_add(span)
            .unwrap_or(self.first_night)
    }

    /// Waits until booking has heard of the rooms: a guest tries, and cancels.
    async fn until_held(&self, room_type: Uuid) -> anyhow::Result<()> {
        let guest = Guided::on(self.platform, &self.signer.guest()?);
        let wish = json!({
            "roomTypeId": room_type, "checkIn": self.day(0), "checkOut": self.day(1), "guests": 2,
        });
        let what = "rooms just offered can be held";
        let mut placed = Value::Null;
        let held = self.platform.until(what, PATIENCE, async || {
            let order = guest.create("/v1/orders", &wish).await?.is(201)?;
            placed.clone_from(&order);
            if expires_soon(&placed).is_err() {
                return Ok(true);
            }
            let path = format!("/v1/orders/{}", text(&order, "orderId")?);
            let decided = guest.until(&path, |order| order["status"] != "PENDING");
            if decided.await?["status"] != "AWAITING_PAYMENT" {
                return Ok(false);
            }
            let cancel = format!("{path}/cancel");
            guest.post(&cancel, None).await?.is(200)?;
            Ok(true)
        });
        held.await?;
        expires_soon(&placed).map(drop)
    }

    /// Takes the sales away; the stay goes out of sight by itself, since its nights pass.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        for declared in [&self.sale, &self.campaign] {
            self.platform.remove(declared).await?;
        }
        Ok(())
    }

    /// So many guests order at once until so many orders are asked for.
    pub(crate) async fn visited(&self, size: Size, progress: &Progress) -> anyhow::Result<Seen> {
        let seed = size.seed();
        println!(
            "  seed         {seed}: {} orders by {} guests",
            size.market_orders, size.market_guests
        );
        let guests = self.signer.guests(size.market_guests)?;
        let each = |number: usize| {
            let (whole, rest) = (
                size.market_orders / size.market_guests,
                size.market_orders % size.market_guests,
            );
            whole + usize::from(number < rest)
        };
        let visits = guests.into_iter().enumerate().map(|(number, guest)| {
            Buyer::new(self, guest, seed, number).shop(each(number), progress)
        });
        let seen = join_all(visits).await;
        Ok(seen.into_iter().fold(Seen::default(), Seen::and))
    }

    /// Waits until every order has ended, at most as long as one may take.
    pub(crate) async fn until_ended(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let what = "every order has ended";
        let ended = self.platform.until(what, ENDS_WITHIN, async || {
            Ok(self.stores.unfinished().await? == 0)
        });
        if let Err(error) = ended.await {
            // Which they are is found with the rest.
            println!("  {error:#}");
        }
        Ok(began.elapsed())
    }

    /// Reads all books and holds them against what was seen.
    pub(crate) async fn judged(
        &self,
        seen: &Seen,
        journals_before: Vec<books::Journal>,
        conditions: Conditions,
    ) -> anyhow::Result<Verdict> {
        let mut claims = Vec::new();
        for (sale, calls) in [(&self.sale, &seen.sales), (&self.campaign, &seen.coupons)] {
            let at_rest = self.platform.at_rest(sale, CLAIMS_REST).await?;
            let found = checker::check(&sale.facts(), calls, &at_rest, Ending::Open, conditions);
            claims.extend(found.iter().map(ToString::to_string));
        }
        let books = books::Books {
            journals_before,
            ..self.stores.read(&self.toss).await?
        };
        let offer = |sale: &Declared| -> anyhow::Result<Offer> {
            Ok(Offer {
                uid: sale.uid.parse()?,
                starts: sale.declaration.starts,
                ends: sale.declaration.ends,
            })
        };
        let terms = Terms {
            first_night: sql_day(self.first_night)?,
            night: NIGHT,
            sale: offer(&self.sale)?,
            campaign: offer(&self.campaign)?,
        };
        Ok(Verdict {
            orders: rules::check(&terms, seen, &books),
            claims,
            phases: self.stores.phases().await?,
            figures: Figures::of(seen, &books),
        })
    }
}

async fn offer_rooms(
    host: &Guided<'_>,
    first_night: Date,
    stock: Stock,
) -> anyhow::Result<Vec<Uuid>> {
    let name = format!("market{}", &Uuid::new_v4().simple().to_string()[..12]);
    let stay = json!({
        "name": name, "region": REGION, "lat": 35.16, "lng": 129.16, "amenities": ["wifi"],
        "cancellation": "FLEXIBLE",
    });
    let stay = host.create("/v1/stays", &stay).await?.is(201)?;
    let stay = text(&stay, "id")?;
    let nights: Vec<_> = (first_night.series(Span::new().days(1)))
        .take(usize::try_from(stock.nights).unwrap_or(0))
        .map(|night| json!({"date": night, "price": NIGHT, "allotment": stock.rooms}))
        .collect();
    let mut room_types = Vec::new();
    for number in 1..=stock.room_types {
        let body = json!({"name": format!("Room {number}"), "capacity": 2});
        let path = format!("/v1/stays/{stay}/room-types");
        let room_type = host.create(&path, &body).await?.is(201)?;
        let room_type = text(&room_type, "id")?;
        let path = format!("/v1/room-types/{room_type}/calendar");
        let calendar = json!({"nights": nights});
        let put = host.ask(Method::PUT, &path, None, Some(&calendar));
        put.await?.is(200)?;
        room_types.push(room_type.parse()?);
    }
    Ok(room_types)
}

fn sql_day(day: Date) -> anyhow::Result<time::Date> {
    let month = time::Month::try_from(u8::try_from(day.month())?)?;
    time::Date::from_calendar_date(i32::from(day.year()), month, u8::try_from(day.day())?)
        .context("a day of our time")
}

/// What a market came to.
pub(crate) struct Verdict {
    pub(crate) orders: Vec<Violation>,
    /// Of the time sale's and the campaign's claims.
    pub(crate) claims: Vec<String>,
    phases: Vec<(String, i64)>,
    figures: Figures,
}

impl Verdict {
    /// How many promises are not kept.
    pub(crate) fn violations(&self) -> usize {
        self.orders.len() + self.claims.len()
    }

    /// Prints figures and violations.
    pub(crate) fn print(&self) {
        let phases: Vec<String> = (self.phases.iter())
            .map(|(phase, count)| format!("{count} {phase}"))
            .collect();
        let Figures {
            refused,
            unknown,
            captured,
            refused_payments,
            claims,
            held,
        } = self.figures;
        println!(
            "  orders       {}; {refused} refused, {unknown} unanswered",
            phases.join(", ")
        );
        println!(
            "  payments     {captured} captured, {refused_payments} refused; {held} KRW held at the gateway; {claims} claims used"
        );
        let orders = self.orders.iter().map(ToString::to_string);
        let all: Vec<String> = orders.chain(self.claims.iter().cloned()).collect();
        for violation in all.iter().take(10) {
            println!("  VIOLATION    {violation}");
        }
        if all.len() > 10 {
            println!("  ... and {} more violations", all.len() - 10);
        }
    }
}

/// For the reader of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    refused: usize,
    unknown: usize,
    captured: usize,
    refused_payments: usize,
    claims: usize,
    held: i64,
}

impl Figures {
    fn of(seen: &Seen, books: &books::Books) -> Self {
        let placed = |wanted: fn(&Placed) -> bool| {
            let calls = seen.orders.iter();
            calls.filter(|call| wanted(&call.placed)).count()
        };
        let paid = |wanted: fn(&Paid) -> bool| {
            let calls = seen.payments.iter();
            calls.filter(|call| wanted(&call.paid)).count()
        };
        Self {
            refused: placed(|placed| matches!(placed, Placed::Refused(_))),
            unknown: placed(|placed| *placed == Placed::Unknown),
            captured: paid(|paid| *paid == Paid::Captured),
            refused_payments: paid(|paid| matches!(paid, Paid::NotTaken(_))),
            claims: (books.claims.iter())
                .filter(|claim| claim.status == "USED")
                .count(),
            held: books.balances.values().sum(),
        }
    }
}

/// A market on a quiet platform; how many promises are not kept.
pub(crate) async fn run(
    platform: &Platform,
    toss: std::net::SocketAddr,
    size: Size,
) -> anyhow::Result<usize> {
    let market = Market::open(platform, toss, Stock::of(size)).await?;
    let began = Instant::now();
    let progress = Progress::default();
    let seen = market.visited(size, &progress).await?;
    let took = began.elapsed();
    let before = market.stores.journals().await?;
    let ended = market.until_ended().await?;
    println!(
        "  took         {:.1} s ({:.0} orders a second); the last order ended {:.1} s later",
        took.as_secs_f64(),
        progress.orders() as f64 / took.as_secs_f64(),
        ended.as_secs_f64()
    );
    let verdict = market.judged(&seen, before, Conditions::Quiet).await?;
    verdict.print();
    market.close().await?;
    Ok(verdict.violations())
}
