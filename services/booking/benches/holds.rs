//! How many holds a second the inbox's way of handling them takes, beside what PostgreSQL does with the bare update
//! that each of them comes down to. Both against the same server and tables, in turns. Started by
//! `dev/bench-booking.sh`.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use booking::app;
use booking::calendar::Calendar;
use booking::commands::Commands;
use events::inbox::Handler as _;
use events::saga::{BookingCommand, CalendarChanged, CalendarNight, OrderId, RoomTypeId};
use futures::future::join_all;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// As many partitions as the inbox works on at the same time.
const WORKERS: usize = 4;
/// As many commands as share a transaction.
const BATCH: usize = 100;
/// Room types of the case of many.
const MANY: u32 = 1_000;
/// More rooms than a run can hold.
const ROOMS: u32 = 1_000_000_000;
const NIGHT: &str = "2026-12-05";
const NEXT: &str = "2026-12-06";
/// Clients of pgbench: more didn't make it faster on two cores.
const CLIENTS: &str = "8";

struct Settings {
    url: String,
    pgbench: String,
    round: Duration,
    rounds: usize,
}

impl Settings {
    fn read() -> Option<Self> {
        let number = |name: &str, default| {
            std::env::var(name)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(default)
        };
        Some(Self {
            url: std::env::var("BENCH_DATABASE_URL").ok()?,
            pgbench: std::env::var("BENCH_PGBENCH").unwrap_or_else(|_| "pgbench".to_owned()),
            round: Duration::from_secs(number("BENCH_ROUND_SECONDS", 10)),
            rounds: usize::try_from(number("BENCH_ROUNDS", 3)).unwrap(),
        })
    }
}

fn room_type(n: u32) -> RoomTypeId {
    RoomTypeId(format!("00000000-0000-0000-0000-{n:012}").parse().unwrap())
}

async fn offer(pool: &PgPool, n: u32) {
    let night = CalendarNight {
        date: NIGHT.to_owned(),
        allotment: ROOMS,
    };
    let message = CalendarChanged {
        room_type_id: room_type(n),
        stay_id: Uuid::nil(),
        version: 1,
        nights: vec![night],
    };
    let mut tx = pool.begin().await.unwrap();
    Calendar.handle(&mut tx, message).await.unwrap();
    tx.commit().await.unwrap();
}

/// One transaction, with what the inbox adds to it.
async fn hold(pool: &PgPool, room_types: u32) {
    let messages = (0..BATCH).map(|_| {
        let id = Uuid::now_v7();
        BookingCommand::Hold {
            order_id: OrderId(id),
            user_id: id,
            room_type_id: room_type(
                u32::try_from(Uuid::new_v4().as_u128() % u128::from(room_types)).unwrap(),
            ),
            check_in: NIGHT.to_owned(),
            check_out: NEXT.to_owned(),
            guests: 2,
            expires_at_ms: i64::from(i32::MAX) * 1_000,
        }
    });
    let messages: Vec<BookingCommand> = messages.collect();
    let ids: Vec<Uuid> = (0..BATCH).map(|_| Uuid::now_v7()).collect();
    let mut tx = pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO inbox (id, consumer) SELECT id, 'bench' FROM unnest($1::uuid[]) AS m (id)
        ON CONFLICT DO NOTHING",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await
    .unwrap();
    Commands.handle_all(&mut tx, messages).await.unwrap();
    tx.commit().await.unwrap();
}

async fn ours(pool: &PgPool, room_types: u32, round: Duration) -> f64 {
    let started = Instant::now();
    let counts = join_all((0..WORKERS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while started.elapsed() < round {
                hold(&pool, room_types).await;
                count += BATCH;
            }
            count
        })
    }))
    .await;
    let holds: usize = counts.into_iter().map(Result::unwrap).sum();
    holds as f64 / started.elapsed().as_secs_f64()
}

fn bare(settings: &Settings, room_types: u32) -> f64 {
    let mut script = String::new();
    writeln!(script, r"\set n random(0, {})", room_types - 1).unwrap();
    writeln!(
        script,
        "UPDATE room_nights SET reserved = reserved + 1 WHERE room_type_id = \
        ('00000000-0000-0000-0000-' || lpad(:n::text, 12, '0'))::uuid AND night = '{NIGHT}' AND reserved < allotment;"
    )
    .unwrap();
    let file = std::env::temp_dir().join(format!("bench-booking-{}.sql", std::process::id()));
    std::fs::write(&file, script).unwrap();
    let output = Command::new(&settings.pgbench)
        .args([
            "-n",
            "-M",
            "prepared",
            "-c",
            CLIENTS,
            "-j",
            "2",
            "-T",
            &settings.round.as_secs().to_string(),
            "-f",
        ])
        .arg(&file)
        .arg(&settings.url)
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("tps = "));
    let tps = line.and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() {
    let Some(settings) = Settings::read() else {
        // Run as a test, with nothing to measure against.
        println!("bench-booking: BENCH_DATABASE_URL is not set; run dev/bench-booking.sh");
        return;
    };
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect(&settings.url)
        .await
        .unwrap();
    app::schema().apply(&pool).await.unwrap();
    for n in 0..MANY {
        offer(&pool, n).await;
    }
    for (case, room_types) in [("one hot room type", 1), ("many room types", MANY)] {
        let (mut held, mut updated) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            // What the relay would have taken away.
            sqlx::raw_sql("TRUNCATE outbox; VACUUM room_nights; VACUUM room_types")
                .execute(&pool)
                .await
                .ok();
            updated.push(bare(&settings, room_types));
            held.push(ours(&pool, room_types, settings.round).await);
        }
        let (held, updated) = (median(held), median(updated));
        println!(
            "{case}: {held:.0} holds/s in batches of {BATCH}, {updated:.0} bare updates/s by pgbench, ratio {:.2}",
            held / updated
        );
    }
}
