//! `POST /v1/payments/confirm`.

use events::saga::OrderReply;
use futures::future::join_all;
use serde_json::json;
use toss_simulator::{Faults, Means};
use uuid::Uuid;

use crate::world::World;

#[tokio::test]
async fn a_confirmed_payment_is_captured_once_and_orders_is_told() {
    let world = World::start().await;
    let (order, key) = world.order(120_000, Means::Card);
    let answer = world.confirm(order, &key, 120_000).await;
    answer.is_captured();
    assert_eq!(answer.body["amount"], 120_000);
    assert_eq!(answer.body["method"], "CARD");
    let replies = world.until_replies(order, 1).await;
    assert_eq!(
        replies,
        [OrderReply::PaymentCaptured {
            order_id: events::saga::OrderId(order),
            payment_key: key.clone(),
            amount: money::Krw::new(120_000).unwrap(),
        }]
    );
    // The same again is the same again.
    let again = world.confirm(order, &key, 120_000).await;
    assert_eq!(again.body, answer.body);
    world.books_are_true().await;
    assert_eq!(world.number("SELECT count(*) FROM journals").await, 1);
}

#[tokio::test]
async fn many_confirms_at_once_are_one_capture() {
    let world = World::start().await;
    let (order, key) = world.order(50_000, Means::Transfer);
    let answers = join_all((0..12).map(|_| world.confirm(order, &key, 50_000))).await;
    for answer in answers {
        answer.is_captured();
        assert_eq!(answer.body["method"], "TRANSFER");
    }
    assert_eq!(world.until_replies(order, 1).await.len(), 1);
    world.books_are_true().await;
}

#[tokio::test]
async fn an_easy_payment_is_recorded_with_its_provider() {
    let world = World::start().await;
    let means = Means::EasyPay {
        provider: "카카오페이".to_owned(),
        discount: 1_000,
        by_card: false,
    };
    let (order, key) = world.order(30_000, means);
    let answer = world.confirm(order, &key, 30_000).await;
    answer.is_captured();
    assert_eq!(
        (&answer.body["method"], &answer.body["provider"]),
        (&json!("EASY_PAY"), &json!("KAKAOPAY"))
    );
}

#[tokio::test]
async fn a_refused_card_leaves_the_order_to_another_means() {
    let world = World::start().await;
    let (order, key) = world.order(70_000, Means::Card);
    world.gateway.set_faults(Faults {
        refuse: 1.0,
        ..Faults::default()
    });
    let answer = world.confirm(order, &key, 70_000).await;
    answer.is_problem(402, "PAYMENT_REFUSED");
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("REJECT_CARD_PAYMENT")
    );
    // Asked again, it is refused again, without a call.
    world
        .confirm(order, &key, 70_000)
        .await
        .is_problem(402, "PAYMENT_REFUSED");
    let replies = world.until_replies(order, 1).await;
    assert!(
        matches!(&replies[..], [OrderReply::PaymentRefused { code, .. }] if code == "REJECT_CARD_PAYMENT")
    );

    world.gateway.set_faults(Faults::default());
    world.orders.wait_again(order);
    let other = world.session(order, 70_000, Means::Transfer);
    world.confirm(order, &other, 70_000).await.is_captured();
    world.books_are_true().await;
}

#[tokio::test]
async fn what_orders_refuses_never_reaches_the_gateway() {
    let world = World::start().await;
    let (order, key) = world.order(10_000, Means::Card);
    let stranger = world.confirm_as(Uuid::new_v4(), order, &key, 10_000).await;
    stranger.is_problem(404, "ORDER_NOT_FOUND");
    world
        .confirm(order, &key, 9_999)
        .await
        .is_problem(422, "AMOUNT_MISMATCH");
    world.orders.expire(order);
    world
        .confirm(order, &key, 10_000)
        .await
        .is_problem(409, "ORDER_EXPIRED");
    world
        .confirm(Uuid::new_v4(), &key, 10_000)
        .await
        .is_problem(404, "ORDER_NOT_FOUND");
    assert!(world.gateway.payment(&key).unwrap().approved_at.is_none());
    assert_eq!(world.number("SELECT count(*) FROM payments").await, 0);
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_its_mistakes() {
    let world = World::start().await;
    let order = Uuid::new_v4();
    let path = "/v1/payments/confirm";
    let unknown_field = json!({"paymentKey": "k", "orderId": order, "amount": 1, "more": 1});
    let no_key = json!({"paymentKey": "", "orderId": order, "amount": 0});
    for body in [
        unknown_field,
        no_key,
        json!({}),
        json!({"paymentKey": "k", "orderId": "x", "amount": 1}),
    ] {
        world
            .post(path, Some(world.guest), &body)
            .await
            .is_problem(400, "INVALID_REQUEST");
    }
    world
        .post(path, None, &json!({}))
        .await
        .is_problem(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_second_payment_of_a_captured_order_takes_nothing() {
    let world = World::start().await;
    let (order, key) = world.order(10_000, Means::Card);
    world.confirm(order, &key, 10_000).await.is_captured();
    // Even if orders said yes.
    world.orders.wait_again(order);
    let other = world.session(order, 10_000, Means::Card);
    world
        .confirm(order, &other, 10_000)
        .await
        .is_problem(409, "PAYMENT_PENDING");
    assert!(world.gateway.payment(&other).unwrap().approved_at.is_none());
    world.books_are_true().await;
}

#[tokio::test]
async fn a_gateway_that_refuses_us_is_told_apart_from_a_refused_card() {
    let world = World::start_with(&[("QUOKKA_TOSS_SECRET_KEY", "wrong")]).await;
    let (order, key) = world.order(10_000, Means::Card);
    world
        .confirm(order, &key, 10_000)
        .await
        .is_problem(502, "PAYMENT_GATEWAY");
    world.until_replies(order, 1).await;
}
