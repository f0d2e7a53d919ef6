//! The transactional outbox: a message is a row, written in the transaction whose effects it tells of, and a relay
//! sends committed rows to Kafka. So a message is sent if and only if its transaction committed.
//!
//! The order of a key's messages is the order in which [`put`] wrote them, as long as their transactions excluded one
//! another (they lock the same row before they put). The relay keeps it: of one topic and key, a row is sent only when
//! the one before it is acknowledged. A relay that dies after sending and before removing a row sends it again, under
//! the same id: receivers handle an id once ([`crate::inbox`]). Two relays that both think they are the one that sends
//! only repeat messages too: each begins with the first row that is left, so the first copies are in order.

mod sender;

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use futures::future::join_all;
use prometheus::{Gauge, IntCounterVec, Opts, register_gauge, register_int_counter_vec};
use rdkafka::error::KafkaError;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::sender::Sender;
use crate::TraceParent;
use crate::producer::ProducerSettings;
use crate::saga::{Envelope, ORDER_REPLIES, OrderReply};

/// The table, for `chassis::postgres::Schema::with`. It may be run any number of times.
pub const MIGRATION: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text        NOT NULL,
    key        text        NOT NULL,
    payload    text        NOT NULL,
    trace      text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
";

/// The advisory lock of the relay that sends ("quokkaob" as bytes).
const RELAY_LOCK: i64 = 0x71_75_6f_6b_6b_61_6f_62;

/// Most rows of one round: what is in memory, and what a relay that dies may repeat.
const ROUND_ROWS_MAX: i64 = 500;

/// How long nothing is looked for after nothing was found, at first and at most.
const IDLE_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// When messages are looked for that were just put: their transaction is about to commit.
const COMMIT_PAUSE: Duration = Duration::from_millis(5);

/// Told when messages are put. Whoever put them can't say when they are committed, and a process that dies doesn't tell:
/// the relay looks by itself as well.
static PUT: Notify = Notify::const_new();

/// How long a topic to which a record could not be sent is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// The pause after the database failed.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);

/// How long each statement of the relay may take, connecting included.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(10);

static OLDEST_SECONDS: LazyLock<Gauge> = LazyLock::new(|| {
    register_gauge!(
        "quokka_outbox_oldest_seconds",
        "How long the oldest message that is not sent yet has been waiting; 0 when none waits."
    )
    .expect("the name is well formed and registered once")
});

static SENT: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        Opts::new(
            "quokka_outbox_messages_total",
            "Messages sent from the outbox, and sends that failed."
        ),
        &["topic", "outcome"]
    )
    .expect("the name is well formed and registered once")
});

/// A message could not be put into the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The body has no JSON.
    #[error("write a message to {topic} as JSON: {source}")]
    Body {
        /// Where the message was to go.
        topic: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// The database did not take it.
    #[error("put a message into the outbox: {0}")]
    Database(#[from] sqlx::Error),
}

/// So that a handler of the inbox can pass it on: it is the transaction that failed.
impl From<OutboxError> for sqlx::Error {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Database(error) => error,
            error @ OutboxError::Body { .. } => Self::Encode(Box::new(error)),
        }
    }
}

/// Messages to be put together: one statement for all of them.
#[derive(Debug, Default)]
pub struct Messages {
    topics: Vec<String>,
    keys: Vec<String>,
    payloads: Vec<String>,
    /// What each belongs to: the span that was current when it was added.
    traces: Vec<Option<String>>,
}

impl Messages {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message behind those that are there, as a part of the current trace; its id is the answer.
    pub fn add<T: Serialize>(
        &mut self,
        topic: &str,
        key: &str,
        body: &T,
    ) -> Result<Uuid, OutboxError> {
        let id = Uuid::now_v7();
        let payload =
            serde_json::to_string(&Envelope { id, body }).map_err(|source| OutboxError::Body {
                topic: topic.to_owned(),
                source,
            })?;
        self.topics.push(topic.to_owned());
        self.keys.push(key.to_owned());
        self.payloads.push(payload);
        let trace = TraceParent::current();
        self.traces.push(trace.map(|trace| trace.to_string()));
        Ok(id)
    }

    /// Adds an answer to an order.
    pub fn answer(&mut self, reply: &OrderReply) -> Result<(), OutboxError> {
        let order = reply.order_id().0.to_string();
        self.add(ORDER_REPLIES, &order, reply).map(drop)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Puts them into the outbox, in their order. Nothing is sent before the transaction has committed.
    pub async fn put(self, connection: &mut PgConnection) -> Result<(), OutboxError> {
        if self.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO outbox (topic, key, payload, trace)
            SELECT topic, key, payload, trace
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
                WITH ORDINALITY AS m (topic, key, payload, trace, n)
            ORDER BY n",
        )
        .bind(self.topics)
        .bind(self.keys)
        .bind(self.payloads)
        .bind(self.traces)
        .execute(connection)
        .await?;
        PUT.notify_one();
        Ok(())
    }
}

/// Puts a message into the outbox of the transaction that `connection` is in; its id is the answer. It is sent to
/// `topic` with `key` when the transaction has committed, in an [`Envelope`] and with the current trace.
pub async fn put<T: Serialize>(
    connection: &mut PgConnection,
    topic: &str,
    key: &str,
    body: &T,
) -> Result<Uuid, OutboxError> {
    let mut messages = Messages::new();
    let id = messages.add(topic, key, body)?;
    messages.put(connection).await?;
    Ok(id)
}

/// A message that waits.
#[derive(sqlx::FromRow)]
struct Row {
    seq: i64,
    topic: String,
    key: String,
    payload: String,
    trace: Option<String>,
}

