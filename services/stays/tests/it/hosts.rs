//! What hosts make and change.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, date, stay_body};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_makes_a_stay_with_a_room_type_and_a_calendar() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    let path = format!("/v1/room-types/{room}/calendar");
    let nights = json!({"nights": [
        {"date": date(1), "price": 120_000, "allotment": 3, "minNights": 2},
        {"date": date(2), "price": 100_001, "discount": {"percent": 10}, "allotment": 1},
        {"date": date(3), "price": 90_000, "discount": {"amount": 5_000}, "allotment": 0},
    ]});
    let answer = world.as_host(host, Method::PUT, &path, &nights).await;
    assert_eq!(
        answer.ok(200),
        json!({"roomTypeId": room, "version": 1, "nights": 3})
    );
    let again = world.as_host(host, Method::PUT, &path, &nights).await;
    assert_eq!(again.ok(200)["version"], 2);

    assert_eq!(
        world.get(&format!("/v1/stays/{stay}")).await.ok(200),
        json!({
            "id": stay, "hostId": host, "name": "애월 바다 펜션", "nameEn": "Aewol Ocean Pension",
            "description": "바다 앞", "region": "jeju", "address": "제주시 애월읍", "lat": 33.462, "lng": 126.309,
            "amenities": ["wifi", "ocean-view"], "rating": null, "reviews": 0, "cancellation": "FLEXIBLE",
            "roomTypes": [{"id": room, "name": "스탠다드", "nameEn": "Standard", "capacity": 2}],
        })
    );
    let path = format!(
        "/v1/stays/{stay}/availability?from={}&to={}",
        date(1),
        date(5)
    );
    let night = |days, left, min_nights, (amount, original): (i64, i64), discount: Value| {
        json!({
            "date": date(days), "roomsLeft": left, "minNights": min_nights,
            "lowestPrice": {"amount": amount, "originalAmount": original, "discount": discount},
        })
    };
    assert_eq!(
        world.get(&path).await.ok(200),
        json!({
            "stayId": stay, "from": date(1), "to": date(5),
            "roomTypes": [{"id": room, "name": "스탠다드", "capacity": 2, "nights": [
                night(1, 3, 2, (120_000, 120_000), Value::Null),
                night(2, 1, 1, (90_001, 100_001), json!({"kind": "OWN", "percent": 10})),
                night(3, 0, 1, (85_000, 90_000), json!({"kind": "OWN", "percent": 6})),
            ]}],
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_host_of_a_stay_changes_it() {
    let world = World::new().await;
    let (host, other) = (Uuid::new_v4(), Uuid::new_v4());
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    let room_types = format!("/v1/stays/{stay}/room-types");
    let calendar = format!("/v1/room-types/{room}/calendar");
    let room_type = json!({"name": "스위트", "capacity": 2});
    let nights = json!({"nights": [{"date": date(1), "price": 1, "allotment": 1}]});
    for (method, path, body) in [
        (Method::POST, "/v1/stays", &stay_body("펜션")),
        (Method::POST, &room_types, &room_type),
        (Method::PUT, &calendar, &nights),
    ] {
        let guest = world
            .call((host, &["guest"]), method.clone(), path, body)
            .await;
        guest.is_problem(403, "FORBIDDEN");
        let nobody = world.send(world.request(method, path).json(body)).await;
        nobody.is_problem(401, "UNAUTHENTICATED");
    }
    let answer = world
        .as_host(other, Method::POST, &room_types, &room_type)
        .await;
    answer.is_problem(403, "NOT_YOUR_STAY");
    let answer = world.as_host(other, Method::PUT, &calendar, &nights).await;
    answer.is_problem(403, "NOT_YOUR_STAY");
    let none = Uuid::new_v4();
    let path = format!("/v1/stays/{none}/room-types");
    let answer = world.as_host(host, Method::POST, &path, &room_type).await;
    answer.is_problem(404, "STAY_NOT_FOUND");
    let path = format!("/v1/room-types/{none}/calendar");
    let answer = world.as_host(host, Method::PUT, &path, &nights).await;
    answer.is_problem(404, "ROOM_TYPE_NOT_FOUND");
    let path = format!("/v1/stays/{none}");
    world.get(&path).await.is_problem(404, "STAY_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_offered_is_refused_with_every_reason() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "펜션").await;
    let room = world.room_type(host, stay).await;
    let path = format!("/v1/room-types/{room}/calendar");
    let nights = json!({"nights": [
        {"date": date(-1), "price": 0, "allotment": 20_000, "minNights": 31, "discount": {"amount": 0}},
        {"date": date(366), "price": 1, "allotment": 1},
        {"date": date(365), "price": 1, "allotment": 1},
        {"date": date(365), "price": 1, "allotment": 1},
    ]});
    let answer = world.as_host(host, Method::PUT, &path, &nights).await;
    answer.is_problem(400, "INVALID_REQUEST");
    let places: Vec<&str> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "#/nights/0/date",
            "#/nights/0/price",
            "#/nights/0/discount",
            "#/nights/0/allotment",
            "#/nights/0/minNights",
            "#/nights/1/date",
            "#/nights/3/date"
        ]
    );
    for night in [
        json!({"date": "2026-02-30", "price": 1, "allotment": 1}),
        json!({"date": date(1), "price": -1, "allotment": 1}),
        json!({"date": date(1), "price": 1, "allotment": 1, "discount": {"percent": 100}}),
        json!({"date": date(1), "price": 1, "allotment": 1, "colour": "red"}),
    ] {
        let answer = world
            .as_host(host, Method::PUT, &path, &json!({"nights": [night]}))
            .await;
        answer.is_problem(400, "INVALID_REQUEST");
    }
    let mut bad = stay_body(" ");
    bad["lat"] = json!(91);
    let answer = world.as_host(host, Method::POST, "/v1/stays", &bad).await;
    answer.is_problem(400, "INVALID_REQUEST");
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 2);
    bad["region"] = json!("atlantis");
    let answer = world.as_host(host, Method::POST, "/v1/stays", &bad).await;
    answer.is_problem(400, "INVALID_REQUEST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_makes_one_stay_even_when_its_answer_was_lost() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let post = async || {
        let body = stay_body("애월 바다 펜션");
        let token = world.host_token(host);
        let request = world
            .request(Method::POST, "/v1/stays")
            .bearer_auth(token)
            .header("idempotency-key", "one")
            .json(&body);
        world.send(request).await
    };
    let first = post().await.id();
    assert_eq!(post().await.id(), first);
    sqlx::query("DELETE FROM idempotency_keys")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(post().await.id(), first);
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM stays")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(count, 1);
}
