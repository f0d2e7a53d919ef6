//! Reads the logs of all sales in batches and has each applied in one transaction.
//!
//! What was applied is known by the ledger's own positions: Kafka's committed offsets are a hint where to begin.
//! Delivery may repeat, skip back or be shared with a process that doesn't know yet that it lost its partitions; the
//! positions, looked at under the sale's lock, make each record count once. A sale that can't be applied is read again
//! from its position after a pause, and doesn't hold up the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use events::consumer::{BatchConsumer, PartitionBatch, TopicPartition};
use events::{Record, RecordError, SaleEvent};
use sale_stock::{PER_USER_LIMIT_MAX, SaleUid};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::core::{Dropped, LogPosition};
use super::effects::Effects;
use super::metrics;
use super::sales::{Living, Sales};
use crate::store::{BatchOutcome, BatchRecord, SaleRow, Store, StoreError};

/// Most records of one batch: a transaction of some tens of milliseconds, even where each carries many claims.
const BATCH_RECORDS_MAX: usize = 500;

/// Most bytes of one batch.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long a call for records waits when there are none: what a new topic may have to wait to be subscribed to.
const BATCH_WAIT: Duration = Duration::from_millis(200);

/// How long a batch may take, from asking for a connection to the commit.
const APPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// The first and the longest pause of a sale that can't be applied. Each is drawn from its upper half.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Everything the consumer works with.
pub(super) struct Reader {
    pub(super) consumer: Arc<BatchConsumer>,
    pub(super) store: Store,
    pub(super) sales: Sales,
    pub(super) effects: Effects,
    pub(super) group: String,
    /// Sales that are read again later, and the partitions to go back in.
    held: HashMap<SaleUid, Held>,
    /// The next pause of sales whose last batch could not be applied.
    pauses: HashMap<SaleUid, Duration>,
}

struct Held {
    until: Instant,
    partitions: BTreeSet<TopicPartition>,
}

impl Reader {
    pub(super) fn new(
        consumer: Arc<BatchConsumer>,
        store: Store,
        sales: Sales,
        effects: Effects,
        group: String,
    ) -> Self {
        Self {
            consumer,
            store,
            sales,
            effects,
            group,
            held: HashMap::new(),
            pauses: HashMap::new(),
        }
    }

