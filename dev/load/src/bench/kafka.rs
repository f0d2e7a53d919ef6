//! What a benchmark does with Kafka before it measures: topics, and a broker that is warm.

use std::time::Duration;

use futures::StreamExt as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

const PATIENCE: Duration = Duration::from_secs(30);

/// Appends after which Kafka is warm: more than twice as many as the JVM's optimising compiler waits for.
const WARM_APPENDS: usize = 40_000;

/// About what a record of fifty claims takes.
const WARM_RECORD_BYTES: usize = 8 * 1024;

/// As many as an idempotent producer has on their way.
const WARM_AT_ONCE: usize = 5;

/// Makes a topic that keeps what is in it.
pub(crate) async fn create_topic(
    brokers: &str,
    topic: &str,
    partitions: i32,
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()?;
    let new =
        NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let created = admin
        .create_topics([&new], &AdminOptions::new().request_timeout(Some(PATIENCE)))
        .await?;
    for topic in created {
        topic.map_err(|(topic, code)| anyhow::anyhow!("creating the topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Gives a broker the work after which its JVM has compiled what it runs often, as in one that has served for a day.
/// Until then the compiler takes a good part of a core from what is measured.
pub(crate) async fn warm_up(brokers: &str) -> anyhow::Result<()> {
    const TOPIC: &str = "warm-up";
    println!("  {WARM_APPENDS} appends to warm Kafka up");
    create_topic(brokers, TOPIC, 1).await?;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // A request for each.
        .set("linger.ms", "0")
        .set("batch.num.messages", "1")
        .create()?;
    let value = vec![b'.'; WARM_RECORD_BYTES];
    let appends = (0..WARM_APPENDS).map(|_| {
        let record = FutureRecord::<(), _>::to(TOPIC)
            .partition(0)
            .payload(&value);
        producer.send(record, PATIENCE)
    });
    let mut appends = futures::stream::iter(appends).buffer_unordered(WARM_AT_ONCE);
    while let Some(appended) = appends.next().await {
        appended.map_err(|(error, _)| anyhow::anyhow!("warming Kafka up: {error}"))?;
    }
    Ok(())
}
