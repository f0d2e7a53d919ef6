//! One sale from its declaration to the check of its books, with something happening in between.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::time::Instant;
use uuid::Uuid;

use crate::checker::{Ending, Violation, check};
use crate::guests::Guest;
use crate::history::{ClaimCall, Outcome, Refusal, summary};
use crate::platform::{Declaration, Declared, Kind, Platform};
use crate::storm::{self, Progress, Storm};

/// How large a run is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Size {
    /// Units for sale.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) stock: usize,
    /// Different guests.
    #[arg(long, default_value_t = 4_000)]
    pub(crate) guests: usize,
    /// Claim calls in all; each guest makes some.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) calls: usize,
    /// Connections kept busy at once.
    #[arg(long, default_value_t = 200)]
    pub(crate) connections: usize,
}

/// How long stores and status may take to come to rest.
const REST_PATIENCE: Duration = Duration::from_secs(60);

/// Guests go on asking at most this long after the storm for what faults have left unsold.
const REMAINDER_PATIENCE: Duration = Duration::from_secs(90);

/// The gap between the declaration and the start: guests are there before the start and are told so.
const LEAD: SignedDuration = SignedDuration::from_secs(8);

/// Guests start to ask this long before the start.
const EARLY: SignedDuration = SignedDuration::from_millis(500);

/// The end of a sale that no run reaches.
const WINDOW: SignedDuration = SignedDuration::from_hours(2);

/// Everything that one sale came to.
pub(crate) struct Report {
    pub(crate) sale: Declared,
    pub(crate) calls: Vec<ClaimCall>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) rows: usize,
    pub(crate) storm_took: Duration,
    pub(crate) phase: String,
    pub(crate) consistent: bool,
}

impl Report {
    /// The longest time in which nobody was told yes though nobody was told sold out either.
    pub(crate) fn longest_silence(&self) -> SignedDuration {
        let mut served: Vec<Timestamp> = self
            .calls
            .iter()
            .filter(|call| {
                matches!(
                    call.outcome,
                    Outcome::Claimed(_) | Outcome::Refused(Refusal::SoldOut)
                )
            })
            .map(|call| call.answered)
            .collect();
        served.sort_unstable();
        served
            .windows(2)
            .map(|pair| pair[1].duration_since(pair[0]))
            .max()
            .unwrap_or_default()
    }

    /// From the start of the sale to the first yes.
    pub(crate) fn first_yes_after(&self) -> Option<SignedDuration> {
        let first = self
            .calls
            .iter()
            .filter(|call| matches!(call.outcome, Outcome::Claimed(_)))
            .map(|call| call.answered)
            .min();
        first.map(|first| first.duration_since(self.sale.declaration.starts))
    }

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
        if let Some(first) = self.first_yes_after() {
            println!("  first yes    {} ms after the start", first.as_millis());
        }
        for violation in self.violations.iter().take(10) {
            println!("  VIOLATION    {violation}");
        }
        if self.violations.len() > 10 {
            println!("  ... and {} more violations", self.violations.len() - 10);
        }
    }
}

/// Something that happens around a storm.
pub(crate) trait Disturbance {
    /// Between the declaration and the start.
    async fn before_start(&self, _platform: &Platform) -> anyhow::Result<()> {
        Ok(())
    }

    /// During the storm, once `progress` has gone as far as the disturbance wants.
    async fn during(&self, _platform: &Platform, _progress: &Progress) -> anyhow::Result<()> {
        Ok(())
    }

    /// After the guests have had their answers, before the books are checked.
    async fn after(&self, _platform: &Platform) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Nothing happens.
pub(crate) struct Quiet;

impl Disturbance for Quiet {}

/// Declares a sale, lets the guests at it, disturbs it, sells the remainder and checks the books.
pub(crate) async fn run(
    platform: &Platform,
    kind: Kind,
    size: Size,
    calls_per_second: Option<f64>,
    disturbance: &impl Disturbance,
) -> anyhow::Result<Report> {
    let guests = Arc::new(platform.token_signer().await?.guests(size.guests)?);
    let starts = round_up_to_second(Timestamp::now() + LEAD);
    let name = format!("run-{}", &Uuid::new_v4().simple().to_string()[..12]);
    let declaration = Declaration {
        kind,
        name,
        stock: size.stock,
        starts,
        ends: starts + WINDOW,
        claim_ttl: "2h",
    };
    let sale = platform.declare(declaration).await?;
    disturbance.before_start(platform).await?;
    sleep_until(starts - EARLY).await;

    let storm = Storm {
        address: platform.api,
        path: sale.claims_path().parse()?,
        connections: size.connections,
        calls_per_second,
    };
    let progress = Progress::default();
    let began = Instant::now();
    let (mut calls, disturbed) = tokio::join!(
        storm::run(&storm, &guests, schedule(size), &progress),
        disturbance.during(platform, &progress)
    );
    let storm_took = began.elapsed();
    disturbed?;
    calls.extend(sell_the_remainder(platform, &storm, &guests, &sale, &calls).await?);
    disturbance.after(platform).await?;

    let at_rest = platform.at_rest(&sale, REST_PATIENCE).await?;
    let violations = check(&sale.facts(), &calls, &at_rest, Ending::SoldOut);
    let (phase, consistent) = (at_rest.status.phase.clone(), at_rest.status.consistent);
    Ok(Report {
        rows: at_rest.ledger.len(),
        sale,
        calls,
        violations,
        storm_took,
        phase,
        consistent,
    })
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
