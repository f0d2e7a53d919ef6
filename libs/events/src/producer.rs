//! Appends records with acks=all and idempotence, and tells an append that is certainly not in the log from
//! one whose outcome is unknown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
pub use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use seldom::Seldom;
use tokio::sync::oneshot;
use tracing::Span;
use tracing::field::Empty;

use crate::polled::Polled;
use crate::{Partition, Record, TraceParent};

/// How the producer is set up.
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The process, for the brokers' logs.
    pub client_id: String,
    /// After this an append's outcome is given up as unknown. Below the acknowledgement deadline of the claim
    /// protocol.
    pub message_timeout: Duration,
    /// Most records that wait for their acknowledgement; further ones are refused.
    pub queue_records_max: u32,
}

impl ProducerSettings {
    /// The settings of the claim protocol.
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: client_id.into(),
            message_timeout: Duration::from_secs(4),
            queue_records_max: 10_000,
        }
    }

    /// What every client of ours that appends has: idempotent, acknowledged by all in-sync replicas, bounded.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set(
                "message.timeout.ms",
                self.message_timeout.as_millis().to_string(),
            )
            .set("request.timeout.ms", "2000")
            .set(
                "queue.buffering.max.messages",
                self.queue_records_max.to_string(),
            )
            .set("queue.buffering.max.kbytes", "65536")
            .set("socket.nagle.disable", "true")
            .set("allow.auto.create.topics", "false")
            .set("retry.backoff.ms", "50")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500");
        config
    }
}

/// The record was refused before it was handed to Kafka's client: it is certainly not in the log.
#[derive(Debug, thiserror::Error)]
#[error("append to {topic}: not sent: {source}")]
pub struct EnqueueError {
    /// Where to.
    pub topic: String,
    /// Why not.
    pub source: KafkaError,
}

/// What became of a record that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Acknowledged by all in-sync replicas.
    Appended {
        /// Its offset.
        offset: i64,
    },
    /// It may be in the log, may yet land there, or neither.
    Unknown(KafkaError),
}

/// Why an append is not known to be in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Certainly not in the log.
    #[error(transparent)]
    NotSent(#[from] EnqueueError),
    /// The outcome is unknown.
    #[error("append to {topic}: outcome unknown: {reason}")]
    Unknown {
        /// Where to.
        topic: String,
        /// What Kafka's client said.
        reason: String,
    },
}

/// Kafka can't be asked, or knows no such topic.
#[derive(Debug, thiserror::Error)]
#[error("read the metadata of {topic}: {reason}")]
pub struct MetadataError {
    /// Of which topic.
    pub topic: String,
    /// Why not.
    pub reason: String,
    /// Kafka answered, and has no such topic.
    pub no_such_topic: bool,
}

struct Callback(Box<dyn FnOnce(Delivery) + Send + Sync>);

