//! Claims a second and what they cost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

use super::driver::{Measured, Pace, drive};
use super::latencies::Latencies;
use super::lock::{self, Cost, Guard};
use super::process::Account;
use super::servers::Servers;
use super::stage::Stage;
use super::{Goals, conclude, median, process, verdict};
use crate::guests::Guest;
use crate::http::{Call, Connection};
use crate::sale_run::sleep_until;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Folder with the release binaries.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Claims in each round; each by a guest of its own.
    #[arg(long, default_value_t = 40_000)]
    claims: usize,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections kept busy at once.
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Keep the servers' data in memory, PostgreSQL without fsync: the difference is what the disk costs.
    #[arg(long)]
    in_memory: bool,
}

/// Claims guarded by a lock are slow; this many are enough for two digits.
const LOCKED_CLAIMS: usize = 4_000;

/// Clients at once where claims compete for the lock.
const LOCK_CLIENTS: usize = 50;

/// How often the first claim after a start is measured.
const STARTS: usize = 5;

/// How long load at half of the maximum is kept up, if there are guests enough.
const HALF_LOAD: Duration = Duration::from_secs(10);

/// What is left out of it at its beginning, when all connections are opened at once.
const SETTLES: Duration = Duration::from_secs(1);

/// Rounds of claims that nobody measures, at least and at most; and by how much Kafka's CPU for a claim must fall for
/// one more. A JVM's optimising compiler takes a minute or two to come to all of it.
const WARM_ROUNDS_MIN: usize = 12;
const WARM_ROUNDS_MAX: usize = 20;
const WARM_WITHIN: f64 = 0.1;

/// The goals that the figures are printed against.
const GOAL_RATIO: f64 = 0.5;
const GOAL_P99_MS: f64 = 10.0;
const GOAL_FIRST_CLAIM_MS: i128 = 50;
const GOAL_RESIDENT_MB: f64 = 100.0;
const GOAL_LOCK_RATIO: f64 = 0.5;

/// Runs every measurement and prints it; returns how many goals were missed.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<usize> {
    let servers = Servers::start(&plan.binaries, plan.in_memory).await?;
    let stage = Stage::start(servers).await?;
    let guests = Arc::new(stage.servers.signer.guests(plan.claims)?);
    let mut goals = throughput(plan, &stage, &guests).await?;
    goals += first_claims(&stage, &guests).await?;
    goals += resident(&stage)?;
    goals += against_a_lock(&stage).await?;
    Ok(conclude(&["claims"], goals))
}

fn calls(guests: &[Guest], method: Method, path: &str) -> anyhow::Result<Arc<Vec<Call>>> {
    let path: hyper::Uri = path.parse()?;
    let call = |guest: &Guest| Call {
        method: method.clone(),
        ..Call::post(path.clone(), Some(guest.authorization.clone()))
    };
    Ok(Arc::new(guests.iter().map(call).collect()))
}

async fn nothing(
    stage: &Stage,
    at: SocketAddr,
    guests: &[Guest],
    connections: usize,
    pace: Pace,
) -> anyhow::Result<Measured> {
    drive(
        at,
        calls(guests, Method::GET, stage.nothing_path())?,
        connections,
        pace,
    )
    .await?
    .all(200)
}

/// Claims by each of the guests: how they were answered, and how long after the last answer the ledger had them all.
async fn claims(
    stage: &Stage,
    at: SocketAddr,
    guests: &[Guest],
    connections: usize,
    pace: Pace,
) -> anyhow::Result<(Measured, Duration)> {
    let starts = Timestamp::now() - SignedDuration::from_secs(60);
    let sale = stage.promotions.open_sale(guests.len(), starts).await?;
    let calls = calls(guests, Method::POST, &sale.claims_path)?;
    let measured = drive(at, calls, connections, pace).await?.all(201)?;
    let behind = stage.promotions.drained(&sale, guests.len()).await?;
    Ok((measured, behind))
}

/// Claims that nobody measures. Every token is seen for the first time once; and Kafka's JVM compiles what appending,
/// reading and committing take, until twice in a row a round took hardly less of it for a claim than the best before.
async fn warm_up(plan: &Plan, stage: &Stage, guests: &[Guest]) -> anyhow::Result<()> {
    let (api, connections) = (stage.promotions.api, plan.connections);
    claims(stage, stage.gateway, guests, connections, Pace::Flat).await?;
    let kafka = stage.servers.kafka.pid().context("Kafka has ended")?;
    let (mut least, mut as_before) = (Duration::MAX, 0);
    for round in 1..=WARM_ROUNDS_MAX {
        let before = process::cpu_time(kafka)?;
        let (measured, _) = claims(stage, api, guests, connections, Pace::Flat).await?;
        let took = process::cpu_time(kafka)?.saturating_sub(before);
        println!(
            "  warm-up {round}: {:.0}/s, Kafka {:.0} us CPU a claim",
            measured.per_second(),
            took.as_secs_f64() * 1e6 / guests.len() as f64
        );
        let falls = took < least.mul_f64(1.0 - WARM_WITHIN);
        as_before = if falls { 0 } else { as_before + 1 };
        least = least.min(took);
        if round >= WARM_ROUNDS_MIN && as_before >= 2 {
            break;
        }
    }
    Ok(())
}

