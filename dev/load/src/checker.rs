//! Holds what the guests saw against what the stores hold, after the faults have stopped and the queues have drained.
//!
//! Pure: it reads no store and no clock, so that it can itself be tested with histories that must not pass.

use std::collections::{HashMap, HashSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::history::{ClaimCall, Outcome, Refusal};

/// Redis stamps claims in whole milliseconds, so a claim can seem to precede the call that made it.
const CLOCK_GRAIN: SignedDuration = SignedDuration::from_millis(2);

/// A claim's end bears the time at which its transaction began; guests may be told of the claim until it has committed.
const ENDING_TAKES: SignedDuration = SignedDuration::from_secs(1);

/// A unit given back is for sale again within a second in quiet times, by the contract; faults take longer.
const FREED_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// A claim whose append nobody knows about is settled by then: its entry is given up after seven seconds without touch,
/// and a recovery may come in between.
const DECIDED_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// The sale as it was declared.
#[derive(Clone, Debug)]
pub(crate) struct Sale {
    pub(crate) stock: usize,
    pub(crate) per_user_limit: usize,
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
}

/// A claim's row in the ledger.
#[derive(Clone, Debug)]
pub(crate) struct LedgerClaim {
    pub(crate) claim: Uuid,
    pub(crate) user: Uuid,
    /// When the script took the unit, by Redis's clock.
    pub(crate) claimed_at: Timestamp,
    /// When the claim was returned or expired, by PostgreSQL's clock.
    pub(crate) ended_at: Option<Timestamp>,
    /// It ended by being given back.
    pub(crate) returned: bool,
}

/// A unit that Redis counts as taken.
#[derive(Clone, Debug)]
pub(crate) struct RedisClaim {
    pub(crate) claim: Uuid,
    pub(crate) user: Uuid,
    /// The log's outcome for it is known and the ledger has it.
    pub(crate) recorded: bool,
}

/// What the resource says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) phase: String,
    pub(crate) claimed: usize,
    pub(crate) remaining: usize,
    pub(crate) consistent: bool,
}

/// The stores at rest.
#[derive(Clone, Debug)]
pub(crate) struct AtRest {
    pub(crate) ledger: Vec<LedgerClaim>,
    pub(crate) redis: Vec<RedisClaim>,
    pub(crate) status: Status,
    /// Claims that the ledger refused because the stock was reached; must be none.
    pub(crate) refused_by_ledger: u64,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    Oversold {
        at_once: usize,
        stock: usize,
    },
    OverLimit {
        user: Uuid,
        rows: usize,
    },
    YesWithoutRow {
        user: Uuid,
        claim: Uuid,
    },
    YesForAnothersClaim {
        user: Uuid,
        claim: Uuid,
    },
    TwoAnswers {
        user: Uuid,
        claims: usize,
    },
    RowNobodyAskedFor {
        user: Uuid,
        claim: Uuid,
    },
    OutsideTheWindow {
        claim: Uuid,
        claimed_at: Timestamp,
    },
    SoldOutTooEarly {
        answered: Timestamp,
        taken: usize,
        stock: usize,
    },
    WrongAboutTheWindow {
        answered: Timestamp,
        refusal: Refusal,
    },
    RedisDiffers {
        only_in_redis: usize,
        only_in_ledger: usize,
        unsettled: usize,
    },
    StatusDiffers {
        claimed: usize,
        remaining: usize,
        rows: usize,
        stock: usize,
    },
    NotConsistent {
        phase: String,
    },
    RefusedByLedger {
        count: u64,
    },
    BrokenAnswers {
        count: usize,
        example: String,
    },
    UnitsStranded {
        sold: usize,
        stock: usize,
    },
    WrongPhase {
        phase: String,
    },
    YesBeforeTheStart {
        answered: Timestamp,
    },
    YesForAnEndedClaim {
        user: Uuid,
        claim: Uuid,
    },
    ReturnNotApplied {
        claim: Uuid,
    },
    NotServedInQuiet {
        calls: usize,
        example: String,
    },
    OpenedLate {
        after: SignedDuration,
    },
    RecoveredLate {
        after: Option<SignedDuration>,
    },
}

impl Violation {
    /// Its kind, as `--expect` names it.
    pub(crate) fn kind(&self) -> ViolationKind {
        match self {
            Self::Oversold { .. } => ViolationKind::Oversold,
            Self::YesWithoutRow { .. } => ViolationKind::YesWithoutRow,
            _ => ViolationKind::Other,
        }
    }
}

