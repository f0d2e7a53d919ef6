//! What guests are told of their bookings.

use events::saga::{BookingCommand, OrderReply};
use serde_json::json;
use uuid::Uuid;

use crate::process::{Issuer, Process};
use crate::world::{World, day, hold, order, stay_of, user_of};

/// Nobody listens there: what guests ask needs no Kafka.
const NO_BROKERS: &str = "127.0.0.1:1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reads_his_own_bookings_and_no_others() {
    let (world, issuer) = (World::start().await, Issuer::start().await);
    let room_type = world.offered(3, 9).await;
    let (mine, others) = (order(), order());
    let mut bookings = Vec::new();
    for order_id in [mine, others] {
        world.ask(hold(order_id, room_type, 0, 3)).await;
        let OrderReply::BookingConfirmed { booking_id, .. } =
            world.ask(BookingCommand::Confirm { order_id }).await
        else {
            panic!("not confirmed")
        };
        bookings.push(booking_id);
    }
    let process = Process::start(&world.url, NO_BROKERS, &issuer).await;
    let token = issuer.tokens.token(user_of(mine));

    let (status, mut body) = process
        .get(&format!("/v1/bookings/{}", bookings[0]), Some(&token))
        .await;
    assert_eq!(status, 200);
    let created = body.as_object_mut().unwrap().remove("createdAt").unwrap();
    assert!(created.as_str().unwrap().ends_with('Z'), "{created}");
    let expected = json!({
        "bookingId": bookings[0], "orderId": mine, "stayId": stay_of(room_type), "roomTypeId": room_type,
        "checkIn": day(0), "checkOut": day(3), "guests": 2, "status": "CONFIRMED",
    });
    assert_eq!(body, expected);
    let (_, list) = process.get("/v1/bookings", Some(&token)).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["bookingId"], json!(bookings[0]));

    world.ask(BookingCommand::Release { order_id: mine }).await;
    let (_, body) = process
        .get(&format!("/v1/bookings/{}", bookings[0]), Some(&token))
        .await;
    assert_eq!(body["status"], "CANCELLED");
    assert!(body["cancelledAt"].is_string());

    for (path, token, status, code) in [
        (
            format!("/v1/bookings/{}", bookings[1]),
            Some(&*token),
            404,
            "BOOKING_NOT_FOUND",
        ),
        (
            format!("/v1/bookings/{}", Uuid::new_v4()),
            Some(&*token),
            404,
            "BOOKING_NOT_FOUND",
        ),
        (
            "/v1/bookings/none".to_owned(),
            Some(&*token),
            400,
            "INVALID_REQUEST",
        ),
        (
            "/v1/bookings?size=2".to_owned(),
            Some(&*token),
            400,
            "INVALID_REQUEST",
        ),
        ("/v1/bookings".to_owned(), None, 401, "UNAUTHENTICATED"),
    ] {
        let (answered, body) = process.get(&path, token).await;
        assert_eq!((answered, &body["code"]), (status, &json!(code)), "{path}");
    }
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_paged_with_the_newest_first() {
    let (world, issuer) = (World::start().await, Issuer::start().await);
    let room_type = world.offered(1, 9).await;
    let user = Uuid::new_v4();
    let mut expected = Vec::new();
    for _ in 0..5 {
        let order_id = order();
        let mut command = hold(order_id, room_type, 0, 1);
        if let BookingCommand::Hold { user_id, .. } = &mut command {
            *user_id = user;
        }
        world.ask(command).await;
        let OrderReply::BookingConfirmed { booking_id, .. } =
            world.ask(BookingCommand::Confirm { order_id }).await
        else {
            panic!("not confirmed")
        };
        expected.insert(0, json!(booking_id));
    }
    let process = Process::start(&world.url, NO_BROKERS, &issuer).await;
    let token = issuer.tokens.token(user);
    let (mut seen, mut path) = (Vec::new(), "/v1/bookings?pageSize=2".to_owned());
    loop {
        let (status, page) = process.get(&path, Some(&token)).await;
        assert_eq!(status, 200);
        let items = page["items"].as_array().unwrap();
        assert!((1..=2).contains(&items.len()));
        seen.extend(items.iter().map(|item| item["bookingId"].clone()));
        let Some(next) = page["nextPageToken"].as_str() else {
            break;
        };
        path = format!("/v1/bookings?pageSize=2&pageToken={next}");
    }
    assert_eq!(seen, expected);
    assert!(
        process
            .metrics()
            .await
            .contains("quokka_outbox_oldest_seconds")
    );
}
