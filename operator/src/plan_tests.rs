#![allow(clippy::unwrap_used)]

use sale_stock::{Epoch, Stock};

use super::*;
use crate::{
    reasons::event,
    replicas::Guard,
    testing::{STOCK, books, sale, snapshot, time},
};

/// A sale that is looked at again and again, as the reconciler does.
struct Life {
    sale: Sale,
    status: SaleStatus,
    memory: Memory,
    at: Instant,
    now: Timestamp,
}

impl Life {
    fn at(now: &str) -> Self {
        let memory = Memory::default();
        Self {
            sale: sale(),
            status: SaleStatus::default(),
            memory,
            at: Instant::now(),
            now: time(now),
        }
    }

    fn look(&mut self, observed: &Observed) -> Plan {
        let plan = plan(
            &self.sale,
            &self.status,
            observed,
            &mut self.memory,
            (self.now, self.at),
        );
        self.status = plan.status.clone();
        plan
    }

    fn pass(&mut self, seconds: u32) -> &mut Self {
        self.at += Duration::from_secs(seconds.into());
        self.now += Duration::from_secs(seconds.into());
        self
    }

    fn condition(&self, kind: &str) -> (&str, &str) {
        let is = self
            .status
            .conditions
            .iter()
            .find(|is| is.type_ == kind)
            .unwrap();
        (&is.status, &is.reason)
    }
}

fn well(claimed: u32) -> Observed {
    Observed {
        topic: TopicState::Exists { partitions: 3 },
        ledger: LedgerState::Applied(books(claimed)),
        redis_before: Some(snapshot(claimed)),
        redis: Ok(snapshot(claimed)),
        guard: Guard::Alone,
    }
}

/// The same with a gate that holds the terms of a generation.
fn well_under(generation: i64, paused: bool) -> Observed {
    let mut redis = snapshot(1);
    if let Some(gate) = &mut redis.gate {
        (gate.terms.generation, gate.terms.paused) = (generation, paused);
    }
    Observed {
        redis: Ok(redis),
        ..well(1)
    }
}

fn reasons_of(plan: &Plan) -> Vec<&'static str> {
    plan.happenings
        .iter()
        .map(|happening| happening.reason)
        .collect()
}

#[test]
fn phases_change_at_the_exact_instants() {
    for (now, phase) in [
        ("2026-12-01T02:54:59.999Z", Phase::Scheduled),
        ("2026-12-01T02:55:00Z", Phase::Warming),
        ("2026-12-01T02:59:59.999Z", Phase::Warming),
        ("2026-12-01T03:00:00Z", Phase::Active),
        ("2026-12-01T04:59:59.999Z", Phase::Active),
        ("2026-12-01T05:00:00Z", Phase::Ended),
    ] {
        assert_eq!(
            Life::at(now).look(&well(0)).status.phase,
            Some(phase),
            "{now}"
        );
    }
}

#[test]
fn it_looks_again_at_the_next_boundary_at_the_latest() {
    for (now, after) in [
        ("2026-12-01T02:54:59.5Z", Duration::from_millis(500)),
        ("2026-12-01T02:59:59.25Z", Duration::from_millis(750)),
        ("2026-12-01T04:59:59.999Z", Duration::from_millis(1)),
        ("2026-12-01T04:00:00Z", MEASURE_LIVE),
        ("2026-11-01T04:00:00Z", MEASURE_IDLE),
        ("2026-12-02T04:00:00Z", MEASURE_IDLE),
    ] {
        let mut life = Life::at(now);
        let again_at = life.look(&well(0)).look_again_at;
        assert_eq!(again_at, life.at + after, "{now}");
    }
}

#[test]
fn a_look_that_finds_nothing_new_changes_nothing() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    for _ in 0..5 {
        life.look(&well(3));
        life.pass(2);
    }
    let before = life.status.clone();
    for _ in 0..20 {
        let plan = life.pass(2).look(&well(3));
        assert_eq!((&plan.status, plan.happenings.len()), (&before, 0));
    }
    assert_eq!(
        life.condition(condition::READY),
        ("True", reasons::EVERYTHING_READY)
    );
}

#[test]
fn a_restart_of_the_operator_changes_nothing() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    for _ in 0..5 {
        life.look(&well(3));
        life.pass(2);
    }
    let before = life.status.clone();
    life.memory = Memory::starting(&life.status);
    for _ in 0..5 {
        let plan = life.pass(2).look(&well(3));
        assert_eq!((&plan.status, plan.happenings.len()), (&before, 0));
    }
}

