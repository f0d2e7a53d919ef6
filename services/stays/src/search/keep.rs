//! Loads the index and keeps it fresh: PostgreSQL tells of every commit that changes what searches show, and what
//! changed is read and put in its place. One task does this, so that what is read later is put later.
//!
//! A connection that is lost has missed something, and so may one that merely seems to stand: the task listens to an
//! echo of its own, and when that doesn't come, it begins again and reads what was stamped since the last one that
//! came.

use std::collections::{BTreeMap, VecDeque};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use chassis::health::Dependency;
use sqlx::postgres::PgListener;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::index::{Directory, Index};
use crate::calendar::{Day, HORIZON_DAYS};
use crate::metrics;
use crate::store::changes::Change;
use crate::store::{NightsRange, RoomNights, SearchedStay, Store, StoreError};

/// Stays that are read at once: some hundred thousand nights.
const STAYS_AT_ONCE: i32 = 500;

/// How many such reads are under way at once while the index is loaded.
const READERS: usize = 2;

/// Stays that are read between changes of nights.
const STAYS_BETWEEN: i32 = 50;

/// Changes of stays that wait to be read; until there are fewer, nothing else is taken from the connection.
const STAYS_WAITING_MAX: usize = 1_000;

/// Ranges of nights that are read at once.
const RANGES_AT_ONCE: usize = 500;

/// Changes that wait to be read; more wait in the connection.
const CHANGES_WAITING_MAX: usize = 1_000;

/// How often the task sends itself an echo.
const ECHO_EVERY: Duration = Duration::from_secs(5);

/// How long an echo may take before the connection counts as lost.
const ECHO_TIMEOUT: Duration = Duration::from_secs(20);

/// The pause after the database failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How long it may take until the connection listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the index is not being kept fresh.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("listen for changes: {0}")]
    Listener(#[from] sqlx::Error),
    #[error("listen for changes: the connection is lost")]
    Connection,
    #[error("listen for changes: no answer")]
    Silence,
    #[error("read stays for searches: the reader ended")]
    Reader,
}

