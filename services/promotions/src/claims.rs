//! The claim path: gathers requests of a sale into script calls, appends what they took, and answers.
//!
//! A yes is given only for a claim whose append is acknowledged within the deadline (R2). Nothing here may give
//! back a unit whose record could be in the log (R4), and nothing here touches PostgreSQL.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::serve::Shutdown;
use chassis::telemetry::{self, TraceContext};
use events::producer::{Delivery, Producer};
use events::{ClaimTaken, ClaimsRecord, Partition, Record, SaleEvent, TraceParent, partition_of};
use jiff::{SignedDuration, Timestamp};
use sale_stock::{
    ACK_DEADLINE, ClaimId, ClaimReply, ClaimRequest, EntryRef, Epoch, GiveBack, KeyHash, Mark,
    OpenReply, Outcome, SaleStock, SaleUid, Sequence, StockError, UnixMillis, UserId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{Instrument as _, Span};

use crate::planted::planted;

/// Most requests in one script call: as the script takes.
const BATCH_MAX: usize = 256;

/// Most requests of a sale, over all lanes, that wait for their script call; more are told to come back.
const WAITING_MAX: usize = 4_096;

/// Batches of a sale with few lanes that may be on their way at once, from the script call to the acknowledgement of the
/// append: the script runs for one while the other is appended.
const BATCHES_IN_FLIGHT_MIN: usize = 2;

/// The least time between the beginnings of two batches of a lane. A small batch costs little less than a large one, so
/// that below full load a claim would take more CPU than at full load. Who comes alone doesn't wait.
const BATCH_SPACING: Duration = Duration::from_millis(1);

/// Longest wait for a turn. With Kafka away the batches on their way stay there, and others are told to come back.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Fates of records that are yet to be told; further ones are told on the producer's thread.
const FATES_MAX: usize = 1_024;

/// How often an idle sale's connections and metadata are seen to: well before a broker closes an idle connection.
const WARM_EVERY: Duration = Duration::from_secs(60);

/// How soon again after that has failed, at first and at most.
const WARM_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// How long one such question may take.
const WARM_TIMEOUT: Duration = Duration::from_secs(5);

/// Sales whose topics are asked about at a time: each question holds a thread until it is answered.
static WARMING: Semaphore = Semaphore::const_new(8);

/// How far the clocks of this program's processes and of Redis may be apart: an id tells the time of the process that
/// made it, and a sale starts by Redis's.
const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A time before which the claim was made: it is of no sale that starts later. Ids without a time are not given out.
pub(crate) fn made_before(claim: ClaimId) -> Option<Timestamp> {
    let (seconds, _) = claim.0.get_timestamp()?.to_unix();
    Timestamp::from_second(i64::try_from(seconds).ok()?)
        .ok()?
        .checked_add(CLOCKS_APART_MAX)
        .ok()
}

/// A unit that somebody has, as the API answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The claim.
    pub claim: ClaimId,
    /// Its number within the sale.
    pub sequence: Sequence,
    /// When it was taken, by Redis's clock.
    pub claimed_at: UnixMillis,
    /// Whether the ledger has it.
    pub recorded: bool,
}

/// What a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Taken now.
    Accepted(Claimed),
    /// Taken before, by the same user.
    Repeated(Claimed),
    /// No unit is left.
    SoldOut,
    /// Before the window.
    NotStarted,
    /// After the window.
    Ended,
    /// Paused by the sale's definition.
    Paused,
    /// The gate is closed for now, or the user's claim is being settled.
    Recovering,
    /// The append may or may not be in the log: asking again tells.
    Unknown,
    /// Nothing was taken: a part of the platform is away, or too many ask.
    Unavailable,
}

struct Ask {
    user: UserId,
    key: KeyHash,
    trace: Option<TraceContext>,
    answer: oneshot::Sender<Answer>,
}

