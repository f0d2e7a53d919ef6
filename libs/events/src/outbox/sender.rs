//! Kafka's client as the relay uses it: records with keys, each awaited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use crate::TraceParent;
use crate::producer::ProducerSettings;

/// How long the client's thread waits for acknowledgements before it looks whether it should end. The client spins
/// through the last millisecond of each wait, so it is long.
const POLL_WAIT: Duration = Duration::from_secs(1);

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

/// A client and the thread that runs its acknowledgements, which ends soon after this is dropped.
struct Client {
    inner: Arc<BaseProducer<Context>>,
    ended: Arc<AtomicBool>,
}

impl Client {
    fn start(config: &ClientConfig) -> Result<Self, KafkaError> {
        let inner = Arc::new(config.create_with_context::<_, BaseProducer<_>>(Context)?);
        let ended = Arc::new(AtomicBool::new(false));
        let (polled, told) = (Arc::clone(&inner), Arc::clone(&ended));
        std::thread::Builder::new()
            .name("kafka-outbox".to_owned())
            .spawn(move || {
                while !told.load(Ordering::Relaxed) {
                    polled.poll(POLL_WAIT);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { inner, ended })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Sends records and waits for their acknowledgement.
pub(super) struct Sender {
    config: ClientConfig,
    client: Client,
}

impl Sender {
    pub(super) fn new(settings: &ProducerSettings) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &settings.brokers)
            .set("client.id", format!("{}-outbox", settings.client_id))
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set(
                "message.timeout.ms",
                settings.message_timeout.as_millis().to_string(),
            )
            .set("request.timeout.ms", "2000")
            .set(
                "queue.buffering.max.messages",
                settings.queue_records_max.to_string(),
            )
            .set("queue.buffering.max.kbytes", "65536")
            // A round's records are handed over at once: a moment makes one request of them.
            .set("linger.ms", "1")
            .set("socket.nagle.disable", "true")
            .set("allow.auto.create.topics", "false")
            // As Kafka's own clients place keys, so that others' tools find them.
            .set("partitioner", "murmur2_random")
            .set("retry.backoff.ms", "50")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500");
        Ok(Self {
            client: Client::start(&config)?,
            config,
        })
    }

    /// A client with a fatal error never sends again: puts a new one in its place.
    pub(super) fn renew_if_broken(&mut self) {
        let Some((_, reason)) = self.client.inner.client().fatal_error() else {
            return;
        };
        match Client::start(&self.config) {
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
        self.client.inner.send(record).map_err(|(error, _)| error)?;
        told.await.unwrap_or(Err(KafkaError::Canceled))
    }
}
