//! Processes that are killed while orders' commands come by Kafka, some of them more than once.

use std::collections::HashMap;
use std::time::Duration;

use events::consumer::{BatchConsumer, ConsumerSettings};
use events::outbox::{self, Relay};
use events::producer::ProducerSettings;
use events::saga::{
    BOOKING_COMMANDS, BookingCommand, CALENDAR, Envelope, ORDER_REPLIES, OrderId, OrderReply,
    RoomTypeId,
};
use events::topics;
use serde::Serialize;
use sqlx::PgPool;
use testkit::{Kafka, Postgres, eventually, unique_name};
use tokio_util::sync::CancellationToken;

use crate::process::{Issuer, Process};
use crate::world::{PATIENCE, World, calendar, hold, hold_until, order, room_type, user_of};

const ROOMS: u32 = 5;
const ORDERS: usize = 150;

/// `orders` and `stays`, as far as booking can tell: an outbox, and replies.
struct Others {
    pool: PgPool,
    replies: BatchConsumer,
    stop: CancellationToken,
    last: HashMap<OrderId, OrderReply>,
}

impl Others {
    async fn start(kafka: &Kafka) -> Self {
        let pool = Postgres::shared()
            .await
            .create_database()
            .await
            .unwrap()
            .pool()
            .await
            .unwrap();
        sqlx::raw_sql(outbox::MIGRATION)
            .execute(&pool)
            .await
            .unwrap();
        topics::ensure(&kafka.brokers(), &topics::saga(2))
            .await
            .unwrap();
        let relay = Relay::new(
            pool.clone(),
            &ProducerSettings::new(kafka.brokers(), "orders"),
        )
        .unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(relay.run(stop.clone()));
        let settings = ConsumerSettings::new(kafka.brokers(), unique_name("orders"), "orders");
        let replies = BatchConsumer::new(&settings).unwrap();
        replies.subscribe(&[ORDER_REPLIES]).unwrap();
        Self {
            pool,
            replies,
            stop,
            last: HashMap::new(),
        }
    }

    async fn put<T: Serialize>(&self, topic: &str, key: String, body: &T) {
        let mut connection = self.pool.acquire().await.unwrap();
        outbox::put(&mut connection, topic, &key, body)
            .await
            .unwrap();
    }

    async fn command(&self, command: &BookingCommand) {
        let key = match command {
            BookingCommand::Hold { order_id, .. }
            | BookingCommand::Confirm { order_id }
            | BookingCommand::Release { order_id } => order_id.0.to_string(),
        };
        self.put(BOOKING_COMMANDS, key, command).await;
    }

    /// Reads replies until each order's last one is as wanted.
    async fn until(&mut self, orders: &[OrderId], wanted: fn(&OrderReply) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !orders
            .iter()
            .all(|order| self.last.get(order).is_some_and(wanted))
        {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} answered",
                self.last.len()
            );
            let batches = self
                .replies
                .next_batch(500, 1 << 20, Duration::from_secs(1))
                .await
                .unwrap_or_default();
            for record in batches.into_iter().flat_map(|batch| batch.records) {
                let reply: Envelope<OrderReply> = serde_json::from_slice(&record.value).unwrap();
                self.last.insert(reply.body.order_id(), reply.body);
            }
        }
    }

    fn held(&self, orders: &[OrderId]) -> Vec<OrderId> {
        orders
            .iter()
            .filter(|order| matches!(self.last[order], OrderReply::Held { .. }))
            .copied()
            .collect()
    }
}

async fn offer(world: &World, others: &Others) -> RoomTypeId {
    let room_type = room_type();
    others
        .put(
            CALENDAR,
            room_type.0.to_string(),
            &calendar(room_type, 1, 3, ROOMS),
        )
        .await;
    eventually(PATIENCE, async || {
        world.count("SELECT count(*) FROM room_nights").await == 3
    })
    .await;
    room_type
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_and_repeated_commands_have_each_effect_once() {
    let (world, issuer) = (World::start().await, Issuer::start().await);
    let kafka = Kafka::start().await.unwrap();
    let mut others = Others::start(&kafka).await;
    let start = async || Process::start(&world.url, &kafka.brokers(), &issuer).await;
    let (mut one, two) = tokio::join!(start(), start());
    let room_type = offer(&world, &others).await;

    let orders: Vec<OrderId> = (0..ORDERS).map(|_| order()).collect();
    for (index, order) in orders.iter().enumerate() {
        others.command(&hold(*order, room_type, 0, 3)).await;
        if index % 50 == 25 {
            one.kill().await;
            one = start().await;
        }
        if index % 3 == 0 {
            // Another message that asks the same.
            others
                .command(&hold(orders[index / 2], room_type, 0, 3))
                .await;
        }
    }
    others.until(&orders, |_| true).await;
    let held = others.held(&orders);
    assert_eq!(held.len(), ROOMS as usize);
    world.check().await;

    two.kill().await;
    for order_id in &held {
        others
            .command(&BookingCommand::Confirm {
                order_id: *order_id,
            })
            .await;
        others
            .command(&BookingCommand::Confirm {
                order_id: *order_id,
            })
            .await;
    }
    others
        .until(&held, |reply| {
            matches!(reply, OrderReply::BookingConfirmed { .. })
        })
        .await;
    assert_eq!(
        world.count("SELECT count(*) FROM bookings").await,
        i64::from(ROOMS)
    );
    let token = issuer.tokens.token(user_of(held[0]));
    let (_, list) = one.get("/v1/bookings", Some(&token)).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);

    for order_id in &held[..2] {
        others
            .command(&BookingCommand::Release {
                order_id: *order_id,
            })
            .await;
    }
    others
        .until(&held[..2], |reply| {
            matches!(reply, OrderReply::NightsReleased { .. })
        })
        .await;
    // Repeats are handled too before anything is counted.
    let last = order();
    others
        .command(&BookingCommand::Release { order_id: last })
        .await;
    others.until(&[last], |_| true).await;
    world.check().await;
    assert_eq!(world.reserved().await, i64::from(ROOMS - 2) * 3);

    // What nobody ends, ends by itself.
    let forgotten = order();
    others
        .command(&hold_until(forgotten, room_type, 0, 3, 1_000))
        .await;
    others
        .until(&[forgotten], |reply| {
            matches!(reply, OrderReply::Held { .. })
        })
        .await;
    eventually(PATIENCE, async || {
        world.reserved().await == i64::from(ROOMS - 2) * 3
    })
    .await;
    world.check().await;
    eventually(PATIENCE, async || {
        world.count("SELECT count(*) FROM outbox").await == 0
    })
    .await;
    assert!(one.terminate().await.success());
    others.stop.cancel();
}
