//! Kafka's client as the relay uses it: records with keys, each awaited.

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use crate::TraceParent;
use crate::polled::Polled;
use crate::producer::ProducerSettings;

type Fate = oneshot::Sender<Result<(), KafkaError>>;

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
            Ok(_) => Ok(()),
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

    /// `Ok` when all in-sync replicas have it; on an error it may be in the log, may yet land there, or neither.
    pub(super) async fn send(
        &self,
        topic: &str,
        key: &str,
        payload: &str,
        trace: Option<&str>,
    ) -> Result<(), KafkaError> {
        let (fate, told) = oneshot::channel();
        let mut record: BaseRecord<'_, str, str, Box<Fate>> =
            BaseRecord::with_opaque_to(topic, Box::new(fate))
                .key(key)
                .payload(payload);
        if let Some(trace) = trace {
            record = record.headers(OwnedHeaders::new().insert(Header {
                key: TraceParent::HEADER,
                value: Some(trace),
            }));
        }
        self.client.send(record).map_err(|(error, _)| error)?;
        told.await.unwrap_or(Err(KafkaError::Canceled))
    }
}
