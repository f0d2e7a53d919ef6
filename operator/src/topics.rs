//! The topics of the sales' logs.
//!
//! All sales share one look at the cluster's metadata, a few seconds old: a thousand sales ask Kafka no more often than
//! one does. A topic grows and never shrinks, and what isn't this sale's is never touched.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication, TopicResult,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use tokio::{sync::Mutex, task};

/// How old the shared look may be. `TopicReady` must follow an outage within 30 s.
const LOOK_MAX_AGE: Duration = Duration::from_secs(6);

/// How soon Kafka is asked again after it didn't answer.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How long Kafka may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Why nothing could be said or done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicError {
    /// Kafka doesn't answer, or can't now.
    #[error("{doing}: {why}")]
    Unreachable {
        /// What was asked.
        doing: &'static str,
        /// Why not.
        why: String,
    },
    /// It was understood and refused.
    #[error("{doing}: {why}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Why not.
        why: String,
    },
}

/// Topics of the cluster at the brokers. Clones share one connection and one look.
#[derive(Clone)]
pub struct Topics {
    admin: Arc<AdminClient<DefaultClientContext>>,
    consumer: Arc<BaseConsumer>,
    look: Arc<Mutex<Option<Look>>>,
    replication: i32,
}

struct Look {
    taken: Instant,
    partitions: Result<HashMap<String, u32>, TopicError>,
}

impl Topics {
    /// The cluster at `brokers`, not contacted yet. Topics are made with `replication` copies of each partition.
    ///
    /// # Errors
    ///
    /// The client can't be made.
    pub fn new(brokers: &[String], replication: u16) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers.join(","))
            .set("client.id", "quokka-operator")
            .set("socket.timeout.ms", "4000")
            .set("reconnect.backoff.max.ms", "2000")
            // Looking at a topic that isn't there must not make it.
            .set("allow.auto.create.topics", "false")
            // The client names brokers that are gone again and again; what the operator found is in its conditions.
            .set("log_level", "2");
        Ok(Self {
            admin: Arc::new(config.create()?),
            consumer: Arc::new(config.create()?),
            look: Arc::default(),
            replication: replication.into(),
        })
    }

    /// The partitions of a topic; `None` if there is no such topic.
    pub async fn partitions(&self, topic: &str) -> Result<Option<u32>, TopicError> {
        let mut look = self.look.lock().await;
        let fresh = look.as_ref().is_some_and(|look| {
            let max_age = if look.partitions.is_ok() {
                LOOK_MAX_AGE
            } else {
                LOOK_AGAIN_AFTER
            };
            look.taken.elapsed() < max_age
        });
        if !fresh {
            *look = None;
        }
        let look = match look.as_mut() {
            Some(look) => look,
            None => {
                let partitions = self.list().await;
                look.insert(Look {
                    taken: Instant::now(),
                    partitions,
                })
            }
        };
        look.partitions
            .as_ref()
            .map(|all| all.get(topic).copied())
            .map_err(Clone::clone)
    }

    /// Makes a topic that keeps its records for ever; false if it was there already.
    pub async fn create(&self, topic: &str, partitions: u32) -> Result<bool, TopicError> {
        const DOING: &str = "create the topic";
        let settings = self.settings();
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(self.replication));
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let results = self.admin.create_topics([&new], &options()).await;
        self.forget_look().await;
        one(DOING, results, RDKafkaErrorCode::TopicAlreadyExists)
    }

    /// Gives a topic more partitions.
    pub async fn grow(&self, topic: &str, partitions: u32) -> Result<(), TopicError> {
        const DOING: &str = "add partitions";
        let new = NewPartitions::new(topic, partitions as usize);
        let results = self.admin.create_partitions([&new], &options()).await;
        self.forget_look().await;
        one(DOING, results, RDKafkaErrorCode::InvalidPartitions).map(drop)
    }

    /// Gives a topic that was found the settings that a log needs: no record of it may ever be dropped.
    pub async fn adopt(&self, topic: &str) -> Result<(), TopicError> {
        const DOING: &str = "set up the topic";
        let settings = self.settings();
        let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in &settings {
            config = config.set(name, value);
        }
        let results = self
            .admin
            .alter_configs([&config], &options())
            .await
            .map_err(|error| failed(DOING, &error))?;
        match results.into_iter().next() {
            Some(Err((_, code))) => Err(refused_or_not(DOING, code)),
            _ => Ok(()),
        }
    }

    /// Removes a topic with all its records. One that isn't there is removed already.
    pub async fn delete(&self, topic: &str) -> Result<(), TopicError> {
        let results = self.admin.delete_topics(&[topic], &options()).await;
        self.forget_look().await;
        one(
            "delete the topic",
            results,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        )
        .map(drop)
    }

    /// Whether a topic never held a record.
    pub async fn is_empty(&self, topic: &str, partitions: u32) -> Result<bool, TopicError> {
        const DOING: &str = "look into the topic";
        let (consumer, topic) = (Arc::clone(&self.consumer), topic.to_owned());
        blocking(DOING, move || {
            for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
                let (_, high) = consumer.fetch_watermarks(&topic, partition, TIMEOUT)?;
                if high > 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    async fn list(&self) -> Result<HashMap<String, u32>, TopicError> {
        let consumer = Arc::clone(&self.consumer);
        blocking("list the topics", move || {
            let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
            let count = |partitions: usize| u32::try_from(partitions).unwrap_or(u32::MAX);
            Ok(metadata
                .topics()
                .iter()
                .filter(|topic| !topic.partitions().is_empty())
                .map(|topic| (topic.name().to_owned(), count(topic.partitions().len())))
                .collect())
        })
        .await
    }

    async fn forget_look(&self) {
        *self.look.lock().await = None;
    }

    /// With one copy there is nothing to be in sync with; with more, one may be down without claims being refused.
    fn settings(&self) -> [(&'static str, String); 4] {
        let in_sync = (self.replication - 1).max(1);
        [
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
            ("cleanup.policy", "delete".to_owned()),
            ("min.insync.replicas", in_sync.to_string()),
        ]
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}

/// librdkafka's lookups block: they belong on a thread of their own.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, TopicError> {
    match task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(doing, &error)),
        Err(error) => Err(TopicError::Unreachable {
            doing,
            why: error.to_string(),
        }),
    }
}

/// Whether an operation on one topic changed something; `done_already` is as good as done.
fn one(
    doing: &'static str,
    results: Result<Vec<TopicResult>, KafkaError>,
    done_already: RDKafkaErrorCode,
) -> Result<bool, TopicError> {
    let results = results.map_err(|error| failed(doing, &error))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if code == done_already => Ok(false),
        Some(Err((_, code))) => Err(refused_or_not(doing, code)),
        _ => Ok(true),
    }
}

fn failed(doing: &'static str, error: &KafkaError) -> TopicError {
    match error.rdkafka_error_code() {
        Some(code) => refused_or_not(doing, code),
        None => TopicError::Unreachable {
            doing,
            why: error.to_string(),
        },
    }
}

fn refused_or_not(doing: &'static str, code: RDKafkaErrorCode) -> TopicError {
    let why = code.to_string();
    match code {
        RDKafkaErrorCode::InvalidReplicationFactor
        | RDKafkaErrorCode::InvalidConfig
        | RDKafkaErrorCode::InvalidPartitions
        | RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::PolicyViolation
        | RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::TopicDeletionDisabled => TopicError::Refused { doing, why },
        _ => TopicError::Unreachable { doing, why },
    }
}
