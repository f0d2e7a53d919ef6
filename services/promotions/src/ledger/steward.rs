//! Tends the sales: opens and adjusts their gates, settles what stayed pending, gives units back, measures, and has a
//! sale recovered when Redis can't be trusted.
//!
//! A sale is tended by the process that reads partition 0 of its log, so that usually one does. That is a convenience:
//! everything here may be done by two at once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use events::consumer::BatchConsumer;
use events::{Partition, Record, SaleEvent, Voided, partition_of};
use jiff::{SignedDuration, Timestamp};
use sale_stock::books::SaleDefinition;
use sale_stock::{Ending, EntryRef, GateUpdate, SaleUid, SettleClock, Snapshot, StockError};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::effects::{self, SettleError};
use super::metrics;
use super::recovery::{Cause, Recovery};
use super::sales::Sales;
use crate::planted::planted;
use crate::store::{DueSale, LedgerCounts, SaleRow, StoreError};

/// How often each sale is looked at.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// How often one is that was opened and is far from its window.
const QUIET_ROUND_EVERY: Duration = Duration::from_secs(10);

/// How far that is. Longer than a warm-up is wont to be.
const FAR: SignedDuration = SignedDuration::from_mins(15);

/// Most entries settled in a round, and most claims expired or released in one statement.
const ROUND_MAX: u32 = 1_000;

/// Most sales whose claims are expired in a round.
const DUE_SALES_MAX: u32 = 64;

/// Most readings of where a log ends that the ledger has yet to reach. Further ones aren't kept, which only makes the
/// settling come later.
const ENDS_MAX: usize = 128;

/// How long Kafka may take to say where the partitions of a log end.
const LAG_TIMEOUT: Duration = Duration::from_secs(2);

/// After a recovery for drift, how long the next one for drift waits: if recovering doesn't help, it must not keep the
/// sale closed.
const DRIFT_PAUSE: Duration = Duration::from_secs(60);

/// What is to be done about a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Somebody else is at it, or nothing is to be done any more.
    LetBe,
    /// The gate can't be trusted, or is to go.
    Recover(Cause),
    /// The gate is in order; `finish` says that the ledger has yet to be told that it was opened.
    Tend { finish: bool },
}

/// Decides by what the ledger and Redis say.
fn judge(sale: &SaleRow, snapshot: &Snapshot, owner: &str) -> Verdict {
    if sale.drained
        || sale
            .recoverer
            .as_deref()
            .is_some_and(|recoverer| recoverer != owner)
    {
        return Verdict::LetBe;
    }
    if sale.closed {
        return Verdict::Recover(Cause::Closing);
    }
    let Some(gate) = snapshot.gate else {
        return Verdict::Recover(if sale.epoch.0 == 0 {
            Cause::Opening
        } else {
            Cause::Missing
        });
    };
    if sale.recovery_requested {
        Verdict::Recover(Cause::Requested)
    } else if !gate.own_run {
        Verdict::Recover(Cause::Foreign)
    } else if !gate.open || gate.epoch != sale.epoch {
        Verdict::Recover(Cause::Unfinished)
    } else {
        Verdict::Tend {
            finish: sale.opened_epoch < sale.epoch,
        }
    }
}

/// By how much Redis and the ledger differ, beyond what the order of the three looks explains: the ledger was counted
/// between two looks at Redis, so that a claim recorded or released meanwhile shows in one of them only.
fn drift(before: &Snapshot, ledger: LedgerCounts, after: &Snapshot) -> i64 {
    let recorded =
        |snapshot: &Snapshot| i64::from(snapshot.claimed) - i64::from(snapshot.unsettled);
    let held = i64::from(ledger.active) + i64::from(ledger.unreleased);
    let unknown = recorded(before).min(recorded(after)) - held;
    let lost = i64::from(ledger.active) - i64::from(before.claimed.max(after.claimed));
    if unknown > 0 { unknown } else { -lost.max(0) }
}