/// Where the requests of one sale are gathered, in a lane for each partition of its log, so that the claims of a script
/// call are one record: each record is a request of its own to Kafka. A lane has few batches on their way, so that under
/// load the next one fills meanwhile: what Redis, Kafka and the ledger do for a claim shrinks with the size of its batch.
///
/// The tasks end when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Gatherer {
    /// By partition. When a log is given more, the claims of a lane are several records until the process starts anew.
    lanes: Arc<[mpsc::Sender<Ask>]>,
}

impl Gatherer {
    /// Starts gathering for a sale whose log has so many partitions, and keeps warm what its first claim needs.
    pub fn start(
        sale: SaleUid,
        topic: String,
        partitions: u32,
        stock: SaleStock,
        producer: Producer,
        shutdown: &Shutdown,
    ) -> Self {
        let topic: Arc<str> = topic.into();
        let lanes = partitions.max(1) as usize;
        let (fates, known) = mpsc::channel(FATES_MAX);
        shutdown.job(format!("answers of sale {sale}"), tell_fates(known));
        let lane = |index| {
            let (asks, waiting) = mpsc::channel(WAITING_MAX.div_ceil(lanes));
            let gathering = Gathering {
                sale,
                topic: Arc::clone(&topic),
                stock: stock.clone(),
                producer: producer.clone(),
                in_flight: Arc::new(Semaphore::new(BATCHES_IN_FLIGHT_MIN.div_ceil(lanes))),
                fates: fates.clone(),
                keeps_warm: index == 0,
            };
            shutdown.job(
                format!("claims of sale {sale}, lane {index}"),
                gathering.run(waiting, shutdown.token()),
            );
            asks
        };
        Self {
            lanes: (0..lanes).map(lane).collect(),
        }
    }

    /// Asks for a unit.
    pub async fn claim(&self, user: UserId, key: KeyHash, trace: Option<TraceContext>) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self
            .lane(user)
            .try_send(Ask {
                user,
                key,
                trace,
                answer,
            })
            .is_err()
        {
            return Answer::Unavailable;
        }
        // Whoever drops a request without an answer doesn't know what became of it.
        answered.await.unwrap_or(Answer::Unknown)
    }

    /// All requests of a user share one.
    fn lane(&self, user: UserId) -> &mpsc::Sender<Ask> {
        let Partition(index) = partition_of(user, self.lanes.len() as u32);
        &self.lanes[index.unsigned_abs() as usize]
    }
}

struct Gathering {
    sale: SaleUid,
    topic: Arc<str>,
    stock: SaleStock,
    producer: Producer,
    in_flight: Arc<Semaphore>,
    fates: mpsc::Sender<Fate>,
    /// One of a sale's lanes does it for all.
    keeps_warm: bool,
}

/// A record whose fate is known, and those who wait for it.
struct Fate {
    waiting: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// It is in the log, and within the deadline.
    yes: bool,
    _in_flight: Arc<OwnedSemaphorePermit>,
}

impl Fate {
    fn tell(self) {
        for (sender, answer) in self.waiting {
            tell(sender, if self.yes { answer } else { Answer::Unknown });
        }
    }
}

/// Tells fates on the runtime's own threads, where waking a request is cheap; ends when no more can come.
async fn tell_fates(mut known: mpsc::Receiver<Fate>) {
    while let Some(fate) = known.recv().await {
        fate.tell();
    }
}

/// What goes to one partition from one script call.
struct Part {
    partition: Partition,
    claims: Vec<ClaimTaken>,
    /// Units taken by this very call: they can be given back while their append is certainly not in the log.
    taken: Vec<GiveBack>,
    waiting: Vec<(oneshot::Sender<Answer>, Answer)>,
}

