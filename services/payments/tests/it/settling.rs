//! Outcomes that nobody knew, and how they come to be known.

use events::saga::OrderReply;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use testkit::eventually;
use toss_simulator::{Faults, Means, Status};
use uuid::Uuid;

use crate::world::{PATIENCE, World};

#[tokio::test]
async fn a_charge_whose_answer_is_dropped_settles_to_one_capture() {
    let world = World::start().await;
    let (order, key) = world.order(99_000, Means::Card);
    world.gateway.set_faults(Faults {
        charge_and_drop_answer: 1.0,
        ..Faults::default()
    });
    world.confirm(order, &key, 99_000).await.is_captured();
    world.confirm(order, &key, 99_000).await.is_captured();
    assert_eq!(world.until_replies(order, 1).await.len(), 1);
    world.books_are_true().await;
}

#[tokio::test]
async fn a_guest_who_cannot_wait_is_told_that_it_is_not_known_and_never_that_it_failed() {
    let world = World::start_with(&[("QUOKKA_CONFIRM_WAIT", "500ms")]).await;
    let (order, key) = world.order(99_000, Means::Card);
    world.gateway.set_faults(Faults {
        slow: 1.0,
        slow_millis: 2_500,
        ..Faults::default()
    });
    let answer = world.confirm(order, &key, 99_000).await;
    answer.is_problem(503, "PAYMENT_UNKNOWN");
    assert!(answer.retry_after.is_some());
    world.until_state(&key, "CAPTURED").await;
    world.confirm(order, &key, 99_000).await.is_captured();
    world.books_are_true().await;
}

#[tokio::test]
async fn a_slow_gateway_beyond_its_timeout_settles_to_one_capture() {
    let world = World::start_with(&[("QUOKKA_TOSS_TIMEOUT", "500ms")]).await;
    let (order, key) = world.order(99_000, Means::Card);
    world.gateway.set_faults(Faults {
        slow: 1.0,
        slow_millis: 3_000,
        ..Faults::default()
    });
    world.confirm(order, &key, 99_000).await.is_captured();
    world.books_are_true().await;
}

#[tokio::test]
async fn storms_of_409_and_5xx_end_with_every_order_captured_once() {
    let world = World::start().await;
    world.gateway.set_faults(Faults {
        seed: 7,
        on: vec![
            toss_simulator::Operation::Confirm,
            toss_simulator::Operation::Cancel,
            toss_simulator::Operation::Query,
        ],
        times: Some(60),
        conflict: 0.3,
        server_error: 0.3,
        charge_and_server_error: 0.3,
        charge_and_drop_answer: 0.2,
        webhooks_lost: 0.5,
        ..Faults::default()
    });
    let orders: Vec<(Uuid, String)> = (0..12).map(|_| world.order(40_000, Means::Card)).collect();
    join_all(
        orders
            .iter()
            .map(|(order, key)| world.confirm(*order, key, 40_000)),
    )
    .await;
    for (order, key) in &orders {
        world.until_state(key, "CAPTURED").await;
        assert_eq!(world.until_replies(*order, 1).await.len(), 1);
    }
    world.books_are_true().await;
}

#[tokio::test]
async fn a_process_killed_between_charge_and_record_leaves_the_capture_to_the_next() {
    let mut world = World::start().await;
    let (order, key) = world.order(80_000, Means::Card);
    world.gateway.set_faults(Faults {
        slow: 1.0,
        slow_millis: 60_000,
        ..Faults::default()
    });
    let http = world.service.as_ref().unwrap().http;
    let body = serde_json::json!({"paymentKey": key, "orderId": order, "amount": 80_000});
    let confirming = {
        let (client, token) = (world.client.clone(), world.token());
        tokio::spawn(async move {
            client
                .post(format!("http://{http}/v1/payments/confirm"))
                .bearer_auth(token)
                .json(&body)
                .send()
                .await
        })
    };
    eventually(PATIENCE, async || {
        world
            .gateway
            .payment(&key)
            .is_ok_and(|payment| payment.status == Status::Done)
    })
    .await;
    world.kill();
    assert!(
        confirming.await.unwrap().is_err(),
        "killed before the answer"
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM payments WHERE state = 'INTENT'")
            .await,
        1
    );
    assert_eq!(world.number("SELECT count(*) FROM journals").await, 0);

    world.gateway.set_faults(Faults::default());
    world.start_service(&[]).await;
    world.until_state(&key, "CAPTURED").await;
    assert_eq!(world.until_replies(order, 1).await.len(), 1);
    world.books_are_true().await;
}