struct Context {
    tellings: Seldom,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(unsaid) = self.tellings.turn() {
            tracing::warn!(%error, reason, unsaid, "kafka producer");
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Callback>;

    fn delivery(&self, result: &DeliveryResult<'_>, callback: Self::DeliveryOpaque) {
        (callback.0)(match result {
            Ok(message) => Delivery::Appended {
                offset: message.offset(),
            },
            Err((error, _)) => Delivery::Unknown(error.clone()),
        });
    }
}

type Client = Polled<Context>;

fn start(config: &ClientConfig) -> Result<Client, KafkaError> {
    let context = Context {
        tellings: Seldom::new(),
    };
    Polled::start(config, context, "kafka-producer")
}

/// Appends to any topic. Cheap to clone; one thread of its own runs the acknowledgements.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    config: ClientConfig,
    inner: ArcSwap<Client>,
    /// Held while a broken client is replaced.
    replacing: Mutex<()>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// Starts connecting; brokers that are away are found when they come.
    pub fn new(settings: &ProducerSettings) -> Result<Self, KafkaError> {
        let mut config = settings.config();
        // Claims are gathered before they come here: waiting for more would only add latency.
        config.set("linger.ms", "0");
        let inner = start(&config)?;
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                inner: ArcSwap::from_pointee(inner),
                replacing: Mutex::new(()),
            }),
        })
    }

    /// Sends a record. `on_delivery` runs on the producer's thread once its fate is known; it must not block.
    /// It does not run if the record is refused. `trace` is what the record's readers link to where this process
    /// traces nothing itself.
    pub fn send(
        &self,
        topic: &str,
        partition: Partition,
        value: &[u8],
        trace: Option<&TraceParent>,
        on_delivery: impl FnOnce(Delivery) + Send + Sync + 'static,
    ) -> Result<(), EnqueueError> {
        let span = span(topic, partition);
        let own = span.in_scope(TraceParent::current);
        let told = move |fate| {
            match &fate {
                Delivery::Appended { offset } => span.record("messaging.kafka.offset", *offset),
                Delivery::Unknown(_) => span.record("error.type", "unknown"),
            };
            on_delivery(fate);
        };
        let mut record: BaseRecord<'_, (), [u8], Box<Callback>> =
            BaseRecord::with_opaque_to(topic, Box::new(Callback(Box::new(told))))
                .partition(partition.0)
                .payload(value);
        if let Some(trace) = own.as_ref().or(trace) {
            record = record.headers(OwnedHeaders::new().insert(Header {
                key: TraceParent::HEADER,
                value: Some(&trace.to_string()),
            }));
        }
        let inner = self.shared.inner.load();
        match inner.send(record) {
            Ok(()) => Ok(()),
            Err((source, _)) => {
                if source.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    self.shared.replace(&inner);
                }
                Err(EnqueueError {
                    topic: topic.to_owned(),
                    source,
                })
            }
        }
    }

    /// Appends a record and waits for its fate.
    pub async fn append(
        &self,
        topic: &str,
        partition: Partition,
        record: &Record,
    ) -> Result<i64, AppendError> {
        let (sender, receiver) = oneshot::channel();
        let trace = TraceParent::current();
        self.send(topic, partition, &record.encode(), trace.as_ref(), |fate| {
            // Whoever waited may have gone.
            let _ = sender.send(fate);
        })?;
        let unknown = |reason: String| AppendError::Unknown {
            topic: topic.to_owned(),
            reason,
        };
        match receiver.await {
            Ok(Delivery::Appended { offset }) => Ok(offset),
            Ok(Delivery::Unknown(error)) => Err(unknown(error.to_string())),
            Err(_) => Err(unknown("the producer was dropped".to_owned())),
        }
    }

    /// Connects and learns the topic's partitions, so that the first append needn't; answers their number.
    pub async fn warm(&self, topic: &str, timeout: Duration) -> Result<u32, MetadataError> {
        let inner = self.shared.inner.load_full();
        let name = topic.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = inner
                .client()
                .fetch_metadata(Some(&name), timeout)
                .map_err(|error| (error.to_string(), false))?;
            let found = metadata.topics().iter().find(|found| found.name() == name);
            match found.map(|found| (found.error(), found.partitions().len())) {
                Some((None, partitions)) if partitions > 0 => {
                    u32::try_from(partitions).map_err(|error| (error.to_string(), false))
                }
                Some((Some(error), _)) => {
                    let unknown =
                        RDKafkaErrorCode::from(error) == RDKafkaErrorCode::UnknownTopicOrPartition;
                    Err((format!("{error:?}"), unknown))
                }
                Some((None, _)) | None => Err(("no partitions".to_owned(), false)),
            }
        });
        asked
            .await
            .unwrap_or_else(|error| Err((error.to_string(), false)))
            .map_err(|(reason, no_such_topic)| MetadataError {
                topic: topic.to_owned(),
                reason,
                no_such_topic,
            })
    }

    /// Whether a broker answers.
    pub async fn ping(&self, timeout: Duration) -> Result<(), MetadataError> {
        let inner = self.shared.inner.load_full();
        let asked = tokio::task::spawn_blocking(move || {
            // Of no topic at all: cheap with any number of topics.
            inner
                .client()
                .fetch_metadata(Some("quokka.ping"), timeout)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        asked
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|reason| MetadataError {
                topic: "no topic".to_owned(),
                reason,
                no_such_topic: false,
            })
    }

    /// Records that wait for their fate.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.shared.inner.load().in_flight_count()).unwrap_or(0)
    }

    /// Waits until the fate of every record sent is known.
    pub async fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        let inner = self.shared.inner.load_full();
        tokio::task::spawn_blocking(move || inner.flush(timeout))
            .await
            .unwrap_or(Err(KafkaError::Canceled))
    }
}

/// Of one append, from here to its acknowledgement.
fn span(topic: &str, partition: Partition) -> Span {
    tracing::info_span!(
        "send",
        otel.name = format_args!("send {topic}"),
        otel.kind = "producer",
        messaging.system = "kafka",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        messaging.destination.partition.id = partition.0,
        messaging.kafka.offset = Empty,
        error.type = Empty,
    )
}

impl Shared {
    /// A client with a fatal error never sends again: puts a new one in its place, once.
    fn replace(&self, broken: &Arc<Client>) {
        let _one = self
            .replacing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&self.inner.load(), broken) {
            return;
        }
        match start(&self.config) {
            Ok(inner) => {
                tracing::warn!("kafka producer replaced after a fatal error");
                self.inner.store(Arc::new(inner));
            }
            Err(error) => tracing::error!(%error, "replace the kafka producer"),
        }
    }
}