/// How often a sale is looked at: at once when it has changed, and seldom while nobody can claim.
fn pace(sale: &SaleRow, now: Timestamp) -> Duration {
    let SaleDefinition { starts, ends, .. } = &sale.definition;
    let far = now.duration_until(*starts) > FAR || ends.duration_until(now) > FAR;
    let settled = sale.opened_epoch.0 > 0 && !sale.recovering() && !sale.closed;
    if far && settled {
        QUIET_ROUND_EVERY
    } else {
        ROUND_EVERY
    }
}

/// What is remembered of a sale from one round to the next.
#[derive(Default)]
struct Memory {
    /// The last round's time and sale.
    seen: Option<(Instant, Arc<SaleRow>)>,
    clock: SettleClock,
    /// Where the log ended at times that the ledger has yet to read up to, the earliest first.
    ends: VecDeque<(std::time::Instant, Vec<(i32, i64)>)>,
    /// When the log held nothing yet that the ledger has not read by now.
    read_up_to: Option<std::time::Instant>,
    /// The ledger's positions by partition, as last read.
    positions: Option<BTreeMap<i32, i64>>,
    /// Rounds in a row that were at rest and showed drift.
    drifted: u32,
    drift_recovered: Option<Instant>,
    /// Partitions whose log ended before the ledger's position when last looked at.
    short: BTreeMap<i32, i64>,
}

impl Memory {
    fn is_due(&self, sale: &Arc<SaleRow>) -> bool {
        self.seen.as_ref().is_none_or(|(at, seen)| {
            // The ticks don't come to the millisecond.
            let waited = at.elapsed() + ROUND_EVERY / 2;
            seen != sale || waited >= pace(sale, Timestamp::now())
        })
    }

    /// Where the log ended when it was asked, at `asked` or later.
    fn note_ends(&mut self, asked: std::time::Instant, ends: &[(i32, i64)]) {
        if self.ends.len() < ENDS_MAX {
            self.ends.push_back((asked, ends.to_vec()));
        }
    }

    /// The ledger stands here now; `None` is the beginning of a partition.
    fn note_positions(&mut self, positions: BTreeMap<i32, i64>) {
        let reached = |ends: &[(i32, i64)]| {
            let read = |partition| positions.get(&partition).copied().unwrap_or(0);
            ends.iter().all(|(partition, end)| read(*partition) >= *end)
        };
        while let Some((asked, _)) = self.ends.pop_front_if(|(_, ends)| reached(ends)) {
            self.read_up_to = Some(asked);
        }
        self.positions = Some(positions);
    }
}

/// Everything the steward works with.
#[derive(Clone)]
pub(super) struct Steward {
    pub(super) recovery: Recovery,
    pub(super) consumer: Arc<BatchConsumer>,
    pub(super) sales: Sales,
}

