//! What goes to booking and what comes from it, over Kafka.

use std::collections::HashMap;
use std::time::Duration;

use events::consumer::{BatchConsumer, ConsumerSettings};
use events::saga::{
    AVAILABILITY, AvailabilityChanged, CALENDAR, CalendarChanged, Envelope, RoomTypeId, RoomsLeft,
};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use testkit::{eventually, unique_name};
use uuid::Uuid;

use crate::world::{PATIENCE, World, date};

/// What booking says is left of a night.
async fn tell(world: &World, room: Uuid, version: i64, nights: &[(i32, u32)]) {
    let body = AvailabilityChanged {
        room_type_id: RoomTypeId(room),
        version,
        nights: nights
            .iter()
            .map(|(day, left)| RoomsLeft {
                date: date(*day),
                left: *left,
            })
            .collect(),
    };
    let envelope = Envelope {
        id: Uuid::now_v7(),
        body,
    };
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .create()
        .unwrap();
    let payload = serde_json::to_string(&envelope).unwrap();
    let key = room.to_string();
    let record = FutureRecord::to(AVAILABILITY).key(&key).payload(&payload);
    producer
        .send(record, Duration::from_secs(30))
        .await
        .unwrap();
}

async fn left(world: &World, stay: Uuid, day: i32) -> u64 {
    let path = format!("/v1/stays/{stay}/availability?from={0}&to={0}", date(day));
    let body = world.get(&path).await.ok(200);
    body["roomTypes"][0]["nights"][0]["roomsLeft"]
        .as_u64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booked_out_night_is_not_found_and_comes_back_when_it_is_freed() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    world.offer(host, room, 1..5, (100_000, 3)).await;
    let path = format!("/v1/stays?checkIn={}&checkOut={}", date(2), date(4));
    world.until_found(&path, &[stay]).await;
    tell(&world, room, 1, &[(2, 0)]).await;
    world.until_found(&path, &[]).await;
    let other = format!("/v1/stays?checkIn={}&checkOut={}", date(3), date(5));
    assert_eq!(world.get(&other).await.ids(), [stay]);
    assert_eq!(left(&world, stay, 2).await, 0);
    tell(&world, room, 2, &[(2, 1), (3, 2)]).await;
    world.until_found(&path, &[stay]).await;
    assert_eq!(
        (left(&world, stay, 2).await, left(&world, stay, 3).await),
        (1, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_message_changes_nothing_and_more_than_is_offered_is_never_shown() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    world.offer(host, room, 1..4, (100_000, 5)).await;
    tell(&world, room, 7, &[(1, 2)]).await;
    tell(&world, room, 6, &[(1, 4), (2, 4)]).await;
    // A night of no calendar, and one that is no date.
    tell(&world, room, 8, &[(3, 3), (50, 1)]).await;
    eventually(PATIENCE, async || left(&world, stay, 3).await == 3).await;
    assert_eq!(left(&world, stay, 1).await, 2, "the later version stays");
    assert_eq!(left(&world, stay, 2).await, 4, "each night by itself");
    world.offer(host, room, 1..4, (100_000, 1)).await;
    assert_eq!(left(&world, stay, 3).await, 1);
    world.offer(host, room, 1..4, (100_000, 9)).await;
    assert_eq!(left(&world, stay, 3).await, 3, "until booking says more");
}

#[tokio::test(flavor = "multi_thread")]
async fn booking_hears_of_every_calendar_in_the_order_of_its_versions() {
    let world = World::new().await;
    let host = Uuid::new_v4();
    let stay = world.stay(host, "애월 바다 펜션").await;
    let room = world.room_type(host, stay).await;
    for rooms in 1..=5 {
        world.offer(host, room, 1..3, (100_000, rooms)).await;
    }
    let group = unique_name("booking");
    let consumer =
        BatchConsumer::new(&ConsumerSettings::new(&world.brokers, &group, &group)).unwrap();
    consumer.subscribe(&[CALENDAR]).unwrap();
    let mut heard: HashMap<Uuid, Vec<CalendarChanged>> = HashMap::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while heard.get(&room).is_none_or(|heard| heard.len() < 5) {
        assert!(tokio::time::Instant::now() < deadline, "{heard:?}");
        let wait = Duration::from_secs(1);
        for batch in consumer
            .next_batch(100, 1 << 20, wait)
            .await
            .unwrap_or_default()
        {
            for record in batch.records {
                let envelope: Envelope<CalendarChanged> =
                    serde_json::from_slice(&record.value).unwrap();
                let of = envelope.body.room_type_id.0;
                heard.entry(of).or_default().push(envelope.body);
            }
        }
    }
    let heard = &heard[&room];
    let versions: Vec<i64> = heard.iter().map(|changed| changed.version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
    let last = &heard[4];
    assert_eq!(last.stay_id, stay);
    let nights: Vec<(String, u32)> = last
        .nights
        .iter()
        .map(|night| (night.date.clone(), night.allotment))
        .collect();
    assert_eq!(nights, [(date(1), 5), (date(2), 5)]);
}