#[test]
fn a_life_is_told_once() {
    let mut life = Life::at("2026-12-01T02:00:00Z");
    let mut told = Vec::new();
    for (minutes, claimed) in [
        (0, 0),
        (30, 0),
        (26, 0),
        (5, 5),
        (5, STOCK),
        (5, 90),
        (5, STOCK),
        (110, STOCK),
    ] {
        life.pass(minutes * 60);
        told.extend(reasons_of(&life.look(&well(claimed))));
        life.pass(2);
        told.extend(reasons_of(&life.look(&well(claimed))));
    }
    let expected = [
        event::SCHEDULED,
        event::WARMING,
        event::OPENED,
        event::SOLD_OUT,
        event::BACK_IN_STOCK,
        event::SOLD_OUT,
        event::ENDED,
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_sale_sold_out_before_the_first_look_was_opened_too() {
    let mut life = Life::at("2026-12-01T02:59:59Z");
    life.look(&well(0));
    assert_eq!(
        reasons_of(&life.pass(2).look(&well(STOCK))),
        [event::OPENED, event::SOLD_OUT]
    );
    assert_eq!(life.status.stock.as_ref().unwrap().remaining, 0);
}

#[test]
fn the_start_is_written_down_once_the_stock_was_open() {
    let mut life = Life::at("2026-12-01T02:59:59Z");
    assert_eq!(life.look(&well(0)).status.started_at, None);
    assert_eq!(
        life.pass(3).look(&well(0)).status.started_at,
        Some(life.sale.definition.starts)
    );
    life.sale.definition.starts = time("2026-12-01T04:00:00Z");
    assert_eq!(
        life.look(&well(0)).status.started_at,
        Some(time("2026-12-01T03:00:00Z"))
    );

    let mut late = Life::at("2026-12-01T03:30:00Z");
    late.sale.created = time("2026-12-01T03:29:00Z");
    assert_eq!(
        late.look(&well(0)).status.started_at,
        Some(late.sale.created)
    );
}

#[test]
fn a_sale_that_was_never_opened_is_not_active() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    let observed = Observed {
        topic: TopicState::Refused("no".to_owned()),
        ledger: LedgerState::NotTold(None),
        redis_before: None,
        redis: Ok(Snapshot {
            gate: None,
            ..snapshot(0)
        }),
        guard: Guard::Alone,
    };
    life.look(&observed);
    assert_eq!(
        (life.status.phase, life.status.started_at),
        (Some(Phase::Warming), None)
    );
    assert_eq!(
        life.condition(condition::READY),
        ("False", reasons::TOPIC_REFUSED)
    );
    assert_eq!(
        life.condition(condition::STOCK_READY),
        ("False", reasons::WAITING_FOR_TOPIC)
    );
}

#[test]
fn a_flushed_redis_is_a_recovery_that_ends() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    for _ in 0..3 {
        life.look(&well(3));
        life.pass(2);
    }
    let mut flushed = well(3);
    flushed.redis = Ok(Snapshot {
        gate: None,
        claimed: 0,
        ..snapshot(0)
    });
    let plan = life.pass(2).look(&flushed);
    assert_eq!(
        (plan.status.phase, reasons_of(&plan)),
        (Some(Phase::Recovering), vec![event::RECOVERING])
    );
    assert_eq!(
        life.condition(condition::STOCK_READY),
        ("False", reasons::STOCK_MISSING)
    );
    assert_eq!(
        life.condition(condition::CONSISTENT),
        ("False", reasons::STOCK_MISSING)
    );
    assert_eq!(
        life.status.stock.as_ref().unwrap().claimed,
        3,
        "the books know"
    );

    let mut rebuilt = well(3);
    let LedgerState::Applied(books) = &mut rebuilt.ledger else {
        unreachable!()
    };
    books.epoch = Epoch(2);
    let plan = life.pass(2).look(&rebuilt);
    assert_eq!(
        (plan.status.phase, reasons_of(&plan)),
        (Some(Phase::Active), vec![event::RECOVERED])
    );
    for _ in 0..5 {
        life.pass(2).look(&rebuilt);
    }
    assert_eq!(
        life.condition(condition::CONSISTENT),
        ("True", reasons::BOOKS_AGREE)
    );
    assert_eq!(life.status.epoch, Some(2));
}

