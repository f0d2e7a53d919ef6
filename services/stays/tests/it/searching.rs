//! Searches as guests make them.

use reqwest::Method;
use serde_json::{Value, json};
use stays::config::SearchBy;
use testkit::eventually;
use uuid::Uuid;

use crate::world::{PATIENCE, World, date, stay_body};

async fn stay_at(world: &World, host: Uuid, more: Value, price: i64) -> Uuid {
    let mut body = stay_body("애월 바다 펜션");
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = world.as_host(host, Method::POST, "/v1/stays", &body).await;
    let id = answer.id();
    answer.ok(201);
    let room = world.room_type(host, id).await;
    world.offer(host, room, 0..6, (price, 1)).await;
    id
}

async fn guests_find_what_they_ask_for(search_by: SearchBy) {
    let world = World::with(search_by).await;
    let host = Uuid::new_v4();
    let jeju = stay_at(&world, host, json!({}), 100_000).await;
    let seoul = json!({
        "name": "명동 호텔", "nameEn": "Myeongdong Hotel 100%", "region": "seoul", "lat": 37.56, "lng": 126.98,
        "address": "", "amenities": ["wifi", "gym"],
    });
    let seoul = stay_at(&world, host, seoul, 80_000).await;
    let busan = json!({
        "name": "해운대 Hotel", "nameEn": "", "region": "busan", "lat": 35.16, "lng": 129.16, "amenities": [],
    });
    let busan = stay_at(&world, host, busan, 90_000).await;
    world.until_found("/v1/stays", &[seoul, busan, jeju]).await;

    for (query, found) in [
        ("region=jeju", vec![jeju]),
        ("region=daegu", vec![]),
        ("amenities=wifi", vec![seoul, jeju]),
        ("amenities=wifi,gym", vec![seoul]),
        ("q=HOTEL", vec![seoul, busan]),
        ("q=호텔", vec![seoul]),
        ("q=%EC%84%9C%EC%9A%B8+hot", vec![seoul]),
        ("q=0%25", vec![seoul]),
        ("q=o_e", vec![]),
        ("q=제주특별", vec![jeju]),
        ("minPrice=90000", vec![busan, jeju]),
        ("minPrice=80001&maxPrice=90000", vec![busan]),
        ("guests=2", vec![seoul, busan, jeju]),
        ("guests=3", vec![]),
        ("sort=rating", vec![jeju, seoul, busan]),
        ("sort=distance&lat=35.2&lng=129.0", vec![busan, jeju, seoul]),
        ("pageSize=2", vec![seoul, busan]),
    ] {
        let answer = world.get(&format!("/v1/stays?{query}")).await;
        assert_eq!(answer.ids(), found, "{query}");
    }
    let dates = format!("/v1/stays?checkIn={}&checkOut={}", date(2), date(6));
    assert_eq!(world.get(&dates).await.ids(), [seoul, busan, jeju]);
    let dates = format!("/v1/stays?checkIn={}&checkOut={}", date(2), date(7));
    let found = world.get(&dates).await.ids();
    assert!(found.is_empty(), "a night without a calendar");

    let near = world
        .get("/v1/stays?sort=distance&lat=33.463&lng=126.309&pageSize=1")
        .await;
    assert_eq!(
        near.ok(200)["items"][0],
        json!({
            "id": jeju, "name": "애월 바다 펜션", "nameEn": "Aewol Ocean Pension", "region": "jeju", "lat": 33.462,
            "lng": 126.309, "amenities": ["wifi", "ocean-view"], "rating": null, "reviews": 0,
            "roomTypeId": room_of(&world, jeju).await, "distanceMeters": 111,
            "lowestPrice": {"amount": 100_000, "originalAmount": 100_000, "perNight": 100_000, "discount": null},
        })
    );
}

async fn room_of(world: &World, stay: Uuid) -> Value {
    let body = world.get(&format!("/v1/stays/{stay}")).await.ok(200);
    body["roomTypes"][0]["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_find_what_they_ask_for_in_the_index() {
    guests_find_what_they_ask_for(SearchBy::Index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_find_what_they_ask_for_in_postgresql() {
    guests_find_what_they_ask_for(SearchBy::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused() {
    let world = World::new().await;
    let reversed = format!("checkIn={}&checkOut={}", date(3), date(2));
    let past = format!("checkIn={}&checkOut={}", date(-2), date(2));
    let long = format!("checkIn={}&checkOut={}", date(1), date(32));
    let half = format!("checkIn={}", date(1));
    for query in [
        "region=atlantis",
        "sort=colour",
        "sort=distance",
        "sort=distance&lat=91&lng=0",
        "sort=distance",
        "lat=33.4",
        "lat=33.4&lng=-181",
        "amenities=wifi,lift",
        "guests=0",
        "guests=51",
        "pageSize=0",
        "pageSize=101",
        "pageToken=nonsense",
        "q=a+b+c+d+e+f+g+h+i",
        "colour=red",
        "checkIn=2026-02-30&checkOut=2026-03-02",
        &reversed,
        &past,
        &long,
        &half,
    ] {
        let answer = world.get(&format!("/v1/stays?{query}")).await;
        answer.is_problem(400, "INVALID_REQUEST");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_one_another_and_a_token_is_of_its_search() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let mut all = Vec::new();
    for price in [50_000, 60_000, 60_000, 60_000, 70_000] {
        all.push(stay_at(&world, host, json!({}), price).await);
    }
    world.until_found("/v1/stays", &all).await;
    let mut found = Vec::new();
    let mut path = "/v1/stays?region=jeju&pageSize=2".to_owned();
    let mut token = None;
    for left in [3, 1, 0] {
        let answer = world.get(&path).await;
        found.extend(answer.ids());
        assert_eq!(found.len(), 5 - left);
        let next = answer.body["nextPageToken"].as_str().map(str::to_owned);
        assert_eq!(next.is_some(), left > 0);
        if let Some(next) = next {
            path = format!("/v1/stays?region=jeju&pageSize=2&pageToken={next}");
            token = Some(next);
        }
    }
    assert_eq!(found, all);
    let other = format!("/v1/stays?region=seoul&pageToken={}", token.unwrap());
    world.get(&other).await.is_problem(400, "INVALID_REQUEST");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_missed_is_read_when_its_connection_comes_back() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    world.offer(host, room, 0..3, (100_000, 1)).await;
    world.until_found("/v1/stays", &[stay]).await;
    // Nobody is told of this, as if the connection had been lost just before.
    sqlx::raw_sql(
        "UPDATE nights SET price = 70000; UPDATE room_types SET changed_at = clock_timestamp();",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let price = async || {
        let body = world.get("/v1/stays").await.ok(200);
        body["items"][0]["lowestPrice"]["amount"].as_i64().unwrap()
    };
    assert_eq!(price().await, 100_000);
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'stays' AND query LIKE 'LISTEN%'",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(ended, 1);
    eventually(PATIENCE, async || price().await == 70_000).await;
    world.offer(host, room, 0..3, (80_000, 1)).await;
    eventually(PATIENCE, async || price().await == 80_000).await;
}
