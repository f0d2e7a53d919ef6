//! Topics on a real broker.

use kube::ResourceExt as _;
use quokka_crds::TimeSale;
use quokka_operator::topics::Topics;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
};
use serde_json::json;
use testkit::{Kafka, eventually, unique_name};

use crate::world::{PATIENCE, World, is_ready, time_sale};

async fn setting(brokers: &str, topic: &str, name: &str) -> String {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let described = admin
        .describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new())
        .await
        .unwrap();
    described[0]
        .as_ref()
        .unwrap()
        .get(name)
        .unwrap()
        .value
        .clone()
        .unwrap()
}

#[tokio::test]
async fn a_topic_keeps_everything_grows_and_goes() {
    let brokers = Kafka::shared().await.brokers();
    let topics = Topics::new(std::slice::from_ref(&brokers), 1).unwrap();
    let name = unique_name("topic");
    assert_eq!(topics.partitions(&name).await.unwrap(), None);
    assert!(topics.create(&name, 2).await.unwrap());
    assert!(
        !topics.create(&name, 2).await.unwrap(),
        "it is there already"
    );
    eventually(PATIENCE, async || {
        topics.partitions(&name).await.unwrap() == Some(2)
    })
    .await;
    // A broker tells of a topic a moment before it leads it, and refuses to look into it until then.
    let is_empty = eventually(PATIENCE, async || topics.is_empty(&name, 2).await).await;
    assert!(is_empty);
    for limit in ["retention.ms", "retention.bytes"] {
        assert_eq!(setting(&brokers, &name, limit).await, "-1");
    }
    assert_eq!(setting(&brokers, &name, "cleanup.policy").await, "delete");
    assert_eq!(setting(&brokers, &name, "min.insync.replicas").await, "1");

    topics.grow(&name, 4).await.unwrap();
    eventually(PATIENCE, async || {
        topics.grow(&name, 4).await.unwrap();
        topics.partitions(&name).await.unwrap() == Some(4)
    })
    .await;
    topics.delete(&name).await.unwrap();
    eventually(PATIENCE, async || {
        topics.delete(&name).await.unwrap();
        topics.partitions(&name).await.unwrap().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sales_topic_grows_and_never_shrinks() {
    let world = World::new().await;
    let _operator = world.operator();
    let topics = Topics::new(std::slice::from_ref(&world.stores.brokers), 1).unwrap();
    let sale: TimeSale = world.create(time_sale("wide", 100, 0, 3_600)).await;
    let status = world.until::<TimeSale>("wide", is_ready).await;
    let topic = status.topic.unwrap();
    eventually(PATIENCE, async || {
        topics.partitions(&topic).await.unwrap() == Some(3)
    })
    .await;
    assert_eq!(
        setting(&world.stores.brokers, &topic, "retention.ms").await,
        "-1"
    );

    let observed = |generation| {
        move |status: &quokka_crds::SaleStatus| {
            status.observed_generation == Some(generation) && is_ready(status)
        }
    };
    world
        .change::<TimeSale>(
            "wide",
            json!({ "expectedPeak": { "claimsPerSecond": 100_000 } }),
        )
        .await;
    world.until::<TimeSale>("wide", observed(2)).await;
    eventually(PATIENCE, async || {
        topics.partitions(&topic).await.unwrap() == Some(5)
    })
    .await;
    world.sell("time-sales", "wide", 3).await;
    world
        .change::<TimeSale>("wide", json!({ "expectedPeak": { "claimsPerSecond": 10 } }))
        .await;
    world.until::<TimeSale>("wide", observed(3)).await;
    assert_eq!(topics.partitions(&topic).await.unwrap(), Some(5));
    assert!(
        world
            .told(&sale.uid().unwrap())
            .await
            .contains(&"TopicGrown".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_has_the_partitions_that_were_written_to() {
    let world = World::new().await;
    let _operator = world.operator();
    let topics = Topics::new(std::slice::from_ref(&world.stores.brokers), 1).unwrap();
    let sale: TimeSale = world.create(time_sale("lost", 100, 0, 3_600)).await;
    world.until::<TimeSale>("lost", is_ready).await;
    world
        .change::<TimeSale>("lost", json!({ "expectedPeak": { "claimsPerSecond": 10 } }))
        .await;
    let status = world
        .until::<TimeSale>("lost", |status| {
            status.observed_generation == Some(2) && is_ready(status)
        })
        .await;
    let topic = status.topic.unwrap();
    topics.delete(&topic).await.unwrap();
    let uid = sale.uid().unwrap();
    eventually(PATIENCE, async || {
        world.told(&uid).await.contains(&"TopicLost".to_owned())
    })
    .await;
    eventually(PATIENCE, async || {
        topics.partitions(&topic).await.unwrap() == Some(3)
    })
    .await;
}