/// The violations that planted bugs must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ViolationKind {
    /// More claims than units.
    Oversold,
    /// A guest was told yes for nothing.
    YesWithoutRow,
    /// Anything else.
    #[value(skip)]
    Other,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversold { at_once, stock } => write!(
                f,
                "oversold: {at_once} claims at once on a stock of {stock}"
            ),
            Self::OverLimit { user, rows } => write!(f, "user {user} holds {rows} claims at once"),
            Self::YesWithoutRow { user, claim } => write!(
                f,
                "user {user} was told yes for claim {claim}, the ledger has no such row"
            ),
            Self::YesForAnothersClaim { user, claim } => write!(
                f,
                "user {user} was told yes with another user's claim {claim}"
            ),
            Self::TwoAnswers { user, claims } => {
                write!(f, "user {user} was told yes with {claims} different claims")
            }
            Self::RowNobodyAskedFor { user, claim } => write!(
                f,
                "claim {claim} of user {user} has a row, but no call that could have made it"
            ),
            Self::OutsideTheWindow { claim, claimed_at } => write!(
                f,
                "claim {claim} was taken at {claimed_at}, outside the window"
            ),
            Self::SoldOutTooEarly {
                answered,
                taken,
                stock,
            } => write!(
                f,
                "sold out was said at {answered} with at most {taken} of {stock} taken"
            ),
            Self::WrongAboutTheWindow { answered, refusal } => {
                write!(f, "{refusal:?} was said at {answered}, against the window")
            }
            Self::RedisDiffers {
                only_in_redis,
                only_in_ledger,
                unsettled,
            } => {
                write!(
                    f,
                    "at rest {only_in_redis} claims are only in Redis, {only_in_ledger} only in the ledger, {unsettled} unsettled"
                )
            }
            Self::StatusDiffers {
                claimed,
                remaining,
                rows,
                stock,
            } => {
                write!(
                    f,
                    "the status says {claimed} claimed and {remaining} remaining, the ledger {rows} of {stock}"
                )
            }
            Self::NotConsistent { phase } => {
                write!(f, "the condition Consistent is not True (phase {phase})")
            }
            Self::RefusedByLedger { count } => {
                write!(f, "the ledger refused {count} claims for want of stock")
            }
            Self::BrokenAnswers { count, example } => write!(
                f,
                "{count} answers break the contract, one of them: {example}"
            ),
            Self::UnitsStranded { sold, stock } => write!(
                f,
                "only {sold} of {stock} could be sold although guests kept asking"
            ),
            Self::WrongPhase { phase } => write!(f, "sold out, but the phase is {phase}"),
            Self::YesBeforeTheStart { answered } => {
                write!(f, "a yes was said at {answered}, before the start")
            }
            Self::YesForAnEndedClaim { user, claim } => write!(
                f,
                "user {user} was told yes for claim {claim} after it had ended"
            ),
            Self::ReturnNotApplied { claim } => write!(
                f,
                "claim {claim} was given back with a 204, and went on until its time was over"
            ),
            Self::NotServedInQuiet { calls, example } => write!(
                f,
                "{calls} calls were not served though nothing was disturbed, one of them: {example}"
            ),
            Self::OpenedLate { after } => write!(
                f,
                "the first yes came {} ms after the start",
                after.as_millis()
            ),
            Self::RecoveredLate { after: Some(after) } => write!(
                f,
                "guests were served again only {:.1} s after the fault",
                after.as_secs_f64()
            ),
            Self::RecoveredLate { after: None } => {
                f.write_str("guests were never served again after the fault, or it was never felt")
            }
        }
    }
}

/// What of the checks only holds in some runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Guests asked until nothing was left: every unit must be sold.
    SoldOut,
    /// The run stopped with units left, or with claims that come to an end.
    Open,
}

/// Whether something was done to the platform while guests asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// Nothing: every call must be served.
    Quiet,
    /// A fault: calls may go unserved or unanswered.
    Disturbed,
}

