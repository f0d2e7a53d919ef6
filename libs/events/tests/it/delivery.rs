//! From the outbox by way of Kafka to the inbox, on real servers: what committed has its effects once, and in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::consumer::ConsumerSettings;
use events::inbox::{self, Handler, Inbox};
use events::outbox::{self, Messages, Relay};
use events::producer::ProducerSettings;
use events::saga::Envelope;
use events::topics;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Postgres, Transaction};
use testkit::{Kafka, eventually, unique_name};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{PATIENCE, consumer, new_topic};

const EFFECTS: &str =
    "CREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, key text, value bigint)";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) key: String,
    pub(crate) value: i64,
}

/// Writes what it is told; refuses one value for as long as it is told to.
#[derive(Clone)]
struct Scribe {
    refuses: Arc<AtomicBool>,
    refused: i64,
    batch: usize,
}

impl Scribe {
    fn new() -> Self {
        Self {
            refuses: Arc::default(),
            refused: -1,
            batch: 1,
        }
    }
}

impl Handler for Scribe {
    type Message = Note;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        note: Note,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO effects (key, value) VALUES ($1, $2)")
            .bind(&note.key)
            .bind(note.value)
            .execute(&mut **tx)
            .await?;
        if note.value == self.refused && self.refuses.load(Ordering::SeqCst) {
            return Err(sqlx::Error::RowNotFound);
        }
        Ok(())
    }

    fn batch_max(&self) -> usize {
        self.batch
    }
}

/// A task that is told to stop when it is dropped, or cut off as a process is that is killed.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let stop = CancellationToken::new();
        Self {
            task: tokio::spawn(work(stop.clone())),
            stop,
        }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("it ends")
            .unwrap();
    }

    fn kill(self) {
        self.task.abort();
    }
}

pub(crate) async fn database() -> PgPool {
    let database = testkit::Postgres::shared()
        .await
        .create_database()
        .await
        .unwrap();
    let pool = database.pool().await.unwrap();
    // Twice, as every start of a service does.
    for sql in [
        outbox::MIGRATION,
        inbox::MIGRATION,
        outbox::MIGRATION,
        inbox::MIGRATION,
        EFFECTS,
    ] {
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    }
    pool
}

pub(crate) fn relay(pool: &PgPool, kafka: &Kafka) -> Running {
    let relay = Relay::new(
        pool.clone(),
        &ProducerSettings::new(kafka.brokers(), "test"),
    )
    .unwrap();
    Running::start(|stop| relay.run(stop))
}

fn reader(pool: &PgPool, kafka: &Kafka, group: &str, topic: &str, scribe: &Scribe) -> Running {
    let settings = ConsumerSettings::new(kafka.brokers(), group, unique_name("test"));
    let inbox = Inbox::new(pool.clone(), settings, [topic]).unwrap();
    let scribe = scribe.clone();
    Running::start(async |stop| inbox.run(scribe, stop).await.unwrap())
}

async fn put(pool: &PgPool, topic: &str, key: &str, values: std::ops::Range<i64>) {
    let mut tx = pool.begin().await.unwrap();
    for value in values {
        let note = Note {
            key: key.to_owned(),
            value,
        };
        outbox::put(&mut tx, topic, key, &note).await.unwrap();
    }
    tx.commit().await.unwrap();
}

