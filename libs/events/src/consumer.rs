//! Reads records in batches for a consumer that keeps its position in the same transaction as their effects.
//! Kafka's committed offsets are only a hint where to begin: delivery may repeat, and the reader seeks back
//! when it finds a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer,
};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use seldom::Seldom;
use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{Partition, TraceParent};

/// How the consumer is set up.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// Whose processes share the partitions.
    pub group: String,
    /// The process, for the brokers' logs.
    pub client_id: String,
    /// How long a process that is gone keeps its partitions.
    pub session_timeout: Duration,
    /// When the brokers answer.
    pub fetch: Fetch,
}

/// When the brokers answer a consumer that has read everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// When there is much, or after a moment: a fetch for each append would cost the broker as much as the append.
    Gathered,
    /// As soon as there is a record: somebody waits for what it says.
    AtOnce,
}

impl Fetch {
    /// Bytes that are enough for an answer, and milliseconds after which less is, or nothing.
    fn settings(self) -> [(&'static str, &'static str); 2] {
        let (bytes, wait_ms) = match self {
            Self::Gathered => ("65536", "50"),
            Self::AtOnce => ("1", "500"),
        };
        [("fetch.min.bytes", bytes), ("fetch.wait.max.ms", wait_ms)]
    }
}

impl ConsumerSettings {
    /// With a session of ten seconds, and records gathered.
    pub fn new(
        brokers: impl Into<String>,
        group: impl Into<String>,
        client_id: impl Into<String>,
    ) -> Self {
        Self {
            brokers: brokers.into(),
            group: group.into(),
            client_id: client_id.into(),
            session_timeout: Duration::from_secs(10),
            fetch: Fetch::Gathered,
        }
    }
}

/// Partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: Partition,
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Consumed {
    /// Its offset.
    pub offset: i64,
    /// Its value; empty if it has none.
    pub value: Bytes,
    /// The trace it belongs to.
    pub trace: Option<TraceParent>,
}

/// Records of one partition, in the order of their offsets.
#[derive(Debug, Clone)]
pub struct PartitionBatch {
    /// Where from.
    pub source: TopicPartition,
    /// At least one.
    pub records: Vec<Consumed>,
}

/// Most links from a batch's span to the spans of its records' producers.
const LINKS_MAX: usize = 16;

impl PartitionBatch {
    /// A span for the processing of batches of one topic together, linked to the spans that sent their records. Where
    /// they are of one partition, it says which and where the first begins.
    pub fn span(batches: &[Self], group: &str) -> Span {
        let Some(first) = batches.first() else {
            return Span::none();
        };
        let only = (batches.len() == 1).then_some(first);
        let begins =
            only.and_then(|batch| Some((batch.source.partition, batch.records.first()?.offset)));
        let records = || batches.iter().flat_map(|batch| &batch.records);
        process_span(
            &first.source.topic,
            begins,
            Some(records().count()),
            records(),
            group,
        )
    }
}

/// A span for the processing of one record by itself, in the trace of whoever sent it; none for a record of no trace.
pub(crate) fn record_span(source: &TopicPartition, record: &Consumed, group: &str) -> Span {
    let Some(producer) = &record.trace else {
        return Span::none();
    };
    let at = Some((source.partition, record.offset));
    let span = process_span(&source.topic, at, None, std::iter::once(record), group);
    producer.continue_in(&span);
    span
}

/// A span for the processing of records of one partition together, linked to the spans that sent them.
pub(crate) fn records_span(source: &TopicPartition, records: &[Consumed], group: &str) -> Span {
    let begins = records
        .first()
        .map(|first| (source.partition, first.offset));
    process_span(
        &source.topic,
        begins,
        Some(records.len()),
        records.iter(),
        group,
    )
}

/// `begins` is the partition and the offset of the first record; `count` is for records that are processed together.
fn process_span<'a>(
    topic: &str,
    begins: Option<(Partition, i64)>,
    count: Option<usize>,
    records: impl Iterator<Item = &'a Consumed>,
    group: &str,
) -> Span {
    let span = tracing::info_span!(
        "process",
        otel.name = format_args!("process {topic}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.destination.partition.id = begins.map(|(partition, _)| partition.0),
        messaging.consumer.group.name = group,
        messaging.kafka.offset = begins.map(|(_, offset)| offset),
        messaging.batch.message_count = count,
        error.type = Empty,
    );
    let traces = records.filter_map(|record| record.trace.as_ref());
    for trace in traces.take(LINKS_MAX) {
        span.add_link(trace.span_context());
    }
    span
}

/// Reading failed; the consumer goes on by itself when its cause is gone.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct ConsumeError {
    /// What was being done.
    pub doing: &'static str,
    /// Why not.
    pub source: KafkaError,
}

