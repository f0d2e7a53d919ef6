//! Gates: closing, writing, changing, and who may.

use redis::AsyncCommands as _;
use sale_stock::{
    ClaimId, ClaimReply, ClaimRequest, Closing, EntryRef, Epoch, GATE_WRITE_VALIDITY, GateTerms,
    GateUpdate, GateWrite, GiveBack, KeyHash, Mark, NewGate, Outcome, RebuiltEntry, RedisSettings,
    SaleStock, SaleUid, Sequence, Slot, Stock, UnixMillis, Unopened,
};
use testkit::Redis;

use crate::{claim_all, claim_one, gate, new_sale, new_user, open, request, shared_stock, terms};

async fn raw(redis: &Redis) -> redis::aio::MultiplexedConnection {
    redis::Client::open(redis.url())
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap()
}

fn keys(sale: SaleUid) -> [String; 3] {
    ["gate", "claims", "unsettled"].map(|name| format!("quokka:{{{sale}}}:{name}"))
}

async fn unopened(stock: &SaleStock, sale: SaleUid) -> Option<Unopened> {
    match stock.claim(sale, &[request(new_user())]).await.unwrap() {
        ClaimReply::Unopened(why) => Some(why),
        ClaimReply::Open(_) => None,
    }
}

#[tokio::test]
async fn a_copy_of_the_data_in_another_run_of_the_server_sells_nothing() {
    let redis = Redis::start().await.unwrap();
    let stock = SaleStock::connect_lazy(&RedisSettings::new(redis.url())).unwrap();
    let sale = open(&stock, terms(5, 1)).await;
    let first = request(new_user());
    claim_one(&stock, sale, first).await;
    let mut copy = Vec::new();
    for key in keys(sale) {
        let dump: Vec<u8> = redis::cmd("DUMP")
            .arg(&key)
            .query_async(&mut raw(&redis).await)
            .await
            .unwrap();
        copy.push((key, dump));
    }

    redis.restart_empty().await.unwrap();
    for (key, dump) in copy {
        let mut restore = redis::cmd("RESTORE");
        let _: () = restore
            .arg(key)
            .arg(0)
            .arg(dump)
            .query_async(&mut raw(&redis).await)
            .await
            .unwrap();
    }
    let snapshot = testkit::eventually(std::time::Duration::from_secs(60), async || {
        stock.snapshot(sale).await
    })
    .await;
    assert_eq!(
        (snapshot.claimed, snapshot.gate.unwrap().own_run),
        (1, false)
    );
    assert_eq!(unopened(&stock, sale).await, Some(Unopened::Foreign));
    let stale = stock
        .take_stale_before(sale, UnixMillis(i64::MAX / 1_000_000), 10)
        .await
        .unwrap();
    assert_eq!(stale, None);
    let entry = EntryRef {
        user: first.user,
        slot: Slot(0),
        claim: first.claim,
    };
    assert!(!stock.mark_recorded(sale, &[entry]).await.unwrap().open);
}

#[tokio::test]
async fn a_closed_gate_takes_nothing_and_keeps_its_entries() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    claim_one(&stock, sale, request(new_user())).await;
    assert_eq!(
        stock.close_gate(sale, Epoch(2)).await.unwrap(),
        Closing::Closed
    );
    assert_eq!(
        stock.close_gate(sale, Epoch(2)).await.unwrap(),
        Closing::Closed
    );
    assert_eq!(unopened(&stock, sale).await, Some(Unopened::Closed));
    assert_eq!(stock.snapshot(sale).await.unwrap().claimed, 1);
    assert_eq!(
        stock.close_gate(sale, Epoch(1)).await.unwrap(),
        Closing::Newer(Epoch(2))
    );
}

#[tokio::test]
async fn a_missing_gate_stays_missing_when_it_is_closed() {
    let stock = shared_stock().await;
    let sale = new_sale();
    assert_eq!(
        stock.close_gate(sale, Epoch(4)).await.unwrap(),
        Closing::Missing
    );
    assert_eq!(stock.snapshot(sale).await.unwrap().gate, None);
}

#[tokio::test]
async fn a_recovery_that_lost_its_turn_can_not_close_a_newer_gate() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    assert_eq!(
        stock.close_gate(sale, Epoch(1)).await.unwrap(),
        Closing::Newer(Epoch(1))
    );
    assert_eq!(unopened(&stock, sale).await, None);
}

