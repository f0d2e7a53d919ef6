//! Holds a second, from the command in Kafka to the answer in Kafka, beside PostgreSQL's bare update of what is reserved.
//! Both on the same server and table, in turns.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use events::saga::{
    BOOKING_COMMANDS, BookingCommand, CALENDAR, CalendarChanged, CalendarNight, Envelope,
    ORDER_REPLIES, OrderId, OrderReply, RoomTypeId,
};
use events::topics;
use rand::RngExt as _;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde::Serialize;
use sqlx::PgPool;
use tokio::process::Command;
use uuid::Uuid;

use super::booking::Plan;
use super::process::{Account, Program};
use super::servers::{Servers, free_addresses};
use super::{Goals, median, verdict};

/// The goal that the ratio is printed against.
const GOAL_RATIO: f64 = 0.7;

/// What is held: one night.
const NIGHT: [&str; 2] = ["2030-12-05", "2030-12-06"];

/// More rooms than a run can hold.
const ROOMS: u32 = 1_000_000_000;

/// Holds end after the run: 2030-12-01, in milliseconds since 1970.
const EXPIRES_AT_MS: i64 = 1_922_313_600_000;

/// How long a round's holds may take, and anything else that is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Room types as they are numbered: also pgbench makes their ids from numbers.
fn room_type(number: u32) -> RoomTypeId {
    RoomTypeId(Uuid::from_u128(u128::from(number)))
}

struct Bench<'a> {
    plan: &'a Plan,
    servers: &'a Servers,
    pool: PgPool,
    database_url: String,
    producer: BaseProducer,
    replies: StreamConsumer,
    booking: Program,
}

/// Measures holds of one room type and of many.
pub(super) async fn run(plan: &Plan, servers: &Servers) -> anyhow::Result<Goals> {
    let bench = Bench::start(plan, servers).await?;
    bench.offer().await?;
    let mut goals = Goals::default();
    for (what, room_types) in [
        ("one hot room type".to_owned(), 1),
        (format!("{} room types", plan.room_types), plan.room_types),
    ] {
        goals += bench.compare(&what, room_types).await?;
    }
    Ok(goals)
}

impl<'a> Bench<'a> {
    async fn start(plan: &'a Plan, servers: &'a Servers) -> anyhow::Result<Self> {
        let brokers = servers.kafka.brokers();
        topics::ensure(&brokers, &topics::saga(topics::SAGA_PARTITIONS_DEFAULT)).await?;
        let database = servers.postgres.create_database().await?;
        let [http] = free_addresses();
        let of_booking = [
            ("QUOKKA_DATABASE_URL", database.url.clone()),
            ("QUOKKA_HTTP_ADDR", http.to_string()),
        ];
        let booking = servers.program("booking", &[], &of_booking).await?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("queue.buffering.max.messages", "1000000")
            .set("linger.ms", "5")
            .set("partitioner", "murmur2_random")
            .create()?;
        let replies: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("group.id", Uuid::new_v4().to_string())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()?;
        replies.subscribe(&[ORDER_REPLIES])?;
        Ok(Self {
            plan,
            servers,
            pool: database.pool().await?,
            database_url: database.url,
            producer,
            replies,
            booking,
        })
    }

