//! Appending and reading on a real Kafka.
#![allow(clippy::unwrap_used, missing_docs)]

mod delivery;
mod traces;

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use events::consumer::{BatchConsumer, ConsumerSettings, TopicPartition};
use events::producer::{AppendError, Delivery, Producer, ProducerSettings};
use events::{Partition, Record, SaleEvent, TraceParent};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use sale_stock::{Epoch, SaleUid};
use testkit::{Kafka, eventually, unique_name};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

fn producer(kafka: &Kafka) -> Producer {
    Producer::new(&ProducerSettings::new(kafka.brokers(), "test")).unwrap()
}

fn consumer(kafka: &Kafka, group: &str) -> BatchConsumer {
    BatchConsumer::new(&ConsumerSettings::new(
        kafka.brokers(),
        group,
        unique_name("test"),
    ))
    .unwrap()
}

async fn new_topic(kafka: &Kafka, partitions: i32) -> String {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    let name = unique_name("topic");
    let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    admin
        .create_topics([&new], &AdminOptions::new())
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    name
}

fn fence(epoch: u64) -> Record {
    Record {
        sale: SaleUid(Uuid::nil()),
        event: SaleEvent::Fence(Epoch(epoch)),
    }
}

/// Reads until there are this many records; answers partition, offset and epoch of each in the order read.
async fn read(consumer: &BatchConsumer, count: usize) -> Vec<(i32, i64, u64)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batches = consumer.next_batch(100, 1 << 20, PATIENCE).await.unwrap();
        assert!(!batches.is_empty(), "only {seen:?}");
        for batch in batches {
            for record in batch.records {
                let SaleEvent::Fence(epoch) = Record::decode(&record.value).unwrap().event else {
                    panic!("no fence")
                };
                seen.push((batch.source.partition.0, record.offset, epoch.0));
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_read_in_order_with_its_trace() {
    let kafka = Kafka::shared().await;
    let topic = new_topic(kafka, 2).await;
    let producer = producer(kafka);
    assert_eq!(producer.warm(&topic, PATIENCE).await.unwrap(), 2);
    for epoch in 0..5 {
        assert_eq!(
            producer
                .append(&topic, Partition(1), &fence(epoch))
                .await
                .unwrap(),
            epoch as i64
        );
    }
    let trace =
        TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let (sender, fate) = mpsc::channel();
    let value = fence(9).encode();
    producer
        .send(&topic, Partition(0), &value, Some(&trace), move |fate| {
            sender.send(fate).unwrap()
        })
        .unwrap();
    producer.flush(PATIENCE).await.unwrap();
    assert_eq!(fate.recv().unwrap(), Delivery::Appended { offset: 0 });
    assert_eq!(producer.in_flight(), 0);

    let consumer = consumer(kafka, &unique_name("group"));
    consumer.subscribe(&[&topic]).unwrap();
    let mut seen = Vec::new();
    let mut traces = Vec::new();
    while seen.len() < 6 {
        for batch in consumer.next_batch(100, 1 << 20, PATIENCE).await.unwrap() {
            traces.extend(
                batch
                    .records
                    .iter()
                    .filter_map(|record| record.trace.clone()),
            );
            seen.extend(
                batch
                    .records
                    .iter()
                    .map(|record| (batch.source.partition.0, record.offset)),
            );
        }
    }
    let of = |partition| {
        seen.iter()
            .filter(move |(from, _)| *from == partition)
            .map(|(_, offset)| *offset)
    };
    assert_eq!(of(1).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(of(0).collect::<Vec<_>>(), [0]);
    assert_eq!(traces, [trace]);
    assert_eq!(
        consumer
            .end_offset(&topic, Partition(1), PATIENCE)
            .await
            .unwrap(),
        5
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_goes_back_when_it_is_told_to() {
    let kafka = Kafka::shared().await;
    let topic = new_topic(kafka, 1).await;
    let producer = producer(kafka);
    for epoch in 0..6 {
        producer
            .append(&topic, Partition(0), &fence(epoch))
            .await
            .unwrap();
    }
    let consumer = consumer(kafka, &unique_name("group"));
    consumer.subscribe(&[&topic]).unwrap();
    read(&consumer, 6).await;
    let source = TopicPartition {
        topic: topic.as_str().into(),
        partition: Partition(0),
    };
    consumer.seek(&source, 2).await.unwrap();
    let again: Vec<u64> = read(&consumer, 4)
        .await
        .into_iter()
        .map(|(_, _, epoch)| epoch)
        .collect();
    assert_eq!(again, [2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_reader_begins_where_the_hint_says() {
    let kafka = Kafka::shared().await;
    let topic = new_topic(kafka, 1).await;
    let producer = producer(kafka);
    for epoch in 0..4 {
        producer
            .append(&topic, Partition(0), &fence(epoch))
            .await
            .unwrap();
    }
    let group = unique_name("group");
    let first = consumer(kafka, &group);
    first.subscribe(&[&topic]).unwrap();
    read(&first, 4).await;
    let source = TopicPartition {
        topic: topic.as_str().into(),
        partition: Partition(0),
    };
    first.commit([(&source, 3)]).unwrap();
    first.leave().await;
    drop(first);
    let second = consumer(kafka, &group);
    second.subscribe(&[&topic]).unwrap();
    assert_eq!(read(&second, 1).await, [(0, 3, 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_group_share_the_partitions_and_take_over() {
    let kafka = Kafka::shared().await;
    let topic = new_topic(kafka, 4).await;
    let group = unique_name("group");
    let (one, two) = (consumer(kafka, &group), consumer(kafka, &group));
    let poll = async |consumer: &BatchConsumer| {
        consumer
            .next_batch(10, 1 << 20, Duration::from_millis(20))
            .await
            .unwrap();
        consumer
            .assigned()
            .into_iter()
            .map(|source| source.partition.0)
            .collect::<BTreeSet<_>>()
    };
    one.subscribe(&[&topic]).unwrap();
    eventually(PATIENCE, async || poll(&one).await.len() == 4).await;
    two.subscribe(&[&topic]).unwrap();
    eventually(PATIENCE, async || {
        let (of_one, of_two) = (poll(&one).await, poll(&two).await);
        of_one.len() == 2 && of_two.len() == 2 && of_one.is_disjoint(&of_two)
    })
    .await;
    one.leave().await;
    eventually(PATIENCE, async || {
        poll(&two).await == BTreeSet::from([0, 1, 2, 3])
    })
    .await;
    assert!(two.is_assigned(&topic, Partition(3)));
    two.subscribe(&[]).unwrap();
    eventually(PATIENCE, async || poll(&two).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_nobody_acknowledged_is_unknown_and_one_refused_is_not() {
    let kafka = Kafka::start().await.unwrap();
    let topic = new_topic(&kafka, 1).await;
    let settings = ProducerSettings {
        message_timeout: Duration::from_millis(500),
        queue_records_max: 2,
        ..ProducerSettings::new(kafka.brokers(), "test")
    };
    let producer = Producer::new(&settings).unwrap();
    // The first one may take longer than this producer has patience: a new broker gives it its id.
    eventually(PATIENCE, async || {
        producer.append(&topic, Partition(0), &fence(1)).await
    })
    .await;
    kafka.freeze().unwrap();
    let (sender, fates) = mpsc::channel();
    let mut refused = 0;
    for _ in 0..5 {
        let sender = sender.clone();
        let value = fence(2).encode();
        let sent = producer.send(&topic, Partition(0), &value, None, move |fate| {
            sender.send(fate).unwrap()
        });
        refused += usize::from(sent.is_err());
    }
    assert_eq!(refused, 3, "the queue takes two");
    drop(sender);
    let fates: Vec<Delivery> = tokio::task::spawn_blocking(move || fates.into_iter().collect())
        .await
        .unwrap();
    assert_eq!(fates.len(), 2);
    assert!(
        fates
            .iter()
            .all(|fate| matches!(fate, Delivery::Unknown(_))),
        "{fates:?}"
    );
    // A record's place in the queue is free a moment after its fate is told.
    eventually(PATIENCE, async || producer.in_flight() == 0).await;
    let unknown = producer.append(&topic, Partition(0), &fence(3)).await;
    assert!(
        matches!(unknown, Err(AppendError::Unknown { .. })),
        "{unknown:?}"
    );

    kafka.thaw().unwrap();
    eventually(PATIENCE, async || {
        producer.append(&topic, Partition(0), &fence(4)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_is_found() {
    let kafka = Kafka::start().await.unwrap();
    let topic = new_topic(&kafka, 1).await;
    let producer = producer(&kafka);
    let consumer = consumer(&kafka, &unique_name("group"));
    consumer.subscribe(&[&topic]).unwrap();
    producer
        .append(&topic, Partition(0), &fence(0))
        .await
        .unwrap();
    assert_eq!(read(&consumer, 1).await, [(0, 0, 0)]);
    kafka.kill().await.unwrap();
    producer.ping(Duration::from_millis(200)).await.unwrap_err();
    kafka.resume().await.unwrap();
    eventually(PATIENCE, async || {
        producer.ping(Duration::from_secs(1)).await
    })
    .await;
    let offset = eventually(PATIENCE, async || {
        producer.append(&topic, Partition(0), &fence(1)).await
    })
    .await;
    eventually(PATIENCE, async || {
        // Reading fails for as long as the consumer hasn't found the broker again.
        let batches = consumer
            .next_batch(10, 1 << 20, Duration::from_secs(1))
            .await
            .unwrap_or_default();
        batches
            .iter()
            .any(|batch| batch.records.iter().any(|record| record.offset >= offset))
    })
    .await;
}

/// What the client reports while Kafka is away lies before the records: to pause for each of it would be to read nothing
/// for long afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_while_kafka_was_away_is_read_past() {
    let kafka = Kafka::start().await.unwrap();
    let topic = new_topic(&kafka, 1).await;
    kafka.stop().await.unwrap();
    let consumer = consumer(&kafka, &unique_name("group"));
    consumer.subscribe(&[&topic]).unwrap();
    // Nobody reads meanwhile.
    kafka.resume().await.unwrap();
    let producer = producer(&kafka);
    eventually(PATIENCE, async || {
        producer.append(&topic, Partition(0), &fence(1)).await
    })
    .await;
    let read = consumer.next_batch(1, 1, PATIENCE).await.unwrap();
    assert_eq!(read[0].records[0].offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_is_not_made() {
    let kafka = Kafka::shared().await;
    let producer = producer(kafka);
    let error = producer
        .warm(&unique_name("nothing"), PATIENCE)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("read the metadata of nothing-"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_dropped_at_once_with_the_broker_gone() {
    let kafka = Kafka::start().await.unwrap();
    let topic = new_topic(&kafka, 1).await;
    let producer = producer(&kafka);
    let consumer = consumer(&kafka, &unique_name("group"));
    consumer.subscribe(&[&topic]).unwrap();
    producer
        .append(&topic, Partition(0), &fence(0))
        .await
        .unwrap();
    read(&consumer, 1).await;
    kafka.kill().await.unwrap();
    let dropped = tokio::task::spawn_blocking(move || drop((producer, consumer)));
    tokio::time::timeout(PATIENCE, dropped)
        .await
        .expect("still waiting for the broker")
        .unwrap();
}
