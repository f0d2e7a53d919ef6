//! Holding, confirming and releasing, one after the other and all at once.

use std::collections::{HashMap, HashSet};

use booking::commands::Commands;
use events::TraceParent;
use events::inbox::{Delivered, Handler as _};
use events::saga::{BookingCommand, Envelope, ORDER_REPLIES, OrderId, OrderReply};
use futures::future::join_all;
use testkit::spans::Spans;

use crate::world::{World, hold, order};

fn confirm(order_id: OrderId) -> BookingCommand {
    BookingCommand::Confirm { order_id }
}

fn release(order_id: OrderId) -> BookingCommand {
    BookingCommand::Release { order_id }
}

fn is_held(reply: &OrderReply) -> bool {
    matches!(reply, OrderReply::Held { .. })
}

fn refused(order_id: OrderId, code: &str) -> OrderReply {
    OrderReply::HoldRefused {
        order_id,
        code: code.to_owned(),
    }
}

#[tokio::test]
async fn a_hold_becomes_a_booking_and_is_freed_once() {
    let world = World::start().await;
    let room_type = world.offered(5, 2).await;
    let order = order();
    for _ in 0..2 {
        assert_eq!(
            world.ask(hold(order, room_type, 1, 3)).await,
            OrderReply::Held { order_id: order }
        );
        assert_eq!(world.reserved().await, 3);
    }
    let OrderReply::BookingConfirmed { booking_id, .. } = world.ask(confirm(order)).await else {
        panic!("not confirmed")
    };
    let again = world.ask(confirm(order)).await;
    assert_eq!(
        again,
        OrderReply::BookingConfirmed {
            order_id: order,
            booking_id
        }
    );
    world.check().await;
    for _ in 0..2 {
        assert_eq!(
            world.ask(release(order)).await,
            OrderReply::NightsReleased { order_id: order }
        );
        assert_eq!(world.reserved().await, 0);
    }
    assert_eq!(
        world
            .count("SELECT count(*) FROM bookings WHERE status = 'CANCELLED'")
            .await,
        1
    );
    assert_eq!(
        world.ask(confirm(order)).await,
        OrderReply::BookingRefused { order_id: order }
    );
    assert_eq!(
        world.ask(hold(order, room_type, 1, 3)).await,
        refused(order, "HOLD_ENDED")
    );
    world.check().await;
}

#[tokio::test]
async fn a_release_that_overtakes_its_hold_leaves_nothing_held() {
    let world = World::start().await;
    let room_type = world.offered(5, 2).await;
    let order = order();
    assert_eq!(
        world.ask(release(order)).await,
        OrderReply::NightsReleased { order_id: order }
    );
    assert_eq!(
        world.ask(hold(order, room_type, 0, 2)).await,
        refused(order, "HOLD_ENDED")
    );
    assert_eq!(world.reserved().await, 0);
}

#[tokio::test]
async fn a_night_that_is_full_or_not_offered_refuses_all_of_them() {
    let world = World::start().await;
    let room_type = world.offered(5, 1).await;
    let (first, second, third) = (order(), order(), order());
    assert!(is_held(&world.ask(hold(first, room_type, 2, 1)).await));
    assert_eq!(
        world.ask(hold(second, room_type, 0, 4)).await,
        refused(second, "UNAVAILABLE")
    );
    assert_eq!(
        world.ask(hold(third, room_type, 3, 4)).await,
        refused(third, "UNAVAILABLE")
    );
    assert_eq!(world.reserved().await, 1);
    // A refusal stands, so that the same question has one answer.
    world.ask(release(first)).await;
    assert_eq!(
        world.ask(hold(second, room_type, 0, 4)).await,
        refused(second, "UNAVAILABLE")
    );
    world.check().await;
}

