//! Fills a database with stays to try the platform with: made up, the same for the same seed, and told to booking as a
//! host's calendars are.
//!
//! Stays are made and written in chunks, each in one transaction: a seeding that is killed goes on with the next chunk
//! when it is started again, and one that is done does nothing.

mod copy;
mod make;
mod names;
mod random;

use std::time::Duration;

use anyhow::Context as _;
use chassis::postgres::{PoolOptions, connect_lazy};
use events::outbox::Messages;
use events::saga::{self, CalendarChanged, RoomTypeId};
use secrecy::SecretString;
use sqlx::{PgConnection, PgPool};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use self::copy::Rows;
use self::make::MadeStay;
use crate::app::schema;
use crate::calendar::{Day, HORIZON_DAYS};
use crate::store::changes::{self, Change};

/// Stays of one transaction.
const CHUNK: u64 = 500;

/// Calendars told to booking by one statement.
const CALENDARS_AT_ONCE: usize = 200;

/// Nights of each calendar.
const DAYS: i32 = HORIZON_DAYS - 1;

/// A chunk is one long statement after another.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// How often it is said how far things are.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Every calendar that is seeded is in its first version.
const FIRST_VERSION: i64 = 1;

/// What is seeded.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How many stays.
    #[arg(long, default_value_t = 1_000)]
    pub stays: u64,
    /// Which stays: the same seed makes the same ones.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The first night of the calendars [default: today in Seoul].
    #[arg(long)]
    pub from: Option<Day>,
    /// Leave booking untold of the calendars: what is seeded can be searched, but not booked.
    #[arg(long)]
    pub searches_only: bool,
}

/// Seeds, and answers when all of it is there.
pub async fn run(database_url: &SecretString, plan: &Plan) -> anyhow::Result<()> {
    let options = PoolOptions {
        connections_max: 2,
        statement_timeout: STATEMENT_TIMEOUT,
        ..PoolOptions::default()
    };
    let pool = connect_lazy(database_url, "stays-seed", options)?;
    schema()
        .apply(&pool)
        .await
        .context("bring the database up to date")?;
    let first = plan.from.unwrap_or_else(Day::today);
    let began = Instant::now();
    let mut said = began;
    let mut written = 0;
    let mut at = 0;
    let mut next = make_chunk(plan, first, 0);
    while at < plan.stays {
        let stays = next.await.context("make stays up")?;
        let end = at + stays.len() as u64;
        // The next ones are made while these are written.
        next = make_chunk(plan, first, end);
        let chunk = write(&pool, &stays, !plan.searches_only).await;
        written += chunk.with_context(|| format!("write the stays from {at} to {end}"))?;
        at = end;
        if said.elapsed() >= PROGRESS_EVERY {
            said = Instant::now();
            let per_second = (at as f64 / began.elapsed().as_secs_f64()) as u64;
            tracing::info!(stays = at, of = plan.stays, per_second, "seeding");
        }
    }
    if written > 0 {
        // Otherwise PostgreSQL does so by itself when everybody searches.
        sqlx::query("VACUUM (ANALYZE) stays, room_types, nights")
            .execute(&pool)
            .await
            .context("let PostgreSQL tidy up and count what it has")?;
    }
    let ms = began.elapsed().as_millis() as u64;
    tracing::info!(stays = plan.stays, written, ms, "seeded");
    Ok(())
}

/// Makes the stays of the chunk that begins at a number, on a thread where that keeps nobody waiting.
fn make_chunk(plan: &Plan, first: Day, at: u64) -> JoinHandle<Vec<MadeStay>> {
    let (seed, end) = (plan.seed, plan.stays.min(at + CHUNK));
    spawn_blocking(move || {
        (at..end)
            .map(|number| make::stay(seed, number, first, DAYS))
            .collect()
    })
}

/// Writes the stays of a chunk that aren't there yet; answers how many that were.
async fn write(pool: &PgPool, stays: &[MadeStay], told: bool) -> anyhow::Result<usize> {
    let mut tx = pool.begin().await?;
    let ids: Vec<uuid::Uuid> = stays.iter().map(|stay| stay.stay_id).collect();
    let there: Vec<uuid::Uuid> =
        sqlx::query_scalar!("SELECT stay_id FROM stays WHERE stay_id = ANY($1)", &ids)
            .fetch_all(&mut *tx)
            .await?;
    let new: Vec<&MadeStay> = stays
        .iter()
        .filter(|stay| !there.contains(&stay.stay_id))
        .collect();
    if new.is_empty() {
        return Ok(0);
    }
    let stay_nos = sqlx::query_scalar!(
        r#"SELECT nextval(pg_get_serial_sequence('stays', 'stay_no'))::integer AS "no!" FROM generate_series(1, $1)"#,
        i32::try_from(new.len())?,
    )
    .fetch_all(&mut *tx)
    .await?;
    let rooms: usize = new.iter().map(|stay| stay.rooms.len()).sum();
    let room_type_nos = sqlx::query_scalar!(
        r#"SELECT nextval(pg_get_serial_sequence('room_types', 'room_type_no'))::integer AS "no!"
         FROM generate_series(1, $1)"#,
        i32::try_from(rooms)?,
    )
    .fetch_all(&mut *tx)
    .await?;
    copy_stays(&mut tx, &new, &stay_nos).await?;
    copy_rooms(&mut tx, &new, &stay_nos, &room_type_nos).await?;
    if told {
        tell_booking(&mut tx, &new).await?;
    }
    if let (Some(first), Some(last)) = (stay_nos.iter().min(), stay_nos.iter().max()) {
        changes::tell(&mut tx, Change::Stays(*first, *last)).await?;
    }
    tx.commit().await?;
    Ok(new.len())
}

