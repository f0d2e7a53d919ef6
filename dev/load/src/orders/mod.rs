//! Stays from search to a paid booking and back: through the gateway as guests do it, with the simulated payment
//! gateway for the window and the money.
//!
//! What is looked at is what guests are promised: nobody is charged without a booking, nothing is booked that isn't
//! there, and what comes to nothing is given back whole.

pub(crate) mod market;
mod rush;
mod shop;

use std::net::SocketAddr;

use anyhow::ensure;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::shop::{Guided, Shop, day, text};
use crate::e2e::PATIENCE;
use crate::guests::sign_up_and_in;
use crate::platform::Platform;
use crate::sale_run::sleep_until;

/// How orders are tried.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Where the simulated payment gateway answers.
    #[arg(long, env = "QUOKKA_TOSS_SIMULATOR_URL", default_value = "http://127.0.0.1:30090", value_parser = address)]
    pub(crate) toss: SocketAddr,
    /// Guests who want the last rooms at once.
    #[arg(long, default_value_t = 200)]
    pub(crate) order_guests: usize,
}

fn address(url: &str) -> Result<SocketAddr, String> {
    let at = url.strip_prefix("http://").unwrap_or(url);
    let at = at.trim_end_matches('/').parse();
    at.map_err(|_| format!("{url} is not http://ADDRESS:PORT"))
}

/// Rooms of each type on each night.
const ALLOTMENT: usize = 10;

/// What a night costs, in won.
const NIGHT: i64 = 100_000;

/// Two nights with a tenth off by the time sale, and of that a tenth by the coupon.
const WITH_BOTH: i64 = 162_000;

/// The platform of a run lets orders be paid for less than this (`TEST_TIMES`): a run sees some expire.
const PAYMENT_WINDOW_MAX: SignedDuration = SignedDuration::from_secs(45);

/// Runs everything; returns how many things did not hold.
pub(crate) async fn run(platform: &Platform, plan: &Plan) -> anyhow::Result<usize> {
    let shop = Shop::open(platform, plan.toss).await?;
    let (guest, _) = sign_up_and_in(platform.api).await?;
    let guest = Guided::new(&shop, &guest);
    let claims = Claims::take(&shop, &guest).await?;
    guest_books_and_cancels(&shop, &guest, &claims).await?;
    tonight_costs_a_part(&shop, &guest).await?;
    unpaid_order_expires(&shop, &guest, &claims).await?;
    let violations = rush::run(&shop, plan.order_guests).await?;
    shop.close().await?;
    Ok(violations)
}

/// A time-sale claim and a coupon of one guest.
struct Claims {
    sale: String,
    coupon: String,
}

impl Claims {
    async fn take(shop: &Shop<'_>, guest: &Guided<'_>) -> anyhow::Result<Self> {
        let [sale, coupon] = [&shop.sale, &shop.campaign];
        let sale = guest.post(&sale.claims_path(), None).await?.is(201)?;
        let coupon = guest.post(&coupon.claims_path(), None).await?.is(201)?;
        Ok(Self {
            sale: text(&sale, "claimId")?,
            coupon: text(&coupon, "claimId")?,
        })
    }

    /// Orders two nights with both.
    async fn order(&self, shop: &Shop<'_>, guest: &Guided<'_>) -> anyhow::Result<Value> {
        let mut wish = shop.wish(&shop.room_type);
        wish["couponId"] = json!(self.coupon);
        wish["timeSaleClaimId"] = json!(self.sale);
        let order = guest.create("/v1/orders", &wish).await?.is(201)?;
        ensure!(
            order["amount"] == WITH_BOTH && order["originalAmount"] == 2 * NIGHT,
            "two nights with a time sale and a coupon cost {order}"
        );
        Ok(order)
    }

    /// Waits until both are of this status, or of none of an order's if they are the guest's to use.
    async fn until(&self, guest: &Guided<'_>, used: bool) -> anyhow::Result<()> {
        let statuses = [(&self.sale, "ACCEPTED"), (&self.coupon, "ISSUED")];
        for (claim, free) in statuses {
            let path = format!("/v1/claims/{claim}");
            let status = if used { "USED" } else { free };
            guest
                .until(&path, |claim| {
                    claim["status"] == status && claim["orderId"].is_null() != used
                })
                .await?;
        }
        Ok(())
    }
}