    /// Offers the night in every room type and waits until booking knows.
    async fn offer(&self) -> anyhow::Result<()> {
        let calendars = (0..self.plan.room_types).map(|number| {
            let room_type_id = room_type(number);
            let calendar = CalendarChanged {
                room_type_id,
                stay_id: Uuid::nil(),
                version: 1,
                nights: vec![CalendarNight {
                    date: NIGHT[0].to_owned(),
                    allotment: ROOMS,
                }],
            };
            record(room_type_id.0, calendar)
        });
        let calendars: Vec<_> = calendars.collect::<Result<_, _>>()?;
        tokio::task::block_in_place(|| self.send(CALENDAR, &calendars))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let offered: i64 = sqlx::query_scalar("SELECT count(*) FROM room_nights")
                .fetch_one(&self.pool)
                .await?;
            if offered == i64::from(self.plan.room_types) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {offered} nights offered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn compare(&self, what: &str, room_types: u32) -> anyhow::Result<Goals> {
        let Plan {
            rounds,
            holds,
            bare_seconds,
            bare_connections,
            ..
        } = self.plan;
        println!(
            "holds of {what}, {holds} in each of {rounds} rounds; bare updates by pgbench, {bare_connections} connections, {bare_seconds} s"
        );
        let (mut held, mut updated) = (Vec::new(), Vec::new());
        let mut account = Account::new(self.processes()?);
        for round in 1..=*rounds {
            for statement in [
                "VACUUM ANALYZE room_nights",
                "VACUUM ANALYZE room_types",
                "CHECKPOINT",
            ] {
                sqlx::query(statement).execute(&self.pool).await?;
            }
            let bare = self.bare(room_types).await?;
            account.begin()?;
            let ours = self.hold(room_types).await?;
            account.end()?;
            println!("  round {round}: {ours:.0} holds/s, {bare:.0} bare updates/s");
            held.push(ours);
            updated.push(bare);
        }
        let ratio = median(held.clone()) / median(updated.clone());
        println!(
            "  holds, from the command in Kafka to the answer    {:>8.0}/s  {ratio:.2} of the bare update",
            median(held)
        );
        println!(
            "  UPDATE ... WHERE by pgbench                       {:>8.0}/s",
            median(updated)
        );
        account.print("hold", holds * rounds);
        println!("  goal: holds at {GOAL_RATIO} of the bare update or more");
        Ok(verdict(ratio >= GOAL_RATIO))
    }

    fn processes(&self) -> anyhow::Result<Vec<(&'static str, u32)>> {
        Ok(vec![
            ("booking", self.booking.pid()?),
            (
                "PostgreSQL",
                self.servers.postgres.pid().context("PostgreSQL ended")?,
            ),
            ("Kafka", self.servers.kafka.pid().context("Kafka ended")?),
            ("this load", std::process::id()),
        ])
    }

    /// Sends the commands of a round and waits for every answer; holds a second.
    async fn hold(&self, room_types: u32) -> anyhow::Result<f64> {
        let orders: Vec<Uuid> = (0..self.plan.holds).map(|_| Uuid::now_v7()).collect();
        let commands = orders.iter().map(|order| {
            let hold = BookingCommand::Hold {
                order_id: OrderId(*order),
                user_id: *order,
                room_type_id: room_type(rand::rng().random_range(0..room_types)),
                check_in: NIGHT[0].to_owned(),
                check_out: NIGHT[1].to_owned(),
                guests: 2,
                expires_at_ms: EXPIRES_AT_MS,
            };
            record(*order, hold)
        });
        let commands: Vec<_> = commands.collect::<Result<_, _>>()?;
        let mut open: HashSet<Uuid> = orders.into_iter().collect();
        let began = Instant::now();
        tokio::task::block_in_place(|| self.send(BOOKING_COMMANDS, &commands))?;
        while !open.is_empty() {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let read = tokio::time::timeout(left, self.replies.recv()).await;
            let read = read.with_context(|| format!("{} holds are not answered", open.len()))??;
            let reply: Envelope<OrderReply> =
                serde_json::from_slice(read.payload().unwrap_or_default())?;
            let OrderReply::Held { order_id } = reply.body else {
                anyhow::bail!("a hold was answered {:?}", reply.body);
            };
            open.remove(&order_id.0);
        }
        Ok(self.plan.holds as f64 / began.elapsed().as_secs_f64())
    }

    /// Appends records, those of a key in their order.
    fn send(&self, topic: &str, records: &[(String, String)]) -> anyhow::Result<()> {
        for (key, payload) in records {
            let mut record = BaseRecord::to(topic).key(key).payload(payload);
            while let Err((error, back)) = self.producer.send(record) {
                let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                ensure!(error == full, "send to {topic}: {error}");
                self.producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        self.producer
            .flush(PATIENCE)
            .with_context(|| format!("send to {topic}"))
    }

    /// Bare updates a second, as pgbench counts them.
    async fn bare(&self, room_types: u32) -> anyhow::Result<f64> {
        let mut script = String::new();
        writeln!(script, r"\set n random(0, {})", room_types - 1)?;
        writeln!(
            script,
            "UPDATE room_nights SET reserved = reserved + 1 WHERE room_type_id = \
            lpad(to_hex(:n::integer), 32, '0')::uuid AND night = '{}' AND reserved < allotment;",
            NIGHT[0]
        )?;
        let file = tempfile(&script)?;
        let output = Command::new(testkit::Postgres::program("pgbench")?)
            .args(["-n", "-M", "prepared", "-j", "2"])
            .args(["-c", &self.plan.bare_connections.to_string()])
            .args(["-T", &self.plan.bare_seconds.to_string()])
            .arg("-f")
            .arg(&file)
            .arg(&self.database_url)
            .output()
            .await
            .context("starting pgbench")?;
        std::fs::remove_file(&file)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench: {said}{failed}");
        let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
        let figure = line.and_then(|line| line.split_whitespace().next());
        figure
            .with_context(|| format!("no figure in {said}"))?
            .parse()
            .context("reading pgbench's figure")
    }
}

/// A message as it goes into a topic: its key and its envelope.
fn record(key: Uuid, body: impl Serialize) -> serde_json::Result<(String, String)> {
    let id = Uuid::now_v7();
    Ok((
        key.to_string(),
        serde_json::to_string(&Envelope { id, body })?,
    ))
}

/// A file of this process's own.
fn tempfile(text: &str) -> std::io::Result<std::path::PathBuf> {
    let file = std::env::temp_dir().join(format!("bench-booking-{}.sql", std::process::id()));
    std::fs::write(&file, text)?;
    Ok(file)
}