/// Every invariant of claims that does not hold; none when all is well.
pub(crate) fn check(
    sale: &Sale,
    calls: &[ClaimCall],
    at_rest: &AtRest,
    ending: Ending,
    conditions: Conditions,
) -> Vec<Violation> {
    let mut found = Vec::new();
    check_stock_and_limit(sale, &at_rest.ledger, &mut found);
    let rows: HashMap<Uuid, &LedgerClaim> =
        (at_rest.ledger.iter().map(|row| (row.claim, row))).collect();
    check_answers(sale, calls, &rows, &mut found);
    check_returns(calls, &rows, &mut found);
    if conditions == Conditions::Quiet {
        check_all_served(calls, &at_rest.ledger, &mut found);
    }
    check_rows(sale, calls, &at_rest.ledger, &mut found);
    check_sold_out(sale, calls, &at_rest.ledger, &mut found);
    check_stores(sale, at_rest, ending, &mut found);
    found
}

fn active(ledger: &[LedgerClaim]) -> impl Iterator<Item = &LedgerClaim> {
    ledger.iter().filter(|row| row.ended_at.is_none())
}

/// The largest number of `rows` that were held at one instant. A unit that ended at an instant is free at it.
fn most_at_once<'a>(rows: impl Iterator<Item = &'a LedgerClaim>) -> usize {
    let mut changes = Vec::new();
    for row in rows {
        changes.push((row.claimed_at, 1_isize));
        if let Some(ended_at) = row.ended_at {
            changes.push((ended_at, -1));
        }
    }
    changes.sort_unstable();
    let mut held = 0;
    let most = changes.into_iter().map(|(_, change)| {
        held += change;
        held
    });
    most.max().unwrap_or(0).max(0).unsigned_abs()
}

fn check_stock_and_limit(sale: &Sale, ledger: &[LedgerClaim], found: &mut Vec<Violation>) {
    let at_once = most_at_once(ledger.iter());
    if at_once > sale.stock {
        found.push(Violation::Oversold {
            at_once,
            stock: sale.stock,
        });
    }
    let mut by_user = HashMap::<Uuid, Vec<&LedgerClaim>>::new();
    for row in ledger {
        by_user.entry(row.user).or_default().push(row);
    }
    for (user, rows) in by_user {
        let rows = most_at_once(rows.into_iter());
        if rows > sale.per_user_limit {
            found.push(Violation::OverLimit { user, rows });
        }
    }
}

fn check_answers(
    sale: &Sale,
    calls: &[ClaimCall],
    rows: &HashMap<Uuid, &LedgerClaim>,
    found: &mut Vec<Violation>,
) {
    let mut yes = HashMap::<Uuid, HashSet<Uuid>>::new();
    let mut broken = Vec::new();
    for call in calls {
        match &call.outcome {
            Outcome::Claimed(claim) => {
                if call.answered + CLOCK_GRAIN < sale.starts {
                    found.push(Violation::YesBeforeTheStart {
                        answered: call.answered,
                    });
                }
                let ended = rows.get(claim).and_then(|row| row.ended_at);
                if ended.is_some_and(|ended| call.sent > ended + ENDING_TAKES) {
                    found.push(Violation::YesForAnEndedClaim {
                        user: call.user,
                        claim: *claim,
                    });
                }
                if yes.entry(call.user).or_default().insert(*claim) {
                    match rows.get(claim) {
                        None => found.push(Violation::YesWithoutRow {
                            user: call.user,
                            claim: *claim,
                        }),
                        Some(row) if row.user != call.user => {
                            found.push(Violation::YesForAnothersClaim {
                                user: call.user,
                                claim: *claim,
                            });
                        }
                        Some(_) => {}
                    }
                }
            }
            Outcome::Refused(refusal @ Refusal::NotStarted)
                if call.sent > sale.starts + CLOCK_GRAIN =>
            {
                found.push(Violation::WrongAboutTheWindow {
                    answered: call.answered,
                    refusal: *refusal,
                });
            }
            Outcome::Refused(refusal @ Refusal::Ended)
                if call.answered + CLOCK_GRAIN < sale.ends =>
            {
                found.push(Violation::WrongAboutTheWindow {
                    answered: call.answered,
                    refusal: *refusal,
                });
            }
            Outcome::Broken(what) => broken.push(what),
            Outcome::Refused(_) | Outcome::Unknown | Outcome::GivenBack(_) => {}
        }
    }
    for (user, claims) in yes {
        // A claim that ended may be followed by another.
        let ended = claims
            .iter()
            .filter(|claim| rows.get(claim).is_some_and(|row| row.ended_at.is_some()))
            .count();
        if claims.len() - ended > sale.per_user_limit {
            found.push(Violation::TwoAnswers {
                user,
                claims: claims.len(),
            });
        }
    }
    if let Some(example) = broken.first() {
        found.push(Violation::BrokenAnswers {
            count: broken.len(),
            example: (*example).clone(),
        });
    }
}

