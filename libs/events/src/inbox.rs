//! The inbox: each message is handled once in effect, however often and by however many processes it is delivered.
//!
//! A message's id is inserted into the table `inbox` in the same transaction as its effects. An id that is there
//! already does nothing. Kafka's committed offsets only say where to begin. A message whose transaction fails is tried
//! again, and the messages behind it in its partition wait: their order is kept. A record that can't be read is counted
//! and skipped; it would never become readable.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, stream};
use prometheus::{IntCounterVec, Opts, register_int_counter_vec};
use serde::de::DeserializeOwned;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use uuid::{Builder, Uuid};

use crate::consumer::{
    BatchConsumer, ConsumeError, ConsumerSettings, Fetch, PartitionBatch, TopicPartition,
    record_span, records_span,
};
use crate::planted::planted;
use crate::saga::Envelope;

/// The table, for `chassis::postgres::Schema::with`. It may be run any number of times.
pub const MIGRATION: &str = "
CREATE TABLE IF NOT EXISTS inbox (
    id         uuid        NOT NULL,
    consumer   text        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, consumer)
);
";

/// Most records that are read at once.
const BATCH_RECORDS_MAX: usize = 500;

/// Most bytes that are read at once.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long a call for records waits when there are none: how late a partition that waits is taken up again.
const BATCH_WAIT: Duration = Duration::from_millis(200);

/// Partitions that are worked on at the same time, each with a connection.
const PARTITIONS_AT_ONCE: usize = 4;

/// How long one transaction may take, from asking for a connection to the commit.
const APPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// The first and the longest pause before a message is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long ids are remembered. Longer than Kafka keeps records (7 days by default): a group whose offsets are lost
/// reads everything that is there again.
const REMEMBERED: Duration = Duration::from_secs(14 * 86_400);

/// How often ids that are older are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Most ids that are forgotten at once.
const SWEEP_ROWS_MAX: i64 = 20_000;

static MESSAGES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        Opts::new(
            "quokka_inbox_messages_total",
            "Messages delivered: handled, repeated (no effect), unreadable (skipped), or failed (tried again)."
        ),
        &["topic", "outcome"]
    )
    .expect("the name is well formed and registered once")
});

/// A message as it was delivered, with the span of what is done for it: a part of the trace of whoever sent it.
#[derive(Debug)]
pub struct Delivered<M> {
    /// What it says.
    pub message: M,
    span: Span,
}

impl<M> Delivered<M> {
    /// A message, and the span of what is done for it.
    pub const fn new(message: M, span: Span) -> Self {
        Self { message, span }
    }

    /// Does something for this message alone: what it puts into the outbox belongs to the message's trace.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }
}

/// Of no trace.
impl<M> From<M> for Delivered<M> {
    fn from(message: M) -> Self {
        Self::new(message, Span::none())
    }
}

/// What is done with messages.
pub trait Handler: Send + Sync + 'static {
    /// What the envelopes of the topics hold.
    type Message: DeserializeOwned + Send;

    /// Has the effects of a message, in the transaction in which it is remembered. An error rolls all of it back, and
    /// the message is tried again: what can't ever work must be answered, not failed.
    fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        message: Self::Message,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// How many messages of a partition may share a transaction. One that handles more than one at a time must lock
    /// what they have in common in an order of its own, or it will meet deadlocks.
    fn batch_max(&self) -> usize {
        1
    }

    /// Has the effects of messages that share a transaction, as if they were handled one after the other.
    fn handle_all(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        messages: Vec<Delivered<Self::Message>>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        async move {
            for Delivered { message, span } in messages {
                let handled = self.handle(tx, message);
                if span.is_none() {
                    handled.await?;
                } else {
                    handled.instrument(span).await?;
                }
            }
            Ok(())
        }
    }
}

/// Reads topics and has their messages handled.
#[derive(Debug)]
pub struct Inbox {
    pool: PgPool,
    consumer: BatchConsumer,
    group: String,
    topics: Vec<String>,
}

/// A partition whose next message failed.
struct Waiting {
    until: Instant,
    /// The message's offset.
    offset: i64,
}

/// What a partition's records came to.
enum Outcome {
    /// All of them are done.
    Done {
        /// Where to read on.
        next: i64,
    },
    /// Those before `offset` are; it failed.
    Failed {
        /// Where to read again.
        offset: i64,
    },
}