    /// Reads until the end of the process.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut subscribed = Vec::new();
        loop {
            self.subscribe(&mut subscribed);
            let batches = tokio::select! {
                () = stop.cancelled() => return,
                batches = self.consumer.next_batch(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, BATCH_WAIT) => batches,
            };
            match batches {
                Ok(batches) => self.take(batches).await,
                Err(error) => tracing::debug!(%error, "no records"),
            }
            self.go_back().await;
        }
    }

    fn subscribe(&self, subscribed: &mut Vec<String>) {
        let living = self.sales.now();
        let topics = living.topics();
        if *subscribed == topics {
            return;
        }
        match self.consumer.subscribe(&topics) {
            Ok(()) => {
                tracing::info!(topics = topics.len(), "reading the logs of sales");
                *subscribed = topics.into_iter().map(str::to_owned).collect();
            }
            Err(error) => tracing::warn!(%error, "topics not subscribed to"),
        }
    }

    /// Applies what was read, sale by sale.
    async fn take(&mut self, batches: Vec<PartitionBatch>) {
        let living = self.sales.now();
        let mut by_sale = BTreeMap::<SaleUid, Vec<PartitionBatch>>::new();
        for batch in batches {
            // A topic whose sale is gone: nothing of it counts any more.
            if let Some(sale) = living.of_topic(&batch.source.topic) {
                by_sale.entry(sale.uid()).or_default().push(batch);
            }
        }
        for (uid, batches) in by_sale {
            if let Some(held) = self.held.get_mut(&uid) {
                held.partitions
                    .extend(batches.into_iter().map(|batch| batch.source));
                continue;
            }
            self.take_sale(&living, uid, &batches).await;
        }
    }

    async fn take_sale(&mut self, living: &Living, uid: SaleUid, batches: &[PartitionBatch]) {
        let Some(sale) = living.get(uid) else { return };
        let (records, readable) = decode(uid, batches);
        let span = PartitionBatch::span(batches, &self.group);
        let applied = tokio::time::timeout(APPLY_TIMEOUT, self.store.apply_batch(uid, &records))
            .instrument(span)
            .await;
        match applied {
            Ok(Ok(Some(outcome))) => {
                self.applied(sale, outcome, batches).await;
                if readable {
                    self.pauses.remove(&uid);
                } else {
                    self.hold(uid, batches, "a record of a later version");
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => self.failed(sale, batches, &error),
            Err(_) => self.hold(uid, batches, "no answer from the database"),
        }
    }

    async fn applied(
        &mut self,
        sale: &SaleRow,
        mut outcome: BatchOutcome,
        batches: &[PartitionBatch],
    ) {
        count(&sale.definition.name, &outcome);
        self.effects.settle(sale.uid(), &mut outcome);
        let mut read_on = Vec::new();
        for PartitionBatch { source, .. } in batches {
            let partition = source.partition.0;
            if let Some(expected) = outcome.gaps.get(&partition) {
                tracing::warn!(topic = %source.topic, partition, expected, "records are missing: reading again");
                self.seek(sale.uid(), source, *expected).await;
            } else if let Some(next) = outcome.positions.get(&partition) {
                read_on.push((source, *next));
            }
        }
        if let Err(error) = self.consumer.commit(read_on) {
            tracing::debug!(%error, "the hint where to begin is not left");
        }
    }

    fn failed(&mut self, sale: &SaleRow, batches: &[PartitionBatch], error: &StoreError) {
        if error.is_final() {
            // Waiting won't help, but dropping what was acknowledged would be worse: the lag will be seen.
            tracing::error!(sale = sale.definition.name, %error, "a batch can't be applied");
        }
        self.hold(sale.uid(), batches, error);
    }

    /// Leaves a sale alone for a while. What was read of it is read again afterwards.
    fn hold(&mut self, uid: SaleUid, batches: &[PartitionBatch], reason: impl std::fmt::Display) {
        metrics::BATCH_FAILURES.inc();
        tracing::warn!(sale = %uid, %reason, "a batch is read again later");
        self.pause(uid, batches.iter().map(|batch| batch.source.clone()));
    }

    fn pause(&mut self, uid: SaleUid, partitions: impl IntoIterator<Item = TopicPartition>) {
        let pause = self.pauses.entry(uid).or_insert(PAUSE.0);
        let until = Instant::now() + jitter(*pause);
        *pause = (*pause * 2).min(PAUSE.1);
        let held = self.held.entry(uid).or_insert_with(|| Held {
            until,
            partitions: BTreeSet::new(),
        });
        held.until = until;
        held.partitions.extend(partitions);
    }

    /// Goes back to the ledger's position in the partitions of sales whose pause is over.
    async fn go_back(&mut self) {
        let now = Instant::now();
        let due: Vec<SaleUid> = self
            .held
            .iter()
            .filter(|(_, held)| held.until <= now)
            .map(|(uid, _)| *uid)
            .collect();
        for uid in due {
            let asked = tokio::time::timeout(APPLY_TIMEOUT, self.store.positions(uid)).await;
            let Ok(Ok(positions)) = asked else {
                self.pause(uid, []);
                continue;
            };
            let Some(held) = self.held.remove(&uid) else {
                continue;
            };
            for source in held.partitions {
                let position = positions
                    .iter()
                    .find(|position| position.partition == source.partition.0)
                    .map_or(0, |position| position.next_offset);
                self.seek(uid, &source, position).await;
            }
        }
    }

    /// A seek that fails is tried again after a pause, unless the partition is another process's by now.
    async fn seek(&mut self, uid: SaleUid, source: &TopicPartition, offset: i64) {
        if !self.consumer.is_assigned(&source.topic, source.partition) {
            return;
        }
        if let Err(error) = self.consumer.seek(source, offset).await {
            tracing::warn!(topic = %source.topic, partition = source.partition.0, %error, "not gone back");
            self.pause(uid, [source.clone()]);
        }
    }
}

fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

fn count(sale: &str, outcome: &BatchOutcome) {
    metrics::RECORDED
        .with_label_values(&[sale])
        .inc_by(outcome.recorded.into());
    for (reason, dropped) in &outcome.dropped {
        metrics::DROPPED
            .with_label_values(&[sale, reason.as_str()])
            .inc_by((*dropped).into());
        if matches!(reason, Dropped::Stock | Dropped::Limit) {
            metrics::REFUSED
                .with_label_values(&[sale])
                .inc_by((*dropped).into());
            let reason = reason.as_str();
            tracing::error!(
                sale,
                dropped,
                reason,
                "the ledger refused claims that may have been acknowledged"
            );
        }
    }
}

/// Reads the records' values. A partition ends before a record of a later version of this program, which must not be
/// passed over; `false` says that there was one.
fn decode(uid: SaleUid, batches: &[PartitionBatch]) -> (Vec<BatchRecord>, bool) {
    let mut records = Vec::new();
    let mut readable = true;
    let (mut garbage, mut foreign) = (0_u64, 0_u64);
    for batch in batches {
        for record in &batch.records {
            let event = match Record::decode(&record.value) {
                Err(RecordError::Version(version)) => {
                    tracing::error!(topic = %batch.source.topic, version, "a later version is needed to read on");
                    readable = false;
                    break;
                }
                Ok(record) if record.sale != uid => {
                    foreign += 1;
                    None
                }
                Ok(record) if in_range(&record.event) => Some(record.event),
                Ok(_) | Err(_) => {
                    if garbage == 0 {
                        let (partition, offset) = (batch.source.partition.0, record.offset);
                        tracing::warn!(topic = %batch.source.topic, partition, offset, "not a record: passed over");
                    }
                    garbage += 1;
                    None
                }
            };
            let at = LogPosition {
                partition: batch.source.partition.0,
                offset: record.offset,
            };
            records.push(BatchRecord { at, event });
        }
    }
    metrics::SKIPPED
        .with_label_values(&["garbage"])
        .inc_by(garbage);
    metrics::SKIPPED
        .with_label_values(&["foreign"])
        .inc_by(foreign);
    (records, readable)
}

/// Whether the ledger's columns can hold it. Nothing of ours writes anything else.
fn in_range(event: &SaleEvent) -> bool {
    let number = |value: u64| i64::try_from(value).is_ok();
    match event {
        SaleEvent::Claims { epoch, claims } => {
            number(epoch.0)
                && claims.iter().all(|claim| {
                    number(claim.sequence.0)
                        && claim.sequence.0 > 0
                        && claim.slot.0 < PER_USER_LIMIT_MAX
                        && claim.at.timestamp().is_some()
                })
        }
        SaleEvent::Voids { epoch, .. } | SaleEvent::Fence(epoch) => number(epoch.0),
        SaleEvent::Returns(_) => true,
    }
}