async fn throughput(plan: &Plan, stage: &Stage, guests: &[Guest]) -> anyhow::Result<Goals> {
    println!(
        "claims a second, {} claims by as many guests over {} connections, {} rounds",
        guests.len(),
        plan.connections,
        plan.rounds
    );
    let (api, connections) = (stage.promotions.api, plan.connections);
    warm_up(plan, stage, guests).await?;
    let (mut idle, mut direct) = (Vec::new(), Vec::new());
    let (mut through, mut bare) = (Vec::new(), Vec::new());
    let (mut behind, mut sustained) = (Vec::new(), Vec::new());
    let mut of_nothing = Account::new(stage.accounts()?);
    let mut of_claims = Account::new(stage.accounts()?);
    for round in 1..=plan.rounds {
        // Before and after the claims: a machine that others use as well changes its speed meanwhile.
        of_nothing.begin()?;
        let before = nothing(stage, api, guests, connections, Pace::Flat).await?;
        of_nothing.end()?;
        of_claims.begin()?;
        let (claimed, caught_up) = claims(stage, api, guests, connections, Pace::Flat).await?;
        of_claims.end()?;
        direct.push(claimed.per_second());
        behind.push(caught_up.as_secs_f64());
        sustained.push(guests.len() as f64 / (claimed.took + caught_up).as_secs_f64());
        of_nothing.begin()?;
        let after = nothing(stage, api, guests, connections, Pace::Flat).await?;
        of_nothing.end()?;
        let took = before.took + after.took;
        idle.push(2.0 * guests.len() as f64 / took.as_secs_f64());
        let (claimed, _) = claims(stage, stage.gateway, guests, connections, Pace::Flat).await?;
        through.push(claimed.per_second());
        bare.push(stage.script_by_redis_benchmark(connections).await?);
        let last = round - 1;
        println!(
            "  round {round}: does nothing {:.0}/s, claims {:.0}/s, through the gateway {:.0}/s, the script alone {:.0}/s",
            idle[last], direct[last], through[last], bare[last]
        );
    }
    let (idle, direct) = (median(idle), median(direct));
    let (through, bare) = (median(through), median(bare));
    println!("  does nothing, same server                         {idle:>8.0}/s");
    println!(
        "  durable claims                                    {direct:>8.0}/s  {:.2} of doing nothing",
        direct / idle
    );
    println!(
        "    the ledger had them {:.1} s later: with its work  {:>8.0}/s",
        median(behind),
        median(sustained)
    );
    println!(
        "  durable claims through the gateway                {through:>8.0}/s  {:.2} of doing nothing",
        through / idle
    );
    println!("  the script alone, by redis-benchmark              {bare:>8.0}/s");
    of_nothing.print("request that does nothing", 2 * plan.rounds * guests.len());
    of_claims.print(
        "durable claim, the ledger's work included",
        plan.rounds * guests.len(),
    );
    println!("  goal: durable claims at {GOAL_RATIO} of doing nothing or more");
    let mut goals = verdict(direct / idle >= GOAL_RATIO);
    goals += half_load(plan, stage, guests, "directly", api, direct).await?;
    goals += half_load(
        plan,
        stage,
        guests,
        "through the gateway",
        stage.gateway,
        through,
    )
    .await?;
    Ok(goals)
}

/// Latencies at half of the `most` claims a second that were measured at this address.
async fn half_load(
    plan: &Plan,
    stage: &Stage,
    guests: &[Guest],
    name: &str,
    address: SocketAddr,
    most: f64,
) -> anyhow::Result<Goals> {
    let (api, connections) = (stage.promotions.api, plan.connections);
    let rate = most / 2.0;
    let count = ((rate * HALF_LOAD.as_secs_f64()) as usize).min(guests.len());
    let guests = &guests[..count];
    let pace = Pace::Steady {
        per_second: rate,
        unmeasured: (rate * SETTLES.as_secs_f64()) as usize,
    };
    // All rounds together: a second in which Kafka's JVM collects garbage is in one of them or in none.
    let (mut claimed, mut idle) = (Latencies::new()?, Latencies::new()?);
    for round in 1..=plan.rounds {
        let (Measured { latencies, .. }, _) =
            claims(stage, address, guests, connections, pace).await?;
        println!(
            "  round {round}: half of the maximum {name}, p50 {:.2} ms, p99 {:.2} ms",
            latencies.quantile_ms(0.5),
            latencies.quantile_ms(0.99)
        );
        claimed.add(&latencies)?;
        // What is lost on the way, and by waiting for a core.
        let nothing = nothing(stage, api, guests, connections, pace).await?;
        idle.add(&nothing.latencies)?;
    }
    println!(
        "  half of the maximum {name}, {rate:.0}/s, {} times {:.1} s after {} s: p50 {:.2} ms, p99 {:.2} ms",
        plan.rounds,
        count as f64 / rate - SETTLES.as_secs_f64(),
        SETTLES.as_secs(),
        claimed.quantile_ms(0.5),
        claimed.quantile_ms(0.99)
    );
    println!(
        "    as often, directly and doing nothing: p50 {:.2} ms, p99 {:.2} ms",
        idle.quantile_ms(0.5),
        idle.quantile_ms(0.99)
    );
    println!("  goal: p99 under {GOAL_P99_MS} ms");
    Ok(verdict(claimed.quantile_ms(0.99) < GOAL_P99_MS))
}