/// Why a round was cut short; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Redis(#[from] StockError),
    #[error(transparent)]
    Ledger(#[from] StoreError),
    #[error(transparent)]
    Settle(#[from] SettleError),
    #[error(transparent)]
    Append(#[from] events::producer::AppendError),
}

impl Steward {
    /// Tends the sales of this process until its end.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut memories = HashMap::<SaleUid, Arc<Mutex<Memory>>>::new();
        let mut rounds = JoinSet::new();
        let mut living = self.sales.watch();
        let mut tick = tokio::time::interval(ROUND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
                changed = living.changed() => if changed.is_err() { break },
                Some(_) = rounds.join_next() => continue,
            }
            metrics::PARTITIONS
                .set(i64::try_from(self.consumer.assigned().len()).unwrap_or(i64::MAX));
            let now = self.sales.now();
            memories.retain(|uid, _| now.get(*uid).is_some());
            for sale in now.all() {
                let topic = &sale.definition.topic;
                // A closing sale's topic may be gone, and with it whoever would tend the sale: any process may close it.
                let closing = sale.closed && !sale.drained;
                if !closing && !self.consumer.is_assigned(topic, Partition(0)) {
                    if memories.remove(&sale.uid()).is_some() {
                        metrics::hand_over(&sale.definition.name, topic);
                    }
                    continue;
                }
                let memory = memories.entry(sale.uid()).or_default();
                // A sale has one round at a time; a recovery takes several seconds.
                if let Ok(mut memory) = Arc::clone(memory).try_lock_owned()
                    && memory.is_due(sale)
                {
                    memory.seen = Some((Instant::now(), Arc::clone(sale)));
                    let (steward, sale) = (self.clone(), Arc::clone(sale));
                    rounds.spawn(async move {
                        steward.round(&sale, &mut memory).await;
                    });
                }
            }
        }
        // Every step of a round may be its last: what is cut off here is done by the next steward.
        rounds.shutdown().await;
    }

    async fn round(&self, sale: &SaleRow, memory: &mut Memory) {
        let lag = self.measure_lag(sale, memory).await;
        if let Err(error) = self.tend(sale, memory, lag).await {
            tracing::warn!(sale = sale.definition.name, %error, "a round was cut short");
        }
    }

    async fn tend(
        &self,
        sale: &SaleRow,
        memory: &mut Memory,
        lag: Option<u64>,
    ) -> Result<(), RoundError> {
        let uid = sale.uid();
        let name = sale.definition.name.as_str();
        let before = self
            .recovery
            .stock
            .snapshot(uid)
            .await
            .inspect_err(|_| metrics::shut(name))?;
        let finish = match judge(sale, &before, &self.recovery.owner) {
            Verdict::LetBe => {
                metrics::shut(name);
                return Ok(());
            }
            Verdict::Recover(_) => {
                metrics::shut(name);
                return self.recover(uid, &before).await;
            }
            Verdict::Tend { finish } => finish,
        };
        metrics::GATE_OPEN.with_label_values(&[name]).set(1);
        if finish {
            self.recovery.store.finish_recovery(uid, sale.epoch).await?;
        }
        self.adjust(sale, &before).await?;
        // First what the ledger says of claims that ended: none of them is given up as one that nobody ended.
        self.release(sale).await?;
        self.settle(sale, memory).await?;
        self.measure(sale, memory, lag).await
    }

    /// Has the sale recovered if that still is the verdict by what the ledger says now: what is known of the sale is a
    /// second old, and the gate was looked at later.
    async fn recover(&self, uid: SaleUid, seen: &Snapshot) -> Result<(), RoundError> {
        let Some(sale) = self.recovery.store.sale(uid).await? else {
            return Ok(());
        };
        match judge(&sale, seen, &self.recovery.owner) {
            Verdict::Recover(cause) => self.attempt(&sale, seen, cause).await,
            Verdict::LetBe | Verdict::Tend { .. } => {}
        }
        Ok(())
    }

    async fn attempt(&self, sale: &SaleRow, seen: &Snapshot, cause: Cause) {
        let name = sale.definition.name.as_str();
        let outcome = match self.recovery.attempt(sale, seen.gate.as_ref(), cause).await {
            Ok(_) => "done",
            Err(error) => {
                tracing::warn!(sale = name, cause = cause.as_str(), %error, "recovery came to nothing");
                "failed"
            }
        };
        metrics::RECOVERIES
            .with_label_values(&[name, cause.as_str(), outcome])
            .inc();
        self.sales.changed();
    }

    /// Makes the gate enforce the definition. Only for what the ledger admits already: stock grows there first.
    async fn adjust(&self, sale: &SaleRow, snapshot: &Snapshot) -> Result<(), RoundError> {
        let terms = sale.terms();
        let differs = |gate: &sale_stock::Gate| {
            gate.terms != terms && gate.terms.generation <= terms.generation
        };
        if !snapshot.gate.as_ref().is_some_and(differs) {
            return Ok(());
        }
        let update = self.recovery.stock.update_gate(sale.uid(), &terms).await?;
        match update {
            GateUpdate::Applied => {
                tracing::info!(sale = sale.definition.name, "the gate has the new terms")
            }
            GateUpdate::Missing | GateUpdate::Newer => {}
            GateUpdate::BelowClaimed(claimed) => {
                tracing::error!(sale = sale.definition.name, %claimed, "the gate holds more than the ledger admits");
            }
        }
        Ok(())
    }

    /// Gives up entries that nobody has asked for within the deadline (R6, R7). The consumer, coming to the Void, tells
    /// Redis what became of them. Only what the ledger would know by now had it been appended: while the ledger is
    /// behind, an entry that waits for it is no lost one.
    async fn settle(&self, sale: &SaleRow, memory: &mut Memory) -> Result<(), RoundError> {
        let Some(read_up_to) = memory.read_up_to else {
            return Ok(());
        };
        let stock = &self.recovery.stock;
        let taken = stock
            .take_stale(sale.uid(), &mut memory.clock, read_up_to, ROUND_MAX)
            .await?;
        let Some(stale) = taken.filter(|stale| !stale.entries.is_empty()) else {
            return Ok(());
        };
        if planted("r7") {
            stock.remove_entries(sale.uid(), &stale.entries).await?;
            return Ok(());
        }
        let mut by_partition = BTreeMap::<Partition, Vec<Voided>>::new();
        for EntryRef { user, slot, claim } in stale.entries {
            let partition = partition_of(user, stale.partitions);
            by_partition
                .entry(partition)
                .or_default()
                .push(Voided { user, slot, claim });
        }
        for (partition, voids) in by_partition {
            let count = voids.len() as u64;
            let event = SaleEvent::Voids {
                epoch: stale.epoch,
                voids,
            };
            let record = Record {
                sale: sale.uid(),
                event,
            };
            // One that fails is taken again after another deadline.
            self.recovery
                .producer
                .append(&sale.definition.topic, partition, &record)
                .await?;
            metrics::VOIDED
                .with_label_values(&[&sale.definition.name])
                .inc_by(count);
        }
        Ok(())
    }

    /// Gives back the units of ended claims that nobody has given back yet.
    async fn release(&self, sale: &SaleRow) -> Result<(), RoundError> {
        let entries = self
            .recovery
            .store
            .unreleased(sale.uid(), ROUND_MAX)
            .await?;
        effects::release(
            sale.uid(),
            &entries,
            &self.recovery.stock,
            &self.recovery.store,
        )
        .await?;
        Ok(())
    }

    /// Compares Redis with the ledger, and has the sale recovered if they differ twice in a row with nothing under way.
    async fn measure(
        &self,
        sale: &SaleRow,
        memory: &mut Memory,
        lag: Option<u64>,
    ) -> Result<(), RoundError> {
        let uid = sale.uid();
        let name = sale.definition.name.as_str();
        let before = self.recovery.stock.snapshot(uid).await?;
        let Some(ledger) = self.recovery.store.counts(uid).await? else {
            return Ok(());
        };
        let after = self.recovery.stock.snapshot(uid).await?;
        let (Some(first), Some(gate)) = (before.gate, after.gate) else {
            return Ok(());
        };
        if gate.unopened().is_some() || gate.epoch != sale.epoch || first.epoch != sale.epoch {
            // Recovering is not drifting.
            return Ok(());
        }
        let drift = drift(&before, ledger, &after);
        metrics::DRIFT.with_label_values(&[name]).set(drift);
        let remaining = i64::from(gate.terms.stock.0) - i64::from(after.claimed);
        metrics::REMAINING.with_label_values(&[name]).set(remaining);

        let at_rest = lag == Some(0) && before.unsettled == 0 && after.unsettled == 0;
        memory.drifted = if at_rest && drift != 0 {
            memory.drifted + 1
        } else {
            0
        };
        let waited = memory
            .drift_recovered
            .is_none_or(|at| at.elapsed() > DRIFT_PAUSE);
        if memory.drifted >= 2 && waited {
            tracing::error!(sale = name, drift, "Redis and the ledger differ");
            memory.drifted = 0;
            memory.drift_recovered = Some(Instant::now());
            self.attempt(sale, &after, Cause::Drift).await;
        }
        Ok(())
    }

    /// How many records the ledger is behind; `None` if Kafka or the ledger doesn't say.
    async fn measure_lag(&self, sale: &SaleRow, memory: &mut Memory) -> Option<u64> {
        let topic = sale.definition.topic.as_str();
        let asked = std::time::Instant::now();
        let Some(ends) = ends(&self.consumer, sale).await else {
            // An error says that there was no such series.
            let _ = metrics::LAG.remove_label_values(&[topic]);
            return None;
        };
        memory.note_ends(asked, &ends);
        let known = match self.recovery.store.positions(sale.uid()).await {
            Ok(positions) => {
                let positions = positions.iter().map(|at| (at.partition, at.next_offset));
                memory.note_positions(positions.collect());
                true
            }
            Err(_) => false,
        };
        // While the database doesn't say, the ledger stands where it stood, and the log goes on.
        let positions = memory.positions.as_ref()?;
        let mut lag = 0;
        let mut short = BTreeMap::new();
        for (partition, end) in ends {
            let position = positions.get(&partition).copied().unwrap_or(0);
            lag += u64::try_from(end - position).unwrap_or(0);
            if end < position {
                short.insert(partition, position);
            }
        }
        metrics::LAG
            .with_label_values(&[topic])
            .set(i64::try_from(lag).unwrap_or(i64::MAX));
        if !known {
            return None;
        }
        if !short.is_empty() {
            // Where another log ended says nothing about this one.
            memory.ends.clear();
        }
        self.rewind(sale, memory, short).await;
        Some(lag)
    }

    /// A log that ends before what was read of it has lost records, or was made anew. New records would be taken for
    /// read ones: the ledger goes back to the beginning, where whatever it has applied before changes nothing, and the
    /// sale is recovered.
    async fn rewind(&self, sale: &SaleRow, memory: &mut Memory, short: BTreeMap<i32, i64>) {
        let before = std::mem::take(&mut memory.short);
        for (partition, position) in &short {
            // Twice, since a broker that has just come up may not know its end yet.
            if before.get(partition) != Some(position) {
                continue;
            }
            tracing::error!(
                sale = sale.definition.name,
                partition,
                position,
                "the log has lost records"
            );
            let rewound = self
                .recovery
                .store
                .rewind(sale.uid(), *partition, *position)
                .await;
            let asked = self
                .recovery
                .store
                .request_recovery(sale.uid(), "the log has lost records")
                .await;
            if let Err(error) = rewound.and(asked) {
                tracing::warn!(sale = sale.definition.name, %error, "not gone back in the log");
            }
        }
        memory.short = short;
    }

    /// Ends claims of time sales whose time is over, of all sales: any process may, and the first one does.
    pub(super) async fn expire(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(ROUND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            match self.expire_due().await {
                Ok(()) => away = false,
                Err(error) if !std::mem::replace(&mut away, true) => {
                    tracing::warn!(%error, "claims are not expired");
                }
                Err(_) => {}
            }
        }
    }

    async fn expire_due(&self) -> Result<(), RoundError> {
        let Recovery { store, stock, .. } = &self.recovery;
        for DueSale { uid, closed } in store.sales_with_due_claims(DUE_SALES_MAX).await? {
            let due = store.due_claims(uid, ROUND_MAX).await?;
            if due.is_empty() {
                continue;
            }
            // Who asks for a unit once the ledger says that his claim has expired must not be told yes for it.
            match stock.begin_ending(uid, &due).await? {
                Ending::Begun { .. } => {}
                // Nobody is told yes any more.
                Ending::Unopened(_) if closed => {}
                // A recovery may be putting the claims back as they were: they expire once the sale is open again.
                Ending::Unopened(_) => continue,
            }
            let ended = store.expire(uid, &due).await?;
            metrics::EXPIRED.inc_by(ended.len() as u64);
            if let Err(error) = effects::release(uid, &ended, stock, store).await {
                tracing::debug!(%error, "expired units are released later");
            }
        }
        Ok(())
    }
}