/// Whoever was told 204 has given the claim back. Only where the claim's own time was over before the ledger could have
/// read of it may it have expired instead: either way it ended once.
fn check_returns(
    calls: &[ClaimCall],
    rows: &HashMap<Uuid, &LedgerClaim>,
    found: &mut Vec<Violation>,
) {
    for call in calls {
        let Outcome::GivenBack(claim) = call.outcome else {
            continue;
        };
        let ended = rows.get(&claim).is_some_and(|row| {
            let read_by = call.answered + DECIDED_WITHIN;
            row.returned || row.ended_at.is_some_and(|ended| ended <= read_by)
        });
        if !ended {
            found.push(Violation::ReturnNotApplied { claim });
        }
    }
}

/// With nothing disturbed, nobody is told to come back, but for a guest whose own claim is about to end: its unit can't be
/// taken again before it is free.
fn check_all_served(calls: &[ClaimCall], ledger: &[LedgerClaim], found: &mut Vec<Violation>) {
    let mut ends = HashMap::<Uuid, Vec<Timestamp>>::new();
    for row in ledger {
        if let Some(ended_at) = row.ended_at {
            ends.entry(row.user).or_default().push(ended_at);
        }
    }
    let is_ending = |call: &ClaimCall| {
        let about_then = call.sent - FREED_WITHIN..=call.answered + FREED_WITHIN;
        let mut own = ends.get(&call.user).into_iter().flatten();
        own.any(|ended| about_then.contains(ended))
    };
    let not_served = calls.iter().filter(|call| match call.outcome {
        Outcome::Unknown | Outcome::Refused(Refusal::NotServed) => true,
        Outcome::Refused(Refusal::Recovering) => !is_ending(call),
        _ => false,
    });
    let mut not_served = not_served.peekable();
    if let Some(first) = not_served.peek() {
        let example = format!("{:?} at {}", first.outcome, first.answered);
        let calls = not_served.count();
        found.push(Violation::NotServedInQuiet { calls, example });
    }
}

fn check_rows(
    sale: &Sale,
    calls: &[ClaimCall],
    ledger: &[LedgerClaim],
    found: &mut Vec<Violation>,
) {
    let mut first_that_may_have_taken = HashMap::<Uuid, Timestamp>::new();
    for call in calls {
        if matches!(call.outcome, Outcome::Claimed(_) | Outcome::Unknown) {
            let first = first_that_may_have_taken
                .entry(call.user)
                .or_insert(call.sent);
            *first = (*first).min(call.sent);
        }
    }
    for row in ledger {
        if row.claimed_at < sale.starts || row.claimed_at >= sale.ends {
            found.push(Violation::OutsideTheWindow {
                claim: row.claim,
                claimed_at: row.claimed_at,
            });
        }
        let asked = first_that_may_have_taken.get(&row.user);
        if asked.is_none_or(|sent| row.claimed_at + CLOCK_GRAIN < *sent) {
            found.push(Violation::RowNobodyAskedFor {
                user: row.user,
                claim: row.claim,
            });
        }
    }
}

/// When units went to calls whose outcome nobody knows, and when they were free again at the latest: in the order of time.
/// A guest's further calls while one is undecided are about the same unit, and a claim that has a row by then is not
/// undecided.
fn undecided(calls: &[ClaimCall], ledger: &[LedgerClaim]) -> (Vec<Timestamp>, Vec<Timestamp>) {
    let mut first_row = HashMap::<Uuid, Timestamp>::new();
    for row in ledger {
        let first = first_row.entry(row.user).or_insert(row.claimed_at);
        *first = (*first).min(row.claimed_at);
    }
    let mut unknown: Vec<&ClaimCall> = calls
        .iter()
        .filter(|call| call.outcome == Outcome::Unknown)
        .collect();
    unknown.sort_unstable_by_key(|call| call.sent);
    let mut until_by_user = HashMap::<Uuid, Timestamp>::new();
    let (mut from, mut until) = (Vec::new(), Vec::new());
    for call in unknown {
        let row = first_row.get(&call.user);
        if row.is_some_and(|row| *row <= call.answered) {
            continue;
        }
        let ends = call.answered + DECIDED_WITHIN;
        let ends = row.map_or(ends, |row| ends.min(*row));
        match until_by_user.get_mut(&call.user) {
            // The same unit is held on: one interval, moved on.
            Some(last) if *last >= call.sent => *last = (*last).max(ends),
            Some(last) => {
                until.push(std::mem::replace(last, ends));
                from.push(call.sent);
            }
            None => {
                until_by_user.insert(call.user, ends);
                from.push(call.sent);
            }
        }
    }
    until.extend(until_by_user.into_values());
    from.sort_unstable();
    until.sort_unstable();
    (from, until)
}

