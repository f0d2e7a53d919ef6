//! Many sales at once.

use kube::api::PostParams;
use quokka_crds::TimeSale;
use testkit::eventually;

use crate::{
    life::looks_of,
    world::{PATIENCE, World, is_ready, time_sale},
};

/// Enough that looks without bounds, or looks that cause looks, would show.
const SALES: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn many_sales_are_set_up_and_then_left_in_peace() {
    let world = World::new().await;
    let _operator = world.operator();
    let sales = world.sales::<TimeSale>();
    for number in 0..SALES {
        let far = time_sale(&format!("sale-{number}"), 10, 86_400, 3_600);
        sales
            .create(
                &PostParams::default(),
                &serde_json::from_value(far).unwrap(),
            )
            .await
            .unwrap();
    }
    let ready = async || {
        let all = sales.list(&Default::default()).await.unwrap();
        let ready = all
            .iter()
            .filter(|sale| sale.status.as_ref().is_some_and(is_ready))
            .count();
        if ready == SALES {
            Ok(all.metadata.resource_version)
        } else {
            Err(format!("{ready} of {SALES} are ready"))
        }
    };
    eventually(PATIENCE * 2, ready).await;
    let versions = async || {
        let all = sales.list(&Default::default()).await.unwrap();
        all.into_iter()
            .map(|sale| sale.metadata.resource_version)
            .collect::<Vec<_>>()
    };
    let before = versions().await;
    let looks = looks_of("TimeSale", "unchanged");
    eventually(PATIENCE * 2, async || {
        looks_of("TimeSale", "unchanged") >= looks + 2.0 * SALES as f64
    })
    .await;
    assert_eq!(versions().await, before, "looks wrote something");
}
