//! The proof that the checker can fail: without each rule that real servers can be brought to need, it finds a yes that
//! the ledger doesn't have. R2, and how long a recovery's gate may be written, need a process to be stopped between two
//! instructions: the checked model of sale-stock breaks those.

use std::time::Instant;

use events::{ClaimTaken, Record, SaleEvent, partition_of};
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use sale_stock::books::{SaleDefinition, SaleKind};
use sale_stock::{
    ACK_DEADLINE, ClaimId, ClaimReply, ClaimRequest, Epoch, KeyHash, Outcome, UserId,
};
use testkit::eventually;

use crate::world::{Answer, Breaks, PLENTY, Role, Told, World, users};

/// A platform without a rule, and what its guests were told.
struct Stage {
    bug: &'static str,
    world: World,
    ledger: Role,
    api: Role,
    sale: SaleDefinition,
    told: Told,
}

/// A unit taken by a process that was killed before its append.
struct Lost {
    claim: ClaimTaken,
    epoch: Epoch,
    partitions: u32,
}

impl Stage {
    async fn open(bug: &'static str, stock: u32, breaks: Breaks) -> Self {
        let world = World::breaking(breaks).await;
        println!("without {bug}: {}", world.namespace);
        let more = [("QUOKKA_PLANTED_BUG", bug)];
        let (ledger, api) = (world.role("ledger", &more), world.role("api", &more));
        ledger.ready(&world).await;
        api.ready(&world).await;
        let sale = world.definition(SaleKind::TimeSale, stock, 1).await;
        world.open(&ledger, &sale).await;
        Self {
            bug,
            world,
            ledger,
            api,
            sale,
            told: Told::default(),
        }
    }

    /// New guests claim, one after the other, and are all told yes.
    async fn sell(&mut self, units: usize) {
        for guest in users(units) {
            self.sell_to(guest).await;
        }
    }

    async fn sell_to(&mut self, guest: UserId) {
        let Self {
            world, api, sale, ..
        } = self;
        let answer = world.claim_for_sure(&api.url, sale, guest).await;
        assert!(matches!(answer, Answer::Yes(_)), "{}: {answer:?}", self.bug);
        self.told.hear(guest, answer);
    }

    async fn lose(&self, guest: UserId) -> Lost {
        let request = ClaimRequest {
            user: guest,
            claim: ClaimId::generate(),
            key: KeyHash::NONE,
        };
        let reply = self.world.stock.claim(self.sale.uid, &[request]).await;
        let ClaimReply::Open(reply) = reply.unwrap() else {
            panic!("{}: not open", self.bug);
        };
        let Outcome::Taken { slot, sequence } = reply.outcomes[0] else {
            panic!("{}: {reply:?}", self.bug);
        };
        let claim = ClaimTaken {
            user: guest,
            claim: request.claim,
            sequence,
            slot,
            key: request.key,
            at: reply.now,
        };
        Lost {
            claim,
            epoch: reply.epoch,
            partitions: reply.partitions,
        }
    }

    /// The append comes after all.
    async fn arrive(&self, lost: &Lost) {
        let event = SaleEvent::Claims {
            epoch: lost.epoch,
            claims: vec![lost.claim],
        };
        let record = Record {
            sale: self.sale.uid,
            event,
        };
        let partition = partition_of(lost.claim.user, lost.partitions);
        let producer = self.world.producer();
        let appended = producer.append(&self.sale.topic, partition, &record).await;
        appended.unwrap();
    }

    async fn until_recorded(&self, claims: i64) {
        let uid = self.sale.uid;
        self.world.until_recorded(uid, |rows| rows == claims).await;
    }

    async fn until_claimed(&self, units: u32) {
        eventually(PLENTY, async || {
            let seen = self.world.stock.snapshot(self.sale.uid).await;
            seen.is_ok_and(|seen| seen.claimed == units)
        })
        .await;
    }

    async fn flush_and_recover(&self, epoch: i64) {
        self.world.redis.flush().await.unwrap();
        let uid = self.sale.uid;
        eventually(PLENTY, async || self.world.epoch(uid).await >= epoch).await;
        self.world.until_open(uid).await;
    }

