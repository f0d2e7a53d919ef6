//! What hosts offer, and what search is told of it.

use std::collections::BTreeMap;

use events::saga::{BookingCommand, OrderReply};
use futures::future::join_all;

use crate::world::{World, calendar, day, hold, order, room_type};

async fn night(world: &World, n: u8) -> (i32, i32, i32) {
    let date = booking::nights::parse_date(&day(n)).unwrap();
    sqlx::query_as("SELECT offered, allotment, reserved FROM room_nights WHERE night = $1")
        .bind(date)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_older_version_changes_nothing() {
    let world = World::start().await;
    let room_type = room_type();
    world.calendar(calendar(room_type, 5, 2, 4)).await;
    world.calendar(calendar(room_type, 4, 3, 9)).await;
    assert_eq!(night(&world, 1).await, (4, 4, 0));
    assert_eq!(
        night(&world, 2).await,
        (9, 9, 0),
        "a night that only the older one speaks of"
    );
    world.calendar(calendar(room_type, 5, 2, 8)).await;
    assert_eq!(night(&world, 1).await, (4, 4, 0), "the same version again");
}

#[tokio::test]
async fn a_lowered_offer_keeps_what_is_reserved_and_gives_no_more() {
    let world = World::start().await;
    let room_type = world.offered(1, 3).await;
    let orders = [order(), order(), order()];
    for order in orders {
        world.ask(hold(order, room_type, 0, 1)).await;
    }
    world.calendar(calendar(room_type, 2, 1, 1)).await;
    assert_eq!(night(&world, 0).await, (1, 3, 3));
    for (freed, expected) in orders.into_iter().zip([(1, 2, 2), (1, 1, 1), (1, 1, 0)]) {
        world.ask(BookingCommand::Release { order_id: freed }).await;
        assert_eq!(night(&world, 0).await, expected);
        let late = order();
        let held = matches!(
            world.ask(hold(late, room_type, 0, 1)).await,
            OrderReply::Held { .. }
        );
        assert_eq!(
            held,
            expected.2 == 0,
            "only when fewer are reserved than offered"
        );
    }
    world.check().await;
    world.calendar(calendar(room_type, 3, 1, 2)).await;
    assert_eq!(night(&world, 0).await, (2, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_version_of_what_is_left_is_the_truth() {
    let world = World::start().await;
    let room_type = world.offered(4, 5).await;
    let holds = (0..60_u8).map(async |n| {
        let order_id = order();
        world
            .try_send(vec![hold(order_id, room_type, n % 3, 2)])
            .await
            .unwrap();
        if n % 2 == 0 {
            world
                .try_send(vec![BookingCommand::Release { order_id }])
                .await
                .unwrap();
        }
    });
    tokio::join!(
        join_all(holds),
        world.calendar(calendar(room_type, 2, 4, 6))
    );

    let mut told = world.availability().await;
    let versions: Vec<i64> = told.iter().map(|message| message.version).collect();
    assert!(
        versions.is_sorted(),
        "messages of a room type are in the order of their versions: {versions:?}"
    );
    told.sort_by_key(|message| message.version);
    let mut left = BTreeMap::new();
    for message in told {
        left.extend(
            message
                .nights
                .into_iter()
                .map(|night| (night.date, night.left)),
        );
    }
    for n in 0..4 {
        let (_, allotment, reserved) = night(&world, n).await;
        assert_eq!(left[&day(n)], u32::try_from(allotment - reserved).unwrap());
    }
}
