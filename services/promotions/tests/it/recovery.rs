//! Whatever becomes of Redis, the sale opens again over the ledger, and no yes is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::postgres::{PoolOptions, connect_lazy};
use reqwest::StatusCode;
use sale_stock::books::{SaleDefinition, SaleKind};
use secrecy::SecretString;
use testkit::eventually;
use tokio::time::timeout;

use crate::world::{Answer, PLENTY, Role, Told, World, rush, users};

/// What the platform promises.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// A sale that is being stormed, with some claims recorded.
struct Storm {
    world: Arc<World>,
    ledger: Role,
    /// Kept until the end of the test.
    _api: Role,
    sale: SaleDefinition,
    rush: tokio::task::JoinHandle<Told>,
}

impl Storm {
    async fn start() -> Self {
        let world = Arc::new(World::start().await);
        let (ledger, api) = (world.ledger().await, world.api().await);
        let sale = world.definition(SaleKind::TimeSale, 300, 3).await;
        world.open(&ledger, &sale).await;
        let rush = rush(&world, &api, &sale, users(800));
        world.until_recorded(sale.uid, |rows| rows >= 30).await;
        Self {
            world,
            ledger,
            _api: api,
            sale,
            rush,
        }
    }

    async fn until_recovered(&self, above: i64) {
        eventually(RECOVERED_WITHIN, async || {
            let gate = self
                .world
                .stock
                .snapshot(self.sale.uid)
                .await
                .map_err(|error| error.to_string())?
                .gate;
            match gate {
                Some(gate) if gate.unopened().is_none() && gate.epoch.0.cast_signed() > above => {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    async fn check(self) {
        let told = self.rush.await.unwrap();
        assert_eq!((told.yes.len(), told.sold_out), (300, true));
        self.world.check(&self.ledger, &self.sale, &told).await;
        let metric = format!(
            "quokka_claims_refused_by_ledger_total{{sale=\"{}\"}}",
            self.sale.name
        );
        assert_eq!(self.ledger.metric(&self.world, &metric).await, Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_during_a_rush_closes_the_sale_until_it_is_rebuilt() {
    let storm = Storm::start().await;
    let flushed = Instant::now();
    storm.world.redis.flush().await.unwrap();
    storm.until_recovered(1).await;
    println!("open again {:?} after the flush", flushed.elapsed());
    storm.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_empty_during_a_rush_is_rebuilt() {
    let storm = Storm::start().await;
    storm.world.redis.restart_empty().await.unwrap();
    storm.until_recovered(1).await;
    storm.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_with_a_stale_copy_sells_nothing_from_it() {
    let storm = Storm::start().await;
    let client = redis::Client::open(storm.world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let uid = storm.sale.uid;
    let mut copy = Vec::new();
    for part in ["gate", "claims", "unsettled"] {
        let key = format!("quokka:{{{uid}}}:{part}");
        let dump: Option<Vec<u8>> = redis::cmd("DUMP")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .unwrap();
        copy.extend(dump.map(|dump| (key, dump)));
    }
    storm.world.until_recorded(uid, |rows| rows >= 100).await;
    storm.world.redis.restart_empty().await.unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, dump) in copy {
        let restore = redis::cmd("RESTORE")
            .arg(key)
            .arg(0)
            .arg(dump)
            .arg("REPLACE")
            .to_owned();
        let _: () = restore.query_async(&mut connection).await.unwrap();
    }
    storm.until_recovered(1).await;
    storm.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recoverer_that_is_killed_is_followed_by_another() {
    let mut storm = Storm::start().await;
    for epoch in [2, 3] {
        storm.world.redis.flush().await.unwrap();
        eventually(PLENTY, async || {
            storm.world.epoch(storm.sale.uid).await >= epoch
        })
        .await;
        storm.ledger.kill();
        storm.ledger = storm.world.ledger().await;
    }
    storm.world.until_open(storm.sale.uid).await;
    storm.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recoverer_that_slept_through_its_turn_does_no_harm() {
    let mut storm = Storm::start().await;
    storm.world.redis.flush().await.unwrap();
    eventually(PLENTY, async || {
        storm.world.epoch(storm.sale.uid).await >= 2
    })
    .await;
    storm.ledger.signal("STOP");
    let other = storm.world.ledger().await;
    let sleeper = std::mem::replace(&mut storm.ledger, other);
    eventually(PLENTY, async || {
        let gate = storm
            .world
            .stock
            .snapshot(storm.sale.uid)
            .await
            .ok()?
            .gate?;
        (gate.unopened().is_none() && gate.epoch.0 >= 3).then_some(())
    })
    .await;
    sleeper.signal("CONT");
    sleeper.ready(&storm.world).await;
    storm.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_recover_again_and_again_do_no_harm() {
    let storm = Storm::start().await;
    let other = storm.world.ledger().await;
    for epoch in [1, 2, 3] {
        for ledger in [&storm.ledger, &other] {
            let asked = storm.world.post(ledger, storm.sale.uid, "recoveries").await;
            assert_eq!(asked, StatusCode::ACCEPTED);
        }
        storm.until_recovered(epoch).await;
    }
    storm.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_redis_lost_is_noticed_and_put_back() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 20, 2).await;
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    for guest in users(5) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }
    world.check(&ledger, &sale, &told).await;

    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("quokka:{{{}}}:claims", sale.uid);
    let mut lose = redis::cmd("HDEL");
    lose.arg(key).arg(format!("{}/0", told.yes[0].0));
    let _: () = lose.query_async(&mut connection).await.unwrap();
    // Nor does the gate's own count say so.
    let mut count = redis::cmd("HINCRBY");
    count
        .arg(format!("quokka:{{{}}}:gate", sale.uid))
        .arg("held")
        .arg(-1);
    let _: () = count.query_async(&mut connection).await.unwrap();
    let drift = format!("quokka_sale_drift{{sale=\"{}\"}}", sale.name);
    eventually(PLENTY, async || {
        ledger.metric(&world, &drift).await == Some(-1.0)
    })
    .await;
    eventually(PLENTY, async || world.epoch(sale.uid).await >= 2).await;
    world.until_open(sale.uid).await;
    world.check(&ledger, &sale, &told).await;
    eventually(PLENTY, async || {
        ledger.metric(&world, &drift).await == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_lost_without_their_gate_during_a_rush_are_put_back() {
    let storm = Storm::start().await;
    let client = redis::Client::open(storm.world.redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut lose = redis::cmd("DEL");
    lose.arg(format!("quokka:{{{}}}:claims", storm.sale.uid));
    let _: () = lose.query_async(&mut connection).await.unwrap();
    storm.until_recovered(1).await;
    storm.check().await;
}

/// Two ledgers of which each reads one partition; answers the one that tends the sale, and the other.
async fn two_of_which_one_tends(world: &World, sale: &SaleDefinition) -> (Role, Role) {
    let (one, two) = (world.role("ledger", &[]), world.role("ledger", &[]));
    one.ready(world).await;
    two.ready(world).await;
    world.open(&one, sale).await;
    let gate = format!("quokka_sale_gate_open{{sale=\"{}\"}}", sale.name);
    let first = eventually(PLENTY, async || {
        for ledger in [&one, &two] {
            if ledger.metric(world, "quokka_ledger_partitions ").await != Some(1.0) {
                return None;
            }
        }
        match (
            one.metric(world, &gate).await,
            two.metric(world, &gate).await,
        ) {
            (Some(_), None) => Some(true),
            (None, Some(_)) => Some(false),
            _ => None,
        }
    })
    .await;
    if first { (one, two) } else { (two, one) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_waits_for_what_another_process_has_yet_to_read() {
    let world = World::start().await;
    let sale = world.definition(SaleKind::TimeSale, 40, 2).await;
    let (steward, other) = two_of_which_one_tends(&world, &sale).await;
    let told = behind(&world, &sale, &other).await;
    world.redis.flush().await.unwrap();
    // The partition of the process that hangs is taken over first, and its log read up to the fence.
    eventually(PLENTY, async || world.epoch(sale.uid).await >= 2).await;
    world.until_open(sale.uid).await;
    assert_eq!(world.entries(sale.uid).await.len(), told.yes.len());
    other.signal("CONT");
    world.check(&steward, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_with_the_sale_locked_does_not_hold_up_a_recovery() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    let url = SecretString::from(world.database.url.as_str());
    let pool = connect_lazy(&url, "hangs", PoolOptions::default()).unwrap();
    let mut hanging = pool.begin().await.unwrap();
    sqlx::query("SELECT uid FROM sales WHERE uid = $1 FOR UPDATE")
        .bind(sale.uid.0)
        .execute(&mut *hanging)
        .await
        .unwrap();
    world.redis.flush().await.unwrap();
    timeout(RECOVERED_WITHIN, world.until_open(sale.uid))
        .await
        .expect("the sale stays locked");
}

/// Has guests claim while a process that reads a part of the log hangs.
async fn behind(world: &World, sale: &SaleDefinition, other: &Role) -> Told {
    let api = world.api().await;
    other.signal("STOP");
    let mut told = Told::default();
    for guest in users(20) {
        told.hear(guest, world.claim_for_sure(&api.url, sale, guest).await);
    }
    assert_eq!(told.yes.len(), 20);
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_lost_partitions_opens_no_sale() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    let mut sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    sale.partitions = 2;
    let (status, body) = world.put(&ledger, &sale).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let failed = format!(
        "quokka_recoveries_total{{cause=\"opening\",outcome=\"failed\",sale=\"{}\"}}",
        sale.name
    );
    eventually(PLENTY, async || {
        let failed = ledger.metric(&world, &failed).await;
        failed.is_some_and(|failed| failed >= 2.0)
    })
    .await;
    assert_eq!(world.stock.snapshot(sale.uid).await.unwrap().gate, None);
    world.delete_topic(&sale.topic).await;
    world.create_topic(&sale.topic, 2).await;
    world.until_open(sale.uid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_redis_lost_and_the_ledger_has_yet_to_read_is_not_denied() {
    let world = World::start().await;
    let (mut ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    ledger.kill();
    let guest = users(1)[0];
    let answer = world.claim_for_sure(&api.url, &sale, guest).await;
    let Answer::Yes(claim) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(world.read(&api, guest, claim).await.0, 200);
    world.redis.flush().await.unwrap();
    let recovering = (503, "RECOVERING".to_owned());
    assert_eq!(world.read(&api, guest, claim).await, recovering);
    let back = world.give_back(&api, &sale, guest, claim).await;
    assert_eq!(back, StatusCode::SERVICE_UNAVAILABLE);
    let ledger = world.ledger().await;
    eventually(PLENTY, async || {
        world.read(&api, guest, claim).await.0 == 200
    })
    .await;
    let mut told = Told::default();
    told.hear(guest, answer);
    world.check(&ledger, &sale, &told).await;
}