    /// Waits until the ledger has read everything, and the checker finds a yes that it doesn't have.
    async fn expect_a_lost_yes(self) {
        eventually(PLENTY, async || {
            let books = self.world.books(&self.ledger, self.sale.uid).await?;
            if books.lag != Some(0) {
                return Err(format!("{}: {books:?}", self.bug));
            }
            let found = self.world.violations(&self.sale, &self.told, &books).await;
            let found = found.err().unwrap_or_default().join("\n");
            if found.contains("which has no row") {
                Ok(())
            } else {
                Err(format!("{}: nothing found: {found}", self.bug))
            }
        })
        .await;
        println!("without {} the checker finds a yes that is lost", self.bug);
    }
}

/// A copy of the data from before the sales is sold from again.
async fn a_stale_copy_sells(bug: &'static str) {
    let mut stage = Stage::open(bug, 2, Breaks::default()).await;
    let client = redis::Client::open(stage.world.redis.url()).unwrap();
    let key = format!("quokka:{{{}}}:gate", stage.sale.uid);
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut dump = redis::cmd("DUMP");
    let copy: Vec<u8> = dump.arg(&key).query_async(&mut connection).await.unwrap();
    stage.sell(2).await;
    stage.until_recorded(2).await;
    stage.ledger.signal("STOP");
    stage.world.redis.restart_empty().await.unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut restore = redis::cmd("RESTORE");
    restore.arg(&key).arg(0).arg(copy);
    let _: () = restore.query_async(&mut connection).await.unwrap();
    // The test's own connection is the old server's.
    eventually(PLENTY, async || stage.world.stock.ping().await).await;
    stage.sell(1).await;
    stage.ledger.signal("CONT");
    stage.expect_a_lost_yes().await;
}

/// The first process died before its append, and the repeat is told yes for nothing.
async fn a_repeat_is_a_yes_at_once(bug: &'static str) {
    let mut stage = Stage::open(bug, 1, Breaks::default()).await;
    let guest = users(1)[0];
    stage.lose(guest).await;
    stage.sell_to(guest).await;
    stage.expect_a_lost_yes().await;
}

/// The unit of an unknown append is sold again, and then the record lands.
async fn an_unknown_append_is_given_back(bug: &'static str) {
    let breaks = Breaks {
        kafka: true,
        ..Breaks::default()
    };
    let mut stage = Stage::open(bug, 1, breaks).await;
    let first = users(1)[0];
    stage.world.kafka.freeze().unwrap();
    let answer = stage.world.claim(&stage.api.url, &stage.sale, first).await;
    assert_eq!(answer, Answer::Unknown);
    stage.told.hear(first, answer);
    stage.until_claimed(0).await;
    stage.world.kafka.thaw().unwrap();
    stage.until_recorded(1).await;
    stage.sell(1).await;
    stage.expect_a_lost_yes().await;
}

/// A record from before a recovery takes the unit that is sold after it.
async fn a_late_record_of_an_older_epoch_counts(bug: &'static str) {
    let mut stage = Stage::open(bug, 1, Breaks::default()).await;
    let lost = stage.lose(users(1)[0]).await;
    stage.flush_and_recover(2).await;
    stage.arrive(&lost).await;
    stage.until_recorded(1).await;
    stage.sell(1).await;
    stage.expect_a_lost_yes().await;
}

/// A repeat and the Void cross.
async fn a_repeat_revives_what_is_given_up(bug: &'static str) {
    let mut stage = Stage::open(bug, 1, Breaks::default()).await;
    let guest = users(1)[0];
    let (world, ledger, sale) = (&stage.world, &stage.ledger, &stage.sale);
    eventually(PLENTY, async || {
        world
            .books(ledger, sale.uid)
            .await?
            .lag
            .filter(|lag| *lag == 0)
            .ok_or("behind".to_owned())
    })
    .await;
    let held = world.hold_up(sale.uid).await;
    stage.lose(guest).await;
    let voided = format!("quokka_claims_voided_total{{sale=\"{}\"}}", sale.name);
    eventually(PLENTY, async || {
        ledger.metric(world, &voided).await == Some(1.0)
    })
    .await;
    stage.sell_to(guest).await;
    held.rollback().await.unwrap();
    stage.expect_a_lost_yes().await;
}

