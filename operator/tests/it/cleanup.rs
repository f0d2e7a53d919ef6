//! A deletion that can't get on says so, and lets go on request.

use std::time::Duration;

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use quokka_crds::TimeSale;
use quokka_operator::{RELEASE, config::Config};
use serde_json::json;
use testkit::eventually;

use crate::world::{PATIENCE, World, condition, is_ready, time_sale};

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_stuck_says_why_and_lets_go_when_told() {
    let mut world = World::new().await;
    let config = Config {
        cleanup_deadline: Duration::from_secs(2),
        ..world.config()
    };
    let _operator = world.operator_with(config);
    let sale: TimeSale = world.create(time_sale("stuck", 3, 0, 3_600)).await;
    world.until::<TimeSale>("stuck", is_ready).await;
    world.end_ledger().await;

    world.delete::<TimeSale>("stuck").await;
    let stuck =
        |status: &quokka_crds::SaleStatus| condition(status, "Ready") == "False/CleanupStuck";
    let status = world.until::<TimeSale>("stuck", stuck).await;
    let ready = status
        .conditions
        .iter()
        .find(|is| is.type_ == "Ready")
        .unwrap();
    assert!(ready.message.contains("the ledger"), "{}", ready.message);
    let uid = sale.uid().unwrap();
    assert!(world.told(&uid).await.contains(&"CleanupStuck".to_owned()));

    let release = Patch::Merge(json!({ "metadata": { "annotations": { RELEASE: "true" } } }));
    world
        .sales::<TimeSale>()
        .patch("stuck", &PatchParams::default(), &release)
        .await
        .unwrap();
    world.until_gone::<TimeSale>("stuck").await;
    assert_eq!(world.told(&uid).await.last().unwrap(), "Released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_made_again_shares_nothing_with_the_first() {
    let world = World::new().await;
    let _operator = world.operator();
    world
        .create::<TimeSale>(time_sale("again", 2, 0, 3_600))
        .await;
    world.sell("time-sales", "again", 2).await;
    world.delete::<TimeSale>("again").await;
    world.until_gone::<TimeSale>("again").await;
    world
        .create::<TimeSale>(time_sale("again", 2, 0, 3_600))
        .await;
    let status = world.until::<TimeSale>("again", is_ready).await;
    assert_eq!(status.stock.unwrap().claimed, 0);
    world.sell("time-sales", "again", 2).await;
    eventually(PATIENCE, async || {
        world.claim("time-sales", "again").await.1 == "SOLD_OUT"
    })
    .await;
}