/// Keeps `index` fresh until it is told to stop. `dependency` is ready once it is loaded, for good: a stale index still
/// answers.
pub async fn keep(
    index: Arc<Index>,
    store: Store,
    dependency: Dependency,
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        index,
        store,
        directory: Directory::default(),
        since: None,
        heard: Instant::now(),
    };
    let work = async {
        loop {
            if let Err(error) = keeper.follow(&dependency).await {
                tracing::warn!(%error, "the search index is behind");
            }
            metrics::INDEX_AGE.set(keeper.heard.elapsed().as_secs_f64());
            sleep(PAUSE).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

struct Keeper {
    index: Arc<Index>,
    store: Store,
    directory: Directory,
    /// Everything stamped before was read, or is yet to come by the listener; `None` before the first loading. It stays
    /// behind while stays are yet to be read.
    since: Option<OffsetDateTime>,
    /// When the last echo came.
    heard: Instant,
}

impl Keeper {
    /// Reads what was missed, and then what changes, until the connection is lost.
    async fn follow(&mut self, dependency: &Dependency) -> Result<(), Lost> {
        // Listening comes first: what is committed while the rest is read is heard of.
        let listening = timeout(LISTEN_TIMEOUT, self.store.listen()).await;
        let listener = listening.map_err(|_| Lost::Silence)??;
        let horizon = self.store.horizon().await?;
        self.index.roll(Day::today());
        match self.since {
            None => self.load().await?,
            Some(since) => {
                metrics::INDEX_CAUGHT_UP.inc();
                for (first, last) in runs(&self.store.changed_since(since).await?) {
                    self.read_stays(first, last).await?;
                }
            }
        }
        self.since = Some(horizon);
        self.heard = Instant::now();
        self.index.set_loaded();
        dependency.set_ready();
        let (told, changes) = mpsc::channel(CHANGES_WAITING_MAX);
        tokio::select! {
            end = listen(listener, told) => end,
            end = self.apply(changes) => end,
        }
    }

    async fn load(&mut self) -> Result<(), Lost> {
        let began = Instant::now();
        let last = self.store.last_stay_no().await?;
        let mut firsts = (1..=last).step_by(STAYS_AT_ONCE as usize);
        // While some are put into the index, others are read.
        let mut readers = JoinSet::new();
        for first in firsts.by_ref().take(READERS) {
            readers.spawn(read_chunk(
                self.store.clone(),
                first,
                first + STAYS_AT_ONCE - 1,
            ));
        }
        while let Some(was_read) = readers.join_next().await {
            let (stays, nights) = was_read.map_err(|_| Lost::Reader)??;
            if let Some(first) = firsts.next() {
                readers.spawn(read_chunk(
                    self.store.clone(),
                    first,
                    first + STAYS_AT_ONCE - 1,
                ));
            }
            self.put(stays, &nights);
        }
        metrics::INDEX_BYTES.set(i64::try_from(self.index.bytes()).unwrap_or(i64::MAX));
        tracing::info!(
            stays = self.index.stays(),
            bytes = self.index.bytes(),
            ms = began.elapsed().as_millis() as u64,
            "the search index is loaded"
        );
        Ok(())
    }

    async fn apply(&mut self, mut changes: mpsc::Receiver<Change>) -> Result<(), Lost> {
        let mut tick = interval(ECHO_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(CHANGES_WAITING_MAX);
        let mut echoes = Echoes::default();
        let mut stays = VecDeque::new();
        loop {
            tokio::select! {
                count = changes.recv_many(&mut batch, CHANGES_WAITING_MAX), if stays.len() < STAYS_WAITING_MAX => {
                    if count == 0 {
                        return Err(Lost::Connection);
                    }
                    let heard = self.read(batch.drain(..), &mut echoes, &mut stays).await?;
                    if let Some(horizon) = heard {
                        self.heard = Instant::now();
                        if stays.is_empty() {
                            self.since = Some(horizon);
                        }
                    }
                }
                _ = tick.tick() => {
                    metrics::INDEX_AGE.set(self.heard.elapsed().as_secs_f64());
                    // An echo may be behind what isn't taken from the connection yet.
                    let is_taking = stays.len() < STAYS_WAITING_MAX;
                    if is_taking && self.heard.elapsed() > ECHO_TIMEOUT {
                        return Err(Lost::Silence);
                    }
                    self.index.roll(Day::today());
                    metrics::INDEX_BYTES.set(i64::try_from(self.index.bytes()).unwrap_or(i64::MAX));
                    let horizon = self.store.horizon().await?;
                    self.store.echo(echoes.send(horizon)).await?;
                }
                // A few of them, and then whatever came meanwhile: nights don't wait for stays, of which somebody may
                // write thousands at once.
                () = ready(()), if !stays.is_empty() => {
                    if let Some((first, last)) = stays.pop_front() {
                        let end = last.min(first + STAYS_BETWEEN - 1);
                        if end < last {
                            stays.push_front((end + 1, last));
                        }
                        self.read_stays(first, end).await?;
                    }
                }
            }
        }
    }

    /// Reads the nights that a batch of changes is about, and puts aside which stays it is about; answers the time that
    /// an echo of this task among them stands for.
    async fn read(
        &mut self,
        batch: impl Iterator<Item = Change>,
        echoes: &mut Echoes,
        stays: &mut VecDeque<(i32, i32)>,
    ) -> Result<Option<OffsetDateTime>, Lost> {
        let mut ranges = BTreeMap::<i32, NightsRange>::new();
        let mut heard = None;
        for change in batch {
            match change {
                Change::Echo(of) => heard = echoes.take(of).or(heard),
                Change::Stays(first, last) => stays.push_back((first, last)),
                Change::Nights(range) => {
                    let all = ranges.entry(range.room_type_no).or_insert(range);
                    all.first = all.first.min(range.first);
                    all.last = all.last.max(range.last);
                }
            }
        }
        // A room type that isn't known is one whose stay is yet to be told of, and comes with it.
        let known = |range: &NightsRange| self.directory.knows(range.room_type_no);
        let ranges: Vec<NightsRange> = ranges.into_values().filter(known).collect();
        self.read_nights(&ranges).await?;
        Ok(heard)
    }

    async fn read_stays(&mut self, first: i32, last: i32) -> Result<(), Lost> {
        let (stays, nights) = read_chunk(self.store.clone(), first, last).await?;
        self.put(stays, &nights);
        Ok(())
    }

    fn put(&mut self, stays: Vec<SearchedStay>, nights: &[RoomNights]) {
        self.index.put_stays(stays, &mut self.directory);
        self.index.put_nights(nights, &self.directory);
        metrics::INDEXED_STAYS.set(i64::try_from(self.index.stays()).unwrap_or(i64::MAX));
    }

    async fn read_nights(&self, ranges: &[NightsRange]) -> Result<(), Lost> {
        for ranges in ranges.chunks(RANGES_AT_ONCE) {
            let nights = self.store.searched_nights(ranges).await?;
            self.index.put_nights(&nights, &self.directory);
        }
        Ok(())
    }
}

/// Reads stays, their room types and all of their nights from today on.
async fn read_chunk(
    store: Store,
    first: i32,
    last: i32,
) -> Result<(Vec<SearchedStay>, Vec<RoomNights>), StoreError> {
    let stays = store.searched_stays(first, last).await?;
    let today = Day::today();
    let ranges: Vec<NightsRange> = stays
        .iter()
        .flat_map(|stay| &stay.rooms)
        .map(|(room_type_no, ..)| NightsRange {
            room_type_no: *room_type_no,
            first: today,
            last: today.plus(HORIZON_DAYS),
        })
        .collect();
    let mut nights = Vec::with_capacity(ranges.len());
    for ranges in ranges.chunks(RANGES_AT_ONCE) {
        nights.extend(store.searched_nights(ranges).await?);
    }
    Ok((stays, nights))
}

/// Numbers in their order as ranges of numbers without gaps, none of them of more stays than are read at once.
fn runs(numbers: &[i32]) -> Vec<(i32, i32)> {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, last)) if *last + 1 == *number && *last - *first + 1 < STAYS_AT_ONCE => {
                *last = *number;
            }
            _ => runs.push((*number, *number)),
        }
    }
    runs
}

