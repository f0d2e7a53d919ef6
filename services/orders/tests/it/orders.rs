//! `/v1/orders`.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::{Guest, LONG, Platform, day, id_of, total, wish};

#[tokio::test]
async fn a_key_is_needed_and_makes_one_order() {
    let platform = Platform::with(LONG, 2).await;
    let guest = platform.guest();
    let body = wish(Uuid::from_u128(1));
    let without = platform
        .request(&guest, Method::POST, "/v1/orders")
        .json(&body);
    platform
        .send(without)
        .await
        .is(400, "IDEMPOTENCY_KEY_MISSING");

    let first = platform.order_with_key(&guest, "key", &body).await.ok(201);
    let again = platform.order_with_key(&guest, "key", &body).await.ok(201);
    assert_eq!(first, again);
    let mut other = body.clone();
    other["guests"] = json!(1);
    platform
        .order_with_key(&guest, "key", &other)
        .await
        .is(422, "IDEMPOTENCY_KEY_REUSED");

    // The answer is forgotten, as after its time or a crash before it was kept: the order isn't made twice.
    sqlx::query("DELETE FROM idempotency_keys")
        .execute(&platform.pool)
        .await
        .unwrap();
    let asked = platform.peers.asked.load(Ordering::SeqCst);
    let known = platform.order_with_key(&guest, "key", &body).await.ok(201);
    assert_eq!(known["orderId"], first["orderId"]);
    platform
        .order_with_key(&guest, "key", &other)
        .await
        .is(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(platform.peers.asked.load(Ordering::SeqCst), asked);

    let of_another = platform
        .order_with_key(&platform.guest(), "key", &body)
        .await
        .ok(201);
    assert_ne!(of_another["orderId"], first["orderId"]);
}

#[tokio::test]
async fn an_order_is_told_whole() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let mut placed = platform
        .order(&guest, &wish(Uuid::from_u128(1)))
        .await
        .ok(201);
    for field in ["orderId", "createdAt", "expiresAt"] {
        assert!(placed[field].take().is_string(), "{field}");
    }
    let night = |from_today| {
        let date = day(from_today);
        json!({"date": date, "amount": 100_001, "originalAmount": 100_001, "discount": "NONE"})
    };
    let expected = json!({
        "orderId": null, "createdAt": null, "expiresAt": null, "status": "PENDING", "amount": total(),
        "originalAmount": total(), "discounts": [], "roomTypeId": Uuid::from_u128(1), "stayId": Uuid::from_u128(2),
        "stayName": "Sea view", "region": "jeju", "checkIn": day(30), "checkOut": day(32), "guests": 2,
        "cancellation": "MODERATE", "nights": [night(30), night(31)], "payment": {"status": "NONE", "captured": 0},
    });
    assert_eq!(placed, expected);
}

#[tokio::test]
async fn what_can_not_be_ordered_is_told_why() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let cases = [
        (404, "ROOM_TYPE_NOT_FOUND", 404, "ROOM_TYPE_NOT_FOUND"),
        (409, "UNAVAILABLE", 409, "UNAVAILABLE"),
        (422, "TOO_MANY_GUESTS", 422, "TOO_MANY_GUESTS"),
        (400, "INVALID_REQUEST", 400, "INVALID_REQUEST"),
        (403, "ODD", 500, "INTERNAL"),
    ];
    for (room_type, (said, peer_code, status, code)) in (10..).zip(cases) {
        let room_type = Uuid::from_u128(room_type);
        platform.peers.refuse(room_type, said, peer_code);
        platform
            .order(&guest, &wish(room_type))
            .await
            .is(status, code);
    }

    let sale = platform.peers.claim(
        guest.user_id,
        "TIME_SALE",
        json!({"target": {"regions": ["busan"]}}),
    );
    let coupon = platform.peers.claim(
        guest.user_id,
        "COUPON",
        json!({"minOrderAmount": total() + 1}),
    );
    let elsewhere = platform
        .peers
        .claim(guest.user_id, "COUPON", json!({"regions": ["busan"]}));
    let of_another = platform.peers.claim(Uuid::now_v7(), "COUPON", json!({}));
    let cases = [
        ("couponId", json!(coupon), 422, "COUPON_NOT_APPLICABLE"),
        ("couponId", json!(elsewhere), 422, "COUPON_NOT_APPLICABLE"),
        ("couponId", json!(of_another), 404, "COUPON_NOT_FOUND"),
        ("couponId", json!(sale), 404, "COUPON_NOT_FOUND"),
        ("timeSaleClaimId", json!(sale), 422, "CLAIM_NOT_APPLICABLE"),
        ("timeSaleClaimId", json!(coupon), 404, "CLAIM_NOT_FOUND"),
        ("checkIn", json!(day(-1)), 400, "INVALID_REQUEST"),
        ("checkOut", json!(day(30)), 400, "INVALID_REQUEST"),
        ("checkOut", json!(day(61)), 400, "INVALID_REQUEST"),
        ("checkOut", json!("soon"), 400, "INVALID_REQUEST"),
        ("guests", json!(0), 400, "INVALID_REQUEST"),
        ("breakfast", json!(true), 400, "INVALID_REQUEST"),
    ];
    for (field, value, status, code) in cases {
        let mut body = wish(Uuid::from_u128(1));
        body[field] = value;
        let answer = platform.order(&guest, &body).await;
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (status, Some(code)),
            "{body}: {:?}",
            answer.body
        );
    }
    let nobody = Guest {
        token: "no token".to_owned(),
        ..guest
    };
    platform
        .order(&nobody, &wish(Uuid::from_u128(1)))
        .await
        .is(401, "UNAUTHENTICATED");
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM orders")
        .fetch_one(&platform.pool)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn a_guest_reads_own_orders_page_by_page() {
    let platform = Platform::start().await;
    let guest = platform.guest();
    let mut orders = Vec::new();
    for _ in 0..5 {
        orders.push(platform.placed(&guest).await);
    }
    platform.placed(&platform.guest()).await;
    let mut read = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/orders?pageSize=2&pageToken={token}");
        let page = platform
            .send(platform.request(&guest, Method::GET, &path))
            .await
            .ok(200);
        read.extend(page["items"].as_array().unwrap().iter().map(id_of));
        match &page["nextPageToken"] {
            Value::String(next) => token.clone_from(next),
            _ => break,
        }
    }
    orders.reverse();
    assert_eq!(read, orders, "latest first, each once");

    let path = format!("/v1/orders/{}", orders[0]);
    let other = platform.guest();
    platform
        .send(platform.request(&other, Method::GET, &path))
        .await
        .is(404, "ORDER_NOT_FOUND");
    let wrong = platform.request(&guest, Method::GET, "/v1/orders?pageToken=x");
    platform.send(wrong).await.is(400, "INVALID_REQUEST");
}