/// Where the partitions of a sale's log end; `None` if Kafka doesn't say in time.
pub(super) async fn ends(consumer: &BatchConsumer, sale: &SaleRow) -> Option<Vec<(i32, i64)>> {
    /// Each question holds a thread until it is answered.
    static QUESTIONS: Semaphore = Semaphore::const_new(16);
    let topic = &sale.definition.topic;
    let asked = (0..sale.partitions).map(|partition| async move {
        // The semaphore is never closed.
        let _one = QUESTIONS.acquire().await;
        let partition = Partition(i32::try_from(partition).unwrap_or(i32::MAX));
        let end = consumer.end_offset(topic, partition, LAG_TIMEOUT).await?;
        Ok::<_, events::consumer::ConsumeError>((partition.0, end))
    });
    timeout(LAG_TIMEOUT, futures::future::try_join_all(asked))
        .await
        .ok()?
        .ok()
}

#[cfg(test)]
mod tests {
    use sale_stock::UnixMillis;

    use super::*;

    fn snapshot(claimed: u32, unsettled: u32) -> Snapshot {
        Snapshot {
            gate: None,
            claimed,
            unsettled,
            now: UnixMillis(0),
        }
    }

    fn ledger(active: u32, unreleased: u32) -> LedgerCounts {
        LedgerCounts { active, unreleased }
    }