impl Inbox {
    /// An inbox in the database of `pool` for `topics`, all of one type of message. `settings.group` is whose the
    /// effects are: another group has effects of its own. Brokers that are away are found when they come.
    pub fn new(
        pool: PgPool,
        mut settings: ConsumerSettings,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ConsumeError> {
        LazyLock::force(&MESSAGES);
        // Each message is a step of something that somebody waits for.
        settings.fetch = Fetch::AtOnce;
        Ok(Self {
            pool,
            consumer: BatchConsumer::new(&settings)?,
            group: settings.group,
            topics: topics.into_iter().map(Into::into).collect(),
        })
    }

    /// Reads and handles until it is told to stop, and gives the partitions up.
    pub async fn run<H: Handler>(
        self,
        handler: H,
        stop: CancellationToken,
    ) -> Result<(), ConsumeError> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        self.consumer.subscribe(&topics)?;
        let mut waiting = HashMap::<TopicPartition, Waiting>::new();
        let mut pauses = HashMap::<TopicPartition, Duration>::new();
        let mut swept = Instant::now();
        loop {
            let batches = tokio::select! {
                () = stop.cancelled() => break,
                batches = self.consumer.next_batch(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, BATCH_WAIT) => batches,
            };
            match batches {
                Ok(batches) => {
                    self.take(&handler, batches, &mut waiting, &mut pauses)
                        .await
                }
                Err(error) => tracing::debug!(%error, "no messages"),
            }
            self.go_back(&mut waiting).await;
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                self.sweep().await;
            }
        }
        self.consumer.leave().await;
        Ok(())
    }

    /// Has the records of several partitions handled, each partition's in order.
    async fn take<H: Handler>(
        &self,
        handler: &H,
        batches: Vec<PartitionBatch>,
        waiting: &mut HashMap<TopicPartition, Waiting>,
        pauses: &mut HashMap<TopicPartition, Duration>,
    ) {
        // What comes behind a message that is to be tried again is read again with it.
        let ready = batches
            .into_iter()
            .filter(|batch| !waiting.contains_key(&batch.source));
        let ends: Vec<(TopicPartition, Outcome)> = stream::iter(ready)
            .map(|batch| async move {
                let outcome = self.partition(handler, &batch).await;
                (batch.source, outcome)
            })
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .collect()
            .await;
        self.commit(&ends);
        for (source, outcome) in ends {
            match outcome {
                Outcome::Done { .. } => {
                    pauses.remove(&source);
                }
                Outcome::Failed { offset } => {
                    let pause = pauses.entry(source.clone()).or_insert(PAUSE.0);
                    let until = Instant::now() + *pause;
                    *pause = (*pause * 2).min(PAUSE.1);
                    waiting.insert(source, Waiting { until, offset });
                }
            }
        }
    }

    /// Handles a partition's records up to the first that fails.
    async fn partition<H: Handler>(&self, handler: &H, batch: &PartitionBatch) -> Outcome {
        let mut batch_max = handler.batch_max().max(1);
        let mut rest = batch.records.as_slice();
        while let Some(first) = rest.first() {
            let (now, later) = rest.split_at(batch_max.min(rest.len()));
            let mut messages = Vec::with_capacity(now.len());
            for record in now {
                match serde_json::from_slice::<Envelope<H::Message>>(&record.value) {
                    Ok(Envelope { id, body }) => {
                        let span = record_span(&batch.source, record, &self.group);
                        let body = Delivered::new(body, span);
                        messages.push(Envelope { id, body });
                    }
                    Err(error) => {
                        self.count(&batch.source, "unreadable", 1);
                        // Where it is, not what it is: it may hold anything, and so may the error's text.
                        tracing::warn!(
                            topic = &*batch.source.topic,
                            partition = batch.source.partition.0,
                            offset = record.offset,
                            kind = ?error.classify(),
                            "a record that can't be read is skipped"
                        );
                    }
                }
            }
            // Each lasts until the transaction is over. Messages that share one have a span of it besides their own.
            let mut spans: Vec<Span> = messages
                .iter()
                .map(|message| message.body.span.clone())
                .collect();
            let span = match spans.as_slice() {
                [only] if !only.is_none() => only.clone(),
                [] => Span::none(),
                _ => records_span(&batch.source, now, &self.group),
            };
            spans.push(span.clone());
            let applying = self.apply(handler, &batch.source, messages);
            let applied = timeout(APPLY_TIMEOUT, applying.instrument(span)).await;
            if !matches!(applied, Ok(Ok(()))) {
                for span in &spans {
                    span.record("otel.status_code", "ERROR");
                    span.record("error.type", "not_handled");
                }
            }
            match applied.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(()) => rest = later,
                Err(error) if batch_max > 1 => {
                    // One by one from here on, so that only the one that fails waits.
                    tracing::debug!(%error, "messages are handled one by one");
                    batch_max = 1;
                }
                Err(error) => {
                    self.count(&batch.source, "failed", 1);
                    tracing::warn!(
                        %error,
                        topic = &*batch.source.topic,
                        partition = batch.source.partition.0,
                        offset = first.offset,
                        "a message could not be handled and is tried again"
                    );
                    return Outcome::Failed {
                        offset: first.offset,
                    };
                }
            }
        }
        let last = batch.records.last().map_or(0, |record| record.offset);
        Outcome::Done { next: last + 1 }
    }

    /// One transaction: remembers the ids and has the effects of those that are new.
    async fn apply<H: Handler>(
        &self,
        handler: &H,
        source: &TopicPartition,
        messages: Vec<Envelope<Delivered<H::Message>>>,
    ) -> Result<(), sqlx::Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let delivered = messages.len();
        let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
        let mut tx = self.pool.begin().await?;
        // A process that handles the same record at the same time waits here for the other one's end.
        let new: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO inbox (id, consumer) SELECT id, $2 FROM unnest($1::uuid[]) AS m (id)
            ON CONFLICT DO NOTHING RETURNING id",
        )
        .bind(&ids)
        .bind(&self.group)
        .fetch_all(&mut *tx)
        .await?;
        let mut new: HashSet<Uuid> = new.into_iter().collect();
        if planted("no-dedupe") {
            new.extend(&ids);
        }
        let handled = new.len();
        // Taken out as they are met: the second of two with one id is a repeat.
        let bodies: Vec<Delivered<H::Message>> = messages
            .into_iter()
            .filter(|message| new.remove(&message.id))
            .map(|message| message.body)
            .collect();
        if !bodies.is_empty() {
            handler.handle_all(&mut tx, bodies).await?;
        }
        tx.commit().await?;
        self.count(source, "handled", handled);
        self.count(source, "repeated", delivered - handled);
        Ok(())
    }

    /// A hint for whoever reads the partitions next; if it is lost, messages are repeated. One for all that was read at
    /// once: the brokers write each down, and a group whose heartbeats wait behind many loses its partitions.
    fn commit(&self, ends: &[(TopicPartition, Outcome)]) {
        let positions = ends.iter().map(|(source, outcome)| match outcome {
            Outcome::Done { next } => (source, *next),
            Outcome::Failed { offset } => (source, *offset),
        });
        if let Err(error) = self.consumer.commit(positions) {
            tracing::debug!(%error, "the position is not kept");
        }
    }

    /// Has partitions read again from the message that failed, when its pause is over.
    async fn go_back(&self, waiting: &mut HashMap<TopicPartition, Waiting>) {
        let now = Instant::now();
        let mut over = Vec::new();
        for (source, held) in waiting.iter().filter(|(_, held)| held.until <= now) {
            // A partition that another process has now begins at its committed offset there.
            if self.consumer.is_assigned(&source.topic, source.partition)
                && let Err(error) = self.consumer.seek(source, held.offset).await
            {
                tracing::debug!(%error, "a partition is read again later");
                continue;
            }
            over.push(source.clone());
        }
        for source in over {
            waiting.remove(&source);
        }
    }

    /// Forgets ids that nothing will repeat any more. They begin with their time, so the oldest are together.
    async fn sweep(&self) {
        let Ok(before) = (SystemTime::now() - REMEMBERED).duration_since(UNIX_EPOCH) else {
            return;
        };
        let millis = u64::try_from(before.as_millis()).unwrap_or(0);
        let first_kept = Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
        let swept = sqlx::query(
            "DELETE FROM inbox WHERE (id, consumer) IN (
                SELECT id, consumer FROM inbox
                WHERE id < $1 AND consumer = $2 AND handled_at < now() - make_interval(secs => $3)
                ORDER BY id LIMIT $4)",
        )
        .bind(first_kept)
        .bind(&self.group)
        .bind(REMEMBERED.as_secs_f64())
        .bind(SWEEP_ROWS_MAX)
        .execute(&self.pool);
        match timeout(APPLY_TIMEOUT, swept).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "old ids stay in the inbox until the next sweep")
            }
            Err(_) => {
                tracing::warn!("old ids stay in the inbox until the next sweep: no answer in time")
            }
        }
    }

    fn count(&self, source: &TopicPartition, outcome: &str, by: usize) {
        let by = u64::try_from(by).unwrap_or(u64::MAX);
        MESSAGES
            .with_label_values(&[&*source.topic, outcome])
            .inc_by(by);
    }
}
