//! What orders asks.

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, date};

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_has_the_price_of_every_night() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    let path = format!("/v1/room-types/{room}/calendar");
    let nights = json!({"nights": [
        {"date": date(1), "price": 120_000, "discount": {"percent": 10}, "allotment": 3},
        {"date": date(2), "price": 130_000, "discount": {"amount": 5_000}, "allotment": 3},
        {"date": date(3), "price": 140_000, "allotment": 3, "minNights": 3},
        {"date": date(4), "price": 140_000, "allotment": 0},
    ]});
    world
        .as_host(host, Method::PUT, &path, &nights)
        .await
        .ok(200);
    let quote = async |room: Uuid, from: i32, to: i32, guests: u16| {
        let (from, to) = (date(from), date(to));
        let query = format!("roomTypeId={room}&checkIn={from}&checkOut={to}&guests={guests}");
        world
            .internal(&format!("/internal/v1/quotes?{query}"))
            .await
    };
    assert_eq!(
        quote(room, 1, 4, 2).await.ok(200),
        json!({
            "roomTypeId": room, "stayId": stay, "hostId": host, "region": "jeju",
            "name": "애월 바다 펜션 스탠다드", "capacity": 2, "cancellation": "FLEXIBLE", "nights": [
                {"date": date(1), "price": 120_000, "ownDiscount": {"percent": 10}},
                {"date": date(2), "price": 130_000, "ownDiscount": {"amount": 5_000}},
                {"date": date(3), "price": 140_000, "ownDiscount": null},
            ],
        })
    );
    let none = Uuid::new_v4();
    quote(none, 1, 2, 2)
        .await
        .is_problem(404, "ROOM_TYPE_NOT_FOUND");
    quote(room, 1, 2, 3)
        .await
        .is_problem(422, "TOO_MANY_GUESTS");
    for (from, to) in [(2, 4), (1, 5), (4, 6), (100, 101)] {
        quote(room, from, to, 1)
            .await
            .is_problem(409, "UNAVAILABLE");
    }
    for (from, to) in [(2, 1), (1, 1), (-1, 1), (1, 32)] {
        quote(room, from, to, 1)
            .await
            .is_problem(400, "INVALID_REQUEST");
    }
    quote(room, 1, 2, 0)
        .await
        .is_problem(400, "INVALID_REQUEST");
    let outside = world.get("/internal/v1/quotes").await;
    outside.is_problem(404, "NOT_FOUND");
}