    #[test]
    fn the_ledger_has_read_up_to_the_last_time_whose_ends_it_has_reached() {
        let start = std::time::Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut memory = Memory::default();
        memory.note_ends(at(0), &[(0, 5), (1, 0)]);
        memory.note_ends(at(1), &[(0, 9), (1, 2)]);
        memory.note_ends(at(2), &[(0, 9), (1, 7)]);
        memory.note_positions([(0, 4)].into());
        assert_eq!(memory.read_up_to, None);
        memory.note_positions([(0, 12), (1, 3)].into());
        assert_eq!(memory.read_up_to, Some(at(1)));
        // However long the ledger stands still, no more is kept than can be worked through.
        for second in 3..1_000 {
            memory.note_ends(at(second), &[(0, 900)]);
        }
        assert_eq!(memory.ends.len(), ENDS_MAX);
        memory.note_positions([(0, 900), (1, 7)].into());
        assert!(memory.ends.is_empty());
    }

    #[test]
    fn what_is_under_way_is_no_drift() {
        // Two taken and not recorded; one recorded between the looks; one ended and not released.
        assert_eq!(drift(&snapshot(12, 2), ledger(10, 0), &snapshot(12, 2)), 0);
        assert_eq!(drift(&snapshot(12, 2), ledger(11, 0), &snapshot(12, 1)), 0);
        assert_eq!(drift(&snapshot(10, 0), ledger(9, 1), &snapshot(10, 0)), 0);
        // One released between the first look and the second, or the second and the third.
        assert_eq!(drift(&snapshot(10, 0), ledger(9, 0), &snapshot(9, 0)), 0);
        assert_eq!(drift(&snapshot(10, 0), ledger(10, 0), &snapshot(9, 0)), 0);
    }

    #[test]
    fn what_one_of_the_two_lacks_is_drift() {
        assert_eq!(drift(&snapshot(10, 0), ledger(8, 1), &snapshot(10, 0)), 1);
        assert_eq!(drift(&snapshot(7, 0), ledger(10, 0), &snapshot(7, 0)), -3);
        assert_eq!(drift(&snapshot(7, 1), ledger(10, 0), &snapshot(8, 1)), -2);
    }
}
