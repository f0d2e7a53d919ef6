//! A deletion that can't get on says so, and lets go on request.

use std::time::Duration;

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use quokka_crds::TimeSale;
use quokka_operator::{RELEASE, config::Config, reconcile::FINALIZER};
use serde_json::json;
use testkit::{eventually, free_port};

use crate::world::{PATIENCE, World, condition, is_ready, time_sale, uid_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_stuck_says_why_and_lets_go_when_told() {
    let mut world = World::new().await;
    let config = Config {
        cleanup_deadline: Duration::from_secs(2),
        ..world.config()
    };
    let operator = world.operator_with(config.clone());
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

    operator.stop().await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let _operator = world.operator_with(Config {
        ledger_url: nowhere.parse().unwrap(),
        ..config
    });
    let release = Patch::Merge(json!({ "metadata": { "annotations": { RELEASE: "true" } } }));
    world
        .sales::<TimeSale>()
        .patch("stuck", &PatchParams::default(), &release)
        .await
        .unwrap();
    world.until_gone::<TimeSale>("stuck").await;
    let events = world.events(&uid).await;
    let released = events.last().unwrap();
    assert_eq!(released.reason.as_deref(), Some("Released"));
    let note = released.note.as_deref().unwrap();
    let topic = format!("quokka.claims.{}.stuck", world.namespace);
    for part in ["may sell on", &topic, &uid] {
        assert!(note.contains(part), "{part} is not in: {note}");
    }
    let drift = "quokka_operator_sale_drift{sale=\"stuck\"}";
    assert!(!chassis::metrics::render().unwrap().contains(drift));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_is_let_go_of_is_closed_where_the_ledger_can_be_told() {
    let world = World::new().await;
    let _operator = world.operator();
    let sale: TimeSale = world.create(time_sale("let-go", 3, 0, 3_600)).await;
    world.until::<TimeSale>("let-go", is_ready).await;
    let release = Patch::Merge(json!({ "metadata": { "annotations": { RELEASE: "true" } } }));
    world
        .sales::<TimeSale>()
        .patch("let-go", &PatchParams::default(), &release)
        .await
        .unwrap();
    world.delete::<TimeSale>("let-go").await;
    world.until_gone::<TimeSale>("let-go").await;
    assert!(world.books(uid_of(&sale)).await.closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_comes_off_whoever_put_it_on_and_others_stay() {
    let world = World::new().await;
    let _operator = world.operator();
    let other = "example.com/other";
    let mut sale = time_sale("held", 3, 0, 3_600);
    sale["metadata"]["finalizers"] = json!([FINALIZER, other]);
    world.create::<TimeSale>(sale).await;
    world.until::<TimeSale>("held", is_ready).await;
    world.delete::<TimeSale>("held").await;
    eventually(PATIENCE, async || {
        let held = world.sales::<TimeSale>().get("held").await.unwrap();
        match held.finalizers() {
            [one] if one == other => Ok(()),
            others => Err(format!("{others:?}")),
        }
    })
    .await;
    let none = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    world
        .sales::<TimeSale>()
        .patch("held", &PatchParams::default(), &none)
        .await
        .unwrap();
    world.until_gone::<TimeSale>("held").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_api_refuses_keep_nothing_else_from_being_done() {
    let world = World::new().await;
    world.refuse_events().await;
    let _operator = world.operator();
    let sale: TimeSale = world.create(time_sale("untold", 3, 0, 3_600)).await;
    world.until::<TimeSale>("untold", is_ready).await;
    world.delete::<TimeSale>("untold").await;
    world.until_gone::<TimeSale>("untold").await;
    assert!(world.told(&sale.uid().unwrap()).await.is_empty());
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
