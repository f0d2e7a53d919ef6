//! The pure core: what a sale's status should say, given its spec, what was found of it and the time.
//!
//! Nothing here talks to anybody. Times are of the sale's own clock, which is Redis's: a window opens and closes by it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use quokka_crds::{Phase, SaleStatus, StockStatus};
use sale_stock::{
    Snapshot,
    books::{Books, GateState},
};

use crate::{
    cleanup::Unfinished,
    conditions::{self, State, with},
    consistency::Consistency,
    observed::{LedgerState, Observed, TopicState},
    reasons::{self, condition},
    sale::{Sale, SpecError},
    steady::Steady,
    story::{self, Happening},
};

/// How often a sale is measured whose window is open or near. Status follows what guests do by about this much.
pub const MEASURE_LIVE: Duration = Duration::from_secs(2);

/// How often one is measured at other times: conditions must follow within 30 s, and there may be a thousand of them.
pub const MEASURE_IDLE: Duration = Duration::from_secs(12);

/// What is remembered of a sale from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    kafka: Steady,
    ledger: Steady,
    redis: Steady,
    consistency: Consistency,
    last_books: Option<Books>,
    last_snapshot: Option<Snapshot>,
}

impl Memory {
    /// Begins with what was published before, so that a restart of the operator changes no verdict.
    #[must_use]
    pub fn starting(status: &SaleStatus) -> Self {
        let was = |kind: &str| {
            status
                .conditions
                .iter()
                .any(|is| is.type_ == kind && is.status == "True")
        };
        let known = |works: bool| Steady::starting(works.then_some(true));
        Self {
            kafka: known(was(condition::TOPIC_READY)),
            ledger: known(was(condition::STOCK_READY)),
            redis: known(was(condition::STOCK_READY)),
            consistency: Consistency::starting(was(condition::CONSISTENT)),
            ..Self::default()
        }
    }
}

/// What follows from a look at a sale.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The status as it should be.
    pub status: SaleStatus,
    /// What happened since the status before.
    pub happenings: Vec<Happening>,
    /// A recovery to ask the ledger for, with its reason.
    pub repair: Option<String>,
    /// Measured: units that Redis holds too many or too few.
    pub drift: Option<i64>,
    /// What was measured before no longer holds.
    pub drift_is_void: bool,
    /// When to look again, by the monotonic clock: however long the writing of all this takes.
    pub look_again_at: Instant,
}

/// What `status` should become for `sale`, of which `observed` was found when the sale's clock showed `now` and the
/// operator's monotonic one `at`.
#[must_use]
pub fn plan(
    sale: &Sale,
    status: &SaleStatus,
    observed: &Observed,
    memory: &mut Memory,
    (now, at): (Timestamp, Instant),
) -> Plan {
    let found = Found::new(observed, memory, at);
    let verdict = if found.ledger_works && found.books.is_none() {
        memory.consistency.never_opened()
    } else {
        let before = observed.redis_before.as_ref();
        memory
            .consistency
            .compare((before, found.redis.as_ref()), found.books.as_ref(), at)
    };
    let terms = found.terms(sale);
    let phase = phase(sale, status, &found, &terms, now);

    let mut next = SaleStatus {
        phase: Some(phase),
        phase_since: if status.phase == Some(phase) {
            status.phase_since
        } else {
            Some(whole_millis(now))
        },
        started_at: status
            .started_at
            .or_else(|| started(sale, status, &found, &terms, now)),
        observed_generation: Some(sale.definition.generation),
        stock: stock(&found).or_else(|| status.stock.clone()),
        topic: match &found.books {
            Some(_) => Some(sale.definition.topic.clone()),
            None => status.topic.clone(),
        },
        epoch: found.epoch().or(status.epoch),
        conditions: Vec::new(),
    };
    next.conditions = conditions::all(sale, status, observed, &found, &verdict, now);

    let mut happenings = story::tell(sale, status, &next);
    if let Some(reason) = &verdict.repair {
        happenings.push(Happening::drift_found(reason, now));
    }
    Plan {
        look_again_at: at + look_again_after(sale, phase, &found, &terms, now),
        happenings,
        repair: verdict.repair,
        drift: verdict.drift,
        drift_is_void: verdict.drift_is_void,
        status: next,
    }
}