impl Gathering {
    async fn run(
        self,
        mut waiting: mpsc::Receiver<Ask>,
        stop: tokio_util::sync::CancellationToken,
    ) {
        let warm = self.keep_warm();
        tokio::pin!(warm);
        let mut asks = Vec::with_capacity(BATCH_MAX);
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                count = waiting.recv_many(&mut asks, BATCH_MAX) => if count == 0 { break },
                never = &mut warm => match never {},
                // Requests have been answered by now.
                () = stop.cancelled() => break,
            }
            // A timer for an instant that has passed would cost a turn of the runtime.
            if next > tokio::time::Instant::now() {
                tokio::time::sleep_until(next).await;
            }
            next = tokio::time::Instant::now() + BATCH_SPACING;
            let turn = Arc::clone(&self.in_flight).acquire_owned();
            match tokio::time::timeout(TURN_TIMEOUT, turn).await {
                Ok(Ok(permit)) => {
                    top_up(&mut asks, &mut waiting);
                    let span = self.span(&asks);
                    self.serve(&mut asks, permit).instrument(span).await;
                }
                // Whoever came meanwhile would wait in vain as well. (The semaphore is never closed.)
                Ok(Err(_)) | Err(_) => {
                    answer_all(&mut asks, Answer::Unavailable);
                    while let Ok(ask) = waiting.try_recv() {
                        tell(ask.answer, Answer::Unavailable);
                    }
                }
            }
        }
    }

    /// Connections and the topic's metadata, so that the first claim of a sale that has waited for hours finds them
    /// there.
    async fn keep_warm(&self) -> Infallible {
        if !self.keeps_warm {
            return std::future::pending().await;
        }
        let mut appended = false;
        let mut pauses = Pauses::default();
        loop {
            let warm = self.warm_up(&mut appended).await;
            tokio::time::sleep(pauses.next(warm)).await;
        }
    }

    /// Whether everything is there. An empty record to each partition, once, brings the producer to each leader.
    async fn warm_up(&self, appended: &mut bool) -> bool {
        // The semaphore is never closed.
        let _one = WARMING.acquire().await;
        let topic = self.producer.warm(&self.topic, WARM_TIMEOUT).await;
        tracing::debug!(sale = %self.sale, ?topic, "warm up");
        let Ok(partitions) = topic else {
            return false;
        };
        if !*appended {
            let empty = SaleEvent::Voids {
                epoch: Epoch(0),
                voids: Vec::new(),
            };
            let record = Record {
                sale: self.sale,
                event: empty,
            };
            let appends = (0..partitions.cast_signed()).map(|partition| {
                self.producer
                    .append(&self.topic, Partition(partition), &record)
            });
            *appended = futures::future::join_all(appends)
                .await
                .iter()
                .all(Result::is_ok);
        }
        *appended
    }

    /// A batch belongs to the trace of the first request in it that has one.
    fn span(&self, asks: &[Ask]) -> Span {
        let span = tracing::info_span!("claims", sale = %self.sale, requests = asks.len());
        if let Some(trace) = asks.iter().find_map(|ask| ask.trace) {
            telemetry::span_parent(&span, trace);
        }
        span
    }

    /// One script call, and the appends of what it took.
    async fn serve(&self, asks: &mut Vec<Ask>, permit: OwnedSemaphorePermit) {
        drop_abandoned(asks);
        if asks.is_empty() {
            return;
        }
        let requests: Vec<ClaimRequest> = asks
            .iter()
            .map(|ask| ClaimRequest {
                user: ask.user,
                claim: ClaimId::generate(),
                key: ask.key,
            })
            .collect();
        let sent = Instant::now();
        let reply = match self.stock.claim(self.sale, &requests).await {
            Ok(ClaimReply::Open(reply)) => reply,
            Ok(ClaimReply::Unopened(_)) => return answer_all(asks, Answer::Recovering),
            Err(error) => {
                tracing::warn!(sale = %self.sale, %error, "claims not taken");
                // If the script ran after all, its units are settled later.
                return answer_all(
                    asks,
                    if lost(&error) {
                        Answer::Unknown
                    } else {
                        Answer::Unavailable
                    },
                );
            }
        };
        let trace = asks.iter().find_map(|ask| ask.trace).and_then(trace_parent);
        let permit = Arc::new(permit);
        let mut given_back = Vec::new();
        let epoch = reply.epoch;
        for part in parts(&requests, asks, reply) {
            self.append(part, epoch, sent, trace.as_ref(), &permit, &mut given_back);
        }
        if !given_back.is_empty()
            && let Err(error) = self.stock.give_back(self.sale, &given_back).await
        {
            // They stay pending and are settled later.
            tracing::warn!(sale = %self.sale, %error, units = given_back.len(), "units not given back");
        }
    }

    fn append(
        &self,
        part: Part,
        epoch: Epoch,
        sent: Instant,
        trace: Option<&TraceParent>,
        permit: &Arc<OwnedSemaphorePermit>,
        given_back: &mut Vec<GiveBack>,
    ) {
        let Part {
            partition,
            claims,
            taken,
            waiting,
        } = part;
        let waiting = if planted("ack-before-append") {
            waiting
                .into_iter()
                .for_each(|(sender, answer)| tell(sender, answer));
            Vec::new()
        } else {
            waiting
        };
        // About what a claim takes in JSON.
        let mut value = Vec::with_capacity(128 + 192 * claims.len());
        ClaimsRecord::new(self.sale, epoch, &claims).encode(&mut value);
        let in_flight = Arc::clone(permit);
        let fates = self.fates.clone();
        let unheard = planted("r4").then(|| self.give_back_later(&taken));
        let appended = self
            .producer
            .send(&self.topic, partition, &value, trace, move |fate| {
                // R2: seen here, within the deadline, it is in the log before any fence that could void it.
                let in_time = sent.elapsed() < ACK_DEADLINE || planted("r2");
                let yes = matches!(fate, Delivery::Appended { .. }) && in_time;
                if let (Delivery::Unknown(_), Some(give_back)) = (&fate, unheard) {
                    give_back();
                }
                if let Err(untold) = fates.try_send(Fate {
                    waiting,
                    yes,
                    _in_flight: in_flight,
                }) {
                    untold.into_inner().tell();
                }
            });
        if let Err(error) = appended {
            // Dropping what waited has answered "unknown", which is true for repeats and safe for the rest.
            tracing::warn!(sale = %self.sale, %error, "claims not appended");
            given_back.extend(taken);
        }
    }

    /// What R4 forbids, for test builds.
    fn give_back_later(&self, taken: &[GiveBack]) -> impl FnOnce() + Send + Sync + 'static {
        let (sale, stock, taken) = (self.sale, self.stock.clone(), taken.to_vec());
        let runtime = tokio::runtime::Handle::current();
        move || {
            runtime.spawn(async move {
                let given = stock.give_back(sale, &taken).await;
                tracing::error!(?given, "units of unknown appends given back");
            });
        }
    }
}