#[tokio::test]
async fn a_rebuilt_sale_knows_its_claims_and_goes_on_counting() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(4, 1)).await;
    // Pending when the recovery came, and not in the ledger.
    claim_one(&stock, sale, request(new_user())).await;
    stock.close_gate(sale, Epoch(2)).await.unwrap();

    let entries: Vec<RebuiltEntry> = (1..=3)
        .map(|sequence| RebuiltEntry {
            entry: EntryRef {
                user: new_user(),
                slot: Slot(0),
                claim: ClaimId::generate(),
            },
            sequence: Sequence(sequence),
            key: KeyHash(7),
            claimed_at: UnixMillis(1_000),
        })
        .collect();
    let mut rebuild = stock.begin_rebuild(sale, Epoch(2)).await.unwrap();
    stock
        .add_entries(&mut rebuild, &entries[..2])
        .await
        .unwrap();
    stock
        .add_entries(&mut rebuild, &entries[2..])
        .await
        .unwrap();
    assert_eq!(rebuild.entries(), 3);
    let read_at = stock.time().await.unwrap();
    let new = NewGate {
        sequence: Sequence(9),
        partitions: 6,
        ..gate(2, terms(4, 1), read_at)
    };
    assert_eq!(
        stock.write_gate(rebuild, &new).await.unwrap(),
        GateWrite::Opened
    );

    let snapshot = stock.snapshot(sale).await.unwrap();
    assert_eq!((snapshot.claimed, snapshot.unsettled), (3, 0));
    assert_eq!(snapshot.gate.unwrap().epoch, Epoch(2));
    let repeat = claim_one(&stock, sale, request(entries[0].entry.user)).await;
    let Outcome::Repeat(entry) = repeat else {
        panic!("{repeat:?}")
    };
    assert_eq!(
        (entry.claim, entry.mark),
        (entries[0].entry.claim, Mark::Recorded)
    );
    assert_eq!(
        (entry.sequence, entry.key, entry.claimed_at),
        (Sequence(1), KeyHash(7), UnixMillis(1_000))
    );
    let next = Outcome::Taken {
        slot: Slot(0),
        sequence: Sequence(10),
    };
    assert_eq!(claim_one(&stock, sale, request(new_user())).await, next);
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::SoldOut
    );

    let (mut cursor, mut scanned) = (0, 0);
    loop {
        let (next, entries) = stock.scan_entries(sale, cursor).await.unwrap();
        scanned += entries.len();
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(scanned, 4);
}

#[tokio::test]
async fn a_gate_is_not_written_too_late() {
    let stock = shared_stock().await;
    let sale = new_sale();
    let now = stock.time().await.unwrap();
    let validity_ms = i64::try_from(GATE_WRITE_VALIDITY.as_millis()).unwrap();
    // Read too long ago, and read before Redis's clock was set back.
    for read_at in [
        UnixMillis(now.0 - validity_ms - 1),
        UnixMillis(now.0 + 60_000),
    ] {
        let rebuild = stock.begin_rebuild(sale, Epoch(1)).await.unwrap();
        let written = stock
            .write_gate(rebuild, &gate(1, terms(5, 1), read_at))
            .await
            .unwrap();
        assert_eq!(written, GateWrite::TooLate);
    }
    assert_eq!(unopened(&stock, sale).await, Some(Unopened::Missing));
}

#[tokio::test]
async fn a_gate_is_not_written_over_a_newer_one() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    stock.close_gate(sale, Epoch(3)).await.unwrap();
    let rebuild = stock.begin_rebuild(sale, Epoch(2)).await.unwrap();
    let new = gate(2, terms(5, 1), stock.time().await.unwrap());
    assert_eq!(
        stock.write_gate(rebuild, &new).await.unwrap(),
        GateWrite::Newer(Epoch(3))
    );
    assert_eq!(unopened(&stock, sale).await, Some(Unopened::Closed));
}

#[tokio::test]
async fn a_write_that_is_repeated_keeps_what_was_claimed_since() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    claim_one(&stock, sale, request(new_user())).await;
    let rebuild = stock.begin_rebuild(sale, Epoch(1)).await.unwrap();
    let again = gate(1, terms(5, 1), stock.time().await.unwrap());
    assert_eq!(
        stock.write_gate(rebuild, &again).await.unwrap(),
        GateWrite::Opened
    );
    assert_eq!(stock.snapshot(sale).await.unwrap().claimed, 1);
}

