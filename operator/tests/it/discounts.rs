//! What a time sale takes off, as those read it who show prices.

use jiff::SignedDuration;
use quokka_crds::{CouponCampaign, Phase, TimeSale};
use sale_stock::{
    RedisSettings,
    discounts::{Discounts, SaleDiscount},
};
use serde_json::json;
use testkit::{KubeApi, Redis, eventually};

use crate::world::{PATIENCE, Stores, World, campaign, is_in, is_ready, time_sale};

fn discounts(world: &World) -> Discounts {
    let settings = RedisSettings::new(&world.stores.redis_url);
    Discounts::connect_lazy(&settings, &world.namespace).unwrap()
}

async fn until(
    discounts: &Discounts,
    wanted: impl Fn(&[SaleDiscount]) -> bool,
) -> Vec<SaleDiscount> {
    eventually(PATIENCE, async || {
        let read = discounts.read().await.map_err(|error| error.to_string())?;
        if wanted(&read.discounts) {
            Ok(read.discounts)
        } else {
            Err(format!("{read:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discount_is_told_before_the_start_and_withdrawn_when_nobody_gets_it() {
    let world = World::new().await;
    let operator = world.operator();
    let discounts = discounts(&world);
    let sale: TimeSale = world.create(time_sale("jeju", 2, 3_600, 3_600)).await;
    world
        .create::<CouponCampaign>(campaign("welcome", 10))
        .await;
    let told = until(&discounts, |told| told.len() == 1).await;
    assert_eq!(
        serde_json::to_value(&told[0]).unwrap(),
        json!({
            "saleId": "jeju", "percent": 40, "target": {"regions": ["jeju"]},
            "startsAt": sale.spec.starts, "endsAt": sale.spec.ends,
        })
    );

    let starts = sale.spec.starts - SignedDuration::from_secs(3_600);
    world
        .change::<TimeSale>(
            "jeju",
            json!({"starts": starts, "discount": {"percent": 30}}),
        )
        .await;
    until(&discounts, |told| {
        told.len() == 1 && told[0].starts_at == starts
    })
    .await;
    world.until::<TimeSale>("jeju", is_in(Phase::Active)).await;
    world.sell("time-sales", "jeju", 2).await;
    until(&discounts, <[_]>::is_empty).await;
    world.change::<TimeSale>("jeju", json!({"stock": 3})).await;
    until(&discounts, |told| told.len() == 1).await;
    world
        .change::<TimeSale>("jeju", json!({"paused": true}))
        .await;
    until(&discounts, <[_]>::is_empty).await;
    world
        .change::<TimeSale>("jeju", json!({"paused": false}))
        .await;
    until(&discounts, |told| told.len() == 1).await;
    world.delete::<TimeSale>("jeju").await;
    until(&discounts, <[_]>::is_empty).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discount_that_redis_lost_is_told_again() {
    let redis = Redis::start().await.unwrap();
    let mut stores = Stores::shared().await;
    stores.redis_url = redis.url();
    let world = World::on(KubeApi::shared().await, stores).await;
    let _operator = world.operator();
    let discounts = discounts(&world);
    world
        .create::<TimeSale>(time_sale("jeju", 2, 3_600, 3_600))
        .await;
    world.until::<TimeSale>("jeju", is_ready).await;
    until(&discounts, |told| told.len() == 1).await;
    redis.flush().await.unwrap();
    until(&discounts, |told| told.len() == 1).await;
}
