//! Refunds that `orders` asks for.

use events::saga::OrderReply;
use testkit::eventually;
use toss_simulator::{Faults, Means};
use uuid::Uuid;

use crate::world::{PATIENCE, World};

async fn captured(world: &World, amount: i64) -> (Uuid, String) {
    let (order, key) = world.order(amount, Means::Card);
    world.confirm(order, &key, amount).await.is_captured();
    (order, key)
}

fn refused(order: Uuid, refund: Uuid, code: &str) -> OrderReply {
    OrderReply::PaymentRefundRefused {
        order_id: events::saga::OrderId(order),
        refund_id: refund,
        code: code.to_owned(),
    }
}

fn refunded(order: Uuid, refund: Uuid, amount: i64) -> OrderReply {
    OrderReply::PaymentRefunded {
        order_id: events::saga::OrderId(order),
        refund_id: refund,
        amount: money::Krw::new(amount).unwrap(),
    }
}

/// Waits until the ledger has so much given back of the only payment.
async fn until_given_back(world: &World, amount: i64) {
    let given = "SELECT coalesce(sum(amount), 0)::int8 FROM journals WHERE kind = 'REFUND'";
    eventually(PATIENCE, async || world.number(given).await == amount).await;
}

#[tokio::test]
async fn of_two_refunds_of_60_on_100_one_is_refused() {
    let world = World::start().await;
    let (order, key) = captured(&world, 100).await;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    world.refund(order, first, 60).await;
    world.refund(order, second, 60).await;
    world.until_refund(first, "DONE").await;
    world.until_refund(second, "REFUSED").await;
    let replies = world.until_replies(order, 3).await;
    assert!(replies.contains(&refused(order, second, "EXCEEDS_CAPTURE")));
    assert_eq!(world.gateway.payment(&key).unwrap().balance_amount, 40);
    world.books_are_true().await;
}

#[tokio::test]
async fn the_same_refund_asked_for_again_is_one_refund_and_the_same_answer() {
    let world = World::start().await;
    let (order, key) = captured(&world, 100).await;
    let refund = Uuid::now_v7();
    world.refund(order, refund, 30).await;
    let replies = world.until_replies(order, 2).await;
    world.refund(order, refund, 30).await;
    let again = world.until_replies(order, 3).await;
    assert_eq!(replies[1], again[2]);
    assert_eq!(world.gateway.payment(&key).unwrap().balance_amount, 70);
    world.books_are_true().await;
}

#[tokio::test]
async fn the_rest_can_be_given_back_after_a_part() {
    let world = World::start().await;
    let (order, key) = captured(&world, 100).await;
    world.refund(order, Uuid::now_v7(), 30).await;
    world.refund(order, Uuid::now_v7(), 70).await;
    world.until_replies(order, 3).await;
    assert_eq!(world.gateway.payment(&key).unwrap().balance_amount, 0);
    world.books_are_true().await;
}

#[tokio::test]
async fn refunds_in_a_storm_happen_once_each() {
    let world = World::start().await;
    let mut orders = Vec::new();
    for _ in 0..6 {
        orders.push(captured(&world, 1_000).await);
    }
    world.gateway.set_faults(Faults {
        seed: 11,
        times: Some(30),
        conflict: 0.2,
        server_error: 0.2,
        charge_and_server_error: 0.3,
        charge_and_drop_answer: 0.3,
        webhooks_lost: 0.3,
        webhooks_repeated: 0.3,
        webhooks_reordered: 0.3,
        ..Faults::default()
    });
    for (order, _) in &orders {
        world.refund(*order, Uuid::now_v7(), 400).await;
    }
    for (order, key) in &orders {
        let replies = world.until_replies(*order, 2).await;
        assert!(matches!(&replies[1], OrderReply::PaymentRefunded { .. }));
        assert_eq!(world.gateway.payment(key).unwrap().balance_amount, 600);
    }
    world.books_are_true().await;
}