/// The pauses of something that is seen to again and again. Each is drawn from its upper half, so that what began at
/// once doesn't stay in step.
#[derive(Default)]
struct Pauses {
    failures: u32,
}

impl Pauses {
    fn next(&mut self, well: bool) -> Duration {
        let pause = if well {
            self.failures = 0;
            WARM_EVERY
        } else {
            let (first, longest) = WARM_AGAIN;
            let pause = first.saturating_mul(1 << self.failures.min(8));
            self.failures += 1;
            pause.min(longest)
        };
        pause.mul_f64(rand::random_range(0.5..1.0))
    }
}

/// Keeps the scripts in Redis's cache, once for the process: a call of one that isn't there takes two more.
pub async fn keep_scripts(stock: &SaleStock) -> Infallible {
    let mut pauses = Pauses::default();
    loop {
        let loaded = stock.load_scripts().await;
        tokio::time::sleep(pauses.next(loaded.is_ok())).await;
    }
}

/// Takes with it who came while the batch waited for its turn.
fn top_up(asks: &mut Vec<Ask>, waiting: &mut mpsc::Receiver<Ask>) {
    while asks.len() < BATCH_MAX
        && let Ok(ask) = waiting.try_recv()
    {
        asks.push(ask);
    }
}

/// Nobody would hear the answer: no unit is taken for it.
fn drop_abandoned(asks: &mut Vec<Ask>) {
    asks.retain(|ask| !ask.answer.is_closed());
}