#[test]
fn an_outage_shows_within_thirty_seconds_and_a_hiccup_never() {
    type Break = fn(&mut Observed);
    let outages: [(&str, &str, Break); 3] = [
        (condition::TOPIC_READY, reasons::KAFKA_UNREACHABLE, |is| {
            is.topic = TopicState::Unreachable("gone".into())
        }),
        (condition::STOCK_READY, reasons::REDIS_UNREACHABLE, |is| {
            is.redis = Err("gone".into())
        }),
        (condition::STOCK_READY, reasons::LEDGER_UNREACHABLE, |is| {
            is.ledger = LedgerState::Unreachable("gone".into())
        }),
    ];
    for start in ["2026-12-01T03:30:00Z", "2026-11-15T00:00:00Z"] {
        for (kind, reason, outage) in outages {
            let mut life = Life::at(start);
            for _ in 0..5 {
                life.look(&well(3));
                life.pass(2);
            }
            let mut broken = well(3);
            outage(&mut broken);

            let before = life.status.clone();
            life.look(&broken);
            assert_eq!(life.status.phase, before.phase);
            assert_eq!(life.condition(kind).0, "True", "a hiccup: {reason}");
            life.pass(2).look(&well(3));
            assert_eq!(life.condition(condition::READY).0, "True");

            let mut waited = Duration::ZERO;
            while life.condition(kind) != ("False", reason) {
                assert!(
                    waited < Duration::from_secs(30),
                    "{reason} from {start}: not said within 30 s"
                );
                let wait = life.look(&broken).look_again_at - life.at;
                waited += wait;
                life.pass(u32::try_from(wait.as_secs()).unwrap().max(1));
            }
            for _ in 0..6 {
                life.pass(2).look(&well(3));
            }
            assert_eq!(life.condition(condition::READY).0, "True", "{reason}: back");
        }
    }
}

#[test]
fn nobody_answering_keeps_what_was_known() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    life.look(&well(STOCK));
    let silent = Observed {
        topic: TopicState::Unreachable("gone".into()),
        ledger: LedgerState::Unreachable("gone".into()),
        redis_before: None,
        redis: Err("gone".into()),
        guard: Guard::Unknown("gone".into()),
    };
    for _ in 0..20 {
        let plan = life.pass(2).look(&silent);
        assert_eq!(plan.status.phase, Some(Phase::SoldOut));
        assert!(plan.happenings.is_empty());
    }
    assert_eq!(
        life.status.stock.as_ref().unwrap().claimed,
        i64::from(STOCK)
    );
    assert_eq!(life.condition(condition::CONSISTENT).0, "Unknown");
}

#[test]
fn an_oversell_is_never_hidden() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    life.look(&well(STOCK + 2));
    assert_eq!(life.status.stock.as_ref().unwrap().remaining, -2);
    assert_eq!(life.status.phase, Some(Phase::SoldOut));
}

#[test]
fn a_pause_is_told_with_its_end() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    life.look(&well(1));
    life.sale.definition.paused = true;
    life.sale.definition.generation = 2;
    let plan = life.pass(2).look(&well_under(2, true));
    assert_eq!(
        (plan.status.phase, reasons_of(&plan)),
        (Some(Phase::Paused), vec![event::PAUSED])
    );
    life.sale.definition.paused = false;
    life.sale.definition.generation = 3;
    let plan = life.pass(2).look(&well_under(3, false));
    assert_eq!(
        (plan.status.phase, reasons_of(&plan)),
        (Some(Phase::Active), vec![event::RESUMED])
    );
}

#[test]
fn a_sale_is_what_its_gate_lets_guests_do_whatever_the_spec_asks_for() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    life.look(&well(1));
    life.sale.definition.paused = true;
    life.sale.definition.generation = 2;
    let plan = life.pass(2).look(&well_under(1, false));
    assert_eq!(
        (plan.status.phase, reasons_of(&plan)),
        (Some(Phase::Active), vec![])
    );
    assert_eq!(
        life.condition(condition::STOCK_READY),
        ("False", reasons::TERMS_PENDING)
    );
    life.sale.definition.paused = false;
    life.sale.definition.generation = 3;
    let plan = life.pass(2).look(&well_under(2, true));
    assert_eq!(
        (plan.status.phase, reasons_of(&plan)),
        (Some(Phase::Paused), vec![event::PAUSED])
    );

    let mut moved = Life::at("2026-12-01T03:30:00Z");
    moved.sale.definition.generation = 2;
    moved.sale.definition.starts = time("2026-12-01T04:00:00Z");
    let status = moved.look(&well_under(1, false)).status;
    assert_eq!(
        (status.phase, status.started_at),
        (Some(Phase::Active), Some(time("2026-12-01T03:00:00Z"))),
        "guests are let in already"
    );
    let closed = Observed {
        redis: Ok(Snapshot {
            gate: None,
            ..snapshot(1)
        }),
        ..well(1)
    };
    moved.memory = Memory::default();
    moved.status = SaleStatus::default();
    assert_eq!(
        moved.look(&closed).status.phase,
        Some(Phase::Scheduled),
        "no gate, so the spec says"
    );
}

