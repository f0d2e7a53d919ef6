//! Kafka's client as the relay uses it: records with keys, each awaited.

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::oneshot;
use tracing::Span;
use tracing::field::Empty;

use crate::TraceParent;
use crate::polled::Polled;
use crate::producer::ProducerSettings;

/// Where a record is, or why it isn't known to be in the log.
type Told = Result<(i32, i64), KafkaError>;
type Fate = oneshot::Sender<Told>;

struct Context;

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer of the outbox");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Fate>;

    fn delivery(&self, result: &DeliveryResult<'_>, fate: Self::DeliveryOpaque) {
        // Whoever waited may have given up.
        let _ = fate.send(match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        });
    }
}

type Client = Polled<Context>;

fn start(config: &ClientConfig) -> Result<Client, KafkaError> {
    Polled::start(config, Context, "kafka-outbox")
}

/// Sends records and waits for their acknowledgement.
pub(super) struct Sender {
    config: ClientConfig,
    client: Client,
}

impl Sender {
    pub(super) fn new(settings: &ProducerSettings) -> Result<Self, KafkaError> {
        let mut config = settings.config();
        config
            .set("client.id", format!("{}-outbox", settings.client_id))
            // A round's records are handed over at once: a moment makes one request of them.
            .set("linger.ms", "1")
            // As Kafka's own clients place keys, so that others' tools find them.
            .set("partitioner", "murmur2_random");
        Ok(Self {
            client: start(&config)?,
            config,
        })
    }

    /// A client with a fatal error never sends again: puts a new one in its place.
    pub(super) fn renew_if_broken(&mut self) {
        let Some((_, reason)) = self.client.client().fatal_error() else {
            return;
        };
        match start(&self.config) {
            Ok(client) => {
                tracing::warn!(
                    reason,
                    "kafka producer of the outbox replaced after a fatal error"
                );
                self.client = client;
            }
            Err(error) => tracing::error!(%error, "replace the kafka producer of the outbox"),
        }
    }

    /// `Ok` when all in-sync replicas have it; on an error it may be in the log, may yet land there, or neither. `trace`
    /// is what the message belongs to: the sending is a part of it, and its readers go on from there.
    pub(super) async fn send(
        &self,
        topic: &str,
        key: &str,
        payload: &str,
        trace: Option<&str>,
    ) -> Result<(), KafkaError> {
        let (fate, told) = oneshot::channel();
        let parent = trace.and_then(|trace| TraceParent::parse(trace.as_bytes()));
        let span = parent.map_or_else(Span::none, |parent| send_span(topic, key, &parent));
        let own = span.in_scope(TraceParent::current);
        let own = own.map(|own| own.to_string());
        let mut record: BaseRecord<'_, str, str, Box<Fate>> =
            BaseRecord::with_opaque_to(topic, Box::new(fate))
                .key(key)
                .payload(payload);
        if let Some(trace) = own.as_deref().or(trace) {
            record = record.headers(OwnedHeaders::new().insert(Header {
                key: TraceParent::HEADER,
                value: Some(trace),
            }));
        }
        let told = match self.client.send(record) {
            Ok(()) => told.await.unwrap_or(Err(KafkaError::Canceled)),
            Err((error, _)) => Err(error),
        };
        match told {
            Ok((partition, offset)) => {
                span.record("messaging.destination.partition.id", partition);
                span.record("messaging.kafka.offset", offset);
                Ok(())
            }
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", "kafka");
                Err(error)
            }
        }
    }
}

/// Of one message, from the outbox to its acknowledgement.
fn send_span(topic: &str, key: &str, parent: &TraceParent) -> Span {
    let span = tracing::info_span!(
        "send",
        otel.name = format_args!("send {topic}"),
        otel.kind = "producer",
        otel.status_code = Empty,
        messaging.system = "kafka",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        messaging.kafka.message.key = key,
        messaging.destination.partition.id = Empty,
        messaging.kafka.offset = Empty,
        error.type = Empty,
    );
    parent.continue_in(&span);
    span
}