/// The status of a resource whose spec can't work, and what is told of it.
#[must_use]
pub fn refuse(
    status: &SaleStatus,
    generation: i64,
    error: &SpecError,
    now: Timestamp,
) -> (SaleStatus, Vec<Happening>) {
    let refused = || State::new(Some(false), reasons::SPEC_REFUSED, error.to_string());
    let conditions = [condition::READY, condition::STOCK_READY]
        .map(|kind| refused().condition(kind, generation, &status.conditions, now));
    let next = SaleStatus {
        observed_generation: Some(generation),
        conditions: with(&status.conditions, conditions),
        ..status.clone()
    };
    let happenings = story::refusal(status, &next).into_iter().collect();
    (next, happenings)
}

/// The status of a resource that is being deleted and waits for something, and what is told of it.
#[must_use]
pub(crate) fn closing(
    status: &SaleStatus,
    generation: i64,
    unfinished: &Unfinished,
    stuck: bool,
    now: Timestamp,
) -> (SaleStatus, Vec<Happening>) {
    let reason = if stuck {
        reasons::CLEANUP_STUCK
    } else {
        reasons::CLOSING
    };
    let ready = State::new(Some(false), reason, unfinished.to_string()).condition(
        condition::READY,
        generation,
        &status.conditions,
        now,
    );
    let mut next = SaleStatus {
        observed_generation: Some(generation),
        conditions: with(&status.conditions, [ready]),
        ..status.clone()
    };
    // Until its gate is shut, guests claim whatever is asked for here.
    if unfinished.closed && status.phase != Some(Phase::Ended) {
        next.phase = Some(Phase::Ended);
        next.phase_since = Some(whole_millis(now));
    }
    let told = status
        .conditions
        .iter()
        .any(|is| is.type_ == condition::READY && is.reason == reasons::CLEANUP_STUCK);
    let happening = (stuck && !told).then(|| Happening::cleanup_stuck(unfinished));
    (next, happening.into_iter().collect())
}

/// Redis and the ledger as they may be relied on: a short silence is bridged with what was read last.
pub(crate) struct Found {
    pub(crate) kafka_works: bool,
    pub(crate) ledger_works: bool,
    pub(crate) redis_works: bool,
    pub(crate) books: Option<Books>,
    pub(crate) redis: Option<Snapshot>,
    /// Something didn't answer just now, whether or not it counts yet.
    silence: bool,
}

impl Found {
    fn new(observed: &Observed, memory: &mut Memory, at: Instant) -> Self {
        let kafka_answers = !matches!(observed.topic, TopicState::Unreachable(_));
        let ledger_answers = !matches!(observed.ledger, LedgerState::Unreachable(_));
        let redis_answers = observed.redis.is_ok();
        let log_is_measured = observed
            .ledger
            .books()
            .is_none_or(|books| books.lag.is_some());
        let kafka_works = memory.kafka.hear(kafka_answers, at);
        let ledger_works = memory.ledger.hear(ledger_answers, at);
        let redis_works = memory.redis.hear(redis_answers, at);
        if ledger_answers || !ledger_works {
            memory.last_books = observed.ledger.books().cloned();
        }
        if redis_answers || !redis_works {
            memory.last_snapshot = observed.redis.as_ref().ok().copied();
        }
        Self {
            kafka_works,
            ledger_works,
            redis_works,
            books: memory.last_books.clone(),
            redis: memory.last_snapshot,
            silence: !(kafka_answers && log_is_measured && ledger_answers && redis_answers),
        }
    }

    /// The terms that guests meet: those of the gate that lets them through, whatever the spec asks for by now, or
    /// those of the spec while there is no such gate.
    fn terms(&self, sale: &Sale) -> Terms {
        let definition = &sale.definition;
        let gate = self
            .redis
            .as_ref()
            .and_then(|redis| redis.gate)
            .filter(|gate| gate.unopened().is_none())
            // Of one generation they are the same, but for what is finer than a millisecond.
            .filter(|gate| gate.terms.generation != definition.generation);
        let enforced = gate.and_then(|gate| {
            Some(Terms {
                starts: gate.terms.starts.timestamp()?,
                ends: gate.terms.ends.timestamp()?,
                paused: gate.terms.paused,
            })
        });
        enforced.unwrap_or(Terms {
            starts: definition.starts,
            ends: definition.ends,
            paused: definition.paused,
        })
    }

