//! Giving back, marking, removing and giving up.

use std::time::Instant;

use sale_stock::{
    ClaimRequest, EntryRef, Epoch, GateTerms, GiveBack, Mark, Outcome, SaleStock, SaleUid,
    SettleClock, Slot, Stock, UnixMillis,
};

use crate::{claim_all, claim_one, new_user, open, request, shared_stock, terms};

async fn take(stock: &SaleStock, sale: SaleUid) -> (ClaimRequest, GiveBack) {
    let request = request(new_user());
    let reply = claim_all(stock, sale, &[request]).await;
    assert!(matches!(reply.outcomes[0], Outcome::Taken { .. }));
    let entry = EntryRef {
        user: request.user,
        slot: Slot(0),
        claim: request.claim,
    };
    (
        request,
        GiveBack {
            entry,
            claimed_at: reply.now,
        },
    )
}

async fn mark_of(stock: &SaleStock, sale: SaleUid, request: &ClaimRequest) -> Option<Mark> {
    stock
        .entries_of(sale, request.user)
        .await
        .unwrap()
        .first()
        .map(|entry| entry.mark)
}

/// Later than any touch.
const ALL: UnixMillis = UnixMillis(i64::MAX / 1_000_000);

#[tokio::test]
async fn a_unit_given_back_is_for_sale_again() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(1, 1)).await;
    let (_, back) = take(&stock, sale).await;
    assert_eq!(
        claim_one(&stock, sale, request(new_user())).await,
        Outcome::SoldOut
    );
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 1);
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 0);
    assert_eq!(stock.snapshot(sale).await.unwrap().unsettled, 0);
    take(&stock, sale).await;
}

#[tokio::test]
async fn a_unit_that_a_repeat_has_touched_is_not_given_back() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(1, 1)).await;
    let (first, back) = take(&stock, sale).await;
    claim_one(&stock, sale, request(first.user)).await;
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 0);
    assert_eq!(mark_of(&stock, sale, &first).await, Some(Mark::Pending));
}

#[tokio::test]
async fn a_recorded_unit_is_not_given_back_and_is_a_yes_at_once() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(1, 1)).await;
    let (first, back) = take(&stock, sale).await;
    let settled = stock.mark_recorded(sale, &[back.entry]).await.unwrap();
    assert_eq!(
        (settled.recorded, settled.removed, settled.open),
        (1, 0, true)
    );
    assert_eq!(
        stock
            .mark_recorded(sale, &[back.entry])
            .await
            .unwrap()
            .recorded,
        0
    );
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 0);
    let again = claim_one(&stock, sale, request(first.user)).await;
    assert!(
        matches!(again, Outcome::Repeat(entry) if entry.mark == Mark::Recorded && entry.claim == first.claim)
    );
    assert_eq!(stock.snapshot(sale).await.unwrap().unsettled, 0);
}

#[tokio::test]
async fn an_ended_claim_frees_its_unit_once_and_only_its_own() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(1, 1)).await;
    let (first, back) = take(&stock, sale).await;
    stock.mark_recorded(sale, &[back.entry]).await.unwrap();
    assert_eq!(
        stock
            .remove_entries(sale, &[back.entry])
            .await
            .unwrap()
            .removed,
        1
    );
    let next = ClaimRequest {
        user: first.user,
        ..request(first.user)
    };
    assert!(matches!(
        claim_one(&stock, sale, next).await,
        Outcome::Taken { .. }
    ));
    let late = stock
        .settle(sale, &[back.entry], &[back.entry])
        .await
        .unwrap();
    assert_eq!((late.recorded, late.removed), (0, 0));
    assert_eq!(mark_of(&stock, sale, &next).await, Some(Mark::Pending));
}

#[tokio::test]
async fn releases_under_a_closed_gate_say_so() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(2, 1)).await;
    let (_, back) = take(&stock, sale).await;
    stock.close_gate(sale, Epoch(2)).await.unwrap();
    let settled = stock.remove_entries(sale, &[back.entry]).await.unwrap();
    assert_eq!((settled.removed, settled.open), (1, false));
}

