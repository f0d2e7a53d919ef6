//! What is done for a message, and what is sent because of it, belong to the trace of whoever sent it: also where many
//! messages share a transaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use events::consumer::ConsumerSettings;
use events::inbox::{Delivered, Handler, Inbox};
use events::outbox::{self, Messages};
use events::saga::Envelope;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use sqlx::{PgPool, Postgres, Transaction};
use testkit::spans::{SpanData, Spans};
use testkit::{Kafka, eventually, unique_name};

use crate::delivery::{Note, Running, database, relay, waiting};
use crate::{PATIENCE, consumer, new_topic};

/// As many lie in the topic before it is read: some will share a transaction.
const ORDERS: usize = 20;

/// Answers each message by itself, though they share a transaction.
struct OneByOne {
    answers: String,
}

impl Handler for OneByOne {
    type Message = Note;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        note: Note,
    ) -> Result<(), sqlx::Error> {
        outbox::put(tx, &self.answers, &note.key, &note).await?;
        Ok(())
    }

    fn batch_max(&self) -> usize {
        ORDERS
    }
}

/// Answers those of a transaction together; the first time it has the work undone.
struct Together {
    answers: String,
    failed: AtomicBool,
}

impl Handler for Together {
    type Message = Note;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        note: Note,
    ) -> Result<(), sqlx::Error> {
        self.handle_all(tx, vec![note.into()]).await
    }

    fn batch_max(&self) -> usize {
        ORDERS
    }

    async fn handle_all(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        notes: Vec<Delivered<Note>>,
    ) -> Result<(), sqlx::Error> {
        let mut answers = Messages::new();
        for note in &notes {
            note.within(|| answers.add(&self.answers, &note.message.key, &note.message))?;
        }
        answers.put(tx).await?;
        if self.failed.swap(true, Ordering::SeqCst) {
            Ok(())
        } else {
            Err(sqlx::Error::RowNotFound)
        }
    }
}

/// Sends a message for each order, in a trace of its own; answers the traces by the messages' values.
async fn order(pool: &PgPool, topic: &str) -> BTreeMap<i64, TraceId> {
    let mut messages = Messages::new();
    let mut traces = BTreeMap::new();
    for value in 0..ORDERS as i64 {
        let span = tracing::info_span!("order");
        let note = Note {
            key: "k".to_owned(),
            value,
        };
        let current = span.in_scope(|| {
            messages.add(topic, &note.key, &note).unwrap();
            events::TraceParent::current().unwrap()
        });
        traces.insert(value, current.span_context().trace_id());
    }
    let mut tx = pool.begin().await.unwrap();
    messages.put(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    traces
}

/// The span that sent each answer, by the answers' values.
async fn answered(kafka: &Kafka, topic: &str) -> BTreeMap<i64, (TraceId, SpanId)> {
    let consumer = consumer(kafka, &unique_name("group"));
    consumer.subscribe(&[topic]).unwrap();
    let mut senders = BTreeMap::new();
    while senders.len() < ORDERS {
        let batches = consumer.next_batch(500, 1 << 20, PATIENCE).await.unwrap();
        assert!(!batches.is_empty(), "only {senders:?}");
        for record in batches.into_iter().flat_map(|batch| batch.records) {
            let answer: Envelope<Note> = serde_json::from_slice(&record.value).unwrap();
            let sender = record.trace.expect("it has a trace").span_context();
            let sender = (sender.trace_id(), sender.span_id());
            let before = senders.insert(answer.body.value, sender);
            assert!(before.is_none_or(|before| before == sender), "sent once");
        }
    }
    senders
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string())
}

