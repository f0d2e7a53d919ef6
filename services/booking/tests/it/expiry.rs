//! Holds whose time is over.

use std::collections::HashSet;

use booking::expiry::expire;
use events::saga::{BookingCommand, OrderId, OrderReply};
use futures::future::join_all;

use crate::world::{World, hold, hold_until, order};

/// Long ago.
const OVER: i64 = 1_000;

async fn due(world: &World, count: usize) -> Vec<OrderId> {
    let room_type = world.offered(3, 1_000).await;
    let orders: Vec<OrderId> = (0..count).map(|_| order()).collect();
    let commands = orders
        .iter()
        .map(|order| hold_until(*order, room_type, 0, 3, OVER))
        .collect();
    world.try_send(commands).await.unwrap();
    orders
}

async fn expire_all(world: &World) -> u64 {
    let mut ended = 0;
    loop {
        match expire(&world.pool).await.unwrap() {
            0 => return ended,
            more => ended += more,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_replicas_end_each_hold_once() {
    let world = World::start().await;
    due(&world, 450).await;
    let room_type = world.offered(2, 1).await;
    world
        .try_send(vec![hold(order(), room_type, 0, 2)])
        .await
        .unwrap();
    let ended: u64 = join_all((0..4).map(|_| expire_all(&world)))
        .await
        .into_iter()
        .sum();
    // One that found nothing has left to another what that one was working on.
    assert_eq!(ended, 450);
    assert_eq!(world.reserved().await, 2, "only what is due");
    assert_eq!(
        world
            .count("SELECT count(*) FROM holds WHERE state = 'EXPIRED'")
            .await,
        450
    );
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_either_confirmed_or_expired() {
    let world = World::start().await;
    let orders = due(&world, 200).await;
    let confirm = async |orders: &[OrderId]| {
        for order_id in orders {
            world
                .try_send(vec![BookingCommand::Confirm {
                    order_id: *order_id,
                }])
                .await
                .unwrap();
        }
    };
    // From the last one on, so that both sides meet.
    let backwards: Vec<OrderId> = orders.iter().rev().copied().collect();
    let one_by_one = async || {
        for _ in 0..20 {
            expire(&world.pool).await.unwrap();
        }
    };
    tokio::join!(
        confirm(&backwards[..100]),
        confirm(&backwards[100..]),
        one_by_one(),
        one_by_one()
    );
    expire_all(&world).await;
    world.check().await;

    let replies = world.replies().await;
    let told = |wanted: fn(&OrderReply) -> bool| -> HashSet<OrderId> {
        replies
            .iter()
            .filter(|reply| wanted(reply))
            .map(OrderReply::order_id)
            .collect()
    };
    let confirmed = told(|reply| matches!(reply, OrderReply::BookingConfirmed { .. }));
    let refused = told(|reply| matches!(reply, OrderReply::BookingRefused { .. }));
    assert!(confirmed.is_disjoint(&refused));
    assert_eq!(confirmed.len() + refused.len(), 200);
    let booked = world
        .count("SELECT count(*) FROM bookings WHERE status = 'CONFIRMED'")
        .await;
    let expired = world
        .count("SELECT count(*) FROM holds WHERE state = 'EXPIRED'")
        .await;
    assert_eq!(
        (booked, expired),
        (confirmed.len() as i64, refused.len() as i64)
    );
    assert_eq!(world.reserved().await, booked * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_freed_once_by_release_and_expiry_together() {
    let world = World::start().await;
    let orders = due(&world, 120).await;
    let release = async || {
        for order_id in orders.iter().rev() {
            world
                .try_send(vec![BookingCommand::Release {
                    order_id: *order_id,
                }])
                .await
                .unwrap();
        }
    };
    tokio::join!(release(), expire_all(&world));
    assert_eq!(world.reserved().await, 0);
    world.check().await;
}
