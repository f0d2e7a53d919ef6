//! Time.

use std::time::Duration;

use events::saga::{OrderId, OrderReply};
use orders::config::Times;
use testkit::eventually;
use uuid::Uuid;

use crate::platform::{LONG, PATIENCE, Platform, total};

#[tokio::test]
async fn unpaid_orders_expire_once_with_any_number_of_replicas() {
    let times = Times {
        payment_window: Duration::from_millis(1_500),
        ..LONG
    };
    let platform = Platform::with(times, 3).await;
    let guest = platform.guest();
    let placed = (0..30).map(|_| platform.placed(&guest));
    let orders: Vec<Uuid> = futures::future::join_all(placed).await;
    for order in &orders {
        platform.until(&guest, *order, "EXPIRED").await;
        platform.command(*order, "release").await;
        platform
            .reply(OrderReply::NightsReleased {
                order_id: OrderId(*order),
            })
            .await;
    }
    for order in &orders {
        platform.until_phase(&guest, *order, "EXPIRED").await;
        assert_eq!(platform.sent(*order), ["booking/hold", "booking/release"]);
    }
}

/// Guests who pay in the very moment in which their orders expire, at three replicas.
#[tokio::test]
async fn of_payment_and_expiry_exactly_one_wins() {
    let platform = Platform::with(LONG, 3).await;
    let guest = platform.guest();
    let held = (0..24).map(|_| platform.held(&guest));
    let orders: Vec<Uuid> = futures::future::join_all(held).await;
    platform.end_window(Duration::from_secs(2)).await;
    // The schedulers look twice a second; each guest tries until an answer tells that it is decided.
    let tries = orders.iter().enumerate().map(async |(index, order)| {
        let key = format!("pay-{index}");
        // The later ones begin only when the earlier ones are decided, so that some come too late.
        eventually(PATIENCE, async || {
            let shown = platform.show(&guest, *order).await;
            let expires: jiff::Timestamp = shown["expiresAt"].as_str().unwrap().parse().unwrap();
            let before = 60 - 5 * index as i64;
            jiff::Timestamp::now().as_millisecond() >= expires.as_millisecond() - before
        })
        .await;
        platform.pay(&guest, *order, &key, total()).await
    });
    let answers = futures::future::join_all(tries).await;
    for (order, answer) in orders.iter().zip(answers) {
        let shown = eventually(PATIENCE, async || {
            let shown = platform.show(&guest, *order).await;
            let decided =
                shown["status"] == "EXPIRED" || shown["payment"]["status"] == "IN_PROGRESS";
            decided.then_some(shown)
        })
        .await;
        let paying = shown["payment"]["status"] == "IN_PROGRESS";
        match answer.status {
            200 => assert!(paying && shown["status"] == "AWAITING_PAYMENT", "{shown}"),
            _ => {
                assert!(!paying && shown["status"] == "EXPIRED", "{shown}");
                assert!(
                    ["ORDER_EXPIRED", "ORDER_NOT_PAYABLE"]
                        .contains(&answer.body["code"].as_str().unwrap())
                );
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_answered_is_asked_again() {
    let times = Times {
        remind_after: Duration::from_millis(300),
        ..LONG
    };
    let platform = Platform::with(times, 2).await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    eventually(PATIENCE, async || platform.sent(order).len() >= 3).await;
    assert!(
        platform
            .sent(order)
            .iter()
            .all(|sent| sent == "booking/hold")
    );
    let shown = platform.show(&guest, order).await;
    assert_eq!(
        shown["history"].as_array().unwrap().len(),
        1,
        "asking again is no history"
    );
    platform
        .reply(OrderReply::Held {
            order_id: OrderId(order),
        })
        .await;
    platform.until(&guest, order, "AWAITING_PAYMENT").await;
}