#[tokio::test]
async fn a_rebuild_that_redis_lost_opens_nothing() {
    let redis = Redis::shared().await;
    let stock = shared_stock().await;
    let sale = new_sale();
    let mut rebuild = stock.begin_rebuild(sale, Epoch(1)).await.unwrap();
    let entry = RebuiltEntry {
        entry: EntryRef {
            user: new_user(),
            slot: Slot(0),
            claim: ClaimId::generate(),
        },
        sequence: Sequence(1),
        key: KeyHash::NONE,
        claimed_at: UnixMillis(1),
    };
    stock.add_entries(&mut rebuild, &[entry]).await.unwrap();
    let lost: u32 = raw(redis)
        .await
        .del(format!("quokka:{{{sale}}}:rebuild:1"))
        .await
        .unwrap();
    assert_eq!(lost, 1);
    let new = gate(1, terms(5, 1), stock.time().await.unwrap());
    assert_eq!(
        stock.write_gate(rebuild, &new).await.unwrap(),
        GateWrite::RebuildLost
    );
    assert_eq!(unopened(&stock, sale).await, Some(Unopened::Missing));
}

#[tokio::test]
async fn stock_grows_and_shrinks_but_not_below_what_is_claimed() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(2, 1)).await;
    for _ in 0..2 {
        claim_one(&stock, sale, request(new_user())).await;
    }
    let with = |generation, stock| GateTerms {
        generation,
        stock: Stock(stock),
        ..terms(2, 1)
    };
    assert_eq!(
        stock.update_gate(sale, &with(2, 3)).await.unwrap(),
        GateUpdate::Applied
    );
    assert!(matches!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::Taken { .. }
    ));
    assert_eq!(
        stock.update_gate(sale, &with(3, 2)).await.unwrap(),
        GateUpdate::BelowClaimed(Stock(3))
    );
    assert_eq!(
        stock.update_gate(sale, &with(3, 3)).await.unwrap(),
        GateUpdate::Applied
    );
    assert_eq!(
        stock.update_gate(sale, &with(2, 9)).await.unwrap(),
        GateUpdate::Newer
    );
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::SoldOut
    );
    assert_eq!(
        stock.update_gate(new_sale(), &with(1, 9)).await.unwrap(),
        GateUpdate::Missing
    );
}

#[tokio::test]
async fn a_sale_that_is_removed_leaves_nothing_behind() {
    let redis = Redis::shared().await;
    let stock = shared_stock().await;
    let sale = open(&stock, terms(2, 1)).await;
    claim_one(&stock, sale, request(new_user())).await;
    stock.remove_all(sale).await.unwrap();
    let left: u32 = redis::cmd("EXISTS")
        .arg(&keys(sale))
        .query_async(&mut raw(redis).await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_gate_that_lost_its_entries_sells_nothing() {
    let redis = Redis::shared().await;
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    let entry = |request: &ClaimRequest| EntryRef {
        user: request.user,
        slot: Slot(0),
        claim: request.claim,
    };
    // What is taken, given back and removed is kept count of.
    let requests: Vec<ClaimRequest> = (0..4).map(|_| request(new_user())).collect();
    let now = claim_all(&stock, sale, &requests).await.now;
    let back = GiveBack {
        entry: entry(&requests[0]),
        claimed_at: now,
    };
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 1);
    let removed = stock.remove_entries(sale, &[entry(&requests[1])]).await;
    assert_eq!(removed.unwrap().removed, 1);
    assert_eq!(unopened(&stock, sale).await, None);

    let lost: u32 = raw(redis).await.del(&keys(sale)[1]).await.unwrap();
    assert_eq!(lost, 1);
    assert_eq!(unopened(&stock, sale).await, Some(Unopened::Foreign));
    let seen = stock.snapshot(sale).await.unwrap();
    assert!(!seen.gate.unwrap().own_run);
    let holdings = stock.holdings(&[sale], new_user()).await.unwrap();
    assert_eq!(holdings[0].unopened, Some(Unopened::Foreign));
}