/// Has orders answered; each answer must be found in its own order's trace, caused by what was done for this order.
/// Answers the spans of what was done.
async fn each_is_answered_in_its_own_trace<H: Handler>(
    handler: impl FnOnce(String) -> H,
) -> Vec<SpanData> {
    let kafka = Kafka::shared().await;
    let pool = database().await;
    let (topic, answers) = (new_topic(kafka, 1).await, new_topic(kafka, 1).await);
    let spans = Spans::of_this_thread();
    let relay = relay(&pool, kafka);
    let orders = order(&pool, &topic).await;
    eventually(PATIENCE, async || waiting(&pool).await == 0).await;
    let group = unique_name("group");
    let settings = ConsumerSettings::new(kafka.brokers(), &group, unique_name("test"));
    let inbox = Inbox::new(pool.clone(), settings, [topic.as_str()]).unwrap();
    let handler = handler(answers.clone());
    let reader = Running::start(async |stop| inbox.run(handler, stop).await.unwrap());
    let senders = answered(kafka, &answers).await;
    eventually(PATIENCE, async || waiting(&pool).await == 0).await;
    reader.end().await;
    relay.end().await;

    let ended = spans.ended();
    let span = |id: SpanId| {
        let mut ended = ended.iter();
        ended
            .find(|span| span.span_context.span_id() == id)
            .expect("every parent is there")
    };
    let steps = [
        (format!("send {answers}"), SpanKind::Producer),
        (format!("process {topic}"), SpanKind::Consumer),
        (format!("send {topic}"), SpanKind::Producer),
        ("order".to_owned(), SpanKind::Internal),
    ];
    for (value, (trace, sender)) in senders {
        assert_eq!(trace, orders[&value], "the answer to {value}");
        let mut id = sender;
        for (name, kind) in &steps {
            let step = span(id);
            assert_eq!((&*step.name, &step.span_kind), (name.as_str(), kind));
            assert_eq!(step.span_context.trace_id(), trace);
            if *kind == SpanKind::Consumer {
                let links: Vec<SpanId> = (step.links.iter())
                    .map(|link| link.span_context.span_id())
                    .collect();
                assert_eq!(links, [step.parent_span_id]);
                assert_eq!(
                    attribute(step, "messaging.kafka.offset"),
                    Some(value.to_string())
                );
                assert_eq!(
                    attribute(step, "messaging.consumer.group.name").as_ref(),
                    Some(&group)
                );
            }
            id = step.parent_span_id;
        }
        assert_eq!(id, SpanId::INVALID, "an order is where a trace starts");
    }
    // What they share is of no order's trace, and linked to all of them.
    let traces: HashSet<TraceId> = orders.into_values().collect();
    let name = format!("process {topic}");
    let done: Vec<SpanData> = (ended.into_iter())
        .filter(|span| span.name == name)
        .collect();
    let shared = |span: &&SpanData| !traces.contains(&span.span_context.trace_id());
    let shared: Vec<&SpanData> = done.iter().filter(shared).collect();
    assert!(!shared.is_empty(), "some share a transaction");
    for span in shared {
        let count = attribute(span, "messaging.batch.message_count").unwrap();
        assert!(count.parse::<usize>().unwrap() > 1);
        let linked = (span.links.iter()).map(|link| link.span_context.trace_id());
        assert!(linked.clone().count() > 1);
        assert!(linked.into_iter().all(|trace| traces.contains(&trace)));
    }
    done
}

#[tokio::test]
async fn messages_of_a_transaction_are_handled_each_in_its_own_trace() {
    let done = each_is_answered_in_its_own_trace(|answers| OneByOne { answers }).await;
    for span in done {
        assert_eq!(span.status, Status::Unset);
    }
}

#[tokio::test]
async fn messages_that_are_answered_together_are_answered_each_in_its_own_trace() {
    let together = |answers| Together {
        answers,
        failed: AtomicBool::new(false),
    };
    let done = each_is_answered_in_its_own_trace(together).await;
    let failed = |span: &&SpanData| span.status != Status::Unset;
    let (failed, fine): (Vec<&SpanData>, Vec<&SpanData>) = done.iter().partition(failed);
    // The transaction that was undone says so in its own span and in that of each message, which is handled again.
    assert!(!failed.is_empty());
    for span in failed {
        assert_eq!(
            attribute(span, "error.type").as_deref(),
            Some("not_handled")
        );
    }
    let fine = fine.into_iter().filter(|span| span.links.len() == 1);
    assert!(fine.count() >= ORDERS);
}