#[derive(Default)]
struct Assignment(Mutex<BTreeMap<Arc<str>, BTreeSet<i32>>>);

impl Assignment {
    fn change(&self, list: &TopicPartitionList, assigned: bool) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for element in list.elements() {
            if assigned {
                let partitions = held.entry(Arc::from(element.topic())).or_default();
                partitions.insert(element.partition());
            } else if let Some(partitions) = held.get_mut(element.topic()) {
                partitions.remove(&element.partition());
                if partitions.is_empty() {
                    held.remove(element.topic());
                }
            }
        }
    }

    /// The partition with its topic's shared name, if it is assigned.
    fn find(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (topic, partitions) = held.get_key_value(topic)?;
        partitions.contains(&partition).then(|| TopicPartition {
            topic: Arc::clone(topic),
            partition: Partition(partition),
        })
    }
}

struct Context {
    assignment: Arc<Assignment>,
    tellings: Seldom,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(unsaid) = self.tellings.turn() {
            tracing::warn!(%error, reason, unsaid, "kafka consumer");
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.assignment.change(list, false);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.assignment.change(list, true);
        }
    }
}

/// Kafka's client, which is dropped on a thread of its own: its end asks the brokers, and waits for as long as they are
/// away. A process that ends must not.
struct Client(Option<StreamConsumer<Context>>);

impl Deref for Client {
    type Target = StreamConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("only drop takes it")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let client = self.0.take();
        std::thread::spawn(move || drop(client));
    }
}

/// Reads batches from the topics it is subscribed to.
pub struct BatchConsumer {
    inner: Arc<Client>,
    assignment: Arc<Assignment>,
}

impl std::fmt::Debug for BatchConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchConsumer").finish_non_exhaustive()
    }
}

