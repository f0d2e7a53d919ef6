//! Topics that services need are made by them: nothing else knows how many partitions they want.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::saga;

/// How long the brokers may take to make topics.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long all of it may take, connecting included.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(15);

/// The first and the longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// As many replicas as the brokers make by default.
const REPLICATION_DEFAULT: i32 = -1;

/// Topics could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The brokers can't be asked.
    #[error("make topics: {0}")]
    Kafka(#[from] KafkaError),
    /// No answer in time.
    #[error("make topics: no answer within {} s", ENSURE_TIMEOUT.as_secs())]
    TimedOut,
    /// The brokers refused one.
    #[error("make the topic {topic}: {code}")]
    Refused {
        /// Which.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
    },
}

/// Makes those of `topics` (name and partitions) that are missing, with the brokers' default replication. Those that
/// are there are left as they are: with another number of partitions, keys would move to other partitions.
pub async fn ensure(brokers: &str, topics: &[(&str, u32)]) -> Result<(), TopicsError> {
    timeout(ENSURE_TIMEOUT, make(brokers, topics))
        .await
        .unwrap_or(Err(TopicsError::TimedOut))
}

async fn make(brokers: &str, topics: &[(&str, u32)]) -> Result<(), TopicsError> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(name, partitions)| {
            let partitions = i32::try_from(*partitions).unwrap_or(i32::MAX);
            NewTopic::new(
                name,
                partitions,
                TopicReplication::Fixed(REPLICATION_DEFAULT),
            )
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(OPERATION_TIMEOUT))
        .request_timeout(Some(OPERATION_TIMEOUT));
    for made in admin.create_topics(&new, &options).await? {
        match made {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopicsError::Refused { topic, code }),
        }
    }
    Ok(())
}

/// [`ensure`], again and again until it is done or the process ends: for a job at the start of a service, whose brokers
/// may be away.
pub async fn ensure_until(
    brokers: String,
    topics: Vec<(&'static str, u32)>,
    stop: CancellationToken,
) {
    let mut pause = PAUSE.0;
    loop {
        let made = tokio::select! {
            () = stop.cancelled() => return,
            made = ensure(&brokers, &topics) => made,
        };
        match made {
            Ok(()) => {
                tracing::info!(topics = topics.len(), "topics are there");
                return;
            }
            Err(error) => tracing::warn!(%error, "topics are not there yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
        }
    }
}

/// Partitions of each topic of the saga, where nothing else is said. Keys keep to their partition, so this should be
/// as many as the largest number of replicas that will ever read one.
pub const SAGA_PARTITIONS_DEFAULT: u32 = 12;

/// What `QUOKKA_SAGA_PARTITIONS` may say. All services of a platform should be told the same: whichever comes first makes
/// the topics.
pub const SAGA_PARTITIONS: std::ops::RangeInclusive<u32> = 1..=1_000;

/// All topics of the saga, for [`ensure`]: whichever service comes first makes them.
pub fn saga(partitions: u32) -> Vec<(&'static str, u32)> {
    let names = [
        saga::BOOKING_COMMANDS,
        saga::PROMOTIONS_COMMANDS,
        saga::PAYMENTS_COMMANDS,
        saga::ORDER_REPLIES,
        saga::CALENDAR,
        saga::AVAILABILITY,
    ];
    names.map(|name| (name, partitions)).to_vec()
}