#[tokio::test]
async fn a_process_killed_before_the_charge_leaves_it_to_many_others_who_make_it_once() {
    let mut world = World::start().await;
    world.kill();
    let (order, key) = world.order(80_000, Means::Card);
    let (asked, asked_key) = world.order(81_000, Means::Card);
    for (order, key, amount, state) in [
        (order, &key, 80_000_i64, "INTENT"),
        (asked, &asked_key, 81_000, "ASKING"),
    ] {
        sqlx::query(
            "INSERT INTO payments (payment_id, order_id, user_id, payment_key, amount, state, next_ask_at)
             VALUES ($1, $2, $3, $4, $5, $6, now())",
        )
        .bind(Uuid::now_v7())
        .bind(order)
        .bind(world.guest)
        .bind(key)
        .bind(amount)
        .bind(state)
        .execute(&world.pool)
        .await
        .unwrap();
    }
    world.start_service(&[]).await;
    let _replica = world.another(&[]).await;
    for (order, key) in [(order, &key), (asked, &asked_key)] {
        world.until_state(key, "CAPTURED").await;
        assert_eq!(world.until_replies(order, 1).await.len(), 1);
    }
    world.books_are_true().await;
}

#[tokio::test]
async fn a_session_that_is_forgotten_is_refused_only_when_the_gateway_says_so() {
    let world = World::start_with(&[("QUOKKA_CONFIRM_WAIT", "500ms")]).await;
    let (order, key) = world.order(80_000, Means::Card);
    world.gateway.set_faults(Faults {
        server_error: 1.0,
        ..Faults::default()
    });
    world
        .confirm(order, &key, 80_000)
        .await
        .is_problem(503, "PAYMENT_UNKNOWN");
    world
        .gateway
        .age(&key, std::time::Duration::from_secs(700))
        .unwrap();
    world.until_state(&key, "REFUSED").await;
    let replies = world.until_replies(order, 1).await;
    assert!(matches!(&replies[..], [OrderReply::PaymentRefused { code, .. }] if code == "EXPIRED"));
    world.books_are_true().await;
}

#[tokio::test]
async fn orders_that_cannot_be_asked_keep_the_payment_waiting_and_untaken() {
    let world = World::start_with(&[("QUOKKA_ORDERS_TIMEOUT", "500ms")]).await;
    let (order, key) = world.order(80_000, Means::Card);
    world.orders.set_down(true);
    world
        .confirm(order, &key, 80_000)
        .await
        .is_problem(503, "PAYMENT_UNKNOWN");
    assert!(world.gateway.payment(&key).unwrap().approved_at.is_none());
    world.orders.set_down(false);
    world.until_state(&key, "CAPTURED").await;
    world.books_are_true().await;
}