#[tokio::test]
async fn a_whole_life_may_be_in_one_batch() {
    let world = World::start().await;
    let room_type = world.offered(3, 1).await;
    let (first, second) = (order(), order());
    let batch = vec![
        hold(first, room_type, 0, 3),
        hold(second, room_type, 0, 3),
        confirm(first),
        release(first),
    ];
    let replies = world.send(batch).await;
    assert_eq!(
        replies[&first],
        OrderReply::NightsReleased { order_id: first }
    );
    assert_eq!(replies[&second], refused(second, "UNAVAILABLE"));
    assert_eq!(world.reserved().await, 0);
    assert_eq!(
        world
            .count("SELECT count(*) FROM bookings WHERE status = 'CANCELLED'")
            .await,
        1
    );
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_at_once_get_the_rooms_there_are() {
    let world = World::start().await;
    let room_type = world.offered(6, 3).await;
    let orders: Vec<OrderId> = (0..300).map(|_| order()).collect();
    let send = async |index: usize, order: OrderId| {
        let from = u8::try_from(index % 4).unwrap();
        let nights = u8::try_from(1 + index % 3).unwrap();
        world
            .try_send(vec![hold(order, room_type, from, nights)])
            .await
            .unwrap();
        match index % 5 {
            0 => world.try_send(vec![release(order)]).await.unwrap(),
            1 | 2 => world.try_send(vec![confirm(order)]).await.unwrap(),
            _ => {}
        }
    };
    join_all(
        orders
            .iter()
            .enumerate()
            .map(|(index, order)| send(index, *order)),
    )
    .await;
    world.check().await;
    let replies = world.replies().await;
    let held: HashSet<OrderId> = replies
        .iter()
        .filter(|reply| is_held(reply))
        .map(OrderReply::order_id)
        .collect();
    let active = world
        .count("SELECT count(*) FROM holds WHERE state IN ('HELD', 'BOOKED')")
        .await;
    let given_back = world
        .count("SELECT count(*) FROM holds WHERE state = 'RELEASED'")
        .await;
    assert_eq!(held.len(), usize::try_from(active + given_back).unwrap());
    assert!(active > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_room_goes_to_one_of_hundreds() {
    let world = World::start().await;
    let room_type = world.offered(2, 1).await;
    let orders: Vec<OrderId> = (0..200).map(|_| order()).collect();
    join_all(orders.iter().map(async |order| {
        world
            .try_send(vec![hold(*order, room_type, 0, 2)])
            .await
            .unwrap()
    }))
    .await;
    assert_eq!(
        world
            .replies()
            .await
            .iter()
            .filter(|reply| is_held(reply))
            .count(),
        1
    );
    assert_eq!(world.reserved().await, 2);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_over_many_room_types_never_wait_in_a_circle() {
    let world = World::start().await;
    let mut room_types = Vec::new();
    for _ in 0..8 {
        room_types.push(world.offered(4, 20).await);
    }
    let batch = |seed: usize| -> Vec<BookingCommand> {
        let commands = (0..40).map(|index| {
            // Each batch meets the room types in an order of its own.
            let room_type = room_types[(index * (2 * seed + 1) + seed) % room_types.len()];
            hold(order(), room_type, u8::try_from(index % 3).unwrap(), 1)
        });
        commands.collect()
    };
    join_all((0..24).map(async |seed| world.try_send(batch(seed)).await.unwrap())).await;
    world.check().await;
    assert_eq!(world.replies().await.len(), 24 * 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_hold_by_two_processes_at_once_has_one_effect() {
    let world = World::start().await;
    let room_type = world.offered(3, 100).await;
    for _ in 0..20 {
        let command = hold(order(), room_type, 0, 3);
        // The one that comes second fails, and is done again as the inbox does it.
        let deliver = async || {
            while let Err(error) = world.try_send(vec![command.clone()]).await {
                assert!(
                    chassis::postgres::is_unique_violation(&error, "holds_pkey"),
                    "{error}"
                );
            }
        };
        tokio::join!(deliver(), deliver());
    }
    assert_eq!(world.reserved().await, 60);
    assert!(world.replies().await.iter().all(is_held));
    world.check().await;
}

#[tokio::test]
async fn the_database_refuses_what_would_oversell_or_free_twice() {
    let world = World::start().await;
    world.offered(1, 1).await;
    for sql in [
        "UPDATE room_nights SET reserved = reserved + 2",
        "UPDATE room_nights SET reserved = reserved - 1",
        "UPDATE room_nights SET reserved = reserved - 1, allotment = greatest(offered, reserved - 1)",
    ] {
        let error = sqlx::query(sql).execute(&world.pool).await.unwrap_err();
        let constraint = error
            .as_database_error()
            .unwrap()
            .constraint()
            .unwrap()
            .to_owned();
        assert!(constraint.starts_with("room_nights_"), "{constraint}");
    }
}

#[tokio::test]
async fn orders_that_share_a_transaction_are_answered_each_in_its_own_trace() {
    let world = World::start().await;
    let room_type = world.offered(2, 1).await;
    let _spans = Spans::of_this_thread();
    let mut traces = HashMap::new();
    let mut commands = Vec::new();
    for _ in 0..3 {
        let order = order();
        let span = tracing::info_span!("command");
        traces.insert(order, span.in_scope(TraceParent::current).unwrap());
        commands.push(Delivered::new(hold(order, room_type, 0, 2), span));
    }
    let mut tx = world.pool.begin().await.unwrap();
    Commands.handle_all(&mut tx, commands).await.unwrap();
    tx.commit().await.unwrap();

    let sql = "SELECT payload, trace FROM outbox WHERE topic = $1";
    let replies: Vec<(String, Option<String>)> = sqlx::query_as(sql)
        .bind(ORDER_REPLIES)
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert_eq!(replies.len(), 3);
    for (payload, trace) in replies {
        let reply: Envelope<OrderReply> = serde_json::from_str(&payload).unwrap();
        let expected = traces[&reply.body.order_id()].to_string();
        assert_eq!(trace, Some(expected), "{:?}", reply.body);
    }
}