async fn guest_books_and_cancels(
    shop: &Shop<'_>,
    guest: &Guided<'_>,
    claims: &Claims,
) -> anyhow::Result<()> {
    shop.is_found_with_its_lowest_price(guest).await?;
    let began = Instant::now();
    let order = text(&claims.order(shop, guest).await?, "orderId")?;
    let path = format!("/v1/orders/{order}");
    guest.until_status(&path, "AWAITING_PAYMENT").await?;
    let payable = began.elapsed();

    let key = shop.toss.session(&order, WITH_BOTH).await?;
    let cheap = shop.toss.session(&order, 1_000).await?;
    for (key, amount) in [(&cheap, 1_000), (&key, WITH_BOTH - 1)] {
        let answer = guest.confirm(key, &order, amount).await?;
        answer.refused(422, "AMOUNT_MISMATCH")?;
        shop.toss.holds(key, 0).await?;
    }
    let (other, _) = sign_up_and_in(shop.platform.api).await?;
    let other = Guided::new(shop, &other);
    let not_theirs = [
        other.get(&path).await?,
        other.post(&format!("{path}/cancel"), None).await?,
        other.confirm(&key, &order, WITH_BOTH).await?,
    ];
    for answer in not_theirs {
        answer.refused(404, "ORDER_NOT_FOUND")?;
    }
    shop.toss.holds(&key, 0).await?;

    let began = Instant::now();
    let paid = guest.confirm(&key, &order, WITH_BOTH).await?.is(200)?;
    ensure!(paid["status"] == "CAPTURED", "a paid order: {paid}");
    let confirmed = guest.until_status(&path, "CONFIRMED").await?;
    let confirmed_after = began.elapsed();
    let booking = format!("/v1/bookings/{}", text(&confirmed, "bookingId")?);
    guest.until_status(&booking, "CONFIRMED").await?;
    claims.until(guest, true).await?;
    shop.until_left(guest, &shop.room_type, ALLOTMENT - 1)
        .await?;

    let again = guest.confirm(&key, &order, WITH_BOTH).await?.is(200)?;
    ensure!(again == paid, "confirmed again: {again} instead of {paid}");
    let second = shop.toss.session(&order, WITH_BOTH).await?;
    guest.confirm(&second, &order, WITH_BOTH).await?.is(409)?;
    shop.toss.holds(&second, 0).await?;
    shop.toss.holds(&key, WITH_BOTH).await?;

    let began = Instant::now();
    cancelled(shop, guest, (&order, &key), (WITH_BOTH, WITH_BOTH)).await?;
    let refunded_after = began.elapsed();
    guest.until_status(&booking, "CANCELLED").await?;
    claims.until(guest, false).await?;
    shop.until_left(guest, &shop.room_type, ALLOTMENT).await?;
    println!(
        "  2 nights for {WITH_BOTH} of {} KRW: payable after {} ms, booked {} ms after the payment, refunded in {} ms",
        2 * NIGHT,
        payable.as_millis(),
        confirmed_after.as_millis(),
        refunded_after.as_millis()
    );
    Ok(())
}

/// Cancels a paid order twice and waits until so much of what was paid is back, once.
async fn cancelled(
    shop: &Shop<'_>,
    guest: &Guided<'_>,
    (order, key): (&str, &str),
    (paid, refund): (i64, i64),
) -> anyhow::Result<()> {
    let path = format!("/v1/orders/{order}");
    for _ in 0..2 {
        let told = guest.post(&format!("{path}/cancel"), None).await?.is(200)?;
        ensure!(
            told["status"] == "CANCELLED" && told["refund"]["amount"] == refund,
            "of {paid} there should be {refund} back: {told}"
        );
    }
    guest
        .until(&path, |order| order["refund"]["refunded"] == refund)
        .await?;
    shop.toss.holds(key, paid - refund).await
}

/// On the day of check-in a MODERATE stay gives half of it back.
async fn tonight_costs_a_part(shop: &Shop<'_>, guest: &Guided<'_>) -> anyhow::Result<()> {
    // The day in Seoul must not end in between.
    let soon = Timestamp::now() + SignedDuration::try_from(2 * PATIENCE)?;
    let tonight: Date = day(soon);
    if tonight != day(Timestamp::now()) {
        sleep_until(soon).await;
    }
    let mut wish = shop.wish(&shop.room_type);
    wish["checkIn"] = json!(tonight);
    wish["checkOut"] = json!(tonight.tomorrow()?);
    let order = guest.create("/v1/orders", &wish).await?.is(201)?;
    let order = text(&order, "orderId")?;
    let path = format!("/v1/orders/{order}");
    guest.until_status(&path, "AWAITING_PAYMENT").await?;
    let key = shop.toss.session(&order, NIGHT).await?;
    guest.confirm(&key, &order, NIGHT).await?.is(200)?;
    guest.until_status(&path, "CONFIRMED").await?;
    cancelled(shop, guest, (&order, &key), (NIGHT, NIGHT / 2)).await?;
    println!("  tonight cancelled: {} of {NIGHT} KRW back", NIGHT / 2);
    Ok(())
}

/// When an order expires, which must be soon.
fn expires_soon(order: &Value) -> anyhow::Result<Timestamp> {
    let created: Timestamp = text(order, "createdAt")?.parse()?;
    let expires: Timestamp = text(order, "expiresAt")?.parse()?;
    let window = expires.duration_since(created);
    ensure!(
        window <= PAYMENT_WINDOW_MAX,
        "orders may be paid for {window:#}: install the platform with TEST_TIMES=1 for this run"
    );
    Ok(expires)
}

async fn unpaid_order_expires(
    shop: &Shop<'_>,
    guest: &Guided<'_>,
    claims: &Claims,
) -> anyhow::Result<()> {
    let order = claims.order(shop, guest).await?;
    let expires = expires_soon(&order)?;
    let order = text(&order, "orderId")?;
    let path = format!("/v1/orders/{order}");
    let key = shop.toss.session(&order, WITH_BOTH).await?;
    guest.until_status(&path, "EXPIRED").await?;
    let late = Timestamp::now().duration_since(expires);
    ensure!(!late.is_negative(), "expired {late} before its time");
    let answer = guest.confirm(&key, &order, WITH_BOTH).await?;
    answer.refused(409, "ORDER_EXPIRED")?;
    shop.toss.holds(&key, 0).await?;
    claims.until(guest, false).await?;
    shop.until_left(guest, &shop.room_type, ALLOTMENT).await?;
    println!(
        "  unpaid: expired {} ms after its time; room, coupon and claim are back",
        late.as_millis()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulator_is_named_by_its_address() {
        let at = Ok(SocketAddr::from(([127, 0, 0, 1], 30_090)));
        assert_eq!(address("http://127.0.0.1:30090"), at);
        assert_eq!(address("http://127.0.0.1:30090/"), at);
        assert!(address("https://toss.example").is_err());
    }
}