/// Sold out may be said only while the rows and the claims that nobody had decided yet could fill the stock.
fn check_sold_out(
    sale: &Sale,
    calls: &[ClaimCall],
    ledger: &[LedgerClaim],
    found: &mut Vec<Violation>,
) {
    let mut taken: Vec<Timestamp> = ledger.iter().map(|row| row.claimed_at).collect();
    let mut freed: Vec<Timestamp> = ledger.iter().filter_map(|row| row.ended_at).collect();
    taken.sort_unstable();
    freed.sort_unstable();
    let (undecided, decided) = undecided(calls, ledger);
    for call in calls
        .iter()
        .filter(|call| call.outcome == Outcome::Refused(Refusal::SoldOut))
    {
        let taken_at_most = taken.partition_point(|at| *at <= call.answered + CLOCK_GRAIN)
            + undecided.partition_point(|at| *at <= call.answered)
            - decided.partition_point(|at| *at < call.sent)
            - freed
                .partition_point(|at| *at + FREED_WITHIN < call.sent)
                .min(taken.len());
        if taken_at_most < sale.stock {
            found.push(Violation::SoldOutTooEarly {
                answered: call.answered,
                taken: taken_at_most,
                stock: sale.stock,
            });
            return;
        }
    }
}

fn check_stores(sale: &Sale, at_rest: &AtRest, ending: Ending, found: &mut Vec<Violation>) {
    let rows: HashSet<(Uuid, Uuid)> = active(&at_rest.ledger)
        .map(|row| (row.user, row.claim))
        .collect();
    let entries: HashSet<(Uuid, Uuid)> = at_rest
        .redis
        .iter()
        .map(|entry| (entry.user, entry.claim))
        .collect();
    let unsettled = at_rest.redis.iter().filter(|entry| !entry.recorded).count();
    let (only_in_redis, only_in_ledger) = (
        entries.difference(&rows).count(),
        rows.difference(&entries).count(),
    );
    if only_in_redis + only_in_ledger + unsettled > 0 {
        found.push(Violation::RedisDiffers {
            only_in_redis,
            only_in_ledger,
            unsettled,
        });
    }
    let status = &at_rest.status;
    if status.claimed != rows.len() || status.remaining + rows.len() != sale.stock {
        let (claimed, remaining) = (status.claimed, status.remaining);
        found.push(Violation::StatusDiffers {
            claimed,
            remaining,
            rows: rows.len(),
            stock: sale.stock,
        });
    }
    if !status.consistent {
        found.push(Violation::NotConsistent {
            phase: status.phase.clone(),
        });
    }
    if at_rest.refused_by_ledger > 0 {
        found.push(Violation::RefusedByLedger {
            count: at_rest.refused_by_ledger,
        });
    }
    if ending == Ending::SoldOut && rows.len() == sale.stock && status.phase != "SoldOut" {
        found.push(Violation::WrongPhase {
            phase: status.phase.clone(),
        });
    }
    if ending == Ending::SoldOut && rows.len() != sale.stock {
        found.push(Violation::UnitsStranded {
            sold: rows.len(),
            stock: sale.stock,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sale: &Sale, calls: &[ClaimCall], at_rest: &AtRest, ending: Ending) -> Vec<Violation> {
        super::check(sale, calls, at_rest, ending, Conditions::Disturbed)
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).expect("a time in range")
    }

    fn sale() -> Sale {
        Sale {
            stock: 2,
            per_user_limit: 1,
            starts: at(0),
            ends: at(10_000),
        }
    }

    fn call(user: u128, from: i64, outcome: Outcome) -> ClaimCall {
        ClaimCall {
            user: Uuid::from_u128(user),
            sent: at(from),
            answered: at(from + 10),
            outcome,
        }
    }

    fn yes(user: u128, from: i64) -> ClaimCall {
        call(user, from, Outcome::Claimed(Uuid::from_u128(user + 100)))
    }

    fn row(user: u128, claimed: i64) -> LedgerClaim {
        LedgerClaim {
            claim: Uuid::from_u128(user + 100),
            user: Uuid::from_u128(user),
            claimed_at: at(claimed),
            ended_at: None,
            returned: false,
        }
    }

    /// The stores as they must be when `ledger` is what was sold.
    fn stores(ledger: Vec<LedgerClaim>) -> AtRest {
        let redis: Vec<_> = active(&ledger)
            .map(|row| RedisClaim {
                claim: row.claim,
                user: row.user,
                recorded: true,
            })
            .collect();
        let status = Status {
            phase: if redis.len() < 2 { "Active" } else { "SoldOut" }.into(),
            claimed: redis.len(),
            remaining: 2_usize.saturating_sub(redis.len()),
            consistent: true,
        };
        AtRest {
            ledger,
            redis,
            status,
            refused_by_ledger: 0,
        }
    }

    fn sold_out_run() -> (Vec<ClaimCall>, AtRest) {
        let calls = vec![
            yes(1, 0),
            yes(2, 5),
            yes(1, 20),
            call(3, 30, Outcome::Refused(Refusal::SoldOut)),
        ];
        (calls, stores(vec![row(1, 4), row(2, 9)]))
    }

    #[test]
    fn a_true_history_passes() {
        let (calls, at_rest) = sold_out_run();
        assert_eq!(check(&sale(), &calls, &at_rest, Ending::SoldOut), []);
    }

    #[test]
    fn a_yes_without_a_row_is_found() {
        let (calls, _) = sold_out_run();
        let found = check(&sale(), &calls, &stores(vec![row(1, 4)]), Ending::Open);
        assert!(
            found.contains(&Violation::YesWithoutRow {
                user: Uuid::from_u128(2),
                claim: Uuid::from_u128(102)
            }),
            "{found:?}"
        );
    }

    #[test]
    fn a_third_row_is_oversold() {
        let (mut calls, _) = sold_out_run();
        calls.push(yes(4, 40));
        let found = check(
            &sale(),
            &calls,
            &stores(vec![row(1, 4), row(2, 9), row(4, 45)]),
            Ending::Open,
        );
        assert!(
            found.contains(&Violation::Oversold {
                at_once: 3,
                stock: 2
            }),
            "{found:?}"
        );
    }

    #[test]
    fn a_unit_sold_again_after_its_return_is_not_oversold() {
        let (mut calls, _) = sold_out_run();
        calls.push(yes(4, 6_000));
        let returned = LedgerClaim {
            ended_at: Some(at(40)),
            ..row(1, 4)
        };
        let found = check(
            &sale(),
            &calls,
            &stores(vec![returned, row(2, 9), row(4, 6_005)]),
            Ending::SoldOut,
        );
        assert_eq!(found, []);
    }

    #[test]
    fn a_unit_sold_before_its_return_is_oversold() {
        let (mut calls, _) = sold_out_run();
        calls.push(yes(4, 30));
        let returned = LedgerClaim {
            ended_at: Some(at(40)),
            ..row(1, 4)
        };
        let found = check(
            &sale(),
            &calls,
            &stores(vec![returned, row(2, 9), row(4, 35)]),
            Ending::SoldOut,
        );
        assert_eq!(
            found,
            [Violation::Oversold {
                at_once: 3,
                stock: 2
            }]
        );
    }

    #[test]
    fn two_rows_of_one_user_are_found() {
        let second = LedgerClaim {
            claim: Uuid::from_u128(999),
            ..row(1, 8)
        };
        let found = check(
            &sale(),
            &[yes(1, 0)],
            &stores(vec![row(1, 4), second]),
            Ending::Open,
        );
        assert_eq!(
            found,
            [Violation::OverLimit {
                user: Uuid::from_u128(1),
                rows: 2
            }]
        );
    }

    #[test]
    fn sold_out_with_units_left_is_found() {
        let calls = vec![yes(1, 0), call(3, 30, Outcome::Refused(Refusal::SoldOut))];
        let found = check(&sale(), &calls, &stores(vec![row(1, 4)]), Ending::Open);
        assert_eq!(
            found,
            [Violation::SoldOutTooEarly {
                answered: at(40),
                taken: 1,
                stock: 2
            }]
        );
    }

    #[test]
    fn sold_out_while_a_claim_is_undecided_is_fine() {
        let calls = vec![
            yes(1, 0),
            call(2, 10, Outcome::Unknown),
            call(3, 30, Outcome::Refused(Refusal::SoldOut)),
        ];
        assert_eq!(
            check(&sale(), &calls, &stores(vec![row(1, 4)]), Ending::Open),
            []
        );
    }

    #[test]
    fn claims_outside_the_window_and_wrong_words_about_it_are_found() {
        let calls = vec![
            yes(1, -20),
            call(3, 30, Outcome::Refused(Refusal::NotStarted)),
            call(4, 40, Outcome::Refused(Refusal::Ended)),
        ];
        let found = check(&sale(), &calls, &stores(vec![row(1, -15)]), Ending::Open);
        assert!(
            found.contains(&Violation::OutsideTheWindow {
                claim: Uuid::from_u128(101),
                claimed_at: at(-15)
            }),
            "{found:?}"
        );
        assert!(
            found.contains(&Violation::WrongAboutTheWindow {
                answered: at(40),
                refusal: Refusal::NotStarted
            }),
            "{found:?}"
        );
        assert!(
            found.contains(&Violation::WrongAboutTheWindow {
                answered: at(50),
                refusal: Refusal::Ended
            }),
            "{found:?}"
        );
    }

    #[test]
    fn a_row_that_only_refused_calls_explain_is_found() {
        let calls = vec![yes(1, 0), call(2, 0, Outcome::Refused(Refusal::Recovering))];
        let found = check(
            &sale(),
            &calls,
            &stores(vec![row(1, 4), row(2, 9)]),
            Ending::Open,
        );
        assert_eq!(
            found,
            [Violation::RowNobodyAskedFor {
                user: Uuid::from_u128(2),
                claim: Uuid::from_u128(102)
            }]
        );
    }

    #[test]
    fn stores_that_differ_are_found() {
        let (calls, mut at_rest) = sold_out_run();
        at_rest.redis.pop();
        at_rest.status.remaining = 1;
        at_rest.status.consistent = false;
        at_rest.refused_by_ledger = 3;
        let found = check(&sale(), &calls, &at_rest, Ending::SoldOut);
        assert_eq!(
            found,
            [
                Violation::RedisDiffers {
                    only_in_redis: 0,
                    only_in_ledger: 1,
                    unsettled: 0
                },
                Violation::StatusDiffers {
                    claimed: 2,
                    remaining: 1,
                    rows: 2,
                    stock: 2
                },
                Violation::NotConsistent {
                    phase: "SoldOut".into()
                },
                Violation::RefusedByLedger { count: 3 },
            ]
        );
    }

    #[test]
    fn a_sale_that_sold_out_must_say_so() {
        let (calls, mut at_rest) = sold_out_run();
        at_rest.status.phase = "Active".into();
        let found = check(&sale(), &calls, &at_rest, Ending::SoldOut);
        assert_eq!(
            found,
            [Violation::WrongPhase {
                phase: "Active".into()
            }]
        );
    }

    #[test]
    fn a_call_that_was_not_served_is_found_where_nothing_was_disturbed() {
        let (mut calls, at_rest) = sold_out_run();
        calls.push(call(4, 50, Outcome::Refused(Refusal::Recovering)));
        assert_eq!(check(&sale(), &calls, &at_rest, Ending::SoldOut), []);
        let found = super::check(
            &sale(),
            &calls,
            &at_rest,
            Ending::SoldOut,
            Conditions::Quiet,
        );
        assert!(
            matches!(found[..], [Violation::NotServedInQuiet { calls: 1, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn a_guest_whose_own_claim_is_ending_may_be_told_to_come_back() {
        let served = |user| {
            let ended = LedgerClaim {
                ended_at: Some(at(5_000)),
                ..row(1, 4)
            };
            let calls = [
                yes(1, 0),
                call(user, 4_995, Outcome::Refused(Refusal::Recovering)),
            ];
            super::check(
                &sale(),
                &calls,
                &stores(vec![ended]),
                Ending::Open,
                Conditions::Quiet,
            )
        };
        assert_eq!(served(1), []);
        assert!(matches!(
            served(2)[..],
            [Violation::NotServedInQuiet { calls: 1, .. }]
        ));
    }

    #[test]
    fn a_yes_before_the_start_is_found() {
        let found = check(
            &sale(),
            &[yes(1, -50)],
            &stores(vec![row(1, 4)]),
            Ending::Open,
        );
        assert_eq!(found, [Violation::YesBeforeTheStart { answered: at(-40) }]);
    }

    #[test]
    fn a_yes_for_a_claim_that_has_ended_is_found() {
        let ended = LedgerClaim {
            ended_at: Some(at(40)),
            ..row(1, 4)
        };
        let calls = [yes(1, 0), yes(1, 900), yes(1, 1_100)];
        let found = check(&sale(), &calls, &stores(vec![ended]), Ending::Open);
        assert_eq!(
            found,
            [Violation::YesForAnEndedClaim {
                user: Uuid::from_u128(1),
                claim: Uuid::from_u128(101)
            }]
        );
    }

    #[test]
    fn a_return_that_was_confirmed_and_not_applied_is_found() {
        let claim = Uuid::from_u128(101);
        let calls = [yes(1, 0), call(1, 20, Outcome::GivenBack(claim))];
        let mut ended = LedgerClaim {
            ended_at: Some(at(40)),
            returned: true,
            ..row(1, 4)
        };
        assert_eq!(
            check(&sale(), &calls, &stores(vec![ended.clone()]), Ending::Open),
            []
        );
        // It expired before the ledger could have read of the return.
        ended.returned = false;
        assert_eq!(
            check(&sale(), &calls, &stores(vec![ended.clone()]), Ending::Open),
            []
        );
        for never in [None, Some(at(40_000))] {
            ended.ended_at = never;
            let found = check(&sale(), &calls, &stores(vec![ended.clone()]), Ending::Open);
            assert_eq!(found, [Violation::ReturnNotApplied { claim }]);
        }
    }

    #[test]
    fn an_undecided_claim_excuses_a_sold_out_only_until_it_must_be_settled() {
        let sold_out = |from| call(3, from, Outcome::Refused(Refusal::SoldOut));
        let calls = |from| vec![yes(1, 0), call(2, 10, Outcome::Unknown), sold_out(from)];
        let long = Sale {
            ends: at(100_000),
            ..sale()
        };
        let stores = stores(vec![row(1, 4)]);
        assert_eq!(check(&long, &calls(29_000), &stores, Ending::Open), []);
        let found = check(&long, &calls(31_000), &stores, Ending::Open);
        assert!(
            matches!(found[..], [Violation::SoldOutTooEarly { taken: 1, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn a_unit_held_by_a_claim_that_was_given_up_counts_until_its_guest_claims_again() {
        // User 2's first call took a unit that was voided later; the row is of a later call.
        let calls = vec![
            yes(1, 0),
            call(2, 10, Outcome::Unknown),
            call(3, 30, Outcome::Refused(Refusal::SoldOut)),
            yes(2, 8_000),
        ];
        let stores = stores(vec![row(1, 4), row(2, 8_005)]);
        assert_eq!(check(&sale(), &calls, &stores, Ending::SoldOut), []);
    }

    #[test]
    fn units_that_could_not_be_sold_are_found() {
        let found = check(
            &sale(),
            &[yes(1, 0)],
            &stores(vec![row(1, 4)]),
            Ending::SoldOut,
        );
        assert_eq!(found, [Violation::UnitsStranded { sold: 1, stock: 2 }]);
    }

    #[test]
    fn answers_that_break_the_contract_are_found() {
        let (mut calls, at_rest) = sold_out_run();
        calls.push(call(5, 50, Outcome::Broken("500 INTERNAL".into())));
        let found = check(&sale(), &calls, &at_rest, Ending::SoldOut);
        assert_eq!(
            found,
            [Violation::BrokenAnswers {
                count: 1,
                example: "500 INTERNAL".into()
            }]
        );
    }

    #[test]
    fn two_different_yeses_for_one_user_are_found() {
        let other = call(1, 20, Outcome::Claimed(Uuid::from_u128(102)));
        let found = check(
            &sale(),
            &[yes(1, 0), yes(2, 0), other],
            &stores(vec![row(1, 4), row(2, 9)]),
            Ending::SoldOut,
        );
        assert!(
            found.contains(&Violation::TwoAnswers {
                user: Uuid::from_u128(1),
                claims: 2
            }),
            "{found:?}"
        );
        assert!(
            found.contains(&Violation::YesForAnothersClaim {
                user: Uuid::from_u128(1),
                claim: Uuid::from_u128(102)
            }),
            "{found:?}"
        );
    }
}