#[tokio::test]
async fn thousands_of_entries_settle_in_one_call() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3_000, 1)).await;
    let mut entries = Vec::new();
    for _ in 0..10 {
        let requests: Vec<ClaimRequest> = (0..250).map(|_| request(new_user())).collect();
        claim_all(&stock, sale, &requests).await;
        entries.extend(requests.iter().map(|r| EntryRef {
            user: r.user,
            slot: Slot(0),
            claim: r.claim,
        }));
    }
    let (recorded, removed) = entries.split_at(1_700);
    let settled = stock.settle(sale, recorded, removed).await.unwrap();
    assert_eq!((settled.recorded, settled.removed), (1_700, 800));
    let snapshot = stock.snapshot(sale).await.unwrap();
    assert_eq!((snapshot.claimed, snapshot.unsettled), (1_700, 0));
}

#[tokio::test]
async fn what_is_given_up_can_not_be_revived() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3, 1)).await;
    let (stale, back) = take(&stock, sale).await;
    let (recorded, kept) = take(&stock, sale).await;
    stock.mark_recorded(sale, &[kept.entry]).await.unwrap();

    let taken = stock
        .take_stale_before(sale, ALL, 100)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (taken.epoch, taken.partitions, taken.entries),
        (Epoch(1), 3, vec![back.entry])
    );
    let again = claim_one(&stock, sale, request(stale.user)).await;
    assert!(matches!(again, Outcome::Repeat(entry) if entry.mark == Mark::Voiding));
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 0);
    assert_eq!(mark_of(&stock, sale, &recorded).await, Some(Mark::Recorded));

    // The ledger found it recorded after all.
    assert_eq!(
        stock
            .mark_recorded(sale, &[back.entry])
            .await
            .unwrap()
            .recorded,
        1
    );
    assert_eq!(
        stock
            .take_stale_before(sale, ALL, 100)
            .await
            .unwrap()
            .unwrap()
            .entries,
        []
    );
}

#[tokio::test]
async fn only_what_was_untouched_since_the_cutoff_is_given_up() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3, 1)).await;
    let (first, _) = take(&stock, sale).await;
    let Outcome::Repeat(entry) = claim_one(&stock, sale, request(first.user)).await else {
        panic!("taken twice")
    };
    let before = UnixMillis(entry.touched.0 - 1);
    assert_eq!(
        stock
            .take_stale_before(sale, before, 100)
            .await
            .unwrap()
            .unwrap()
            .entries,
        []
    );
    assert_eq!(
        stock
            .take_stale_before(sale, entry.touched, 100)
            .await
            .unwrap()
            .unwrap()
            .entries
            .len(),
        1
    );
    // Taken a moment ago: not again before another deadline has passed.
    assert_eq!(
        stock
            .take_stale_before(sale, entry.touched, 100)
            .await
            .unwrap()
            .unwrap()
            .entries,
        []
    );
}

#[tokio::test]
async fn nothing_is_given_up_before_the_deadline() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3, 1)).await;
    let (first, _) = take(&stock, sale).await;
    let mut clock = SettleClock::new();
    clock.observe(stock.time().await.unwrap(), Instant::now());
    assert_eq!(stock.take_stale(sale, &mut clock, 100).await.unwrap(), None);
    assert_eq!(mark_of(&stock, sale, &first).await, Some(Mark::Pending));
}

#[tokio::test]
async fn a_closed_sale_is_still_settled() {
    let stock = shared_stock().await;
    let sale = open(
        &stock,
        GateTerms {
            stock: Stock(1),
            ..terms(1, 1)
        },
    )
    .await;
    take(&stock, sale).await;
    stock.close_gate(sale, Epoch(2)).await.unwrap();
    let taken = stock
        .take_stale_before(sale, ALL, 100)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((taken.epoch, taken.entries.len()), (Epoch(2), 1));
}