/// What is given up is sold again, and then the record lands.
async fn what_is_given_up_is_removed_at_once(bug: &'static str) {
    let mut stage = Stage::open(bug, 1, Breaks::default()).await;
    let lost = stage.lose(users(1)[0]).await;
    stage.until_claimed(0).await;
    stage.arrive(&lost).await;
    stage.until_recorded(1).await;
    stage.sell(1).await;
    stage.expect_a_lost_yes().await;
}

/// A request that saw the old gate says yes within its deadline, behind the fence. The test is the process that asked.
async fn a_recovery_does_not_wait_for_who_saw_the_old_gate(bug: &'static str) {
    let mut stage = Stage::open(bug, 50, Breaks::default()).await;
    for epoch in 2..20 {
        let asked = Instant::now();
        let lost = stage.lose(users(1)[0]).await;
        stage.flush_and_recover(epoch).await;
        stage.arrive(&lost).await;
        // On a machine too busy the recovery takes longer than the deadline: it has to be tried again.
        if asked.elapsed() < ACK_DEADLINE {
            let claim = lost.claim;
            stage.told.hear(claim.user, Answer::Yes(claim.claim));
            return stage.expect_a_lost_yes().await;
        }
    }
    panic!("{bug}: no recovery was quick enough");
}

/// Claims that the ledger has yet to read are forgotten by the rebuild, and their units sold again.
async fn a_recovery_does_not_wait_for_the_ledger(bug: &'static str) {
    let mut stage = Stage::open(bug, 10, Breaks::default()).await;
    // The ledger can't apply a claim, and doesn't hold anything up by trying.
    for statement in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON claims EXECUTE FUNCTION refuse()",
    ] {
        let done = sqlx::query(statement).execute(&stage.world.pool).await;
        done.unwrap();
    }
    stage.sell(10).await;
    stage.flush_and_recover(2).await;
    stage.sell(10).await;
    let dropped = sqlx::query("DROP TRIGGER refuse ON claims");
    dropped.execute(&stage.world.pool).await.unwrap();
    stage.expect_a_lost_yes().await;
}

/// A user is sold a second unit over the first.
async fn a_repeat_takes_another_unit(bug: &'static str) {
    let mut stage = Stage::open(bug, 5, Breaks::default()).await;
    let guest = users(1)[0];
    stage.sell_to(guest).await;
    stage.sell_to(guest).await;
    stage.expect_a_lost_yes().await;
}

/// The process dies before the append that it has said yes for.
async fn a_yes_comes_before_its_append(bug: &'static str) {
    let breaks = Breaks {
        kafka: true,
        ..Breaks::default()
    };
    let mut stage = Stage::open(bug, 5, breaks).await;
    stage.world.kafka.kill().await.unwrap();
    stage.sell(1).await;
    stage.api.kill();
    stage.world.kafka.resume().await.unwrap();
    stage.expect_a_lost_yes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_each_rule_the_checker_finds_a_planted_bug() {
    /// Each has servers and processes of its own.
    const AT_A_TIME: usize = 2;
    let cases: [LocalBoxFuture<'_, ()>; 11] = [
        a_stale_copy_sells("r1").boxed_local(),
        a_repeat_is_a_yes_at_once("r3").boxed_local(),
        an_unknown_append_is_given_back("r4").boxed_local(),
        a_late_record_of_an_older_epoch_counts("r5").boxed_local(),
        a_repeat_revives_what_is_given_up("r6").boxed_local(),
        what_is_given_up_is_removed_at_once("r7").boxed_local(),
        a_recovery_does_not_wait_for_who_saw_the_old_gate("r8").boxed_local(),
        a_recovery_does_not_wait_for_the_ledger("r9").boxed_local(),
        a_recovery_does_not_wait_for_the_ledger("no-fence").boxed_local(),
        a_repeat_takes_another_unit("dedupe").boxed_local(),
        a_yes_comes_before_its_append("ack-before-append").boxed_local(),
    ];
    let cases = futures::stream::iter(cases);
    cases.buffer_unordered(AT_A_TIME).collect::<Vec<()>>().await;
}
