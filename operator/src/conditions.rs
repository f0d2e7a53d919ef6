//! What the conditions of a sale say.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use quokka_crds::SaleStatus;

use crate::{
    consistency::Verdict,
    observed::{LedgerState, Observed, TopicState},
    plan::Found,
    reasons::{self, condition},
    replicas::Guard,
    sale::{self, Sale},
};

/// Every condition of a sale, `Ready` first.
pub(crate) fn all(
    sale: &Sale,
    status: &SaleStatus,
    observed: &Observed,
    found: &Found,
    verdict: &Verdict,
    now: Timestamp,
) -> Vec<Condition> {
    let states = [
        (condition::TOPIC_READY, topic_ready(&observed.topic, found)),
        (condition::STOCK_READY, stock_ready(sale, observed, found)),
        (
            condition::CONSISTENT,
            State::new(verdict.consistent, verdict.reason, verdict.message.clone()),
        ),
        (condition::FAILOVER_SAFE, failover_safe(&observed.guard)),
    ];
    // A Redis that keeps its settings to itself must not keep every sale from being ready.
    let counts =
        |kind: &str, holds: Option<bool>| holds.is_some() || kind != condition::FAILOVER_SAFE;
    let blocking = |wanted: Option<bool>| {
        states
            .iter()
            .find(|(kind, state)| state.holds == wanted && counts(kind, wanted))
    };
    let ready = match blocking(Some(false)).or_else(|| blocking(None)) {
        Some((kind, state)) => State::new(
            state.holds,
            state.reason,
            format!("{kind}: {}", state.message),
        ),
        None => State::new(
            Some(true),
            reasons::EVERYTHING_READY,
            "topic, stock and books are as they should be",
        ),
    };
    std::iter::once((condition::READY, ready))
        .chain(states)
        .map(|(kind, state)| {
            state.condition(kind, sale.definition.generation, &status.conditions, now)
        })
        .collect()
}

/// What a condition says.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// `None` is Unknown.
    holds: Option<bool>,
    reason: &'static str,
    message: String,
}

impl State {
    pub(crate) fn new(
        holds: Option<bool>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            holds,
            reason,
            message: message.into(),
        }
    }

    /// As it stands in the status; it keeps the time of its last transition while it holds what it held.
    pub(crate) fn condition(
        self,
        kind: &str,
        generation: i64,
        before: &[Condition],
        now: Timestamp,
    ) -> Condition {
        let status = match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = before
            .iter()
            .find(|is| is.type_ == kind && is.status == status)
            .map(|is| is.last_transition_time.0);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: Some(generation),
            last_transition_time: Time(since.unwrap_or_else(|| whole_seconds(now))),
        }
    }
}

fn topic_ready(topic: &TopicState, found: &Found) -> State {
    if !found.kafka_works {
        return State::new(
            Some(false),
            reasons::KAFKA_UNREACHABLE,
            "Kafka doesn't answer",
        );
    }
    match topic {
        TopicState::Exists { partitions } => State::new(
            Some(true),
            reasons::TOPIC_EXISTS,
            format!("the topic has {}", sale::counted_partitions(*partitions)),
        ),
        // Not for long enough to count.
        TopicState::Unreachable(_) => State::new(
            Some(true),
            reasons::TOPIC_EXISTS,
            "Kafka was silent just now",
        ),
        TopicState::Foreign => State::new(
            Some(false),
            reasons::TOPIC_FOREIGN,
            "a topic of this name holds records that are not this sale's: name the sale otherwise; if nobody uses the \
             topic, remove it",
        ),
        TopicState::Unclear => State::new(
            None,
            reasons::LEDGER_UNREACHABLE,
            "the topic holds records, and the ledger doesn't say whether they are this sale's",
        ),
        TopicState::OtherSales(whose) => {
            State::new(Some(false), reasons::NAME_TAKEN, whose.clone())
        }
        TopicState::Refused(why) => State::new(Some(false), reasons::TOPIC_REFUSED, why.clone()),
    }
}

fn stock_ready(sale: &Sale, observed: &Observed, found: &Found) -> State {
    let not_yet = |reason, message: &str| State::new(Some(false), reason, message);
    match &observed.ledger {
        LedgerState::Refused {
            reason, message, ..
        } => {
            return State::new(Some(false), reason, message.clone());
        }
        LedgerState::NotTold(None) => {
            return not_yet(
                reasons::WAITING_FOR_TOPIC,
                "the ledger is told of the sale once its topic is there and it can take it",
            );
        }
        _ => {}
    }
    if !found.redis_works {
        return not_yet(reasons::REDIS_UNREACHABLE, "Redis doesn't answer");
    }
    if !found.ledger_works {
        return not_yet(reasons::LEDGER_UNREACHABLE, "the ledger doesn't answer");
    }
    let Some(books) = &found.books else {
        return not_yet(
            reasons::DEFINITION_PENDING,
            "the ledger has not taken the definition yet",
        );
    };
    let Some(redis) = &found.redis else {
        return State::new(
            None,
            reasons::REDIS_UNREACHABLE,
            "the stock in Redis was not read yet",
        );
    };
    match redis.gate {
        _ if books.recovering => not_yet(
            reasons::RECOVERING,
            "the stock is being rebuilt from the ledger",
        ),
        None => not_yet(reasons::STOCK_MISSING, "Redis doesn't hold the sale"),
        Some(gate) if !gate.own_run => not_yet(
            reasons::STOCK_MISSING,
            "Redis was restarted and holds an old copy",
        ),
        Some(gate) if !gate.open => not_yet(reasons::RECOVERING, "the gate in Redis is closed"),
        Some(gate) if gate.terms.generation < sale.definition.generation => not_yet(
            reasons::TERMS_PENDING,
            "the gate in Redis holds the terms of an older generation",
        ),
        Some(gate) => State::new(
            Some(true),
            reasons::STOCK_SEEDED,
            format!(
                "Redis holds {} units under the terms of the spec",
                gate.terms.stock
            ),
        ),
    }
}

fn failover_safe(guard: &Guard) -> State {
    match guard {
        Guard::Alone => State::new(
            Some(true),
            reasons::NO_REPLICAS,
            "Redis has no replicas to fail over to",
        ),
        Guard::Guarded => State::new(
            Some(true),
            reasons::REPLICAS_GUARDED,
            "a primary without replicas stops taking claims in time",
        ),
        Guard::Unguarded(what) => {
            State::new(Some(false), reasons::REPLICAS_UNGUARDED, what.clone())
        }
        Guard::Unknown(why) => State::new(None, reasons::REPLICAS_UNKNOWN, why.clone()),
    }
}

/// The conditions with some of them as given.
pub(crate) fn with<const N: usize>(before: &[Condition], given: [Condition; N]) -> Vec<Condition> {
    let rest = before
        .iter()
        .filter(|is| given.iter().all(|new| new.type_ != is.type_))
        .cloned()
        .collect::<Vec<_>>();
    given.into_iter().chain(rest).collect()
}

/// Times in conditions are whole seconds, in Kubernetes; anything finer would be rounded on its way.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
