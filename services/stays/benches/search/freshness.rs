//! How old what a search shows may be: booking says over Kafka that a night is sold out, and searches are asked until
//! none shows it any more.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use events::saga::{AVAILABILITY, AvailabilityChanged, Envelope, RoomTypeId, RoomsLeft};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use stays::calendar::Day;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::client::Connection;
use crate::stage::{Service, Stage};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two searches for a night that is sold out.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// Stays with one room type, so that one message changes what is found.
const VICTIMS: &str = "
    SELECT s.stay_id, min(r.room_type_id::text)::uuid, s.region, s.latitude, s.longitude
    FROM stays s JOIN room_types r USING (stay_no)
    GROUP BY s.stay_no HAVING count(*) = 1 ORDER BY md5(s.stay_no::text) LIMIT $1";

/// What is sold out.
struct Victim {
    stay: Uuid,
    room_type: Uuid,
    day: Day,
    /// Finds it first.
    path: String,
}

/// Sells out nights of as many stays, one after another, for as long as `time`; answers how long each was found
/// afterwards, in order.
pub(crate) async fn measure(
    stage: &Stage,
    index: &Service,
    most: usize,
    time: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &stage.brokers)
        .set("linger.ms", "0")
        .create()?;
    let mut connection = Connection::new(index.http);
    let mut found_for = Vec::new();
    let began = Instant::now();
    for victim in victims(stage, most).await? {
        if began.elapsed() > time {
            break;
        }
        if first(&mut connection, &victim.path).await? != Some(victim.stay) {
            // It can't be had for one night.
            continue;
        }
        let sold_out = Instant::now();
        tell(&producer, &victim).await?;
        while first(&mut connection, &victim.path).await? == Some(victim.stay) {
            ensure!(
                sold_out.elapsed() < PATIENCE,
                "{}: still found",
                victim.path
            );
            sleep(ASK_EVERY).await;
        }
        found_for.push(sold_out.elapsed());
    }
    found_for.sort_unstable();
    ensure!(!found_for.is_empty(), "nothing could be sold out");
    Ok(found_for)
}

async fn victims(stage: &Stage, most: usize) -> anyhow::Result<Vec<Victim>> {
    let rows: Vec<(Uuid, Uuid, String, f64, f64)> = sqlx::query_as(VICTIMS)
        .bind(i64::try_from(most)?)
        .fetch_all(&stage.pool)
        .await?;
    let today = Day::today();
    let victims = (0..).zip(rows).map(|(number, row)| {
        let (stay, room_type, region, lat, lng) = row;
        let day = today.plus(2 + number % 300);
        let next = day.plus(1);
        Victim {
            stay,
            room_type,
            day,
            path: format!(
                "/v1/stays?region={region}&checkIn={day}&checkOut={next}&sort=distance&lat={lat}&lng={lng}&pageSize=1"
            ),
        }
    });
    Ok(victims.collect())
}

/// The first stay that a search finds.
async fn first(connection: &mut Connection, path: &str) -> anyhow::Result<Option<Uuid>> {
    let answer = connection.get(path).await?;
    ensure!(answer.status == 200, "{path}: {}", answer.status);
    let page: Value = serde_json::from_slice(&answer.body)?;
    let id = page["items"][0]["id"].as_str();
    Ok(id.map(str::parse).transpose()?)
}

async fn tell(producer: &FutureProducer, victim: &Victim) -> anyhow::Result<()> {
    let envelope = Envelope {
        id: Uuid::now_v7(),
        body: AvailabilityChanged {
            room_type_id: RoomTypeId(victim.room_type),
            version: 1,
            nights: vec![RoomsLeft {
                date: victim.day.to_string(),
                left: 0,
            }],
        },
    };
    let payload = serde_json::to_string(&envelope)?;
    let key = victim.room_type.to_string();
    let record = FutureRecord::to(AVAILABILITY).key(&key).payload(&payload);
    let sent = producer.send(record, PATIENCE).await;
    sent.map_err(|(error, _)| error)
        .context("say that a night is sold out")?;
    Ok(())
}
