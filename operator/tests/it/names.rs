//! One name, one sale: what is in the way of a sale is said, and left alone.

use kube::ResourceExt as _;
use quokka_crds::{CouponCampaign, Phase, TimeSale};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use std::time::Duration;

use crate::world::{World, campaign, condition, is_ready, time_sale};

#[tokio::test(flavor = "multi_thread")]
async fn the_second_sale_of_a_name_is_refused_and_harms_nothing() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .create::<TimeSale>(time_sale("twin", 3, 0, 3_600))
        .await;
    world.until::<TimeSale>("twin", is_ready).await;
    world.sell("time-sales", "twin", 1).await;

    let second: CouponCampaign = world.create(campaign("twin", 10)).await;
    let taken = |status: &quokka_crds::SaleStatus| condition(status, "Ready") == "False/NameTaken";
    let status = world.until::<CouponCampaign>("twin", taken).await;
    assert_eq!((status.phase, status.topic), (Some(Phase::Warming), None));
    assert!(
        world
            .told(&second.uid().unwrap())
            .await
            .contains(&"SpecRefused".to_owned())
    );

    world.delete::<CouponCampaign>("twin").await;
    world.until_gone::<CouponCampaign>("twin").await;
    world.sell("time-sales", "twin", 2).await;
    let status = world
        .until::<TimeSale>("twin", |status| {
            status.phase == Some(Phase::SoldOut) && is_ready(status)
        })
        .await;
    assert_eq!(status.stock.unwrap().claimed, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_records_of_somebody_else_is_left_alone() {
    let world = World::new().await;
    let topic = format!("quokka.claims.{}.busy", world.namespace);
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.stores.brokers)
        .create()
        .unwrap();
    let operators =
        quokka_operator::topics::Topics::new(std::slice::from_ref(&world.stores.brokers), 1)
            .unwrap();
    operators.create(&topic, 1).await.unwrap();
    producer
        .send(
            FutureRecord::<str, str>::to(&topic).payload("somebody else's"),
            Duration::from_secs(30),
        )
        .await
        .unwrap();

    let _operator = world.operator();
    world
        .create::<TimeSale>(time_sale("busy", 3, 0, 3_600))
        .await;
    world
        .until::<TimeSale>("busy", |status| {
            condition(status, "Ready") == "False/TopicForeign"
        })
        .await;
    world.delete::<TimeSale>("busy").await;
    world.until_gone::<TimeSale>("busy").await;
    assert_eq!(
        operators.partitions(&topic).await.unwrap(),
        Some(1),
        "it is still there"
    );
    assert!(!operators.is_empty(&topic, 1).await.unwrap());
}