#[test]
fn one_question_that_kafka_does_not_answer_is_looked_into_soon_and_not_told() {
    let mut life = Life::at("2026-11-15T00:00:00Z");
    for _ in 0..5 {
        life.look(&well(3));
        life.pass(2);
    }
    let mut silent = well(3);
    let LedgerState::Applied(books) = &mut silent.ledger else {
        unreachable!()
    };
    books.lag = None;
    let before = life.status.clone();
    let plan = life.pass(2).look(&silent);
    assert_eq!(plan.status, before);
    assert_eq!(plan.look_again_at, life.at + MEASURE_LIVE);
}

#[test]
fn a_topic_is_not_called_foreign_while_the_ledger_is_silent() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    let observed = Observed {
        topic: TopicState::Unclear,
        ledger: LedgerState::Unreachable("gone".to_owned()),
        redis: Ok(Snapshot {
            gate: None,
            ..snapshot(0)
        }),
        ..well(0)
    };
    assert!(!reasons_of(&life.look(&observed)).contains(&event::SPEC_REFUSED));
    assert_eq!(
        life.condition(condition::TOPIC_READY),
        ("Unknown", reasons::LEDGER_UNREACHABLE)
    );
}

#[test]
fn a_stuck_deletion_is_told_once_and_ends_when_its_gate_is_shut() {
    let now = time("2026-12-01T03:30:00Z");
    let mut life = Life::at("2026-12-01T03:29:00Z");
    life.look(&well(3));
    let mut waiting = |closed: bool| {
        let unfinished = Unfinished {
            what: "Kafka: gone".to_owned(),
            failed: true,
            closed,
        };
        let (next, told) = closing(&life.status, 1, &unfinished, true, now);
        life.status = next;
        (life.status.phase, told.len())
    };
    assert_eq!(waiting(false), (Some(Phase::Active), 1), "it sells");
    assert_eq!(waiting(false), (Some(Phase::Active), 0));
    assert_eq!(waiting(true), (Some(Phase::Ended), 0));
    assert_eq!(life.status.phase_since, Some(now));
}

#[test]
fn a_refused_definition_is_told_once_for_each_generation() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    let refused = Observed {
        ledger: LedgerState::Refused {
            books: None,
            reason: reasons::NAME_TAKEN,
            message: "taken".to_owned(),
        },
        redis: Ok(Snapshot {
            gate: None,
            ..snapshot(0)
        }),
        ..well(0)
    };
    let mut told = Vec::new();
    for _ in 0..4 {
        told.extend(reasons_of(&life.pass(2).look(&refused)));
    }
    life.sale.definition.generation = 2;
    told.extend(reasons_of(&life.pass(2).look(&refused)));
    assert_eq!(
        told,
        [event::WARMING, event::SPEC_REFUSED, event::SPEC_REFUSED]
    );
    assert_eq!(
        life.condition(condition::READY),
        ("False", reasons::NAME_TAKEN)
    );
    assert_eq!(life.status.topic, None, "the topic is another sale's");
}

#[test]
fn a_redis_whose_failover_would_sell_twice_is_not_ready() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    let mut guarded = |guard: Guard| {
        let observed = Observed { guard, ..well(3) };
        for _ in 0..3 {
            life.pass(2).look(&observed);
        }
        (
            life.condition(condition::READY).0.to_owned(),
            life.condition(condition::FAILOVER_SAFE).1.to_owned(),
        )
    };
    let expected = |ready: &str, reason: &str| (ready.to_owned(), reason.to_owned());
    assert_eq!(
        guarded(Guard::Alone),
        expected("True", reasons::NO_REPLICAS)
    );
    assert_eq!(
        guarded(Guard::Unguarded("set it".into())),
        expected("False", reasons::REPLICAS_UNGUARDED)
    );
    assert_eq!(
        guarded(Guard::Guarded),
        expected("True", reasons::REPLICAS_GUARDED)
    );
    assert_eq!(
        guarded(Guard::Unknown("CONFIG".into())),
        expected("True", reasons::REPLICAS_UNKNOWN)
    );
}

#[test]
fn the_status_speaks_of_the_generation_it_saw() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    life.sale.definition.generation = 7;
    life.look(&well(0));
    assert_eq!(life.status.observed_generation, Some(7));
    assert!(
        life.status
            .conditions
            .iter()
            .all(|is| is.observed_generation == Some(7))
    );
}

#[test]
fn grown_stock_is_told_by_the_gate_not_the_spec() {
    let mut life = Life::at("2026-12-01T03:30:00Z");
    life.sale.definition.stock = Stock(STOCK * 2);
    let status = life.look(&well(1)).status;
    assert_eq!(
        status.stock.unwrap().total,
        i64::from(STOCK),
        "until the gate has it"
    );
}