    fn epoch(&self) -> Option<i64> {
        let books = self.books.as_ref().map(|books| books.epoch);
        let gate = self
            .redis
            .as_ref()
            .and_then(|redis| redis.gate)
            .map(|gate| gate.epoch);
        let epoch = books.or(gate).filter(|epoch| epoch.0 > 0)?;
        i64::try_from(epoch.0).ok()
    }

    /// Whether claims are let through, the window permitting; `None` when nobody says.
    fn open(&self) -> Option<bool> {
        if self
            .books
            .as_ref()
            .is_some_and(|books| books.recovering || books.closed)
        {
            return Some(false);
        }
        match (&self.redis, &self.books) {
            (Some(redis), _) => Some(redis.gate.is_some_and(|gate| gate.unopened().is_none())),
            (None, Some(books)) => Some(books.gate == GateState::Open),
            (None, None) => None,
        }
    }
}

/// When guests can claim.
struct Terms {
    starts: Timestamp,
    ends: Timestamp,
    paused: bool,
}

fn phase(sale: &Sale, status: &SaleStatus, found: &Found, terms: &Terms, now: Timestamp) -> Phase {
    if now >= terms.ends {
        return Phase::Ended;
    }
    if now < sale.warms(terms.starts) {
        return Phase::Scheduled;
    }
    if now < terms.starts || found.epoch().or(status.epoch).is_none() {
        return Phase::Warming;
    }
    if terms.paused {
        return Phase::Paused;
    }
    match found.open() {
        Some(true) if stock(found).is_some_and(|stock| stock.remaining <= 0) => Phase::SoldOut,
        Some(true) => Phase::Active,
        Some(false) => Phase::Recovering,
        // Nobody says, and a sale goes on without the operator: what was true is the best that is known.
        None => match status.phase {
            Some(phase @ (Phase::Active | Phase::SoldOut | Phase::Recovering)) => phase,
            _ => Phase::Recovering,
        },
    }
}

/// When the window opened, once it has. A sale that was never opened hasn't started, whatever the time.
fn started(
    sale: &Sale,
    status: &SaleStatus,
    found: &Found,
    terms: &Terms,
    now: Timestamp,
) -> Option<Timestamp> {
    let opened = found.epoch().or(status.epoch).is_some();
    (opened && now >= terms.starts).then(|| terms.starts.max(sale.created))
}

/// The units in force: by the gate, which is what guests meet, or by the books while there is no gate to go by.
fn stock(found: &Found) -> Option<StockStatus> {
    let gate = found
        .redis
        .as_ref()
        .and_then(|redis| Some((redis.gate.filter(|gate| gate.own_run)?, redis.claimed)));
    let (total, claimed) = match (gate, &found.books) {
        (Some((gate, claimed)), _) => (gate.terms.stock.0, claimed),
        (None, Some(books)) => (books.stock.total.0, books.stock.claimed.0),
        (None, None) => return None,
    };
    let (total, claimed) = (i64::from(total), i64::from(claimed));
    Some(StockStatus {
        total,
        claimed,
        remaining: total - claimed,
    })
}

/// The next instant at which a phase changes by itself, or the next measurement, whichever comes first.
fn look_again_after(
    sale: &Sale,
    phase: Phase,
    found: &Found,
    terms: &Terms,
    now: Timestamp,
) -> Duration {
    let live = !matches!(phase, Phase::Scheduled | Phase::Ended);
    // Silence is looked into soon, and so is a sale that isn't in place yet.
    let soon = live || found.silence || found.epoch().is_none();
    let measure = if soon { MEASURE_LIVE } else { MEASURE_IDLE };
    [sale.warms(terms.starts), terms.starts, terms.ends]
        .into_iter()
        .filter(|boundary| *boundary > now)
        .map(|boundary| Duration::try_from(boundary.duration_since(now)).unwrap_or(measure))
        .min()
        .map_or(measure, |boundary| boundary.min(measure))
}

/// Statuses are read by people; what is finer than a millisecond is noise.
fn whole_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
