//! What `payments` asks, and captures that come at the wrong time.

use std::time::Duration;

use events::saga::{OrderId, OrderReply};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::platform::{Guest, LONG, Platform, krw, total};

#[tokio::test]
async fn a_payment_is_let_through_once() {
    let platform = Platform::with(LONG, 2).await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    platform
        .pay(&guest, order, "early", total())
        .await
        .is(409, "ORDER_NOT_PAYABLE");
    platform
        .reply(OrderReply::Held {
            order_id: OrderId(order),
        })
        .await;
    platform.until(&guest, order, "AWAITING_PAYMENT").await;

    platform
        .pay(&guest, order, "pay", total() - 1)
        .await
        .is(422, "AMOUNT_MISMATCH");
    platform
        .pay(&platform.guest(), order, "pay", total())
        .await
        .is(404, "ORDER_NOT_FOUND");
    platform
        .pay(&guest, Uuid::now_v7(), "pay", total())
        .await
        .is(404, "ORDER_NOT_FOUND");
    platform
        .pay(&guest, order, "", total())
        .await
        .is(400, "INVALID_REQUEST");

    let keys: Vec<String> = (0..10).map(|n| format!("pay-{n}")).collect();
    let tries = keys
        .iter()
        .map(|key| platform.pay(&guest, order, key, total()));
    let answers = futures::future::join_all(tries).await;
    let through: Vec<&String> = keys
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.status == 200)
        .map(|(key, _)| key)
        .collect();
    assert_eq!(through.len(), 1, "{answers:?}");
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        answer.is(409, "ORDER_NOT_PAYABLE");
    }
    platform
        .pay(&guest, order, through[0], total())
        .await
        .ok(200);
    let shown = platform.show(&guest, order).await;
    assert_eq!(
        (&shown["status"], &shown["payment"]["status"]),
        (&json!("AWAITING_PAYMENT"), &json!("IN_PROGRESS"))
    );
}

#[tokio::test]
async fn guests_can_not_let_payments_through() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let path = format!(
        "/internal/v1/orders/{}/payment",
        platform.held(&guest).await
    );
    let request = platform
        .request(&guest, Method::POST, &path)
        .json(&json!({}));
    platform.send(request).await.is(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_refused_payment_leaves_time_for_another() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.held(&guest).await;
    platform.pay(&guest, order, "card", total()).await.ok(200);
    let refused = OrderReply::PaymentRefused {
        order_id: OrderId(order),
        payment_key: "card".to_owned(),
        code: "REJECT_CARD_COMPANY".to_owned(),
    };
    platform.reply(refused).await;
    let shown = platform
        .until_phase(&guest, order, "AWAITING_PAYMENT")
        .await;
    let last = shown["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["detail"], "REJECT_CARD_COMPANY");
    platform
        .pay(&guest, order, "account", total())
        .await
        .ok(200);
}

/// An order whose guest was given a virtual account to pay into.
async fn awaiting_a_deposit(platform: &Platform, guest: &Guest, due_at: Timestamp) -> Uuid {
    let order = platform.held(guest).await;
    let begun = platform.pay(guest, order, "account", total()).await.ok(200);
    let shown = platform.show(guest, order).await;
    assert_eq!(begun["expiresAt"], shown["expiresAt"]);
    let awaited = OrderReply::DepositAwaited {
        order_id: OrderId(order),
        payment_key: "account".to_owned(),
        bank_code: Some("20".to_owned()),
        account_number: Some("X00000000000001".to_owned()),
        due_at_ms: Some(due_at.as_millisecond()),
    };
    platform.reply(awaited).await;
    let shown = platform.until_phase(guest, order, "AWAITING_PAYMENT").await;
    let last = shown["history"].as_array().unwrap().last().unwrap();
    assert_eq!(last["event"], "DEPOSIT_AWAITED");
    assert_eq!(shown["payment"]["status"], "WAITING_FOR_DEPOSIT");
    order
}

#[tokio::test]
async fn a_guest_sees_where_and_until_when_to_deposit_and_a_deposit_in_time_pays() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let week = Timestamp::now() + SignedDuration::from_hours(7 * 24);
    let order = awaiting_a_deposit(&platform, &guest, week).await;
    let shown = platform.show(&guest, order).await;
    let account = json!({
        "bankCode": "20",
        "accountNumber": "X00000000000001",
        "dueDate": shown["expiresAt"],
    });
    assert_eq!(shown["payment"]["virtualAccount"], account);

    platform
        .pay(&guest, order, "account", total())
        .await
        .ok(200);
    let shown = platform.show(&guest, order).await;
    assert_eq!(
        shown["payment"],
        json!({"status": "IN_PROGRESS", "captured": 0})
    );
    platform.captured(order, "account").await;
    platform.command(order, "confirm").await;
}

