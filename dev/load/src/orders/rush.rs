//! Many guests who want the last rooms at once, each of whom pays as soon as anybody lets them.

use anyhow::{bail, ensure};
use futures::future::join_all;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::shop::{Guided, LOOK_EVERY, Shop, text};
use super::{ALLOTMENT, NIGHT};
use crate::e2e::PATIENCE;

const AMOUNT: i64 = 2 * NIGHT;

/// What it came to for one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    /// The order's status; none without an order.
    status: Option<String>,
    /// What the payment gateway holds of the guest's money.
    held: i64,
    bookings: usize,
}

/// Runs it; returns how many things did not hold.
pub(super) async fn run(shop: &Shop<'_>, guests: usize) -> anyhow::Result<usize> {
    let guests = shop.signer.guests(guests)?;
    let guests: Vec<Guided<'_>> = guests
        .iter()
        .map(|guest| Guided::new(shop, guest))
        .collect();
    let began = Instant::now();
    let ends = join_all(guests.iter().map(|guest| book(shop, guest))).await;
    let ends = ends.into_iter().collect::<anyhow::Result<Vec<End>>>()?;
    let took = began.elapsed();
    let sold = guests.len().min(ALLOTMENT);
    if let Some(guest) = guests.first() {
        let left = ALLOTMENT - sold;
        shop.until_left(guest, &shop.last_rooms, left).await?;
    }
    let confirmed = ends.iter().filter(|end| is_confirmed(end)).count();
    let ordered = ends.iter().filter(|end| end.status.is_some()).count();
    println!(
        "  {} guests on {ALLOTMENT} rooms in {:.1} s: {ordered} orders, {confirmed} booked and paid, {} KRW held",
        guests.len(),
        took.as_secs_f64(),
        ends.iter().map(|end| end.held).sum::<i64>()
    );
    let violations = violations(&ends, sold);
    for violation in violations.iter().take(10) {
        println!("  VIOLATION    {violation}");
    }
    Ok(violations.len())
}

fn is_confirmed(end: &End) -> bool {
    end.status.as_deref() == Some("CONFIRMED")
}

/// CONFIRMED if and only if there is one booking and the whole of the money, and for each room that there is.
fn violations(ends: &[End], sold: usize) -> Vec<String> {
    let confirmed = ends.iter().filter(|end| is_confirmed(end)).count();
    let mut violations = Vec::new();
    if confirmed != sold {
        violations.push(format!("{confirmed} booked, of {sold} rooms"));
    }
    for end in ends {
        let expected = if is_confirmed(end) {
            (AMOUNT, 1)
        } else {
            (0, 0)
        };
        if (end.held, end.bookings) != expected {
            violations.push(format!(
                "an order {}: {} KRW held and {} bookings instead of {} and {}",
                end.status.as_deref().unwrap_or("that was refused"),
                end.held,
                end.bookings,
                expected.0,
                expected.1
            ));
        }
    }
    violations
}

/// One guest's order, payment and what came of it.
async fn book(shop: &Shop<'_>, guest: &Guided<'_>) -> anyhow::Result<End> {
    let (mut status, mut held) = (None, 0);
    if let Some(order) = order(shop, guest).await? {
        let key = shop.toss.session(&order, AMOUNT).await?;
        pay(guest, &order, &key).await?;
        let path = format!("/v1/orders/{order}");
        let over = |order: &serde_json::Value| {
            ["CONFIRMED", "FAILED", "EXPIRED", "CANCELLED"]
                .iter()
                .any(|over| order["status"] == *over)
        };
        status = Some(text(&guest.until(&path, over).await?, "status")?);
        held = shop.toss.held(&key).await?;
    }
    let bookings = guest.get("/v1/bookings").await?.is(200)?;
    let bookings = bookings["items"].as_array().map_or(0, Vec::len);
    Ok(End {
        status,
        held,
        bookings,
    })
}

/// The order's id; `None` if there was no room. A busy platform is asked again with the same key.
async fn order(shop: &Shop<'_>, guest: &Guided<'_>) -> anyhow::Result<Option<String>> {
    let (key, wish) = (Uuid::new_v4(), shop.wish(&shop.last_rooms));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = guest.create_by(key, "/v1/orders", &wish).await?;
        match told.status {
            201 => return Ok(Some(text(&told.body, "orderId")?)),
            409 if told.body["code"] == "UNAVAILABLE" => return Ok(None),
            // In flight, too many at once, or a peer that can't keep up.
            409 | 429 | 503 => ensure!(Instant::now() < deadline, "no order: {told:?}"),
            _ => bail!("an order: {told:?}"),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Pays as soon as it is let through, twice at once as impatient people do; a guest whose order has failed is refused.
async fn pay(guest: &Guided<'_>, order: &str, key: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let twice = [
            guest.confirm(key, order, AMOUNT),
            guest.confirm(key, order, AMOUNT),
        ];
        let told = join_all(twice).await;
        for told in told {
            let told = told?;
            match told.status {
                200 => return Ok(()),
                409 | 429 | 503 => ensure!(Instant::now() < deadline, "no payment: {told:?}"),
                _ => bail!("a payment: {told:?}"),
            }
        }
        let path = format!("/v1/orders/{order}");
        let now = guest.get(&path).await?.is(200)?;
        if now["status"] != "PENDING" && now["status"] != "AWAITING_PAYMENT" {
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: &str, held: i64, bookings: usize) -> End {
        End {
            status: Some(status.to_owned()),
            held,
            bookings,
        }
    }

    fn refused() -> End {
        End {
            status: None,
            held: 0,
            bookings: 0,
        }
    }

    #[test]
    fn as_many_as_there_are_rooms_are_booked_and_paid_and_nobody_else_pays() {
        let good = [end("CONFIRMED", AMOUNT, 1), end("FAILED", 0, 0), refused()];
        assert_eq!(violations(&good, 1), [""; 0]);
        assert_eq!(violations(&good, 2).len(), 1, "a room is left");
        for bad in [
            end("CONFIRMED", 0, 1),
            end("CONFIRMED", AMOUNT, 0),
            end("CONFIRMED", 2 * AMOUNT, 1),
            end("FAILED", AMOUNT, 0),
            end("EXPIRED", 0, 1),
        ] {
            let sold = usize::from(is_confirmed(&bad));
            assert_eq!(
                violations(std::slice::from_ref(&bad), sold).len(),
                1,
                "{bad:?}"
            );
        }
        let oversold = [end("CONFIRMED", AMOUNT, 1), end("CONFIRMED", AMOUNT, 1)];
        assert_eq!(violations(&oversold, 1).len(), 1);
    }
}
