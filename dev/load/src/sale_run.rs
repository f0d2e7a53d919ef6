//! One sale from its declaration to the check of its books, with something happening in between.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::time::Instant;
use uuid::Uuid;

use crate::checker::{Conditions, Ending, Violation, check};
use crate::guests::Guest;
use crate::history::{ClaimCall, Outcome, Refusal, summary};
use crate::platform::{Declaration, Declared, Kind, Platform};
use crate::storm::{self, Progress, Storm};

/// How large a run is.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Size {
    /// Units for sale.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) stock: usize,
    /// Different guests.
    #[arg(long, default_value_t = 4_000)]
    pub(crate) guests: usize,
    /// Claim calls from the start on; each guest makes some.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) calls: usize,
    /// Connections kept busy at once.
    #[arg(long, default_value_t = 200)]
    pub(crate) connections: usize,
}

/// What a run is.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) kind: Kind,
    pub(crate) size: Size,
    /// Calls a second over all connections; `None` sends as fast as the answers come.
    pub(crate) calls_per_second: Option<f64>,
    /// From the start to the end of the sale.
    pub(crate) window: SignedDuration,
    /// When a claim goes back to stock; only for time sales.
    pub(crate) claim_ttl: &'static str,
    /// One in so many of those who are told yes gives the claim back at once.
    pub(crate) give_back_every: Option<usize>,
    pub(crate) ending: Ending,
}

/// How long stores and status may take to come to rest.
const REST_PATIENCE: Duration = Duration::from_secs(60);

/// Guests go on asking at most this long after the storm for what faults have left unsold.
const REMAINDER_PATIENCE: Duration = Duration::from_secs(90);

/// Guests start to ask this long before the start.
const EARLY: SignedDuration = SignedDuration::from_millis(500);

/// How many of them, spread over that time. They are told that the sale has not started.
const EARLY_CALLS: usize = 100;

/// The end of a sale that no run reaches.
pub(crate) const WINDOW: SignedDuration = SignedDuration::from_hours(2);

/// The first yes comes this soon after the start, whether or not the operator lives.
const OPENS_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// Guests are served again this soon after Redis has lost everything.
const RECOVERS_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// Everything that one sale came to.
pub(crate) struct Report {
    pub(crate) sale: Declared,
    pub(crate) calls: Vec<ClaimCall>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) rows: usize,
    pub(crate) storm_took: Duration,
    pub(crate) phase: String,
    pub(crate) consistent: bool,
    /// From the fault to the first guest served again, where the fault was felt.
    pub(crate) served_again_after: Option<SignedDuration>,
}

impl Report {
    /// Prints the figures and the violations.
    pub(crate) fn print(&self) {
        println!(
            "  calls        {} in {:.1} s: {}",
            self.calls.len(),
            self.storm_took.as_secs_f64(),
            summary(&self.calls)
        );
        println!(
            "  ledger rows  {} of {}; status {}, Consistent {}",
            self.rows,
            self.sale.declaration.stock,
            self.phase,
            if self.consistent { "True" } else { "False" }
        );
        if let Some(first) = first_yes_after(&self.calls, self.sale.declaration.starts) {
            println!("  first yes    {} ms after the start", first.as_millis());
        }
        if let Some(after) = self.served_again_after {
            println!(
                "  served again {:.1} s after the fault",
                after.as_secs_f64()
            );
        }
        for violation in self.violations.iter().take(10) {
            println!("  VIOLATION    {violation}");
        }
        if self.violations.len() > 10 {
            println!("  ... and {} more violations", self.violations.len() - 10);
        }
    }
}

/// A fault that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) at: Timestamp,
    /// Redis has lost everything: guests must feel it, and be served again soon.
    pub(crate) redis_lost: bool,
}

/// Something that happens around a storm.
pub(crate) trait Disturbance {
    /// Whether guests may find the platform disturbed.
    fn conditions(&self) -> Conditions;

    /// The gap between the declaration and the start.
    fn lead(&self) -> SignedDuration {
        SignedDuration::from_secs(15)
    }

    /// Between the declaration and the start.
    async fn before_start(&self, _platform: &Platform) -> anyhow::Result<()> {
        Ok(())
    }

    /// During the storm, once `progress` has gone as far as the disturbance wants. Returns the fault it made, if any.
    async fn during(
        &self,
        _platform: &Platform,
        _sale: &Declared,
        _progress: &Progress,
    ) -> anyhow::Result<Option<Made>> {
        Ok(None)
    }