#[tokio::test]
async fn an_account_that_ends_before_its_order_is_shown_with_its_own_end_and_then_no_more() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 60).unwrap();
    let order = awaiting_a_deposit(&platform, &guest, soon).await;
    let shown = platform.show(&guest, order).await;
    let due = &shown["payment"]["virtualAccount"]["dueDate"];
    assert_eq!(due, &json!(soon));
    let over = OrderReply::PaymentRefused {
        order_id: OrderId(order),
        payment_key: "account".to_owned(),
        code: "EXPIRED".to_owned(),
    };
    platform.reply(over).await;
    platform
        .until_it(&guest, order, |shown| shown["payment"]["status"] == "NONE")
        .await;
    platform.pay(&guest, order, "card", total()).await.ok(200);
}

#[tokio::test]
async fn a_deposit_after_the_end_of_its_order_goes_back() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let week = Timestamp::now() + SignedDuration::from_hours(7 * 24);
    let order = awaiting_a_deposit(&platform, &guest, week).await;
    platform.end_window(Duration::ZERO).await;
    let shown = platform.until(&guest, order, "EXPIRED").await;
    assert_eq!(
        shown["payment"],
        json!({"status": "NONE", "captured": 0}),
        "nobody is to pay any more"
    );
    platform
        .pay(&guest, order, "account", total())
        .await
        .is(409, "ORDER_EXPIRED");
    platform.captured(order, "account").await;
    let refund = platform.command(order, "refund").await;
    assert_eq!(refund["amount"], json!(total()));
}

#[tokio::test]
async fn a_capture_that_comes_after_the_end_is_refunded_once() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.held(&guest).await;
    let order_id = OrderId(order);
    platform.pay(&guest, order, "slow", total()).await.ok(200);
    platform.end_window(Duration::ZERO).await;
    platform.until(&guest, order, "EXPIRED").await;
    platform
        .pay(&guest, order, "slow", total())
        .await
        .is(409, "ORDER_EXPIRED");
    platform.command(order, "release").await;
    platform
        .reply(OrderReply::NightsReleased { order_id })
        .await;
    platform.until_phase(&guest, order, "EXPIRED").await;

    platform.captured(order, "slow").await;
    let refund = platform.command(order, "refund").await;
    assert_eq!(refund["amount"], json!(total()));
    platform.until_phase(&guest, order, "UNDOING_EXPIRED").await;
    let refunded = OrderReply::PaymentRefunded {
        order_id,
        refund_id: refund["refundId"].as_str().unwrap().parse().unwrap(),
        amount: krw(total()),
    };
    platform.reply(refunded).await;
    let shown = platform.until_phase(&guest, order, "EXPIRED").await;
    assert_eq!(
        shown["payment"],
        json!({"status": "REFUNDED", "captured": total()})
    );
    let refunds = platform
        .sent(order)
        .iter()
        .filter(|sent| *sent == "payments/refund")
        .count();
    assert_eq!(refunds, 1);
}