/// Answers what needs no append, and sorts the rest by partition.
fn parts(requests: &[ClaimRequest], asks: &mut Vec<Ask>, reply: OpenReply) -> Vec<Part> {
    let OpenReply {
        partitions,
        now,
        outcomes,
        ..
    } = reply;
    debug_assert_eq!(asks.len(), outcomes.len());
    let mut parts: Vec<Part> = Vec::new();
    for ((request, ask), outcome) in requests.iter().zip(asks.drain(..)).zip(outcomes) {
        let (slot, claimed, key, fresh) = match outcome {
            Outcome::NotStarted => {
                tell(ask.answer, Answer::NotStarted);
                continue;
            }
            Outcome::Ended => {
                tell(ask.answer, Answer::Ended);
                continue;
            }
            Outcome::Paused => {
                tell(ask.answer, Answer::Paused);
                continue;
            }
            Outcome::SoldOut => {
                tell(ask.answer, Answer::SoldOut);
                continue;
            }
            Outcome::Repeat(entry) => {
                let claimed = Claimed {
                    claim: entry.claim,
                    sequence: entry.sequence,
                    claimed_at: entry.claimed_at,
                    recorded: entry.mark == Mark::Recorded,
                };
                match entry.mark {
                    Mark::Recorded => {
                        tell(ask.answer, Answer::Repeated(claimed));
                        continue;
                    }
                    Mark::Ending | Mark::Voiding => {
                        tell(ask.answer, Answer::Recovering);
                        continue;
                    }
                    Mark::Pending if planted("r3") => {
                        tell(ask.answer, Answer::Repeated(claimed));
                        continue;
                    }
                    // R3: its first append may have been lost, so it is appended again.
                    Mark::Pending => (entry.slot, claimed, entry.key, false),
                }
            }
            Outcome::Taken { slot, sequence } => {
                let claimed = Claimed {
                    claim: request.claim,
                    sequence,
                    claimed_at: now,
                    recorded: false,
                };
                (slot, claimed, request.key, true)
            }
        };
        let partition = partition_of(request.user, partitions);
        let index = parts
            .iter()
            .position(|part| part.partition == partition)
            .unwrap_or_else(|| {
                parts.push(Part {
                    partition,
                    claims: Vec::new(),
                    taken: Vec::new(),
                    waiting: Vec::new(),
                });
                parts.len() - 1
            });
        let part = &mut parts[index];
        // Two requests of one user in one batch share the append.
        if fresh || part.claims.iter().all(|taken| taken.claim != claimed.claim) {
            part.claims.push(ClaimTaken {
                user: request.user,
                claim: claimed.claim,
                sequence: claimed.sequence,
                slot,
                key,
                at: claimed.claimed_at,
            });
        }
        if fresh {
            let entry = EntryRef {
                user: request.user,
                slot,
                claim: claimed.claim,
            };
            part.taken.push(GiveBack {
                entry,
                claimed_at: claimed.claimed_at,
            });
        }
        let answer = if fresh {
            Answer::Accepted(claimed)
        } else {
            Answer::Repeated(claimed)
        };
        part.waiting.push((ask.answer, answer));
    }
    parts
}

fn tell(waiting: oneshot::Sender<Answer>, answer: Answer) {
    // The guest may have gone.
    let _ = waiting.send(answer);
}

fn answer_all(asks: &mut Vec<Ask>, answer: Answer) {
    for ask in asks.drain(..) {
        tell(ask.answer, answer);
    }
}