pub(crate) async fn waiting(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn effects(pool: &PgPool) -> BTreeMap<String, Vec<i64>> {
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT key, value FROM effects ORDER BY n")
        .fetch_all(pool)
        .await
        .unwrap();
    let mut effects = BTreeMap::<String, Vec<i64>>::new();
    for (key, value) in rows {
        effects.entry(key).or_default().push(value);
    }
    effects
}

/// Reads `count` different messages; answers each key's values in the order of their first copies.
async fn read(kafka: &Kafka, topic: &str, count: usize) -> HashMap<String, Vec<i64>> {
    let consumer = consumer(kafka, &unique_name("group"));
    consumer.subscribe(&[topic]).unwrap();
    let mut seen = std::collections::HashSet::<Uuid>::new();
    let mut values = HashMap::<String, Vec<i64>>::new();
    while seen.len() < count {
        let batches = consumer.next_batch(500, 1 << 20, PATIENCE).await.unwrap();
        assert!(!batches.is_empty(), "only {} of {count}", seen.len());
        for record in batches.into_iter().flat_map(|batch| batch.records) {
            let message: Envelope<Note> = serde_json::from_slice(&record.value).unwrap();
            if seen.insert(message.id) {
                values
                    .entry(message.body.key)
                    .or_default()
                    .push(message.body.value);
            }
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_is_sent_and_what_rolls_back_is_not() {
    let kafka = Kafka::shared().await;
    let (pool, topic) = (database().await, new_topic(kafka, 2).await);
    let relay = relay(&pool, kafka);
    let mut tx = pool.begin().await.unwrap();
    let note = |value| Note {
        key: "k".to_owned(),
        value,
    };
    outbox::put(&mut tx, &topic, "k", &note(1)).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let mut messages = Messages::new();
    messages.add(&topic, "k", &note(2)).unwrap();
    messages.add(&topic, "k", &note(3)).unwrap();
    messages.put(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(read(kafka, &topic, 2).await["k"], [2, 3]);
    eventually(PATIENCE, async || waiting(&pool).await == 0).await;
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_takes_its_trace_with_it_where_nothing_is_traced() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let kafka = Kafka::shared().await;
    let (pool, topic) = (database().await, new_topic(kafka, 1).await);
    put(&pool, &topic, "k", 0..2).await;
    let row = "UPDATE outbox SET trace = $1 WHERE seq = (SELECT min(seq) FROM outbox)";
    sqlx::query(row).bind(TRACE).execute(&pool).await.unwrap();
    let relay = relay(&pool, kafka);
    let consumer = consumer(kafka, &unique_name("group"));
    consumer.subscribe(&[&topic]).unwrap();
    let mut traces = Vec::new();
    while traces.len() < 2 {
        let batches = consumer.next_batch(500, 1 << 20, PATIENCE).await.unwrap();
        assert!(!batches.is_empty(), "only {traces:?}");
        let records = batches.into_iter().flat_map(|batch| batch.records);
        traces.extend(records.map(|record| record.trace.map(|trace| trace.to_string())));
    }
    assert_eq!(traces, [Some(TRACE.to_owned()), None]);
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_keeps_its_order_with_several_relays_one_of_which_dies() {
    let kafka = Kafka::shared().await;
    let (pool, topic) = (database().await, new_topic(kafka, 3).await);
    let relays = [relay(&pool, kafka), relay(&pool, kafka)];
    let writers = (0..10).map(|writer| {
        let (pool, topic) = (pool.clone(), topic.clone());
        async move {
            for from in (0..60).step_by(3) {
                put(&pool, &topic, &format!("k{writer}"), from..from + 3).await;
            }
        }
    });
    let dying = relay(&pool, kafka);
    tokio::join!(futures::future::join_all(writers), async {
        eventually(PATIENCE, async || waiting(&pool).await > 0).await;
        dying.kill();
    });
    let values = read(kafka, &topic, 600).await;
    for (key, values) in values {
        assert_eq!(values, (0..60).collect::<Vec<_>>(), "{key}");
    }
    eventually(PATIENCE, async || waiting(&pool).await == 0).await;
    for relay in relays {
        relay.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_can_not_remove_what_it_sent_only_repeats_and_the_inbox_handles_it_once() {
    let kafka = Kafka::shared().await;
    let (pool, topic) = (database().await, new_topic(kafka, 1).await);
    // As if the relay died each time after the acknowledgement.
    sqlx::raw_sql(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'died'; END $$;
        CREATE TRIGGER die BEFORE DELETE ON outbox EXECUTE FUNCTION die()",
    )
    .execute(&pool)
    .await
    .unwrap();
    put(&pool, &topic, "a", 0..5).await;
    put(&pool, &topic, "b", 0..5).await;
    let relay = relay(&pool, kafka);
    let watcher = consumer(kafka, &unique_name("group"));
    eventually(PATIENCE, async || {
        let end = watcher
            .end_offset(&topic, events::Partition(0), PATIENCE)
            .await
            .unwrap();
        end >= 30
    })
    .await;
    sqlx::raw_sql("DROP TRIGGER die ON outbox")
        .execute(&pool)
        .await
        .unwrap();
    eventually(PATIENCE, async || waiting(&pool).await == 0).await;
    relay.end().await;
    put(&pool, &topic, "end", 0..1).await;
    let relay = self::relay(&pool, kafka);

    let scribe = Scribe {
        batch: 7,
        ..Scribe::new()
    };
    let reader = reader(&pool, kafka, &unique_name("group"), &topic, &scribe);
    eventually(PATIENCE, async || effects(&pool).await.contains_key("end")).await;
    let effects = effects(&pool).await;
    assert_eq!(
        (&effects["a"][..], &effects["b"][..]),
        (&[0, 1, 2, 3, 4][..], &[0, 1, 2, 3, 4][..])
    );
    reader.end().await;
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_are_killed_and_take_over_have_each_effect_once() {
    let kafka = Kafka::shared().await;
    let (pool, topic) = (database().await, new_topic(kafka, 2).await);
    let relay = relay(&pool, kafka);
    let (group, scribe) = (unique_name("group"), Scribe::new());
    for key in 0..8 {
        put(&pool, &topic, &format!("k{key}"), 0..25).await;
    }
    let mut readers = vec![reader(&pool, kafka, &group, &topic, &scribe)];
    for already in [20, 60, 120] {
        eventually(PATIENCE, async || {
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM effects")
                .fetch_one(&pool)
                .await
                .unwrap();
            count >= already
        })
        .await;
        readers.pop().unwrap().kill();
        readers.push(reader(&pool, kafka, &group, &topic, &scribe));
    }
    eventually(PATIENCE, async || {
        let effects = effects(&pool).await;
        effects.values().map(Vec::len).sum::<usize>() >= 200
    })
    .await;
    // Everything again, in a group that has read nothing: another group's effects, so twice in all.
    let again = reader(&pool, kafka, &unique_name("group"), &topic, &scribe);
    eventually(PATIENCE, async || {
        effects(&pool).await.values().map(Vec::len).sum::<usize>() >= 400
    })
    .await;
    for (key, values) in effects(&pool).await {
        let once: Vec<i64> = (0..25).collect();
        assert_eq!(values, [once.clone(), once].concat(), "{key}");
    }
    again.end().await;
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_fails_holds_back_its_own_partition_and_no_other() {
    let kafka = Kafka::shared().await;
    let pool = database().await;
    // One partition each: one topic's failure must not stop the other's.
    let (failing, other) = (new_topic(kafka, 1).await, new_topic(kafka, 1).await);
    let scribe = Scribe {
        refuses: Arc::new(AtomicBool::new(true)),
        refused: 3,
        batch: 4,
    };
    let settings = ConsumerSettings::new(kafka.brokers(), unique_name("group"), "test");
    let inbox = Inbox::new(pool.clone(), settings, [&*failing, &*other]).unwrap();
    let handler = scribe.clone();
    let reader = Running::start(async |stop| inbox.run(handler, stop).await.unwrap());
    let relay = relay(&pool, kafka);
    put(&pool, &failing, "failing", 0..6).await;
    eventually(PATIENCE, async || {
        effects(&pool)
            .await
            .get("failing")
            .is_some_and(|done| done.len() == 3)
    })
    .await;
    put(&pool, &other, "other", 10..16).await;
    eventually(PATIENCE, async || {
        effects(&pool)
            .await
            .get("other")
            .is_some_and(|done| done.len() == 6)
    })
    .await;
    assert_eq!(effects(&pool).await["failing"], [0, 1, 2]);
    scribe.refuses.store(false, Ordering::SeqCst);
    eventually(PATIENCE, async || {
        effects(&pool).await["failing"] == [0, 1, 2, 3, 4, 5]
    })
    .await;
    reader.end().await;
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_can_not_be_read_is_skipped() {
    let kafka = Kafka::shared().await;
    let (pool, topic) = (database().await, new_topic(kafka, 1).await);
    let raw: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .create()
        .unwrap();
    for value in [
        "",
        "{",
        r#"{"id":"00000000-0000-0000-0000-000000000001","body":{"key":1}}"#,
    ] {
        raw.send(FutureRecord::to(&topic).key("k").payload(value), PATIENCE)
            .await
            .unwrap();
    }
    let relay = relay(&pool, kafka);
    put(&pool, &topic, "k", 0..2).await;
    let reader = reader(&pool, kafka, &unique_name("group"), &topic, &Scribe::new());
    eventually(PATIENCE, async || {
        effects(&pool).await.get("k") == Some(&vec![0, 1])
    })
    .await;
    reader.end().await;
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_while_kafka_or_the_database_is_away() {
    let kafka = Kafka::start().await.unwrap();
    let postgres = testkit::Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let pool = database.pool().await.unwrap();
    for sql in [outbox::MIGRATION, inbox::MIGRATION, EFFECTS] {
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
    }
    let topic = new_topic(&kafka, 1).await;
    let relay = relay(&pool, &kafka);
    let reader = reader(&pool, &kafka, &unique_name("group"), &topic, &Scribe::new());
    put(&pool, &topic, "k", 0..2).await;
    eventually(PATIENCE, async || {
        effects(&pool).await.get("k") == Some(&vec![0, 1])
    })
    .await;

    kafka.kill().await.unwrap();
    put(&pool, &topic, "k", 2..4).await;
    eventually(PATIENCE, async || {
        let shown = prometheus::gather();
        let oldest = shown
            .iter()
            .find(|family| family.name() == "quokka_outbox_oldest_seconds")
            .unwrap();
        oldest.get_metric()[0].get_gauge().value() > 0.1
    })
    .await;
    kafka.resume().await.unwrap();
    postgres.kill().await.unwrap();
    postgres.resume().await.unwrap();
    eventually(PATIENCE * 2, async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects")
            .fetch_one(&pool)
            .await;
        count.is_ok_and(|count| count == 4)
    })
    .await;
    assert_eq!(effects(&pool).await["k"], [0, 1, 2, 3]);
    reader.end().await;
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_once_and_left_as_it_is() {
    let kafka = Kafka::shared().await;
    let name = unique_name("made");
    topics::ensure(&kafka.brokers(), &[(&name, 3)])
        .await
        .unwrap();
    topics::ensure(&kafka.brokers(), &[(&name, 5)])
        .await
        .unwrap();
    let partitions = crate::producer(kafka)
        .warm(&name, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(partitions, 3);
    topics::ensure(&kafka.brokers(), &[("not a topic's name", 1)])
        .await
        .unwrap_err();
}