async fn copy_stays(
    connection: &mut PgConnection,
    stays: &[&MadeStay],
    stay_nos: &[i32],
) -> anyhow::Result<()> {
    let mut rows = Rows::new(18);
    for (stay, stay_no) in stays.iter().zip(stay_nos) {
        let point = stay.place.point();
        rows.row()
            .int4(*stay_no)
            .uuid(stay.stay_id)
            .uuid(stay.host_id)
            .text(&stay.name)
            .text(&stay.name_en)
            .text(&stay.description)
            .text(stay.region.as_str())
            .text(&stay.address)
            .float8(stay.place.latitude)
            .float8(stay.place.longitude)
            .float8(point.x)
            .float8(point.y)
            .float8(point.z)
            .texts(&stay.amenities.names())
            .text(stay.cancellation.as_str())
            .int2(stay.rating)
            .int4(stay.reviews)
            .text(&stay.search_text);
    }
    let statement = "COPY stays (stay_no, stay_id, host_id, name, name_en, description, region, address, latitude,
        longitude, x, y, z, amenities, cancellation, rating, reviews, search_text) FROM STDIN (FORMAT binary)";
    copy(connection, statement, rows).await
}

async fn copy_rooms(
    connection: &mut PgConnection,
    stays: &[&MadeStay],
    stay_nos: &[i32],
    room_type_nos: &[i32],
) -> anyhow::Result<()> {
    let mut rows = Rows::new(7);
    let mut nights = Rows::new(8);
    let rooms = stays
        .iter()
        .zip(stay_nos)
        .flat_map(|(stay, stay_no)| stay.rooms.iter().map(move |room| (room, *stay_no)));
    for ((room, stay_no), room_type_no) in rooms.zip(room_type_nos) {
        rows.row()
            .int4(*room_type_no)
            .uuid(room.room_type_id)
            .int4(stay_no)
            .text(room.name)
            .text(room.name_en)
            .int2(i16::try_from(room.capacity)?)
            .int8(FIRST_VERSION);
        for night in &room.nights {
            nights
                .row()
                .int4(*room_type_no)
                .date(night.day)
                .int4(night.price)
                .int2_or_null(night.own_percent)
                .int4(night.allotment)
                .int2(night.min_nights)
                .int4(night.allotment)
                .int8(0);
        }
    }
    let statement = "COPY room_types (room_type_no, room_type_id, stay_no, name, name_en, capacity, calendar_version)
        FROM STDIN (FORMAT binary)";
    copy(connection, statement, rows).await?;
    let statement =
        "COPY nights (room_type_no, night, price, own_percent, allotment, min_nights, rooms_left,
        left_version) FROM STDIN (FORMAT binary)";
    copy(connection, statement, nights).await
}

async fn copy(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: Rows,
) -> anyhow::Result<()> {
    let mut copy = connection.copy_in_raw(statement).await?;
    copy.send(rows.finish()).await?;
    copy.finish().await?;
    Ok(())
}

async fn tell_booking(connection: &mut PgConnection, stays: &[&MadeStay]) -> anyhow::Result<()> {
    let calendars: Vec<CalendarChanged> = stays
        .iter()
        .flat_map(|stay| {
            stay.rooms.iter().map(|room| CalendarChanged {
                room_type_id: RoomTypeId(room.room_type_id),
                stay_id: stay.stay_id,
                version: FIRST_VERSION,
                nights: room
                    .nights
                    .iter()
                    .map(|night| saga::CalendarNight {
                        date: night.day.to_string(),
                        allotment: night.allotment.unsigned_abs(),
                    })
                    .collect(),
            })
        })
        .collect();
    for calendars in calendars.chunks(CALENDARS_AT_ONCE) {
        let mut messages = Messages::new();
        for calendar in calendars {
            messages.add(
                saga::CALENDAR,
                &calendar.room_type_id.0.to_string(),
                calendar,
            )?;
        }
        messages.put(connection).await?;
    }
    Ok(())
}
