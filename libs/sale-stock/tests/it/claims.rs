//! Taking units.

use std::collections::HashSet;
use std::time::Duration;

use sale_stock::{
    ClaimReply, ClaimRequest, GateTerms, KeyHash, Mark, Outcome, Sequence, Slot, Stock, UnixMillis,
    Unopened,
};
use testkit::eventually;

use crate::{claim_all, claim_one, new_sale, new_user, open, request, shared_stock, terms};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_sale_without_a_gate_takes_nothing() {
    let stock = shared_stock().await;
    let reply = stock
        .claim(new_sale(), &[request(new_user())])
        .await
        .unwrap();
    assert_eq!(reply, ClaimReply::Unopened(Unopened::Missing));
}

#[tokio::test]
async fn units_are_numbered_and_sell_out() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3, 1)).await;
    let requests: Vec<ClaimRequest> = (0..5).map(|_| request(new_user())).collect();
    let reply = claim_all(&stock, sale, &requests).await;
    let taken = |sequence| Outcome::Taken {
        slot: Slot(0),
        sequence: Sequence(sequence),
    };
    assert_eq!(
        reply.outcomes,
        [
            taken(1),
            taken(2),
            taken(3),
            Outcome::SoldOut,
            Outcome::SoldOut
        ]
    );
    assert_eq!((reply.epoch.0, reply.partitions), (1, 3));
    let snapshot = stock.snapshot(sale).await.unwrap();
    assert_eq!((snapshot.claimed, snapshot.unsettled), (3, 3));
    assert_eq!(snapshot.gate.unwrap().sequence, Sequence(3));
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::SoldOut
    );
}

#[tokio::test]
async fn concurrent_batches_never_sell_more_than_the_stock() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(500, 1)).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let stock = stock.clone();
        calls.spawn(async move {
            let requests: Vec<ClaimRequest> = (0..25).map(|_| request(new_user())).collect();
            claim_all(&stock, sale, &requests).await.outcomes
        });
    }
    let outcomes: Vec<Outcome> = calls.join_all().await.into_iter().flatten().collect();
    let numbers: HashSet<u64> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Taken { sequence, .. } => Some(sequence.0),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, (1..=500).collect());
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::SoldOut)
            .count(),
        500
    );
}

#[tokio::test]
async fn a_repeat_gets_the_same_claim_and_touches_it() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    let first = request(new_user());
    let taken_at = claim_all(&stock, sale, &[first]).await.now;
    let mut touched = taken_at;
    for _ in 0..3 {
        let Outcome::Repeat(entry) = claim_one(&stock, sale, request(first.user)).await else {
            panic!("taken twice")
        };
        assert_eq!(
            (entry.claim, entry.mark, entry.claimed_at),
            (first.claim, Mark::Pending, taken_at)
        );
        assert!(
            entry.touched > touched,
            "{:?} after {touched:?}",
            entry.touched
        );
        touched = entry.touched;
    }
    assert_eq!(stock.snapshot(sale).await.unwrap().claimed, 1);
}

#[tokio::test]
async fn a_user_in_one_batch_twice_gets_one_unit() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    let user = new_user();
    let (first, second) = (request(user), request(user));
    let outcomes = claim_all(&stock, sale, &[first, second]).await.outcomes;
    assert!(matches!(outcomes[0], Outcome::Taken { .. }));
    assert!(matches!(&outcomes[1], Outcome::Repeat(entry) if entry.claim == first.claim));
    assert_eq!(stock.snapshot(sale).await.unwrap().claimed, 1);
}

#[tokio::test]
async fn a_key_chooses_the_slot_where_users_may_hold_several() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(10, 2)).await;
    let user = new_user();
    let with_key = |key| ClaimRequest {
        key: KeyHash(key),
        ..request(user)
    };
    let (one, two) = (with_key(1), with_key(2));
    let taken = |slot, sequence| Outcome::Taken {
        slot: Slot(slot),
        sequence: Sequence(sequence),
    };
    assert_eq!(claim_one(&stock, sale, one).await, taken(0, 1));
    assert_eq!(claim_one(&stock, sale, two).await, taken(1, 2));
    for (repeat, claim) in [
        (with_key(1), one.claim),
        (with_key(2), two.claim),
        (with_key(3), two.claim),
    ] {
        let outcome = claim_one(&stock, sale, repeat).await;
        assert!(
            matches!(&outcome, Outcome::Repeat(entry) if entry.claim == claim),
            "{outcome:?}"
        );
    }
    assert_eq!(stock.snapshot(sale).await.unwrap().claimed, 2);
}

#[tokio::test]
async fn requests_without_a_key_are_one_request() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(10, 3)).await;
    let first = request(new_user());
    claim_one(&stock, sale, first).await;
    let again = claim_one(&stock, sale, request(first.user)).await;
    assert!(matches!(again, Outcome::Repeat(entry) if entry.claim == first.claim));
}

#[tokio::test]
async fn the_largest_batch_of_the_largest_limit_is_taken() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(1_000, 10)).await;
    let requests: Vec<ClaimRequest> = (0..256).map(|_| request(new_user())).collect();
    let outcomes = claim_all(&stock, sale, &requests).await.outcomes;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Taken { .. }))
    );
}

#[tokio::test]
async fn the_window_is_kept_by_the_clock_of_redis() {
    let stock = shared_stock().await;
    let now = stock.time().await.unwrap();
    let (starts, ends) = (UnixMillis(now.0 + 300), UnixMillis(now.0 + 900));
    let sale = open(
        &stock,
        GateTerms {
            starts,
            ends,
            ..terms(1_000_000, 1)
        },
    )
    .await;
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::NotStarted
    );
    let first = eventually(PATIENCE, async || {
        let reply = claim_all(&stock, sale, &[request(new_user())]).await;
        matches!(reply.outcomes[0], Outcome::Taken { .. }).then_some(reply.now)
    })
    .await;
    assert!(first >= starts, "{first:?}");
    eventually(PATIENCE, async || {
        let reply = claim_all(&stock, sale, &[request(new_user())]).await;
        match &reply.outcomes[0] {
            Outcome::Taken { .. } => assert!(reply.now < ends, "{:?}", reply.now),
            other => assert_eq!((other, reply.now >= ends), (&Outcome::Ended, true)),
        }
        reply.now >= ends
    })
    .await;
}

#[tokio::test]
async fn a_holder_is_told_after_the_end_and_while_paused() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(5, 1)).await;
    let first = request(new_user());
    claim_one(&stock, sale, first).await;
    let paused = GateTerms {
        paused: true,
        generation: 2,
        ..terms(5, 1)
    };
    stock.update_gate(sale, &paused).await.unwrap();
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::Paused
    );
    assert!(matches!(
        claim_one(&stock, sale, request(first.user)).await,
        Outcome::Repeat(_)
    ));
    let over = GateTerms {
        ends: UnixMillis(1),
        generation: 3,
        stock: Stock(5),
        ..terms(5, 1)
    };
    stock.update_gate(sale, &over).await.unwrap();
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::Ended
    );
    assert!(matches!(
        claim_one(&stock, sale, request(first.user)).await,
        Outcome::Repeat(_)
    ));
}