/// Whether the script may have run without its reply coming back.
fn lost(error: &StockError) -> bool {
    match error {
        StockError::Redis { source, .. } => !source.is_connection_refusal(),
        StockError::Settings(_) | StockError::Replica => false,
        StockError::Reply { .. } => true,
    }
}

fn trace_parent(trace: TraceContext) -> Option<TraceParent> {
    TraceParent::parse(trace.traceparent().as_str().as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sale_stock::{Entry, Slot};
    use uuid::Uuid;

    use super::*;

    const NOW: UnixMillis = UnixMillis(5_000);

    /// Sends one request for each user through [`parts`]; answers the parts, and what was answered at once.
    fn sort(
        users: &[u128],
        outcomes: Vec<Outcome>,
        partitions: u32,
    ) -> (Vec<Part>, Vec<Option<Answer>>) {
        let (mut asks, mut answers, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for user in users {
            let user = UserId(Uuid::from_u128(*user));
            let (answer, answered) = oneshot::channel();
            asks.push(Ask {
                user,
                key: KeyHash::NONE,
                trace: None,
                answer,
            });
            answers.push(answered);
            requests.push(ClaimRequest {
                user,
                claim: ClaimId::generate(),
                key: KeyHash::NONE,
            });
        }
        let reply = OpenReply {
            epoch: Epoch(1),
            partitions,
            now: NOW,
            outcomes,
        };
        let parts = parts(&requests, &mut asks, reply);
        let answers = answers
            .iter_mut()
            .map(|answered| answered.try_recv().ok())
            .collect();
        (parts, answers)
    }

    fn taken(sequence: u64) -> Outcome {
        Outcome::Taken {
            slot: Slot(0),
            sequence: Sequence(sequence),
        }
    }

    fn entry(mark: Mark) -> Entry {
        Entry {
            slot: Slot(0),
            claim: ClaimId(Uuid::from_u128(99)),
            mark,
            touched: UnixMillis(4_000),
            sequence: Sequence(9),
            key: KeyHash(3),
            claimed_at: UnixMillis(3_000),
        }
    }

    #[test]
    fn a_batch_takes_with_it_who_came_while_it_waited_and_leaves_out_who_has_gone() {
        let (sender, mut waiting) = mpsc::channel(2 * BATCH_MAX);
        let mut answers = Vec::new();
        for user in 0..300 {
            let (answer, answered) = oneshot::channel();
            answers.push(answered);
            let ask = Ask {
                user: UserId(Uuid::from_u128(user)),
                key: KeyHash::NONE,
                trace: None,
                answer,
            };
            assert!(sender.try_send(ask).is_ok());
        }
        let mut asks = vec![waiting.try_recv().unwrap()];
        top_up(&mut asks, &mut waiting);
        assert_eq!(asks.len(), BATCH_MAX);
        // The first ten don't wait any longer.
        drop(answers.drain(..10));
        drop_abandoned(&mut asks);
        assert_eq!(asks.len(), BATCH_MAX - 10);
        assert_eq!(asks[0].user, UserId(Uuid::from_u128(10)));
    }

    #[test]
    fn pauses_grow_while_something_fails_and_start_again_when_it_works() {
        let mut pauses = Pauses::default();
        let failing: Vec<Duration> = (0..40).map(|_| pauses.next(false)).collect();
        assert!(failing[0] <= WARM_AGAIN.0, "{failing:?}");
        assert!(failing[39] >= WARM_AGAIN.1 / 2 && failing[39] <= WARM_AGAIN.1);
        assert!(pauses.next(true) >= WARM_EVERY / 2);
        assert!(pauses.next(false) <= WARM_AGAIN.0);
    }

    #[test]
    fn what_a_lane_gathers_is_one_record() {
        const LANES: u32 = 4;
        let gatherer = Gatherer {
            lanes: (0..LANES).map(|_| mpsc::channel(1).0).collect(),
        };
        for lane in &*gatherer.lanes {
            let in_lane = |user: &u128| {
                gatherer
                    .lane(UserId(Uuid::from_u128(*user)))
                    .same_channel(lane)
            };
            let users: Vec<u128> = (1..=400).filter(in_lane).collect();
            assert!(users.len() > 50, "{} of 400", users.len());
            let outcomes = (1..).map(taken).take(users.len()).collect();
            let (parts, _) = sort(&users, outcomes, LANES);
            assert_eq!(parts.len(), 1);
        }
    }

    #[test]
    fn units_taken_wait_for_the_append_of_their_partition() {
        let users: Vec<u128> = (1..=40).collect();
        let outcomes = (1..=40).map(taken).collect();
        let (parts, answers) = sort(&users, outcomes, 4);
        assert_eq!(answers, vec![None; 40]);
        assert_eq!(parts.len(), 4);
        assert_eq!(
            parts.iter().map(|part| part.claims.len()).sum::<usize>(),
            40
        );
        for part in parts {
            assert_eq!(
                (part.claims.len(), part.waiting.len()),
                (part.taken.len(), part.claims.len())
            );
            assert!(
                part.claims
                    .iter()
                    .all(|claim| partition_of(claim.user, 4) == part.partition && claim.at == NOW)
            );
        }
    }

    #[test]
    fn refusals_and_recorded_claims_are_answered_at_once() {
        let outcomes = vec![
            Outcome::NotStarted,
            Outcome::Ended,
            Outcome::Paused,
            Outcome::SoldOut,
            Outcome::Repeat(entry(Mark::Voiding)),
            Outcome::Repeat(entry(Mark::Ending)),
            Outcome::Repeat(entry(Mark::Recorded)),
        ];
        let (parts, answers) = sort(&[1, 2, 3, 4, 5, 6, 7], outcomes, 4);
        assert!(parts.is_empty());
        let recorded = Claimed {
            claim: ClaimId(Uuid::from_u128(99)),
            sequence: Sequence(9),
            claimed_at: UnixMillis(3_000),
            recorded: true,
        };
        let expected = [
            Answer::NotStarted,
            Answer::Ended,
            Answer::Paused,
            Answer::SoldOut,
            Answer::Recovering,
            Answer::Recovering,
            Answer::Repeated(recorded),
        ];
        assert_eq!(answers, expected.map(Some));
    }

    #[test]
    fn a_repeat_of_a_pending_claim_is_appended_as_it_was_and_never_given_back() {
        let (parts, answers) = sort(&[1], vec![Outcome::Repeat(entry(Mark::Pending))], 1);
        assert_eq!(answers, [None]);
        let part = &parts[0];
        let claim = part.claims[0];
        assert_eq!(
            (claim.claim, claim.sequence, claim.at),
            (entry(Mark::Pending).claim, Sequence(9), UnixMillis(3_000))
        );
        assert_eq!(claim.key, KeyHash(3));
        assert!(part.taken.is_empty());
        assert!(matches!(part.waiting[0].1, Answer::Repeated(claimed) if !claimed.recorded));
    }

    #[test]
    fn two_repeats_of_a_claim_share_one_append() {
        let outcomes = vec![
            Outcome::Repeat(entry(Mark::Pending)),
            Outcome::Repeat(entry(Mark::Pending)),
        ];
        let (parts, _) = sort(&[1, 1], outcomes, 1);
        assert_eq!((parts[0].claims.len(), parts[0].waiting.len()), (1, 2));
    }

    #[test]
    fn a_yes_that_comes_too_late_is_unknown() {
        let tell_with = |yes| {
            let (sender, mut told) = oneshot::channel();
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let waiting = vec![(sender, Answer::SoldOut)];
            Fate {
                waiting,
                yes,
                _in_flight: Arc::new(permit),
            }
            .tell();
            told.try_recv()
        };
        assert_eq!(tell_with(true), Ok(Answer::SoldOut));
        assert_eq!(tell_with(false), Ok(Answer::Unknown));
    }
}