#[tokio::test]
async fn a_refund_of_what_was_never_captured_is_refused() {
    let world = World::start().await;
    let order = Uuid::now_v7();
    let refund = Uuid::now_v7();
    world.refund(order, refund, 10).await;
    let answer = refused(order, refund, "NOTHING_CAPTURED");
    assert_eq!(
        world.until_replies(order, 1).await,
        std::slice::from_ref(&answer)
    );
    world.refund(order, refund, 10).await;
    assert_eq!(world.until_replies(order, 2).await[1], answer, "again");
    // It is in sight until a person has settled it.
    world.until_refused(0).await;
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_is_told_and_so_is_what_a_person_gives_back_after_all() {
    let world = World::start().await;
    let (order, key) = captured(&world, 1_000).await;
    let refund = Uuid::now_v7();
    world.gateway.set_faults(Faults {
        refuse_cancel: 1.0,
        refuse_cancel_code: "NOT_CANCELABLE_PAYMENT".to_owned(),
        ..Faults::default()
    });
    world.refund(order, refund, 600).await;
    let replies = world.until_replies(order, 2).await;
    assert_eq!(replies[1], refused(order, refund, "NOT_CANCELABLE_PAYMENT"));
    world.until_refused(1).await;
    world.gateway.set_faults(Faults::default());
    world.refund(order, refund, 600).await;
    let again = world.until_replies(order, 3).await;
    assert_eq!(again[2], replies[1], "asked again, it is what it was");

    // In pieces, and a little more than was owed.
    world.give_back_by_hand(&key, 100).await;
    until_given_back(&world, 100).await;
    world.until_refund(refund, "REFUSED").await;
    world.give_back_by_hand(&key, 600).await;
    let told = world.until_replies(order, 4).await;
    assert_eq!(told[3], refunded(order, refund, 600));
    assert_eq!(world.number("SELECT refunded FROM payments").await, 700);
    world.until_refused(0).await;
    world.books_are_true().await;
}

#[tokio::test]
async fn a_refused_refund_is_done_when_pieces_given_by_hand_add_up_to_it() {
    let world = World::start().await;
    let (order, key) = captured(&world, 1_000).await;
    // What was given before the refund is no part of it.
    world.give_back_by_hand(&key, 300).await;
    until_given_back(&world, 300).await;
    world.gateway.set_faults(Faults {
        refuse_cancel: 1.0,
        refuse_cancel_code: "NOT_CANCELABLE_PAYMENT".to_owned(),
        ..Faults::default()
    });
    let refund = Uuid::now_v7();
    world.refund(order, refund, 500).await;
    world.until_refund(refund, "REFUSED").await;
    world.gateway.set_faults(Faults::default());
    world.give_back_by_hand(&key, 200).await;
    until_given_back(&world, 500).await;
    world.until_refund(refund, "REFUSED").await;
    world.give_back_by_hand(&key, 300).await;
    let told = world.until_replies(order, 3).await;
    assert_eq!(told[2], refunded(order, refund, 500));
    world.books_are_true().await;
}

#[tokio::test]
async fn of_what_was_partly_given_back_by_hand_before_the_rest_is_refunded() {
    let world = World::start().await;
    let (order, key) = captured(&world, 100).await;
    world.give_back_by_hand(&key, 30).await;
    until_given_back(&world, 30).await;
    let refund = Uuid::now_v7();
    world.refund(order, refund, 100).await;
    let told = world.until_replies(order, 2).await;
    assert_eq!(told[1], refunded(order, refund, 70));
    assert_eq!(world.gateway.payment(&key).unwrap().balance_amount, 0);
    world.books_are_true().await;
}

#[tokio::test]
async fn a_refund_of_what_was_given_back_by_hand_before_is_done_already() {
    let world = World::start().await;
    let (order, key) = captured(&world, 100).await;
    world.give_back_by_hand(&key, 40).await;
    world.give_back_by_hand(&key, 60).await;
    until_given_back(&world, 100).await;
    let refund = Uuid::now_v7();
    world.refund(order, refund, 100).await;
    let told = world.until_replies(order, 2).await;
    assert_eq!(told[1], refunded(order, refund, 100));
    world.refund(order, refund, 100).await;
    assert_eq!(world.until_replies(order, 3).await[2], told[1], "again");
    // It isn't counted a second time.
    let another = Uuid::now_v7();
    world.refund(order, another, 100).await;
    world.until_refund(another, "REFUSED").await;
    world.books_are_true().await;
}

#[tokio::test]
async fn money_given_back_at_the_gateway_by_hand_is_posted_too() {
    let world = World::start().await;
    let (_, key) = captured(&world, 1_000).await;
    world.give_back_by_hand(&key, 250).await;
    until_given_back(&world, 250).await;
    assert_eq!(world.number("SELECT refunded FROM payments").await, 250);
    world.books_are_true().await;
}