impl BatchConsumer {
    /// Starts connecting; brokers that are away are found when they come. Must be called on a tokio runtime.
    pub fn new(settings: &ConsumerSettings) -> Result<Self, ConsumeError> {
        let assignment = Arc::new(Assignment::default());
        let session_ms = settings.session_timeout.as_millis();
        let mut config = ClientConfig::new();
        for (name, value) in settings.fetch.settings() {
            config.set(name, value);
        }
        let inner = config
            .set("bootstrap.servers", &settings.brokers)
            .set("group.id", &settings.group)
            .set("client.id", &settings.client_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session_ms.to_string())
            .set("heartbeat.interval.ms", (session_ms / 4).to_string())
            .set("allow.auto.create.topics", "false")
            // A sale's topic is subscribed to as soon as it is known, maybe before all brokers know it.
            .set("topic.metadata.refresh.interval.ms", "5000")
            // What is read ahead is memory.
            .set("queued.max.messages.kbytes", "16384")
            .set("queued.min.messages", "1000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .create_with_context(Context {
                assignment: Arc::clone(&assignment),
                tellings: Seldom::new(),
            })
            .map_err(|source| ConsumeError {
                doing: "set up a consumer",
                source,
            })?;
        Ok(Self {
            inner: Arc::new(Client(Some(inner))),
            assignment,
        })
    }

    /// Reads these topics from now on, and no others.
    pub fn subscribe(&self, topics: &[&str]) -> Result<(), ConsumeError> {
        let done = if topics.is_empty() {
            self.inner.unsubscribe();
            Ok(())
        } else {
            self.inner.subscribe(topics)
        };
        done.map_err(|source| ConsumeError {
            doing: "subscribe",
            source,
        })
    }

    /// The partitions that this process reads now.
    pub fn assigned(&self) -> BTreeSet<TopicPartition> {
        let held = self
            .assignment
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        held.iter()
            .flat_map(|(topic, partitions)| {
                partitions.iter().map(|partition| TopicPartition {
                    topic: Arc::clone(topic),
                    partition: Partition(*partition),
                })
            })
            .collect()
    }

    /// Whether this process reads the partition now.
    pub fn is_assigned(&self, topic: &str, partition: Partition) -> bool {
        self.assignment.find(topic, partition.0).is_some()
    }

    /// Waits up to `max_wait` for a record, and takes with it what else is there already, up to `max_records`
    /// and about `max_bytes`. Empty if none came. Must be called again and again, or the process loses its
    /// partitions. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// No record came, and the client reported failures: the last of them, after the whole wait.
    pub async fn next_batch(
        &self,
        max_records: usize,
        max_bytes: usize,
        max_wait: Duration,
    ) -> Result<Vec<PartitionBatch>, ConsumeError> {
        let deadline = Instant::now() + max_wait;
        let mut failure = None;
        let first = loop {
            match tokio::time::timeout_at(deadline, self.inner.recv()).await {
                Ok(Ok(message)) => break message,
                // While brokers are away the client may report a hundred a second, in the queue that records come by. To
                // pause after each would be to read nothing for hours after an outage of minutes.
                Ok(Err(source)) if Instant::now() < deadline => {
                    failure = Some(source);
                    tokio::task::consume_budget().await;
                }
                Ok(Err(source)) => return Err(not_read(source)),
                Err(_) => return failure.map_or(Ok(Vec::new()), |source| Err(not_read(source))),
            }
        };
        let mut batches = BTreeMap::<TopicPartition, Vec<Consumed>>::new();
        let mut records = 0;
        let mut size = 0;
        let mut next = Some(first);
        while let Some(message) = next.take() {
            size += message.payload_len();
            records += 1;
            // One that was read ahead of its partition's revocation belongs to another process now.
            if let Some(source) = self.assignment.find(message.topic(), message.partition()) {
                batches.entry(source).or_default().push(consumed(&message));
            }
            if records < max_records && size < max_bytes {
                // A failure ends the batch. It has been logged.
                next = self.inner.recv().now_or_never().and_then(Result::ok);
            }
        }
        Ok(batches
            .into_iter()
            .map(|(source, records)| PartitionBatch { source, records })
            .collect())
    }

    /// Reads the partition from `offset` on.
    pub async fn seek(&self, source: &TopicPartition, offset: i64) -> Result<(), ConsumeError> {
        /// Longer than a busy client takes to answer itself.
        const TIMEOUT: Duration = Duration::from_secs(5);
        let inner = Arc::clone(&self.inner);
        let source = source.clone();
        blocking("seek", move || {
            inner.seek(
                &source.topic,
                source.partition.0,
                Offset::Offset(offset),
                TIMEOUT,
            )
        })
        .await
    }

    /// Leaves a hint where to begin for the processes that get these partitions next.
    pub fn commit<'a>(
        &self,
        positions: impl IntoIterator<Item = (&'a TopicPartition, i64)>,
    ) -> Result<(), ConsumeError> {
        let failed = |source| ConsumeError {
            doing: "commit offsets",
            source,
        };
        let mut list = TopicPartitionList::new();
        for (source, next_offset) in positions {
            let next = Offset::Offset(next_offset);
            list.add_partition_offset(&source.topic, source.partition.0, next)
                .map_err(failed)?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.inner.commit(&list, CommitMode::Async).map_err(failed)
    }

    /// The offset that the next record of the partition will get.
    pub async fn end_offset(
        &self,
        topic: &str,
        partition: Partition,
        timeout: Duration,
    ) -> Result<i64, ConsumeError> {
        let inner = Arc::clone(&self.inner);
        let topic = topic.to_owned();
        blocking("read the end of a partition", move || {
            let (_, end) = inner.fetch_watermarks(&topic, partition.0, timeout)?;
            Ok(end)
        })
        .await
    }

    /// Leaves the group, so that others get the partitions at once. To be called when nothing else reads.
    pub async fn leave(&self) {
        /// Brokers that are away don't hold up the end of a process: they take the partitions back by themselves.
        const TIMEOUT: Duration = Duration::from_secs(3);
        const POLL: Duration = Duration::from_millis(50);
        self.inner.unsubscribe();
        let deadline = Instant::now() + TIMEOUT;
        // The partitions are given up in the course of reading.
        while !self.assigned().is_empty() && Instant::now() < deadline {
            if let Err(error) = self.next_batch(1, 1, POLL).await {
                tracing::debug!(%error, "leaving the group");
            }
        }
    }
}

fn not_read(source: KafkaError) -> ConsumeError {
    ConsumeError {
        doing: "read records",
        source,
    }
}

fn consumed(message: &BorrowedMessage<'_>) -> Consumed {
    let trace = message.headers().and_then(|headers| {
        let header = headers
            .iter()
            .find(|header| header.key == TraceParent::HEADER)?;
        TraceParent::parse(header.value?)
    });
    Consumed {
        offset: message.offset(),
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        trace,
    }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, ConsumeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(KafkaError::Canceled))
        .map_err(|source| ConsumeError { doing, source })
}
