//! An order's way, message by message.

use events::saga::{OrderId, OrderReply};
use serde_json::json;
use uuid::Uuid;

use crate::platform::{Platform, day, id_of, krw, phases, total, wish};

#[tokio::test]
async fn a_paid_order_with_a_coupon_is_confirmed() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let coupon = platform.peers.claim(guest.user_id, "COUPON", json!({}));
    let mut body = wish(Uuid::from_u128(1));
    body["couponId"] = json!(coupon);
    let placed = platform.order(&guest, &body).await.ok(201);
    let amount = total() - total() / 10;
    assert_eq!(
        (&placed["status"], &placed["amount"]),
        (&json!("PENDING"), &json!(amount))
    );
    let off = json!([{"kind": "COUPON", "amount": total() / 10, "campaignId": "jeju-weekend", "claimId": coupon}]);
    assert_eq!(placed["discounts"], off);
    let order = id_of(&placed);
    let order_id = OrderId(order);

    let hold = platform.command(order, "hold").await;
    assert_eq!(
        (&hold["checkIn"], &hold["checkOut"], &hold["guests"]),
        (&json!(day(30)), &json!(day(32)), &json!(2))
    );
    platform.reply(OrderReply::Held { order_id }).await;
    let reserve = platform.command(order, "reserve").await;
    assert_eq!(reserve["claimIds"], json!([coupon]));
    platform
        .reply(OrderReply::DiscountReserved { order_id })
        .await;
    platform.until(&guest, order, "AWAITING_PAYMENT").await;

    let begun = platform.pay(&guest, order, "pay-1", amount).await.ok(200);
    let shown = platform.show(&guest, order).await;
    let expected = json!({
        "orderId": order, "amount": amount, "paymentKey": "pay-1", "expiresAt": shown["expiresAt"],
    });
    assert_eq!(begun, expected);
    let captured = OrderReply::PaymentCaptured {
        order_id,
        payment_key: "pay-1".to_owned(),
        amount: krw(amount),
    };
    platform.reply(captured).await;
    platform.command(order, "confirm").await;
    let shown = platform.show(&guest, order).await;
    assert_eq!(shown["payment"]["status"], "CAPTURED");
    let booking_id = Uuid::now_v7();
    let confirmed = OrderReply::BookingConfirmed {
        order_id,
        booking_id,
    };
    platform.reply(confirmed).await;
    platform.command(order, "redeem").await;
    platform
        .reply(OrderReply::DiscountRedeemed { order_id })
        .await;

    let shown = platform.until(&guest, order, "CONFIRMED").await;
    assert_eq!(shown["bookingId"], json!(booking_id));
    let expected = [
        "HOLDING",
        "HOLDING",
        "AWAITING_PAYMENT",
        "PAYING",
        "CONFIRMING",
        "CONFIRMING",
        "CONFIRMED",
    ];
    assert_eq!(phases(&shown), expected, "each message had one effect");
    let sent = platform.sent(order);
    for command in [
        "booking/hold",
        "booking/confirm",
        "promotions/reserve",
        "promotions/redeem",
    ] {
        let times = sent.iter().filter(|sent| *sent == command).count();
        assert_eq!(times, 1, "{command} in {sent:?}");
    }
    let metrics = platform.metrics().await;
    for metric in [
        "quokka_saga_total{outcome=\"confirmed\"}",
        "quokka_saga_duration_seconds_count",
        "quokka_orders_unpaid",
        "quokka_outbox_oldest_seconds",
    ] {
        assert!(metrics.contains(metric), "{metric}");
    }
}

#[tokio::test]
async fn an_order_whose_nights_can_not_be_held_fails() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    let refused = OrderReply::HoldRefused {
        order_id: OrderId(order),
        code: "UNAVAILABLE".to_owned(),
    };
    platform.reply(refused).await;
    let shown = platform.until_phase(&guest, order, "FAILED").await;
    assert_eq!(shown["history"][1]["detail"], "UNAVAILABLE");
    platform
        .pay(&guest, order, "pay", total())
        .await
        .is(409, "ORDER_NOT_PAYABLE");
}

#[tokio::test]
async fn an_order_whose_claim_is_gone_frees_its_nights() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let claim = platform.peers.claim(guest.user_id, "TIME_SALE", json!({}));
    let mut body = wish(Uuid::from_u128(1));
    body["timeSaleClaimId"] = json!(claim);
    let order = id_of(&platform.order(&guest, &body).await.ok(201));
    let order_id = OrderId(order);
    platform.reply(OrderReply::Held { order_id }).await;
    platform.command(order, "reserve").await;
    let refused = OrderReply::DiscountRefused {
        order_id,
        code: "CLAIM_EXPIRED".to_owned(),
    };
    platform.reply(refused).await;
    platform.command(order, "release").await;
    platform.until_phase(&guest, order, "UNDOING_FAILED").await;
    platform
        .reply(OrderReply::NightsReleased { order_id })
        .await;
    platform.until_phase(&guest, order, "FAILED").await;
    assert_eq!(
        platform
            .sent(order)
            .iter()
            .filter(|sent| *sent == "booking/release")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_paid_order_whose_hold_is_gone_gives_the_money_back() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.held(&guest).await;
    let order_id = OrderId(order);
    platform.pay(&guest, order, "pay-1", total()).await.ok(200);
    platform.captured(order, "pay-1").await;
    platform.command(order, "confirm").await;
    platform
        .reply(OrderReply::BookingRefused { order_id })
        .await;
    let refund = platform.command(order, "refund").await;
    assert_eq!(refund["amount"], json!(total()));
    let refunded = OrderReply::PaymentRefunded {
        order_id,
        refund_id: refund["refundId"].as_str().unwrap().parse().unwrap(),
        amount: krw(total()),
    };
    platform.reply(refunded).await;
    let shown = platform.until_phase(&guest, order, "FAILED").await;
    assert_eq!(
        shown["refund"],
        json!({"amount": total(), "refunded": total()})
    );
}

#[tokio::test]
async fn what_can_not_be_read_and_orders_of_others_stop_nothing() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    platform.send_raw(b"not JSON", &order.to_string()).await;
    platform
        .send_raw(
            br#"{"id": "x", "body": {"type": "held"}}"#,
            &order.to_string(),
        )
        .await;
    let elsewhere = OrderId(Uuid::now_v7());
    platform
        .reply(OrderReply::Held {
            order_id: elsewhere,
        })
        .await;
    platform
        .reply(OrderReply::Held {
            order_id: OrderId(order),
        })
        .await;
    platform.until(&guest, order, "AWAITING_PAYMENT").await;
}