#[tokio::test]
async fn a_virtual_account_waits_and_a_late_deposit_is_a_capture_that_orders_is_told_of() {
    let world = World::start().await;
    let (order, key) = world.order(60_000, Means::VirtualAccount);
    let answer = world.confirm(order, &key, 60_000).await;
    assert_eq!(
        (answer.status, answer.body["status"].as_str()),
        (200, Some("WAITING_FOR_DEPOSIT")),
        "{answer:?}"
    );
    let account = &answer.body["virtualAccount"];
    let by = world.orders.expires_at(order);
    let told: Timestamp = account["dueDate"].as_str().unwrap().parse().unwrap();
    // In whole seconds, and never later.
    let apart = by.duration_since(told);
    assert!(
        (SignedDuration::ZERO..SignedDuration::from_secs(1)).contains(&apart),
        "the order's end is {by}, {told} was told"
    );
    let replies = world.until_replies(order, 1).await;
    let [
        OrderReply::DepositAwaited {
            account_number,
            bank_code,
            due_at_ms,
            ..
        },
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert_eq!(account["accountNumber"].as_str(), account_number.as_deref());
    assert_eq!(account["bankCode"].as_str(), bank_code.as_deref());
    let week = Timestamp::now() + SignedDuration::from_hours(6 * 24);
    assert!(
        due_at_ms.unwrap() > week.as_millisecond(),
        "the gateway's own"
    );
    world.books_are_true().await;

    world.orders.wait_again(order);
    world.orders.expire(order);
    world.gateway.deposit(&key).unwrap();
    world.until_state(&key, "CAPTURED").await;
    let replies = world.until_replies(order, 2).await;
    assert!(matches!(&replies[1], OrderReply::PaymentCaptured { .. }));

    // The order was over: orders gives it back, to the account that the guest named.
    world.refund(order, Uuid::now_v7(), 60_000).await;
    let replies = world.until_replies(order, 3).await;
    assert!(matches!(&replies[2], OrderReply::PaymentRefunded { .. }));
    assert_eq!(world.gateway.payment(&key).unwrap().balance_amount, 0);
    world.books_are_true().await;
}

#[tokio::test]
async fn a_deposit_in_time_sets_the_order_aside_first() {
    let world = World::start().await;
    let (order, key) = world.order(60_000, Means::VirtualAccount);
    world.confirm(order, &key, 60_000).await;
    world.until_replies(order, 1).await;
    world.orders.wait_again(order);
    world.gateway.deposit(&key).unwrap();
    world.until_state(&key, "CAPTURED").await;
    assert_eq!(world.orders.paying(order).as_deref(), Some(key.as_str()));
}

/// An order of 60,000 with a virtual account, that can be paid for half a second.
async fn account_for_a_moment(world: &World) -> (Uuid, String) {
    let (order, key) = world.order(60_000, Means::VirtualAccount);
    world
        .orders
        .payable_for(order, SignedDuration::from_millis(500));
    world.confirm(order, &key, 60_000).await;
    (order, key)
}

#[tokio::test]
async fn an_account_that_nobody_paid_into_is_closed_when_its_order_is_over() {
    let world = World::start().await;
    let (order, key) = account_for_a_moment(&world).await;
    world.until_state(&key, "REFUSED").await;
    assert_eq!(
        world.gateway.payment(&key).unwrap().status,
        Status::Canceled
    );
    assert!(
        world.gateway.deposit(&key).is_err(),
        "nobody can pay any more"
    );
    let replies = world.until_replies(order, 2).await;
    // Or, where the webhook was faster, as the gateway says it.
    assert!(
        matches!(&replies[1], OrderReply::PaymentRefused { code, .. }
            if code == "DEPOSIT_OVERDUE" || code == "CANCELED")
    );
    world.books_are_true().await;
    // The gateway lists the cancel, with the whole amount. Nothing moved, and nothing differs.
    world.until_compared().await;
    let found = world.number("SELECT count(*) FROM discrepancies").await;
    assert_eq!(found, 0);
}

#[tokio::test]
async fn a_deposit_at_the_last_moment_is_captured_and_not_closed() {
    let world = World::start().await;
    let (order, key) = account_for_a_moment(&world).await;
    world.until_replies(order, 1).await;
    world.orders.wait_again(order);
    // No webhook tells of it: it is found when the account would be closed.
    world.gateway.set_faults(Faults {
        webhooks_lost: 1.0,
        ..Faults::default()
    });
    world.gateway.deposit(&key).unwrap();
    world.until_state(&key, "CAPTURED").await;
    world.books_are_true().await;
}

/// An order that a deposit paid for, whose outcome is asked about often.
async fn deposited(amount: i64) -> (World, Uuid, String) {
    let world = World::start_with(&[("QUOKKA_DEPOSIT_POLL", "500ms")]).await;
    let (order, key) = world.order(amount, Means::VirtualAccount);
    world.confirm(order, &key, amount).await;
    world.until_replies(order, 1).await;
    world.orders.wait_again(order);
    world.gateway.deposit(&key).unwrap();
    world.until_state(&key, "CAPTURED").await;
    until_at_rest(&world).await;
    (world, order, key)
}

/// Waits until so many deposits that were taken back are told of, and no other differences.
async fn shows(world: &World, reversed: i64) {
    // Not by the metrics, which the tests' services share.
    let of_deposits = "SELECT count(*) FROM discrepancies WHERE resolved_at IS NULL AND kind = 'DEPOSIT_REVERSED'";
    let all = "SELECT count(*) FROM discrepancies WHERE resolved_at IS NULL";
    eventually(PATIENCE, async || {
        let found = (world.number(of_deposits).await, world.number(all).await);
        if found == (reversed, reversed) {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
}

/// Waits until the gateway isn't asked about any payment any more.
async fn until_at_rest(world: &World) {
    let due = "SELECT count(*) FROM payments WHERE next_ask_at IS NOT NULL";
    eventually(PATIENCE, async || world.number(due).await == 0).await;
}

/// Waits until the gateway was asked about the payments twice more.
async fn until_asked_again(world: &World) {
    let asked = "SELECT sum(asks)::int8 FROM payments";
    let before = world.number(asked).await;
    eventually(PATIENCE, async || world.number(asked).await >= before + 2).await;
}

#[tokio::test]
async fn a_deposit_that_the_gateway_takes_back_is_a_difference_until_it_comes_again() {
    let (world, order, key) = deposited(60_000).await;
    world.gateway.reverse_deposit(&key).unwrap();
    shows(&world, 1).await;
    // Nothing of the ledger is rewritten, and nothing is captured twice.
    assert_eq!(world.number("SELECT count(*) FROM journals").await, 1);
    world.until_state(&key, "CAPTURED").await;
    world.gateway.deposit(&key).unwrap();
    shows(&world, 0).await;
    let captures: Vec<OrderReply> = world.until_replies(order, 2).await;
    assert_eq!(captures.len(), 2, "{captures:?}");
    // The gateway has two transactions now of what the ledger has once.
    world.until_compared().await;
    shows(&world, 0).await;
    world.books_are_true().await;
}

#[tokio::test]
async fn a_deposit_taken_back_that_a_person_has_settled_is_told_of_again_only_after_another_one() {
    let (world, _, key) = deposited(60_000).await;
    world.gateway.reverse_deposit(&key).unwrap();
    shows(&world, 1).await;
    sqlx::raw_sql("UPDATE discrepancies SET resolved_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    until_asked_again(&world).await;
    shows(&world, 0).await;

    world.gateway.deposit(&key).unwrap();
    until_at_rest(&world).await;
    world.gateway.reverse_deposit(&key).unwrap();
    shows(&world, 1).await;
}

#[tokio::test]
async fn a_deposit_taken_back_for_good_stays_a_difference_and_is_owed_to_nobody() {
    let (world, order, key) = deposited(60_000).await;
    world.gateway.reverse_deposit(&key).unwrap();
    shows(&world, 1).await;
    world.until_compared().await;
    // Nobody pays again: the account expires.
    let week = std::time::Duration::from_secs(8 * 86_400);
    world.gateway.age(&key, week).unwrap();
    until_at_rest(&world).await;
    shows(&world, 1).await;

    let refund = Uuid::now_v7();
    world.refund(order, refund, 60_000).await;
    world.until_refund(refund, "REFUSED").await;
    until_at_rest(&world).await;
    world.until_refused(0).await;
    shows(&world, 1).await;
}

#[tokio::test]
async fn the_refund_of_a_deposit_taken_back_closes_the_account_and_moves_nothing() {
    let (world, order, key) = deposited(60_000).await;
    world.gateway.reverse_deposit(&key).unwrap();
    shows(&world, 1).await;
    let refund = Uuid::now_v7();
    // The account is closed whole, whatever was asked for.
    world.refund(order, refund, 30_000).await;
    world.until_refund(refund, "DONE").await;
    let replies = world.until_replies(order, 3).await;
    assert!(matches!(&replies[2], OrderReply::PaymentRefunded { .. }));
    assert_eq!(world.number("SELECT refunded FROM payments").await, 60_000);
    assert!(world.gateway.deposit(&key).is_err());
    until_at_rest(&world).await;
    world.until_compared().await;
    // Whether the order stands is for a person to see.
    shows(&world, 1).await;
}

#[tokio::test]
async fn an_account_closed_by_hand_after_its_deposit_was_taken_back_stays_a_difference() {
    let (world, order, key) = deposited(60_000).await;
    world.gateway.reverse_deposit(&key).unwrap();
    shows(&world, 1).await;
    world.give_back_by_hand(&key, 60_000).await;
    until_at_rest(&world).await;
    world.until_compared().await;
    shows(&world, 1).await;
    // The order ends, and nobody is paid.
    let refund = Uuid::now_v7();
    world.refund(order, refund, 60_000).await;
    world.until_refund(refund, "DONE").await;
    let back = world
        .number("SELECT sum(amount)::int8 FROM journals WHERE kind = 'REFUND'")
        .await;
    assert_eq!(back, 60_000);
}
