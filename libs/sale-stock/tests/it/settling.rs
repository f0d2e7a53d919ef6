//! Giving back, marking, removing and giving up.

use std::time::Instant;

use sale_stock::{
    ClaimRequest, Ending, EntryRef, Epoch, GateTerms, GiveBack, KeyHash, Mark, Outcome, SaleStock,
    SaleUid, SettleClock, Slot, Stock, UnixMillis, Unopened,
};

use crate::{claim_all, claim_one, new_sale, new_user, open, request, shared_stock, terms};

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
    let holdings = stock.holdings(&[sale], request.user).await.unwrap();
    holdings[0].entries.first().map(|entry| entry.mark)
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
    let now = Instant::now();
    clock.observe(stock.time().await.unwrap(), now, now);
    let taken = stock.take_stale(sale, &mut clock, now, 100).await.unwrap();
    assert_eq!(taken, None);
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

#[tokio::test]
async fn what_is_about_to_end_is_no_yes_until_the_ledger_has_spoken() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3, 1)).await;
    let (first, back) = take(&stock, sale).await;
    stock.mark_recorded(sale, &[back.entry]).await.unwrap();
    let other = EntryRef {
        claim: request(first.user).claim,
        ..back.entry
    };
    let ending = stock
        .begin_ending(sale, &[other, back.entry])
        .await
        .unwrap();
    let begun = Ending::Begun {
        partitions: 3,
        marked: 1,
    };
    assert_eq!(ending, begun);
    let repeat = async || match claim_one(&stock, sale, request(first.user)).await {
        Outcome::Repeat(entry) => entry.mark,
        other => panic!("{other:?}"),
    };
    assert_eq!(repeat().await, Mark::Ending);
    // The claim's own record, read late, and whoever gives back an append that failed.
    let marked = stock.mark_recorded(sale, &[back.entry]).await.unwrap();
    assert_eq!(marked.recorded, 0);
    assert_eq!(stock.give_back(sale, &[back]).await.unwrap(), 0);
    assert_eq!(repeat().await, Mark::Ending);

    // Nothing came of it: it is given up, and the ledger finds that the claim stands.
    let taken = stock.take_stale_before(sale, ALL, 9).await.unwrap();
    assert_eq!(taken.unwrap().entries, [back.entry]);
    assert_eq!(repeat().await, Mark::Voiding);
    // Announced again meanwhile: the ledger's answer to the first time says nothing any more.
    stock.begin_ending(sale, &[back.entry]).await.unwrap();
    stock.mark_recorded(sale, &[back.entry]).await.unwrap();
    assert_eq!(repeat().await, Mark::Ending);
    stock.take_stale_before(sale, ALL, 9).await.unwrap();
    stock.mark_recorded(sale, &[back.entry]).await.unwrap();
    assert_eq!(repeat().await, Mark::Recorded);

    stock.begin_ending(sale, &[back.entry]).await.unwrap();
    let ended = stock.remove_entries(sale, &[back.entry]).await.unwrap();
    assert_eq!(ended.removed, 1);
    let snapshot = stock.snapshot(sale).await.unwrap();
    assert_eq!((snapshot.claimed, snapshot.unsettled), (0, 0));
}

#[tokio::test]
async fn no_end_is_announced_while_the_gate_is_shut() {
    let stock = shared_stock().await;
    let sale = open(&stock, terms(3, 1)).await;
    let (first, back) = take(&stock, sale).await;
    stock.close_gate(sale, Epoch(2)).await.unwrap();
    for (uid, why) in [(sale, Unopened::Closed), (new_sale(), Unopened::Missing)] {
        let ending = stock.begin_ending(uid, &[back.entry]).await.unwrap();
        assert_eq!(ending, Ending::Unopened(why));
    }
    assert_eq!(mark_of(&stock, sale, &first).await, Some(Mark::Pending));
}

#[tokio::test]
async fn what_a_user_holds_is_told_with_what_is_to_be_thought_of_it() {
    let stock = shared_stock().await;
    let (one, two) = (
        open(&stock, terms(3, 2)).await,
        open(&stock, terms(3, 2)).await,
    );
    let user = new_user();
    let claims = [1, 2].map(|key| ClaimRequest {
        key: KeyHash(key),
        ..request(user)
    });
    claim_all(&stock, one, &claims).await;
    stock.close_gate(two, Epoch(2)).await.unwrap();
    let holdings = stock.holdings(&[one, two, new_sale()], user).await.unwrap();
    let held: Vec<_> = holdings[0]
        .entries
        .iter()
        .map(|e| (e.slot, e.claim))
        .collect();
    assert_eq!(
        held,
        [(Slot(0), claims[0].claim), (Slot(1), claims[1].claim)]
    );
    let unopened: Vec<_> = holdings.iter().map(|holding| holding.unopened).collect();
    assert_eq!(
        unopened,
        [None, Some(Unopened::Closed), Some(Unopened::Missing)]
    );
}
