//! `POST /v1/payments/webhooks/toss`.

use serde_json::json;
use testkit::eventually;
use toss_simulator::{Faults, Means};
use uuid::Uuid;

use crate::world::{PATIENCE, World};

const PATH: &str = "/v1/payments/webhooks/toss";

/// Only the test's webhooks arrive: one of the gateway's own is a reason to ask it, at whatever moment it comes.
async fn without_the_gateways_own() -> World {
    let world = World::start().await;
    world.gateway.set_faults(Faults {
        webhooks_lost: 1.0,
        ..Faults::default()
    });
    world
}

#[tokio::test]
async fn a_forged_webhook_is_answered_and_changes_nothing() {
    let world = without_the_gateways_own().await;
    let (order, key) = world.order(60_000, Means::VirtualAccount);
    world.confirm(order, &key, 60_000).await;
    let dump = world.dump().await;
    let forged = [
        json!({"eventType": "PAYMENT_STATUS_CHANGED", "createdAt": "2026-12-01T12:00:00", "data": {
            "paymentKey": key, "orderId": order, "status": "DONE", "totalAmount": 60_000, "secret": "guess"}}),
        json!({"createdAt": "2026-12-01T12:00:00", "secret": "guess", "status": "DONE", "transactionKey": "t",
            "orderId": order}),
        json!({"createdAt": "2026-12-01T12:00:00", "status": "DONE", "orderId": order}),
        json!({"eventType": "PAYMENT_STATUS_CHANGED", "data": {"orderId": Uuid::new_v4(), "secret": "guess"}}),
        json!({"eventType": "SOMETHING_NEW"}),
    ];
    for body in forged {
        let answer = world.post(PATH, None, &body).await;
        assert_eq!(answer.status, 200, "{body}");
    }
    assert_eq!(world.dump().await, dump);
    world.books_are_true().await;
}

#[tokio::test]
async fn a_true_webhook_of_a_state_that_is_not_so_changes_nothing_either() {
    let world = without_the_gateways_own().await;
    let (order, key) = world.order(60_000, Means::VirtualAccount);
    world.confirm(order, &key, 60_000).await;
    let secret = world.gateway.payment(&key).unwrap().secret;
    let lie = json!({"createdAt": "2026-12-01T12:00:00", "secret": secret, "status": "DONE", "transactionKey": "t",
        "orderId": order});
    assert_eq!(world.post(PATH, None, &lie).await.status, 200);
    // The gateway is asked, and says that it waits.
    eventually(PATIENCE, async || {
        world.number("SELECT asks::int8 FROM payments").await > 0
    })
    .await;
    world.until_state(&key, "WAITING").await;
    assert_eq!(world.number("SELECT count(*) FROM journals").await, 0);
}

#[tokio::test]
async fn what_is_no_webhook_is_refused() {
    let world = World::start().await;
    let lists = json!({"data": ["a key", null, null]});
    for body in [json!([]), json!("x"), json!({"data": 5}), lists] {
        world
            .post(PATH, None, &body)
            .await
            .is_problem(400, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn webhooks_that_race_the_confirm_make_one_capture() {
    let world = World::start().await;
    world.gateway.set_faults(Faults {
        seed: 3,
        slow: 1.0,
        slow_millis: 400,
        webhooks_repeated: 1.0,
        webhooks_reordered: 0.5,
        ..Faults::default()
    });
    for _ in 0..5 {
        let (order, key) = world.order(20_000, Means::Card);
        world.confirm(order, &key, 20_000).await.is_captured();
        assert_eq!(world.until_replies(order, 1).await.len(), 1);
    }
    world.books_are_true().await;
    assert_eq!(world.number("SELECT count(*) FROM journals").await, 5);
}