/// Passes on what is told until the connection is lost.
async fn listen(mut listener: PgListener, told: mpsc::Sender<Change>) -> Result<(), Lost> {
    loop {
        let notification = listener.try_recv().await?.ok_or(Lost::Connection)?;
        match Change::parse(notification.payload()) {
            Some(change) => {
                if told.send(change).await.is_err() {
                    return Ok(());
                }
            }
            None => tracing::debug!("a change of another version is left out"),
        }
    }
}

/// The echo that is under way. Other replicas' echoes come by the same channel.
struct Echoes {
    next: u64,
    sent: Option<(u64, OffsetDateTime)>,
}

impl Default for Echoes {
    fn default() -> Self {
        Self {
            // The random half of an id tells the replicas apart.
            next: uuid::Uuid::new_v4().as_u64_pair().1 >> 16 << 16,
            sent: None,
        }
    }
}

impl Echoes {
    fn send(&mut self, horizon: OffsetDateTime) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.sent = Some((self.next, horizon));
        self.next
    }

    fn take(&mut self, of: u64) -> Option<OffsetDateTime> {
        self.sent
            .take_if(|(sent, _)| *sent == of)
            .map(|(_, horizon)| horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_that_were_missed_are_read_many_at_once() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[2, 3, 4, 7, 9, 10]), [(2, 4), (7, 7), (9, 10)]);
        let many: Vec<i32> = (1..=STAYS_AT_ONCE + 1).collect();
        assert_eq!(
            runs(&many),
            [(1, STAYS_AT_ONCE), (STAYS_AT_ONCE + 1, STAYS_AT_ONCE + 1)]
        );
    }
}