/// Sends what is in the outbox. Any number of processes may run one on the same database: one at a time sends.
pub struct Relay {
    pool: PgPool,
    sender: Sender,
    /// Longest time for one round. What isn't acknowledged by then stays for the next.
    round_max: Duration,
    /// Topics that are left alone, and until when.
    resting: HashMap<String, Instant>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

/// What a round came to.
enum Round {
    /// Another relay is at it, or there was nothing that could be sent.
    Nothing,
    /// Some were sent.
    Sent,
}

impl Relay {
    /// A relay for the outbox in the database of `pool`. Brokers that are away are found when they come.
    pub fn new(pool: PgPool, settings: &ProducerSettings) -> Result<Self, KafkaError> {
        LazyLock::force(&OLDEST_SECONDS);
        LazyLock::force(&SENT);
        Ok(Self {
            pool,
            sender: Sender::new(settings)?,
            round_max: settings.message_timeout + Duration::from_secs(1),
            resting: HashMap::new(),
        })
    }

    /// Sends until it is told to stop; a round that is under way is finished, which takes a bounded time.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pause = IDLE_PAUSE.0;
        while !stop.is_cancelled() {
            let wait = match self.look().await {
                Ok(Round::Sent) => {
                    pause = IDLE_PAUSE.0;
                    continue;
                }
                Ok(Round::Nothing) => {
                    let wait = pause;
                    pause = (pause * 2).min(IDLE_PAUSE.1);
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "the outbox can't be read; its messages wait");
                    DATABASE_PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = PUT.notified() => {
                    pause = IDLE_PAUSE.0;
                    tokio::time::sleep(COMMIT_PAUSE).await;
                }
            }
        }
    }

    /// One cheap statement where nothing waits, a round where something does.
    async fn look(&mut self) -> Result<Round, sqlx::Error> {
        let oldest: Option<f64> = bounded(
            sqlx::query_scalar(
                "SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 FROM outbox ORDER BY seq LIMIT 1",
            )
            .fetch_optional(&self.pool),
        )
        .await?;
        OLDEST_SECONDS.set(oldest.unwrap_or(0.0).max(0.0));
        if oldest.is_none() {
            return Ok(Round::Nothing);
        }
        self.round().await
    }

    async fn round(&mut self) -> Result<Round, sqlx::Error> {
        self.sender.renew_if_broken();
        let now = Instant::now();
        self.resting.retain(|_, until| *until > now);
        let resting: Vec<String> = self.resting.keys().cloned().collect();

        // The transaction only holds the lock while rows are sent: it has no snapshot then and keeps nothing from
        // being vacuumed.
        let mut tx = bounded(self.pool.begin()).await?;
        let mine: bool = bounded(
            sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
                .bind(RELAY_LOCK)
                .fetch_one(&mut *tx),
        )
        .await?;
        if !mine {
            return Ok(Round::Nothing);
        }
        let rows: Vec<Row> = bounded(
            sqlx::query_as(
                "SELECT seq, topic, key, payload, trace FROM outbox WHERE topic <> ALL ($1) ORDER BY seq LIMIT $2",
            )
            .bind(&resting)
            .bind(ROUND_ROWS_MAX)
            .fetch_all(&mut *tx),
        )
        .await?;
        let sent = self.send(rows).await;
        if sent.is_empty() {
            return Ok(Round::Nothing);
        }
        bounded(
            sqlx::query("DELETE FROM outbox WHERE seq = ANY ($1)")
                .bind(&sent)
                .execute(&mut *tx),
        )
        .await?;
        bounded(tx.commit()).await?;
        Ok(Round::Sent)
    }

    /// Sends the rows, those of different keys at the same time; answers which are acknowledged.
    async fn send(&mut self, rows: Vec<Row>) -> Vec<i64> {
        let deadline = Instant::now() + self.round_max;
        let mut by_key = BTreeMap::<(String, String), Vec<Row>>::new();
        for row in rows {
            by_key
                .entry((row.topic.clone(), row.key.clone()))
                .or_default()
                .push(row);
        }
        let sender = &self.sender;
        let ends = join_all(
            by_key
                .into_values()
                .map(|rows| send_key(sender, rows, deadline)),
        )
        .await;
        let mut sent = Vec::new();
        for end in ends {
            sent.extend(end.sent);
            let Some((topic, reason)) = end.failed else {
                continue;
            };
            let until = Instant::now() + FAILED_PAUSE;
            if self.resting.insert(topic.clone(), until).is_none() {
                tracing::warn!(
                    topic,
                    reason,
                    "messages can't be sent; they wait in the outbox"
                );
            }
        }
        sent
    }
}

/// How the rows of one key fared.
struct KeyEnd {
    sent: Vec<i64>,
    /// The topic, and why the first row that isn't sent is not.
    failed: Option<(String, String)>,
}

/// One after the other, up to the first that isn't acknowledged: what comes after it must not overtake it.
async fn send_key(sender: &Sender, rows: Vec<Row>, deadline: Instant) -> KeyEnd {
    let mut end = KeyEnd {
        sent: Vec::with_capacity(rows.len()),
        failed: None,
    };
    for row in rows {
        if Instant::now() >= deadline {
            break;
        }
        let sending = sender.send(&row.topic, &row.key, &row.payload, row.trace.as_deref());
        let failure = match timeout_at(deadline, sending).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no acknowledgement in time".to_owned()),
        };
        let outcome = if failure.is_some() { "failed" } else { "sent" };
        SENT.with_label_values(&[row.topic.as_str(), outcome]).inc();
        if let Some(reason) = failure {
            end.failed = Some((row.topic, reason));
            break;
        }
        end.sent.push(row.seq);
    }
    end
}

/// No statement is waited for without end.
async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(DATABASE_TIMEOUT, work)
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
