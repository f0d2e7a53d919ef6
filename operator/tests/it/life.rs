//! A sale from its declaration to its end.

use kube::ResourceExt as _;
use quokka_crds::{CouponCampaign, Phase, TimeSale};
use reqwest::StatusCode;
use serde_json::json;
use testkit::eventually;

use crate::world::{
    LEAD, PATIENCE, World, campaign, condition, is_in, is_ready, time_sale, uid_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_time_sale_runs_from_its_declaration_to_its_removal() {
    let world = World::new().await;
    let operator = world.operator();
    let sale: TimeSale = world.create(time_sale("jeju", 3, LEAD, 3_600)).await;
    let uid = sale.uid().unwrap();

    let status = world.until::<TimeSale>("jeju", is_ready).await;
    assert_eq!(
        (status.phase, status.started_at),
        (Some(Phase::Warming), None),
        "in place before the start"
    );
    assert_eq!(
        status.topic,
        Some(format!("quokka.claims.{}.jeju", world.namespace))
    );
    assert_eq!(
        (status.observed_generation, status.epoch),
        (Some(1), Some(1))
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|is| is.observed_generation == Some(1))
    );
    let (answer, code) = world.claim("time-sales", "jeju").await;
    assert!(
        answer == StatusCode::CONFLICT && code == "NOT_STARTED" || answer == StatusCode::NOT_FOUND,
        "{answer} {code}"
    );

    let status = world.until::<TimeSale>("jeju", is_in(Phase::Active)).await;
    assert_eq!(status.started_at, Some(sale.spec.starts));
    assert!(status.phase_since >= status.started_at);
    world.sell("time-sales", "jeju", 3).await;
    assert_eq!(world.claim("time-sales", "jeju").await.1, "SOLD_OUT");
    let status = world.until::<TimeSale>("jeju", is_in(Phase::SoldOut)).await;
    let stock = status.stock.unwrap();
    assert_eq!((stock.total, stock.claimed, stock.remaining), (3, 3, 0));

    world
        .change::<TimeSale>("jeju", json!({ "stock": 5 }))
        .await;
    let grown = |status: &quokka_crds::SaleStatus| {
        status.phase == Some(Phase::Active)
            && status.stock.as_ref().is_some_and(|stock| stock.total == 5)
    };
    world.until::<TimeSale>("jeju", grown).await;
    world
        .change::<TimeSale>("jeju", json!({ "paused": true }))
        .await;
    world
        .until::<TimeSale>("jeju", |status| {
            status.phase == Some(Phase::Paused) && is_ready(status)
        })
        .await;
    eventually(PATIENCE, async || {
        world.claim("time-sales", "jeju").await.1 == "PAUSED"
    })
    .await;
    world
        .change::<TimeSale>("jeju", json!({ "paused": false }))
        .await;
    let status = world
        .until::<TimeSale>("jeju", |status| {
            status.phase == Some(Phase::Active) && is_ready(status)
        })
        .await;
    assert_eq!(condition(&status, "Consistent"), "True/BooksAgree");
    assert_eq!(status.observed_generation, Some(4));

    world.delete::<TimeSale>("jeju").await;
    world.until_gone::<TimeSale>("jeju").await;
    let books = world.books(uid_of(&sale)).await;
    assert_eq!(
        (books.closed, books.drained, books.stock.claimed.0),
        (true, true, 3),
        "the books outlive the sale"
    );
    let snapshot = world.stock().snapshot(uid_of(&sale)).await.unwrap();
    assert_eq!((snapshot.gate, snapshot.claimed), (None, 0));
    let told = world.told(&uid).await;
    let expected = [
        "TopicCreated",
        "Warming",
        "Opened",
        "SoldOut",
        "BackInStock",
        "Paused",
        "Resumed",
        "Removed",
    ]
    .map(str::to_owned);
    assert_eq!(told, expected);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_ends_at_its_end() {
    let world = World::new().await;
    let _operator = world.operator();
    let sale: TimeSale = world.create(time_sale("short", 3, 0, 30)).await;
    world.sell("time-sales", "short", 2).await;
    let status = world.until::<TimeSale>("short", is_in(Phase::Ended)).await;
    assert!(status.phase_since >= Some(sale.spec.ends));
    assert_eq!(world.claim("time-sales", "short").await.1, "ENDED");
    let told = world.told(&sale.uid().unwrap()).await;
    assert_eq!(told.last().unwrap(), "Ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_finds_nothing_new_writes_nothing() {
    let world = World::new().await;
    let operator = world.operator();
    let made: CouponCampaign = world.create(campaign("quiet", 10)).await;
    world.sell("coupon-campaigns", "quiet", 2).await;
    let settled = |status: &quokka_crds::SaleStatus| {
        is_ready(status)
            && status
                .stock
                .as_ref()
                .is_some_and(|stock| stock.claimed == 2)
    };
    world.until::<CouponCampaign>("quiet", settled).await;
    let version = async || {
        world
            .sales::<CouponCampaign>()
            .get("quiet")
            .await
            .unwrap()
            .resource_version()
    };
    let before = version().await;
    let told = world.told(&made.uid().unwrap()).await;

    // A change that means nothing makes the controller look; a new operator looks at everything.
    operator.stop().await;
    let looks = looks_of("CouponCampaign", "unchanged");
    let operator = world.operator();
    eventually(PATIENCE, async || {
        looks_of("CouponCampaign", "unchanged") >= looks + 4.0
    })
    .await;
    assert_eq!(version().await, before);
    assert_eq!(
        world.told(&made.uid().unwrap()).await,
        told,
        "nothing is told twice"
    );
    operator.stop().await;
}

/// How many looks came to what, in this process.
pub(crate) fn looks_of(kind: &str, outcome: &str) -> f64 {
    let labels = format!("{{kind=\"{kind}\",outcome=\"{outcome}\"}}");
    let shown = chassis::metrics::render().unwrap();
    let line = shown.lines().find(|line| {
        line.starts_with("quokka_operator_reconciliations_total") && line.contains(&labels)
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_opens_with_the_operator_dead() {
    let world = World::new().await;
    let operator = world.operator();
    let sale: TimeSale = world.create(time_sale("alone", 3, LEAD, 3_600)).await;
    world.until::<TimeSale>("alone", is_ready).await;
    operator.kill().await;
    world.sell("time-sales", "alone", 3).await;
    assert_eq!(world.claim("time-sales", "alone").await.1, "SOLD_OUT");
    assert_eq!(
        world.status::<TimeSale>("alone").await.started_at,
        None,
        "nobody has looked"
    );

    let _operator = world.operator();
    let status = world
        .until::<TimeSale>("alone", is_in(Phase::SoldOut))
        .await;
    assert_eq!(status.started_at, Some(sale.spec.starts));
    let told = world.told(&sale.uid().unwrap()).await;
    assert_eq!(told, ["TopicCreated", "Warming", "Opened", "SoldOut"]);
}
