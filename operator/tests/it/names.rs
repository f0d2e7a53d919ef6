//! What is in the way of a sale is said, and left alone, and harms no other sale.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResourceExt as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, PostParams},
};
use quokka_crds::{CouponCampaign, Phase, TimeSale};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{KubeApi, eventually};

use crate::world::{
    LEAD, PATIENCE, Stores, World, campaign, condition, is_ready, time_sale, uid_of,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn terms_changed_after_the_start_are_refused_though_no_operator_saw_it_start() {
    let world = World::new().await;
    let operator = world.operator();
    let sale: TimeSale = world.create(time_sale("fixed", 3, LEAD, 3_600)).await;
    world.until::<TimeSale>("fixed", is_ready).await;
    operator.kill().await;
    world.sell("time-sales", "fixed", 1).await;
    world
        .change::<TimeSale>("fixed", json!({ "discount": { "percent": 1 } }))
        .await;

    let _operator = world.operator();
    let refused = |status: &quokka_crds::SaleStatus| {
        condition(status, "StockReady") == "False/DefinitionRefused"
    };
    let status = world.until::<TimeSale>("fixed", refused).await;
    assert_eq!(status.phase, Some(Phase::Active), "under the terms it had");
    assert_eq!(world.books(uid_of(&sale)).await.generation, 1);
    assert_eq!(
        world.claim("time-sales", "fixed").await.0,
        StatusCode::CREATED
    );
}

/// The definition as a cluster may hold it that was set up by an older version: times are strings.
fn loose_definition() -> CustomResourceDefinition {
    fn loosen(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                if fields.get("format").is_some_and(|is| is == "date-time") {
                    fields.remove("pattern");
                }
                fields.values_mut().for_each(loosen);
            }
            Value::Array(parts) => parts.iter_mut().for_each(loosen),
            _ => {}
        }
    }
    let mut definition = serde_json::to_value(TimeSale::crd()).unwrap();
    loosen(&mut definition);
    serde_json::from_value(definition).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_cannot_be_read_is_said_and_harms_no_other() {
    let kube_api = KubeApi::start().await.unwrap();
    let world = World::on(&kube_api, Stores::shared().await).await;
    kube_api.apply_crds(&[loose_definition()]).await.unwrap();
    let mut unreadable = time_sale("unreadable", 3, 0, 3_600);
    unreadable["spec"]["ends"] = json!("2036-12-01T12:00:00+09:60");
    let anything: Api<DynamicObject> = Api::namespaced_with(
        world.client.clone(),
        &world.namespace,
        &ApiResource::erase::<TimeSale>(&()),
    );
    let made = eventually(PATIENCE, async || {
        let unreadable = serde_json::from_value(unreadable.clone()).unwrap();
        anything.create(&PostParams::default(), &unreadable).await
    })
    .await;

    let _operator = world.operator();
    world
        .create::<TimeSale>(time_sale("sound", 3, 0, 3_600))
        .await;
    world.until::<TimeSale>("sound", is_ready).await;
    eventually(PATIENCE, async || {
        world.told(&made.uid().unwrap()).await == ["SpecRefused"]
    })
    .await;
}
