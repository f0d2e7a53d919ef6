//! Servers that go and come back: the status says so, and the operator goes on.

use kube::ResourceExt as _;
use quokka_crds::{Phase, TimeSale};
use quokka_operator::replicas::{Guard, Replicas};
use serde_json::json;
use testkit::{Kafka, KubeApi, Postgres, Redis, eventually};

use crate::world::{PATIENCE, Stores, World, condition, is_in, is_ready, time_sale, uid_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_is_recovered_and_the_books_agree_again() {
    let redis = Redis::start().await.unwrap();
    let world = World::on(
        KubeApi::shared().await,
        Stores {
            redis_url: redis.url(),
            ..Stores::shared().await
        },
    )
    .await;
    let _operator = world.operator();
    let sale: TimeSale = world.create(time_sale("flushed", 5, 0, 3_600)).await;
    world.sell("time-sales", "flushed", 3).await;
    world
        .until::<TimeSale>("flushed", |status| {
            is_ready(status) && status.stock.as_ref().is_some_and(|is| is.claimed == 3)
        })
        .await;

    redis.flush().await.unwrap();
    world
        .until::<TimeSale>("flushed", is_in(Phase::Recovering))
        .await;
    let status = world
        .until::<TimeSale>("flushed", |is| {
            is.phase == Some(Phase::Active) && is_ready(is)
        })
        .await;
    assert!(status.epoch >= Some(2), "{:?}", status.epoch);
    assert_eq!(status.stock.unwrap().claimed, 3);
    world.sell("time-sales", "flushed", 2).await;
    world
        .until::<TimeSale>("flushed", is_in(Phase::SoldOut))
        .await;
    let told = world.told(&sale.uid().unwrap()).await;
    assert_eq!(
        told.iter().filter(|reason| *reason == "Recovering").count(),
        1,
        "{told:?}"
    );
    assert_eq!(
        told.iter().filter(|reason| *reason == "Recovered").count(),
        1,
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_said_and_what_is_back_too() {
    let (redis, kafka) = (Redis::start().await.unwrap(), Kafka::start().await.unwrap());
    let stores = Stores {
        redis_url: redis.url(),
        brokers: kafka.brokers(),
        database: Postgres::shared().await.create_database().await.unwrap(),
    };
    let world = World::on(KubeApi::shared().await, stores).await;
    let operator = world.operator();
    world
        .create::<TimeSale>(time_sale("lasting", 5, 0, 3_600))
        .await;
    world.until::<TimeSale>("lasting", is_ready).await;

    kafka.kill().await.unwrap();
    world
        .until::<TimeSale>("lasting", |status| {
            condition(status, "TopicReady") == "False/KafkaUnreachable"
        })
        .await;
    kafka.resume().await.unwrap();
    world.until::<TimeSale>("lasting", is_ready).await;

    redis.kill().await.unwrap();
    world
        .until::<TimeSale>("lasting", |status| {
            condition(status, "StockReady") == "False/RedisUnreachable"
        })
        .await;
    redis.resume().await.unwrap();
    world.until::<TimeSale>("lasting", is_ready).await;
    world.sell("time-sales", "lasting", 1).await;
    assert!(operator.lives());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_gets_through_to_the_ledger_while_kafka_is_down() {
    let kafka = Kafka::start().await.unwrap();
    let stores = Stores {
        brokers: kafka.brokers(),
        ..Stores::shared().await
    };
    let world = World::on(KubeApi::shared().await, stores).await;
    let _operator = world.operator();
    let sale: TimeSale = world.create(time_sale("urgent", 5, 0, 3_600)).await;
    world.until::<TimeSale>("urgent", is_ready).await;

    kafka.kill().await.unwrap();
    world
        .until::<TimeSale>("urgent", |status| {
            condition(status, "TopicReady") == "False/KafkaUnreachable"
        })
        .await;
    world
        .change::<TimeSale>("urgent", json!({ "paused": true }))
        .await;
    eventually(PATIENCE, async || {
        world.books(uid_of(&sale)).await.generation == 2
    })
    .await;
    kafka.resume().await.unwrap();
    world
        .until::<TimeSale>("urgent", |status| {
            status.phase == Some(Phase::Paused) && is_ready(status)
        })
        .await;
    assert_eq!(world.claim("time-sales", "urgent").await.1, "PAUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_kubernetes_api_is_waited_out() {
    let kube_api = KubeApi::start().await.unwrap();
    let world = World::on(&kube_api, Stores::shared().await).await;
    let operator = world.operator();
    world
        .create::<TimeSale>(time_sale("patient", 5, 0, 3_600))
        .await;
    world.until::<TimeSale>("patient", is_ready).await;
    assert!(operator.hears_kubernetes());

    kube_api.kill().await.unwrap();
    world.sell("time-sales", "patient", 2).await;
    eventually(PATIENCE, async || !operator.hears_kubernetes()).await;
    kube_api.resume().await.unwrap();
    world
        .until::<TimeSale>("patient", |status| {
            is_ready(status) && status.stock.as_ref().is_some_and(|is| is.claimed == 2)
        })
        .await;
    eventually(PATIENCE, async || operator.hears_kubernetes()).await;
    assert!(operator.lives());
}

#[tokio::test]
async fn a_primary_that_would_sell_without_its_replicas_is_found() {
    let (primary, replica) = (Redis::start().await.unwrap(), Redis::start().await.unwrap());
    // A look is shared for some seconds, so each is taken by a client of its own.
    let guard = async || {
        Replicas::connect_lazy(&primary.url())
            .unwrap()
            .guard()
            .await
    };
    assert_eq!(guard().await, Guard::Alone);
    let command = async |url: String, words: &[&str]| {
        let mut connection = redis::Client::open(url)
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        redis::cmd(words[0])
            .arg(&words[1..])
            .exec_async(&mut connection)
            .await
            .unwrap();
    };
    let port = primary.port().to_string();
    command(replica.url(), &["REPLICAOF", "127.0.0.1", &port]).await;
    eventually(PATIENCE, async || {
        matches!(guard().await, Guard::Unguarded(_))
    })
    .await;
    command(
        primary.url(),
        &["CONFIG", "SET", "min-replicas-to-write", "1"],
    )
    .await;
    command(
        primary.url(),
        &["CONFIG", "SET", "min-replicas-max-lag", "1"],
    )
    .await;
    assert_eq!(guard().await, Guard::Guarded);
}