/// From the start of a sale to its first accepted claim, as the guests who wait for it see it.
async fn first_claims(stage: &Stage, guests: &[Guest]) -> anyhow::Result<Goals> {
    const WAITING: usize = 20;
    let mut worst = i128::MIN;
    for _ in 0..STARTS {
        let starts = Timestamp::now() + SignedDuration::from_secs(4);
        let sale = stage.promotions.open_sale(WAITING, starts).await?;
        let waiting = guests
            .iter()
            .take(WAITING)
            .map(|guest| first_yes(stage.promotions.api, guest, &sale.claims_path, starts));
        let firsts = futures::future::try_join_all(waiting).await?;
        let first = firsts.into_iter().min().context("nobody waited")?;
        anyhow::ensure!(
            first >= 0,
            "a claim was accepted {first} ms before the start"
        );
        worst = worst.max(first);
    }
    println!("a sale's first claim, the worst of {STARTS} starts: {worst} ms after the start");
    println!("  goal: within {GOAL_FIRST_CLAIM_MS} ms");
    Ok(verdict(worst <= GOAL_FIRST_CLAIM_MS))
}

async fn first_yes(
    address: SocketAddr,
    guest: &Guest,
    path: &str,
    starts: Timestamp,
) -> anyhow::Result<i128> {
    const EARLY: SignedDuration = SignedDuration::from_millis(200);
    let call = Call::post(path.parse()?, Some(guest.authorization.clone()));
    let mut connection = Connection::new(address);
    sleep_until(starts - EARLY).await;
    loop {
        let answer = connection.send(&call, Duration::from_secs(10)).await;
        let answer = answer
            .map_err(|no| anyhow::anyhow!("a guest waiting for the start got no answer: {no:?}"))?;
        if answer.status.is_success() {
            return Ok(Timestamp::now().duration_since(starts).as_millis());
        }
        anyhow::ensure!(
            answer.code() == "NOT_STARTED",
            "a guest waiting for the start got {}",
            answer.code()
        );
    }
}

fn resident(stage: &Stage) -> anyhow::Result<Goals> {
    let mut met = true;
    println!("resident memory at the most, over all of the above");
    for (name, pid) in stage.processes()? {
        let most = process::peak_resident_mb(pid)?;
        println!("  {name:<18} {most:>4.0} MB");
        met &= !name.starts_with("promotions") || most < GOAL_RESIDENT_MB;
    }
    println!("  goal: each of promotions under {GOAL_RESIDENT_MB} MB");
    Ok(verdict(met))
}

async fn against_a_lock(stage: &Stage) -> anyhow::Result<Goals> {
    println!(
        "CPU for each claim, {LOCK_CLIENTS} clients at once: one script against a distributed lock"
    );
    let url = stage.servers.redis.url();
    let redis = stage.servers.redis.pid().context("Redis has ended")?;
    let script =
        lock::measure(&url, redis, Guard::Script, 10 * LOCKED_CLAIMS, LOCK_CLIENTS).await?;
    let locked = lock::measure(&url, redis, Guard::Lock, LOCKED_CLAIMS, LOCK_CLIENTS).await?;
    let print = |name: &str, cost: Cost| {
        println!(
            "  {name:<7} {:>7.1} us (Redis {:.1}, client {:.1}), {:.0} claims a second",
            cost.total_us(),
            cost.redis_us,
            cost.client_us,
            cost.per_second
        );
    };
    print("script", script);
    print("lock", locked);
    let share = script.total_us() / locked.total_us();
    println!("  the script takes {:.0}% less", (1.0 - share) * 100.0);
    println!(
        "  goal: at least {:.0}% less",
        (1.0 - GOAL_LOCK_RATIO) * 100.0
    );
    Ok(verdict(share <= GOAL_LOCK_RATIO))
}
