//! Stores and peers that go away.

use std::sync::atomic::Ordering;

use events::saga::{OrderId, OrderReply};
use testkit::{Kafka, Postgres};
use uuid::Uuid;

use crate::platform::{LONG, Platform, Stores, id_of, total, wish};

#[tokio::test]
async fn a_peer_that_fails_is_asked_again_and_one_that_is_away_is_503() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    platform.peers.failures.store(2, Ordering::SeqCst);
    platform
        .order(&guest, &wish(Uuid::from_u128(1)))
        .await
        .ok(201);
    assert_eq!(platform.peers.asked.load(Ordering::SeqCst), 3);

    platform.peers.failures.store(u32::MAX, Ordering::SeqCst);
    let answer = platform.order(&guest, &wish(Uuid::from_u128(1))).await;
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
    answer.is(503, "UNAVAILABLE");
}

#[tokio::test]
async fn with_kafka_away_an_order_is_taken_and_goes_on_when_it_is_back() {
    let kafka = Kafka::start().await.unwrap();
    let stores = Stores {
        brokers: kafka.brokers(),
        ..Stores::shared().await
    };
    let platform = Platform::on(&stores, LONG, 1).await;
    let guest = platform.guest();
    let first = platform.held(&guest).await;

    kafka.kill().await.unwrap();
    let order = platform.placed(&guest).await;
    platform.pay(&guest, first, "pay", total()).await.ok(200);
    let cancelled = platform.placed(&guest).await;
    platform.cancel(&guest, cancelled).await.ok(200);

    kafka.resume().await.unwrap();
    platform.command(order, "hold").await;
    platform.command(cancelled, "release").await;
    assert_eq!(
        platform.sent(cancelled),
        ["booking/hold", "booking/release"]
    );
    platform
        .reply(OrderReply::Held {
            order_id: OrderId(order),
        })
        .await;
    platform.until(&guest, order, "AWAITING_PAYMENT").await;
}

#[tokio::test]
async fn with_the_database_killed_it_is_503_and_nothing_is_lost() {
    let postgres = Postgres::start().await.unwrap();
    let stores = Stores {
        database_url: postgres.create_database().await.unwrap().url,
        ..Stores::shared().await
    };
    let platform = Platform::on(&stores, LONG, 1).await;
    let guest = platform.guest();
    let order = platform.placed(&guest).await;
    platform.command(order, "hold").await;

    postgres.kill().await.unwrap();
    let key = "while it is gone";
    let body = wish(Uuid::from_u128(1));
    let gone = platform.order_with_key(&guest, key, &body).await;
    assert_eq!(gone.retry_after.as_deref(), Some("1"));
    gone.is(503, "UNAVAILABLE");
    platform
        .pay(&guest, order, "pay", total())
        .await
        .is(503, "UNAVAILABLE");
    platform
        .reply(OrderReply::Held {
            order_id: OrderId(order),
        })
        .await;

    postgres.resume().await.unwrap();
    platform.until_ready().await;
    platform.until(&guest, order, "AWAITING_PAYMENT").await;
    let placed = platform.order_with_key(&guest, key, &body).await.ok(201);
    platform.command(id_of(&placed), "hold").await;
}
