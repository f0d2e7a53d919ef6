//! Prices while time sales are on.

use jiff::{SignedDuration, Timestamp};
use sale_stock::discounts::SaleDiscount;
use serde_json::{Value, json};
use stays::config::SearchBy;
use testkit::eventually;
use uuid::Uuid;

use crate::world::{PATIENCE, World, date};

fn sale(id: &str, more: Value) -> SaleDiscount {
    let now = Timestamp::now();
    let mut sale = json!({
        "saleId": id, "percent": 40, "target": {"regions": ["jeju"]},
        "startsAt": now - SignedDuration::from_secs(60), "endsAt": now + SignedDuration::from_hours(1),
    });
    for (name, value) in more.as_object().unwrap() {
        sale[name] = value.clone();
    }
    serde_json::from_value(sale).unwrap()
}

async fn price(world: &World, path: &str) -> Value {
    let body = world.get(path).await.ok(200);
    body["items"][0]["lowestPrice"].clone()
}

async fn until_price(world: &World, path: &str, wanted: Value) {
    eventually(PATIENCE, async || {
        let is = price(world, path).await;
        if is == wanted { Ok(()) } else { Err(is) }
    })
    .await;
}

async fn a_sale_lowers_prices_while_it_is_on(search_by: SearchBy) {
    let world = World::with(search_by).await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    world.offer(host, room, 1..10, (100_001, 3)).await;
    let path = format!("/v1/stays?checkIn={}&checkOut={}", date(2), date(4));
    world.until_found(&path, &[stay]).await;
    let full = json!({"amount": 200_002, "originalAmount": 200_002, "perNight": 100_001, "discount": null});
    assert_eq!(price(&world, &path).await, full);

    // Of one night only, rounded night by night.
    let night = json!({"stayDates": {"from": date(3), "to": date(9)}});
    world.discounts.put(&sale("night", night)).await.unwrap();
    let discount =
        |percent: i64, id: &str| json!({"kind": "TIME_SALE", "percent": percent, "timeSaleId": id});
    let one = json!({
        "amount": 160_002, "originalAmount": 200_002, "perNight": 80_001, "discount": discount(20, "night"),
    });
    until_price(&world, &path, one.clone()).await;

    // Two sales don't add up, even if they cover different nights: a guest has one claim.
    let first = json!({"stayDates": {"from": date(2), "to": date(2)}, "percent": 41});
    world.discounts.put(&sale("first", first)).await.unwrap();
    let other = json!({
        "amount": 159_002, "originalAmount": 200_002, "perNight": 79_501, "discount": discount(20, "first"),
    });
    until_price(&world, &path, other).await;
    world.discounts.remove("first").await.unwrap();
    until_price(&world, &path, one).await;
    world.discounts.remove("night").await.unwrap();
    until_price(&world, &path, full.clone()).await;

    for target in [
        json!({"stayIds": [stay]}),
        json!({"roomTypeIds": [room, "none"]}),
    ] {
        let amount = json!({"percent": null, "amount": 30_000, "target": target});
        let mut off = sale("jeju", json!({}));
        let put: Value = serde_json::to_value(&off).unwrap();
        let mut put = put;
        put.as_object_mut().unwrap().remove("percent");
        put["amount"] = amount["amount"].clone();
        put["target"] = target.clone();
        off = serde_json::from_value(put).unwrap();
        world.discounts.put(&off).await.unwrap();
        let lower = json!({
            "amount": 140_002, "originalAmount": 200_002, "perNight": 70_001, "discount": discount(30, "jeju"),
        });
        until_price(&world, &path, lower).await;
        world.discounts.remove("jeju").await.unwrap();
        until_price(&world, &path, full.clone()).await;
    }
    let elsewhere = json!({"target": {"regions": ["busan"]}});
    world
        .discounts
        .put(&sale("busan", elsewhere))
        .await
        .unwrap();
    let later = json!({"startsAt": Timestamp::now() + SignedDuration::from_hours(1),
        "endsAt": Timestamp::now() + SignedDuration::from_hours(2)});
    world.discounts.put(&sale("later", later)).await.unwrap();
    world.discounts.put(&sale("over", json!({}))).await.unwrap();
    eventually(PATIENCE, async || price(&world, &path).await != full).await;
    let soon_over = json!({"endsAt": Timestamp::now() + SignedDuration::from_secs(1)});
    world.discounts.put(&sale("over", soon_over)).await.unwrap();
    // Nobody does anything when it ends.
    until_price(&world, &path, full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_lowers_the_prices_that_the_index_finds() {
    a_sale_lowers_prices_while_it_is_on(SearchBy::Index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_lowers_the_prices_that_postgresql_finds() {
    a_sale_lowers_prices_while_it_is_on(SearchBy::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_shows_its_lowest_price() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    world.offer(host, room, 1..4, (100_000, 3)).await;
    let night = json!({"stayDates": {"from": date(2), "to": date(2)}});
    world.discounts.put(&sale("night", night)).await.unwrap();
    let path = format!(
        "/v1/stays/{stay}/availability?from={}&to={}",
        date(1),
        date(3)
    );
    let full = json!({"amount": 100_000, "originalAmount": 100_000, "discount": null});
    let lower = json!({
        "amount": 60_000, "originalAmount": 100_000,
        "discount": {"kind": "TIME_SALE", "percent": 40, "timeSaleId": "night"},
    });
    eventually(PATIENCE, async || {
        let body = world.get(&path).await.ok(200);
        let nights = body["roomTypes"][0]["nights"].as_array().unwrap();
        let prices: Vec<Value> = nights
            .iter()
            .map(|night| night["lowestPrice"].clone())
            .collect();
        if prices == [full.clone(), lower.clone(), full.clone()] {
            Ok(())
        } else {
            Err(prices)
        }
    })
    .await;
}