    /// Repairs what is still broken: after the guests have had their answers, before the books are checked, and also
    /// when the run has failed before.
    async fn after(&self, _platform: &Platform) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Nothing happens.
pub(crate) struct Quiet;

impl Disturbance for Quiet {
    fn conditions(&self) -> Conditions {
        Conditions::Quiet
    }
}

/// Declares a sale, lets the guests at it, disturbs it, sells the remainder and checks the books.
pub(crate) async fn run(
    platform: &Platform,
    run: &Run,
    disturbance: &impl Disturbance,
) -> anyhow::Result<Report> {
    let seen = sell(platform, run, disturbance).await;
    // Also when something failed: what comes next wants a whole platform.
    let repaired = disturbance.after(platform).await;
    let Seen {
        sale,
        calls,
        storm_took,
        made,
    } = seen?;
    repaired?;

    let at_rest = platform.at_rest(&sale, REST_PATIENCE).await?;
    let mut violations = check(
        &sale.facts(),
        &calls,
        &at_rest,
        run.ending,
        disturbance.conditions(),
    );
    let first = first_yes_after(&calls, sale.declaration.starts);
    violations.extend(
        first
            .filter(|after| *after > OPENS_WITHIN)
            .map(|after| Violation::OpenedLate { after }),
    );
    let served_again_after = made.and_then(|made| served_again(&calls, made.at));
    if made.is_some_and(|made| made.redis_lost)
        && served_again_after.is_none_or(|after| after > RECOVERS_WITHIN)
    {
        violations.push(Violation::RecoveredLate {
            after: served_again_after,
        });
    }
    let (phase, consistent) = (at_rest.status.phase.clone(), at_rest.status.consistent);
    Ok(Report {
        rows: at_rest.ledger.len(),
        sale,
        calls,
        violations,
        storm_took,
        phase,
        consistent,
        served_again_after,
    })
}

/// What a sale's guests saw.
struct Seen {
    sale: Declared,
    calls: Vec<ClaimCall>,
    storm_took: Duration,
    made: Option<Made>,
}

async fn sell(
    platform: &Platform,
    run: &Run,
    disturbance: &impl Disturbance,
) -> anyhow::Result<Seen> {
    let Run { kind, size, .. } = *run;
    let guests = Arc::new(platform.token_signer().await?.guests(size.guests)?);
    let starts = round_up_to_second(Timestamp::now() + disturbance.lead());
    let name = format!("run-{}", &Uuid::new_v4().simple().to_string()[..12]);
    let declaration = Declaration {
        kind,
        name,
        stock: size.stock,
        starts,
        ends: starts + run.window,
        claim_ttl: run.claim_ttl,
        region: "jeju",
    };
    let sale = platform.declare(declaration).await?;
    disturbance.before_start(platform).await?;
    let early = starts - EARLY;
    ensure!(
        Timestamp::now() < early,
        "the sale's start came before everything was in place: nothing is shown by this run"
    );
    sleep_until(early).await;

    let storm = Storm {
        address: platform.api,
        path: sale.claims_path().parse()?,
        connections: size.connections,
        calls_per_second: run.calls_per_second,
        give_back_every: run.give_back_every,
    };
    let mut calls = ask_early(&storm, &guests).await;
    sleep_until(starts).await;
    let progress = Progress::default();
    let began = Instant::now();
    let (stormed, made) = tokio::join!(
        storm::run(&storm, &guests, schedule(size), &progress),
        disturbance.during(platform, &sale, &progress)
    );
    let storm_took = began.elapsed();
    let made = made?;
    calls.extend(stormed);
    if run.ending == Ending::SoldOut {
        calls.extend(sell_the_remainder(platform, &storm, &guests, &sale, &calls).await?);
    }
    Ok(Seen {
        sale,
        calls,
        storm_took,
        made,
    })
}

/// Some guests can't wait for the start.
async fn ask_early(storm: &Storm, guests: &Arc<Vec<Guest>>) -> Vec<ClaimCall> {
    let storm = Storm {
        connections: 10,
        calls_per_second: Some(EARLY_CALLS as f64 / EARLY.as_secs_f64()),
        give_back_every: None,
        ..storm.clone()
    };
    let schedule = (0..EARLY_CALLS.min(guests.len())).collect();
    storm::run(&storm, guests, schedule, &Progress::default()).await
}

/// From the start of the sale to the first yes.
fn first_yes_after(calls: &[ClaimCall], starts: Timestamp) -> Option<SignedDuration> {
    let first = calls
        .iter()
        .filter(|call| matches!(call.outcome, Outcome::Claimed(_)))
        .map(|call| call.answered)
        .min();
    first.map(|first| first.duration_since(starts))
}

/// From a fault to the first guest who was served after somebody was not; none if nobody felt it or nobody was served.
fn served_again(calls: &[ClaimCall], fault: Timestamp) -> Option<SignedDuration> {
    let felt = calls
        .iter()
        .filter(|call| {
            call.answered >= fault
                && matches!(
                    call.outcome,
                    Outcome::Unknown | Outcome::Refused(Refusal::Recovering | Refusal::NotServed)
                )
        })
        .map(|call| call.answered)
        .min()?;
    let served = calls
        .iter()
        .filter(|call| {
            call.sent >= felt
                && matches!(
                    call.outcome,
                    Outcome::Claimed(_) | Outcome::Refused(Refusal::SoldOut)
                )
        })
        .map(|call| call.answered)
        .min()?;
    Some(served.duration_since(fault))
}

/// Every guest's turn, as often as the calls go round, in random order.
fn schedule(size: Size) -> Vec<usize> {
    let mut schedule: Vec<usize> = (0..size.calls).map(|turn| turn % size.guests).collect();
    schedule.shuffle(&mut rand::rng());
    schedule
}

/// Guests without a claim go on asking until the ledger holds the whole stock, so that a unit which a fault
/// has left stranded is seen.
async fn sell_the_remainder(
    platform: &Platform,
    storm: &Storm,
    guests: &Arc<Vec<Guest>>,
    sale: &Declared,
    so_far: &[ClaimCall],
) -> anyhow::Result<Vec<ClaimCall>> {
    let mut holders: std::collections::HashSet<Uuid> = claimed_by(so_far).collect();
    let mut more = Vec::new();
    let deadline = Instant::now() + REMAINDER_PATIENCE;
    let storm = Storm {
        connections: 20,
        calls_per_second: Some(200.0),
        ..storm.clone()
    };
    while Instant::now() < deadline {
        match platform.ledger(sale).await {
            Ok(rows) if rows.len() >= sale.declaration.stock => break,
            _ => {}
        }
        let waiting: Vec<usize> = (0..guests.len())
            .filter(|index| !holders.contains(&guests[*index].user))
            .collect();
        let round: Vec<usize> = waiting.sample(&mut rand::rng(), 100).copied().collect();
        let calls = storm::run(&storm, guests, round, &Progress::default()).await;
        holders.extend(claimed_by(&calls));
        more.extend(calls);
    }
    Ok(more)
}

fn claimed_by(calls: &[ClaimCall]) -> impl Iterator<Item = Uuid> {
    calls
        .iter()
        .filter(|call| matches!(call.outcome, Outcome::Claimed(_)))
        .map(|call| call.user)
}

/// Kubernetes keeps times in whole seconds.
pub(crate) fn round_up_to_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + 1).unwrap_or(at)
}

/// Waits until the wall clock shows `at`.
pub(crate) async fn sleep_until(at: Timestamp) {
    let ahead = at.duration_since(Timestamp::now());
    tokio::time::sleep(ahead.try_into().unwrap_or(Duration::ZERO)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).expect("a time in range")
    }

    fn call(sent: i64, outcome: Outcome) -> ClaimCall {
        ClaimCall {
            user: Uuid::nil(),
            sent: at(sent),
            answered: at(sent + 10),
            outcome,
        }
    }

    #[test]
    fn being_served_again_counts_from_the_fault_and_only_once_it_was_felt() {
        let yes = || Outcome::Claimed(Uuid::nil());
        let closed = || Outcome::Refused(Refusal::Recovering);
        // A yes that was on its way when the fault came is not a sign of recovery.
        let mut calls = vec![call(0, yes()), call(95, yes()), call(120, closed())];
        assert_eq!(served_again(&calls, at(100)), None);
        calls.push(call(5_000, yes()));
        assert_eq!(
            served_again(&calls, at(100)),
            Some(SignedDuration::from_millis(4_910))
        );
        assert_eq!(served_again(&[call(200, yes())], at(100)), None);
    }
}
