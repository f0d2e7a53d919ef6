//! Guests who change their minds.

use events::saga::{OrderId, OrderReply};
use serde_json::json;

use crate::platform::{Guest, Platform, day, krw, total};

async fn move_check_in(platform: &Platform, order: uuid::Uuid, days: i64) {
    let date = day(days).to_string();
    sqlx::query("UPDATE orders SET check_in = $2::text::date, check_out = $2::text::date + 2 WHERE order_id = $1")
        .bind(order)
        .bind(date)
        .execute(&platform.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn before_payment_it_costs_nothing() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.held(&guest).await;
    let cancelled = platform.cancel(&guest, order).await.ok(200);
    assert_eq!(
        (&cancelled["status"], &cancelled["refund"]),
        (&json!("CANCELLED"), &json!({"amount": 0, "refunded": 0}))
    );
    platform.command(order, "release").await;
    let again = platform.cancel(&guest, order).await.ok(200);
    assert_eq!(again["refund"], cancelled["refund"]);
    platform
        .reply(OrderReply::NightsReleased {
            order_id: OrderId(order),
        })
        .await;
    platform.until_phase(&guest, order, "CANCELLED").await;
    platform
        .pay(&guest, order, "pay", total())
        .await
        .is(409, "ORDER_NOT_PAYABLE");
    assert_eq!(platform.sent(order), ["booking/hold", "booking/release"]);
}

#[tokio::test]
async fn a_hold_under_way_is_released_after_it() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    let order_id = OrderId(order);
    platform.cancel(&guest, order).await.ok(200);
    platform.command(order, "release").await;
    assert_eq!(platform.sent(order), ["booking/hold", "booking/release"]);
    platform.reply(OrderReply::Held { order_id }).await;
    platform
        .reply(OrderReply::NightsReleased { order_id })
        .await;
    platform.until_phase(&guest, order, "CANCELLED").await;
}

async fn refund_of(platform: &Platform, guest: &Guest, days: i64) -> i64 {
    let order = platform.confirmed(guest, "pay").await;
    move_check_in(platform, order, days).await;
    let cancelled = platform.cancel(guest, order).await.ok(200);
    let due = cancelled["refund"]["amount"].as_i64().unwrap();
    let refund = platform.command(order, "refund").await;
    assert_eq!(refund["amount"], json!(due));
    let refunded = OrderReply::PaymentRefunded {
        order_id: OrderId(order),
        refund_id: refund["refundId"].as_str().unwrap().parse().unwrap(),
        amount: krw(due),
    };
    platform.reply(refunded).await;
    platform.command(order, "release").await;
    platform
        .reply(OrderReply::NightsReleased {
            order_id: OrderId(order),
        })
        .await;
    let shown = platform.until_phase(guest, order, "CANCELLED").await;
    assert_eq!(shown["refund"], json!({"amount": due, "refunded": due}));
    due
}

#[tokio::test]
async fn a_confirmed_order_is_refunded_by_the_rules() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    assert_eq!(refund_of(&platform, &guest, 1).await, total());
    // MODERATE on the day, rounded down. The day may change in Seoul while this runs, so the day after is tried too.
    let order = platform.confirmed(&guest, "pay").await;
    move_check_in(&platform, order, -1).await;
    platform
        .cancel(&guest, order)
        .await
        .is(409, "ORDER_NOT_CANCELLABLE");
    assert_eq!(refund_of(&platform, &guest, 0).await, total() / 2);
}

#[tokio::test]
async fn a_refund_that_is_refused_stands_in_the_history_until_a_person_gives_the_money_back() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.confirmed(&guest, "pay").await;
    let order_id = OrderId(order);
    platform.cancel(&guest, order).await.ok(200);
    let refund = platform.command(order, "refund").await;
    let refund_id = refund["refundId"].as_str().unwrap().parse().unwrap();
    platform
        .reply(OrderReply::NightsReleased { order_id })
        .await;
    let refused = OrderReply::PaymentRefundRefused {
        order_id,
        refund_id,
        code: "NOT_CANCELABLE_PAYMENT".to_owned(),
    };
    platform.reply(refused).await;
    let phase = "REFUND_REFUSED_CANCELLED";
    let shown = platform.until_phase(&guest, order, phase).await;
    assert_eq!(shown["status"], "CANCELLED");
    assert_eq!(shown["payment"]["status"], "REFUND_DELAYED");
    assert_eq!(shown["refund"]["refunded"], 0);
    let history = shown["history"].as_array().unwrap();
    let said: Vec<&serde_json::Value> = history
        .iter()
        .filter(|entry| entry["event"] == "REFUND_REFUSED")
        .collect();
    assert_eq!(said.len(), 1, "{history:?}");
    assert_eq!(said[0]["detail"], "NOT_CANCELABLE_PAYMENT");
    let due: Option<bool> =
        sqlx::query_scalar("SELECT due_at IS NULL FROM orders WHERE order_id = $1")
            .bind(order)
            .fetch_one(&platform.pool)
            .await
            .unwrap();
    assert_eq!(due, Some(true), "nobody is reminded of it");

    let refunded = OrderReply::PaymentRefunded {
        order_id,
        refund_id,
        amount: krw(total()),
    };
    platform.reply(refunded).await;
    let shown = platform.until_phase(&guest, order, "CANCELLED").await;
    assert_eq!(shown["payment"]["status"], "REFUNDED");
    assert_eq!(shown["refund"]["refunded"], total());
}

#[tokio::test]
async fn only_its_guest_may_and_only_while_it_stands() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    platform
        .cancel(&platform.guest(), order)
        .await
        .is(404, "ORDER_NOT_FOUND");
    let refused = OrderReply::HoldRefused {
        order_id: OrderId(order),
        code: "UNAVAILABLE".to_owned(),
    };
    platform.reply(refused).await;
    platform.until(&guest, order, "FAILED").await;
    platform
        .cancel(&guest, order)
        .await
        .is(409, "ORDER_NOT_CANCELLABLE");
}
