//! A unit that comes back comes back once.

use reqwest::StatusCode;
use sale_stock::Mark;
use sale_stock::books::SaleKind;
use testkit::eventually;

use crate::world::{Answer, PLENTY, Told, World, users};

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_used_in_time_expires_and_its_unit_is_sold_again() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let mut sale = world.definition(SaleKind::TimeSale, 1, 1).await;
    sale.claim_ttl_ms = Some(1_500);
    world.open(&ledger, &sale).await;
    let (first, second) = (users(1)[0], users(1)[0]);
    let Answer::Yes(claim) = world.claim_for_sure(&api.url, &sale, first).await else {
        panic!("not sold");
    };
    let again = eventually(PLENTY, async || {
        match world.claim(&api.url, &sale, second).await {
            Answer::Yes(claim) => Some(claim),
            _ => None,
        }
    })
    .await;
    assert_eq!(world.status(claim).await.as_deref(), Some("EXPIRED"));
    eventually(PLENTY, async || {
        world.status(again).await.as_deref() == Some("EXPIRED")
    })
    .await;
    // All have come back, and none twice.
    let told = Told {
        yes: vec![(first, claim), (second, again)],
        ..Told::default()
    };
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_return_and_an_expiry_one_ends_the_claim() {
    const CLAIMS: usize = 40;
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let mut sale = world.definition(SaleKind::TimeSale, CLAIMS as u32, 2).await;
    sale.claim_ttl_ms = Some(2_000);
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    for guest in users(CLAIMS) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }
    assert_eq!(told.yes.len(), CLAIMS);
    // The first expiry says that the race is on.
    let expired = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM claims WHERE sale_uid = $1 AND status = 'EXPIRED'")
            .bind(sale.uid.0)
            .fetch_one(&world.pool)
            .await
            .unwrap()
    };
    eventually(PLENTY, async || expired().await > 0).await;
    let returns = told.yes.iter().rev().map(|(user, claim)| {
        let (world, api, sale) = (&world, &api, &sale);
        async move { world.give_back(api, sale, *user, *claim).await }
    });
    for status in futures::future::join_all(returns).await {
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    for (_, claim) in &told.yes {
        let ended = async || {
            let status = world.status(*claim).await;
            status.filter(|status| status == "RETURNED" || status == "EXPIRED")
        };
        eventually(PLENTY, ended).await;
    }
    world.check(&ledger, &sale, &told).await;
    // Exactly the stock is for sale again.
    let left = world.stock.snapshot(sale.uid).await.unwrap();
    assert_eq!(left.claimed, 0);
    let unreleased: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM claims WHERE sale_uid = $1 AND released_at IS NULL",
    )
    .bind(sale.uid.0)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(unreleased, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_whose_release_was_lost_is_released_later() {
    let world = World::start().await;
    let (mut ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 1, 1).await;
    world.open(&ledger, &sale).await;
    let (first, second) = (users(1)[0], users(1)[0]);
    let Answer::Yes(claim) = world.claim_for_sure(&api.url, &sale, first).await else {
        panic!("not sold");
    };
    eventually(PLENTY, async || world.status(claim).await.is_some()).await;
    ledger.kill();
    assert_eq!(
        world.give_back(&api, &sale, first, claim).await,
        StatusCode::NO_CONTENT
    );
    // The ledger ends the claim and dies before Redis can hear of it.
    world.redis.freeze().unwrap();
    let mut ledger = world.ledger().await;
    eventually(PLENTY, async || {
        world.status(claim).await.as_deref() == Some("RETURNED")
    })
    .await;
    ledger.kill();
    world.redis.thaw().unwrap();
    assert_eq!(world.claim(&api.url, &sale, second).await, Answer::SoldOut);

    let ledger = world.ledger().await;
    let again = eventually(PLENTY, async || {
        match world.claim(&api.url, &sale, second).await {
            Answer::Yes(claim) => Some(claim),
            _ => None,
        }
    })
    .await;
    let told = Told {
        yes: vec![(first, claim), (second, again)],
        ..Told::default()
    };
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_while_claims_end_leaks_no_unit() {
    const CLAIMS: usize = 30;
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let mut sale = world.definition(SaleKind::TimeSale, CLAIMS as u32, 2).await;
    sale.claim_ttl_ms = Some(6_500);
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    for guest in users(CLAIMS) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }
    // The claims end about when the rebuild reads them.
    world.redis.flush().await.unwrap();
    eventually(PLENTY, async || world.epoch(sale.uid).await >= 2).await;
    world.until_open(sale.uid).await;
    eventually(PLENTY, async || {
        world
            .stock
            .snapshot(sale.uid)
            .await
            .is_ok_and(|seen| seen.claimed == 0)
    })
    .await;
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_given_back_is_no_yes_before_the_ledger_has_read_of_it() {
    let world = World::start().await;
    let (mut ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 3, 1).await;
    world.open(&ledger, &sale).await;
    let (recorded, pending) = (users(1)[0], users(1)[0]);
    let claim_of = async |guest| match world.claim_for_sure(&api.url, &sale, guest).await {
        Answer::Yes(claim) => claim,
        other => panic!("{other:?}"),
    };
    let first = claim_of(recorded).await;
    world.at_rest(&ledger, sale.uid).await;
    ledger.kill();
    // The ledger has yet to read of this one at all.
    let second = claim_of(pending).await;
    assert_eq!(
        world.read(&api, pending, second).await,
        (200, "ACCEPTED".to_owned())
    );
    for (guest, claim) in [(recorded, first), (pending, second)] {
        for _ in 0..2 {
            let back = world.give_back(&api, &sale, guest, claim).await;
            assert_eq!(back, StatusCode::NO_CONTENT);
            assert_eq!(world.claim(&api.url, &sale, guest).await, Answer::Unknown);
        }
    }
    assert_eq!(
        world.read(&api, pending, second).await,
        (503, "CLAIM_UNSETTLED".to_owned())
    );
    let ledger = world.ledger().await;
    let mut told = Told {
        yes: vec![(recorded, first), (pending, second)],
        ..Told::default()
    };
    for (guest, claim) in [(recorded, first), (pending, second)] {
        let again = world.claim_for_sure(&api.url, &sale, guest).await;
        assert!(again != Answer::Yes(claim), "{guest} has what he gave back");
        assert_eq!(world.status(claim).await.as_deref(), Some("RETURNED"));
        told.hear(guest, again);
    }
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_never_came_leaves_the_claim_as_it_was() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 1, 1).await;
    world.open(&ledger, &sale).await;
    let guest = users(1)[0];
    let mut told = Told::default();
    told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    world.at_rest(&ledger, sale.uid).await;
    // As a process leaves it that is killed before it appends the return.
    let entries = world.entries(sale.uid).await;
    let entry = sale_stock::EntryRef {
        user: guest,
        slot: entries[0].1.slot,
        claim: entries[0].1.claim,
    };
    world.stock.begin_ending(sale.uid, &[entry]).await.unwrap();
    assert_eq!(world.claim(&api.url, &sale, guest).await, Answer::Unknown);
    let again = world.claim_for_sure(&api.url, &sale, guest).await;
    assert_eq!(again, Answer::Yes(entry.claim));
    world.check(&ledger, &sale, &told).await;
    assert_eq!(world.entries(sale.uid).await[0].1.mark, Mark::Recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_claim_is_a_yes_once_the_ledger_says_that_it_has_expired() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let mut sale = world.definition(SaleKind::TimeSale, 1, 1).await;
    sale.claim_ttl_ms = Some(1_500);
    world.open(&ledger, &sale).await;
    let guest = users(1)[0];
    let Answer::Yes(claim) = world.claim_for_sure(&api.url, &sale, guest).await else {
        panic!("not sold");
    };
    world.at_rest(&ledger, sale.uid).await;
    // The mark is set, and the ledger can't say yet that the claim has expired.
    let held = world.hold_up(sale.uid).await;
    eventually(PLENTY, async || {
        world.entries(sale.uid).await[0].1.mark == Mark::Ending
    })
    .await;
    assert_eq!(world.status(claim).await.as_deref(), Some("ACCEPTED"));
    held.rollback().await.unwrap();
    let again = world.claim_for_sure(&api.url, &sale, guest).await;
    assert!(again != Answer::Yes(claim), "{again:?}");
    assert_eq!(world.status(claim).await.as_deref(), Some("EXPIRED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_sale_still_takes_claims_back_and_knows_who_has_one() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    let (guest, other) = (users(1)[0], users(1)[0]);
    let Answer::Yes(claim) = world.claim_for_sure(&api.url, &sale, guest).await else {
        panic!("not sold");
    };
    world.at_rest(&ledger, sale.uid).await;
    let closed = world.post(&ledger, sale.uid, "close").await;
    assert_eq!(closed, StatusCode::ACCEPTED);
    eventually(PLENTY, async || {
        let books = world.books(&ledger, sale.uid).await?;
        if books.drained {
            Ok(())
        } else {
            Err(format!("{books:?}"))
        }
    })
    .await;
    eventually(PLENTY, async || {
        world.claim(&api.url, &sale, other).await == Answer::Ended
    })
    .await;
    let again = world.claim_for_sure(&api.url, &sale, guest).await;
    assert_eq!(again, Answer::Yes(claim));
    // Nothing of it is read from the log any more.
    eventually(PLENTY, async || {
        world.give_back(&api, &sale, other, claim).await == StatusCode::NOT_FOUND
    })
    .await;
    for _ in 0..2 {
        let back = world.give_back(&api, &sale, guest, claim).await;
        assert_eq!(back, StatusCode::NO_CONTENT);
        assert_eq!(world.status(claim).await.as_deref(), Some("RETURNED"));
    }
    assert_eq!(world.claim(&api.url, &sale, guest).await, Answer::Ended);
    let books = world.books(&ledger, sale.uid).await.unwrap();
    assert_eq!((books.stock.claimed.0, books.unreleased), (0, 0));
}
