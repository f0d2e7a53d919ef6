//! The ledger reads what was claimed, whatever happens meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{ClaimTaken, Partition, Record, SaleEvent, partition_of};
use jiff::SignedDuration;
use reqwest::StatusCode;
use sale_stock::books::{AmountDiscount, Discount, GateState, SaleDefinition, SaleKind};
use sale_stock::{ClaimId, ClaimReply, ClaimRequest, KeyHash, Mark, Outcome, SaleUid, Stock};
use testkit::eventually;
use uuid::Uuid;

use crate::world::{Answer, Breaks, PLENTY, Told, World, rush, rush_with, users};

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_declared_sale_gets_its_row() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 3, 2).await;
    world.open(&ledger, &sale).await;

    let guest = users(1)[0];
    let answer = world.claim_for_sure(&api.url, &sale, guest).await;
    let Answer::Yes(claim) = answer else {
        panic!("{answer:?}");
    };
    eventually(PLENTY, async || {
        world
            .status(claim)
            .await
            .is_some_and(|status| status == "ACCEPTED")
    })
    .await;
    let mut told = Told::default();
    told.hear(guest, answer);
    world.check(&ledger, &sale, &told).await;
    let books = world.books(&ledger, sale.uid).await.unwrap();
    assert_eq!(
        (books.gate, books.stock.claimed.0, books.epoch.0),
        (GateState::Open, 1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_killed_during_a_rush_loses_nothing() {
    let world = Arc::new(World::start().await);
    let (mut ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::CouponCampaign, 300, 3).await;
    world.open(&ledger, &sale).await;
    let rush = rush(&world, &api, &sale, users(900));
    for rows in [20, 120] {
        world
            .until_recorded(sale.uid, |recorded| recorded >= rows)
            .await;
        ledger.kill();
        ledger = world.ledger().await;
    }
    let told = rush.await.unwrap();
    assert_eq!((told.yes.len(), told.sold_out), (300, true));
    world.check(&ledger, &sale, &told).await;
    assert_eq!(ledger.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_during_a_rush_loses_no_yes() {
    let world = Arc::new(
        World::breaking(Breaks {
            kafka: true,
            ..Breaks::default()
        })
        .await,
    );
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 300, 3).await;
    world.open(&ledger, &sale).await;
    let rush = rush(&world, &api, &sale, users(600));
    world
        .until_recorded(sale.uid, |recorded| recorded >= 20)
        .await;
    world.kafka.kill().await.unwrap();
    eventually(PLENTY, async || ledger.is_ready(&world).await.is_err()).await;
    world.kafka.resume().await.unwrap();
    let told = rush.await.unwrap();
    ledger.ready(&world).await;
    world.check(&ledger, &sale, &told).await;
    assert!(told.yes.len() >= 300 && told.sold_out, "{}", told.yes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restarted_during_a_rush_holds_up_the_ledger_and_nothing_else() {
    let world = Arc::new(
        World::breaking(Breaks {
            postgres: true,
            ..Breaks::default()
        })
        .await,
    );
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 300, 3).await;
    world.open(&ledger, &sale).await;
    let rush = rush(&world, &api, &sale, users(600));
    world
        .until_recorded(sale.uid, |recorded| recorded >= 20)
        .await;
    world.postgres.stop().await.unwrap();
    eventually(PLENTY, async || ledger.is_ready(&world).await.is_err()).await;
    // Guests don't notice.
    let told = rush.await.unwrap();
    assert_eq!((told.yes.len(), told.sold_out), (300, true));
    world.postgres.resume().await.unwrap();
    ledger.ready(&world).await;
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_of_the_sale_is_passed_over() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    let producer = world.producer();
    let stranger = Record {
        sale: SaleUid(Uuid::new_v4()),
        event: SaleEvent::Fence(sale_stock::Epoch(9)),
    };
    producer
        .append(&sale.topic, Partition(0), &stranger)
        .await
        .unwrap();
    for garbage in [&b""[..], b"{", b"\xff\xfe", br#"{"v":1,"sale":"x"}"#] {
        producer
            .send(&sale.topic, Partition(0), garbage, None, |_| {})
            .unwrap();
    }
    let impossible = ClaimTaken {
        user: users(1)[0],
        claim: ClaimId::generate(),
        sequence: sale_stock::Sequence(u64::MAX),
        slot: sale_stock::Slot(200),
        key: KeyHash::NONE,
        at: sale_stock::UnixMillis(i64::MAX),
    };
    let event = SaleEvent::Claims {
        epoch: sale_stock::Epoch(1),
        claims: vec![impossible],
    };
    producer
        .append(
            &sale.topic,
            Partition(0),
            &Record {
                sale: sale.uid,
                event,
            },
        )
        .await
        .unwrap();

    let guest = users(1)[0];
    let mut told = Told::default();
    told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    assert_eq!(told.yes.len(), 1);
    world.check(&ledger, &sale, &told).await;
    let skipped = async |reason: &str| {
        ledger
            .metric(
                &world,
                &format!("quokka_ledger_records_skipped_total{{reason=\"{reason}\"}}"),
            )
            .await
    };
    assert_eq!(
        (skipped("garbage").await, skipped("foreign").await),
        (Some(5.0), Some(1.0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_committed_and_not_marked_is_marked_by_the_settling() {
    let world = World::start().await;
    let (mut ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 5, 2).await;
    world.open(&ledger, &sale).await;
    ledger.kill();
    let mut told = Told::default();
    for guest in users(4) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }
    // The ledger goes on without Redis; when it comes back, nobody remembers what to mark.
    world.redis.freeze().unwrap();
    let ledger = world.ledger().await;
    world.until_recorded(sale.uid, |rows| rows == 4).await;
    eventually(PLENTY, async || {
        ledger
            .metric(&world, "quokka_ledger_effects_lost_total")
            .await
            .is_some_and(|lost| lost >= 1.0)
    })
    .await;
    world.redis.thaw().unwrap();
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_append_never_came_is_voided_and_its_late_record_dropped() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 1, 2).await;
    world.open(&ledger, &sale).await;
    // As a process that is killed between the script call and the append leaves it.
    let (lost, next) = (users(1)[0], users(1)[0]);
    let request = ClaimRequest {
        user: lost,
        claim: ClaimId::generate(),
        key: KeyHash::NONE,
    };
    let ClaimReply::Open(reply) = world.stock.claim(sale.uid, &[request]).await.unwrap() else {
        panic!("not open");
    };
    let Outcome::Taken { slot, sequence } = reply.outcomes[0] else {
        panic!("{reply:?}");
    };
    let answer = world.claim_for_sure(&api.url, &sale, next).await;
    assert_eq!(answer, Answer::SoldOut);

    let mut told = Told::default();
    let answer = eventually(PLENTY, async || {
        match world.claim(&api.url, &sale, next).await {
            answer @ Answer::Yes(_) => Some(answer),
            _ => None,
        }
    })
    .await;
    told.hear(next, answer);

    let late = ClaimTaken {
        user: lost,
        claim: request.claim,
        sequence,
        slot,
        key: request.key,
        at: reply.now,
    };
    let event = SaleEvent::Claims {
        epoch: reply.epoch,
        claims: vec![late],
    };
    let partition = partition_of(lost, reply.partitions);
    world
        .producer()
        .append(
            &sale.topic,
            partition,
            &Record {
                sale: sale.uid,
                event,
            },
        )
        .await
        .unwrap();
    world.check(&ledger, &sale, &told).await;
    assert_eq!(world.status(request.claim).await, None);
    let dropped = format!(
        "quokka_ledger_claims_dropped_total{{reason=\"void\",sale=\"{}\"}}",
        sale.name
    );
    eventually(PLENTY, async || {
        ledger.metric(&world, &dropped).await == Some(1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ledgers_share_the_logs_and_one_of_them_ends_in_good_order() {
    let world = Arc::new(World::start().await);
    let (mut one, two, api) = (
        world.ledger().await,
        world.ledger().await,
        world.api().await,
    );
    let sale = world.definition(SaleKind::TimeSale, 200, 4).await;
    world.open(&one, &sale).await;
    let rush = rush(&world, &api, &sale, users(400));
    world.until_recorded(sale.uid, |rows| rows >= 20).await;
    let other = world.definition(SaleKind::CouponCampaign, 5, 4).await;
    world.open(&two, &other).await;
    assert_eq!(one.terminate().await, Some(0));
    let told = rush.await.unwrap();
    assert_eq!((told.yes.len(), told.sold_out), (200, true));
    world.check(&two, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_of_a_sale_are_fixed_from_its_start_whether_or_not_an_operator_saw_it() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    let begun = world.definition(SaleKind::TimeSale, 10, 2).await;
    world.open(&ledger, &begun).await;
    type Change = fn(&mut SaleDefinition);
    let changed = |change: Change| {
        let mut sale = begun.clone();
        sale.generation = 2;
        change(&mut sale);
        sale
    };
    let changes: [(&str, Change); 4] = [
        ("starts", |sale| {
            sale.starts += SignedDuration::from_mins(30)
        }),
        ("discount", |sale| {
            sale.discount = Discount::Amount(AmountDiscount { amount: 1 });
        }),
        ("target", |sale| sale.target = None),
        ("perUserLimit", |sale| sale.per_user_limit = 2),
    ];
    for (term, change) in changes {
        let (status, body) = world.put(&ledger, &changed(change)).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (StatusCode::CONFLICT, Some("TERMS_FIXED")),
            "{term}"
        );
        assert!(body["detail"].as_str().unwrap().contains(term), "{body}");
    }
    let grown = changed(|sale| (sale.stock, sale.paused) = (Stock(20), true));
    assert_eq!(world.put(&ledger, &grown).await.0, StatusCode::OK);

    let mut ahead = world.definition(SaleKind::TimeSale, 10, 2).await;
    ahead.starts += SignedDuration::from_mins(30);
    world.open(&ledger, &ahead).await;
    ahead.generation = 2;
    ahead.starts += SignedDuration::from_mins(10);
    assert_eq!(world.put(&ledger, &ahead).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_changes_closes_and_removes_a_sale() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let mut sale = world.definition(SaleKind::TimeSale, 10, 2).await;
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    for guest in users(4) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }

    let mut twin = world.definition(SaleKind::CouponCampaign, 1, 1).await;
    twin.name.clone_from(&sale.name);
    let (status, body) = world.put(&ledger, &twin).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (StatusCode::CONFLICT, Some("NAME_TAKEN"))
    );

    (sale.generation, sale.stock) = (2, Stock(3));
    let (status, body) = world.put(&ledger, &sale).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (StatusCode::CONFLICT, Some("STOCK_BELOW_CLAIMED"))
    );
    for stock in [4, 6] {
        (sale.generation, sale.stock) = (sale.generation + 1, Stock(stock));
        let (status, body) = world.put(&ledger, &sale).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        eventually(PLENTY, async || {
            let gate = world.stock.snapshot(sale.uid).await.ok()?.gate?;
            (gate.terms.stock == Stock(stock)).then_some(())
        })
        .await;
    }
    // An old definition changes nothing.
    let mut old = sale.clone();
    (old.generation, old.stock) = (1, Stock(50));
    let (status, body) = world.put(&ledger, &old).await;
    assert_eq!(
        (status, body["stock"]["total"].as_u64()),
        (StatusCode::OK, Some(6))
    );
    world.check(&ledger, &sale, &told).await;

    let remove = async || {
        let url = format!("{}/internal/v1/sales/{}", ledger.url, sale.uid);
        world.http.delete(url).send().await.unwrap().status()
    };
    assert_eq!(remove().await, StatusCode::CONFLICT);
    assert_eq!(
        world.post(&ledger, sale.uid, "close").await,
        StatusCode::ACCEPTED
    );
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
        world.claim(&api.url, &sale, users(1)[0]).await == Answer::Ended
    })
    .await;
    assert_eq!(
        (remove().await, remove().await),
        (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT)
    );
    assert!(world.entries(sale.uid).await.is_empty());
    // The name is free, and what was claimed stays claimed.
    let mut again = world.definition(SaleKind::CouponCampaign, 1, 1).await;
    again.name.clone_from(&sale.name);
    assert_eq!(world.put(&ledger, &again).await.0, StatusCode::OK);
    for (_, claim) in &told.yes {
        assert_eq!(world.status(*claim).await.as_deref(), Some("ACCEPTED"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_can_not_work_is_refused_with_every_mistake() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    let mut sale = world.definition(SaleKind::TimeSale, 1, 1).await;
    (sale.per_user_limit, sale.stock, sale.claim_ttl_ms) = (11, Stock(0), None);
    let (status, body) = world.put(&ledger, &sale).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let places: Vec<&str> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|error| error["pointer"].as_str())
        .collect();
    assert_eq!(
        places,
        ["#/stock", "#/perUserLimit", "#/claimTtlMs"],
        "{body}"
    );
    assert_eq!(
        world.post(&ledger, sale.uid, "recoveries").await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        world.post(&ledger, sale.uid, "close").await,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_away_at_the_start_the_ledger_waits_and_works() {
    let world = World::breaking(Breaks {
        kafka: true,
        postgres: true,
    })
    .await;
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.redis.kill().await.unwrap();
    world.kafka.kill().await.unwrap();
    world.postgres.stop().await.unwrap();
    let ledger = world.role("ledger", &[]);
    eventually(PLENTY, async || {
        let alive = world
            .http
            .get(format!("{}/livez", ledger.ops))
            .send()
            .await
            .ok()?;
        alive.status().is_success().then_some(())
    })
    .await;
    let said = ledger.is_ready(&world).await.unwrap_err();
    assert!(
        said.contains("postgres") && said.contains("kafka"),
        "{said}"
    );
    world.postgres.resume().await.unwrap();
    world.kafka.resume().await.unwrap();
    ledger.ready(&world).await;
    let (status, body) = world.put(&ledger, &sale).await;
    assert_eq!(
        (status, body["gate"].as_str()),
        (StatusCode::OK, Some("UNREACHABLE"))
    );
    world.redis.resume().await.unwrap();
    world.until_open(sale.uid).await;
    let entries = world.entries(sale.uid).await;
    assert!(
        entries
            .iter()
            .all(|(_, entry)| entry.mark == Mark::Recorded),
        "{entries:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_anew_is_read_from_its_beginning() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 40, 1).await;
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    for guest in users(10) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }
    world.check(&ledger, &sale, &told).await;
    // Everything of the old log was read. The offsets of the new one begin below what was read.
    world.delete_topic(&sale.topic).await;
    world.create_topic(&sale.topic, 1).await;
    for guest in users(5) {
        told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    }
    assert_eq!(told.yes.len(), 15);
    world.until_recorded(sale.uid, |rows| rows == 15).await;
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_whose_topic_is_gone_can_be_closed() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    world.delete_topic(&sale.topic).await;
    assert_eq!(
        world.post(&ledger, sale.uid, "close").await,
        StatusCode::ACCEPTED
    );
    eventually(PLENTY, async || {
        let books = world.books(&ledger, sale.uid).await?;
        if books.drained {
            Ok(())
        } else {
            Err(format!("{books:?}\n{}", ledger.tail()))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_no_acknowledged_claim_is_given_up() {
    /// Twice as long as an entry may stay pending that nobody waits for.
    const AWAY: Duration = Duration::from_secs(15);
    let breaks = Breaks {
        postgres: true,
        ..Breaks::default()
    };
    let world = World::breaking(breaks).await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 40, 2).await;
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    let guests = users(30);
    told.hear(
        guests[0],
        world.claim_for_sure(&api.url, &sale, guests[0]).await,
    );
    world.at_rest(&ledger, sale.uid).await;
    world.postgres.stop().await.unwrap();
    let stopped = Instant::now();
    for guest in &guests[1..] {
        told.hear(*guest, world.claim_for_sure(&api.url, &sale, *guest).await);
    }
    assert_eq!(told.yes.len(), guests.len());
    let lag = format!("quokka_ledger_lag{{topic=\"{}\"}}", sale.topic);
    eventually(PLENTY, async || {
        let entries = world.entries(sale.uid).await;
        let given_up = entries
            .iter()
            .filter(|(_, entry)| entry.mark == Mark::Voiding);
        assert_eq!(given_up.count(), 0);
        stopped.elapsed() > AWAY
    })
    .await;
    // How far the ledger is behind is still told.
    let behind = ledger.metric(&world, &lag).await;
    assert!(behind.is_some_and(|behind| behind >= 1.0), "{behind:?}");
    for (guest, claim) in &told.yes {
        let again = world.claim(&api.url, &sale, *guest).await;
        assert_eq!(again, Answer::Yes(*claim));
    }
    world.postgres.resume().await.unwrap();
    ledger.ready(&world).await;
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_who_may_hold_two_get_two_and_no_more() {
    let world = Arc::new(World::start().await);
    let (ledger, api) = (world.ledger().await, world.api().await);
    let mut sale = world.definition(SaleKind::CouponCampaign, 150, 3).await;
    sale.per_user_limit = 2;
    world.open(&ledger, &sale).await;
    let requests = users(100)
        .into_iter()
        .flat_map(|guest| ["one", "two", "three", "one"].map(|key| (guest, Some(key.to_owned()))))
        .collect();
    let rush = rush_with(&world, &api, &sale, requests);
    world.until_recorded(sale.uid, |rows| rows >= 20).await;
    world.redis.flush().await.unwrap();
    let told = rush.await.unwrap();
    assert!(told.sold_out && told.yes.len() >= 150, "{}", told.yes.len());
    world.check(&ledger, &sale, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_beyond_the_users_limit_is_refused_and_counted() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    let guest = users(1)[0];
    let mut told = Told::default();
    told.hear(guest, world.claim_for_sure(&api.url, &sale, guest).await);
    let second = ClaimTaken {
        user: guest,
        claim: ClaimId::generate(),
        sequence: sale_stock::Sequence(9),
        slot: sale_stock::Slot(0),
        key: KeyHash::NONE,
        at: sale_stock::UnixMillis(0),
    };
    let event = SaleEvent::Claims {
        epoch: sale_stock::Epoch(1),
        claims: vec![second],
    };
    let record = Record {
        sale: sale.uid,
        event,
    };
    let producer = world.producer();
    producer
        .append(&sale.topic, Partition(0), &record)
        .await
        .unwrap();
    let refused = format!(
        "quokka_claims_refused_by_ledger_total{{sale=\"{}\"}}",
        sale.name
    );
    eventually(PLENTY, async || {
        ledger.metric(&world, &refused).await == Some(1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_whose_gate_is_shut_has_nothing_left_to_sell() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
    world.open(&ledger, &sale).await;
    let series = async |name: &str| {
        let line = format!("{name}{{sale=\"{}\"}}", sale.name);
        ledger.metric(&world, &line).await
    };
    eventually(PLENTY, async || {
        let left = series("quokka_sale_stock_remaining").await;
        (left, series("quokka_sale_drift").await) == (Some(5.0), Some(0.0))
    })
    .await;
    world.redis.freeze().unwrap();
    eventually(PLENTY, async || {
        let open = series("quokka_sale_gate_open").await;
        let left = series("quokka_sale_stock_remaining").await;
        (open, left, series("quokka_sale_drift").await) == (Some(0.0), None, None)
    })
    .await;
    world.redis.thaw().unwrap();
    eventually(PLENTY, async || {
        series("quokka_sale_stock_remaining").await == Some(5.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_declared_by_several_at_once_is_declared() {
    let world = World::start().await;
    let ledger = world.ledger().await;
    for _ in 0..5 {
        let sale = world.definition(SaleKind::TimeSale, 5, 1).await;
        let puts = (0..6).map(|_| world.put(&ledger, &sale));
        for (status, body) in futures::future::join_all(puts).await {
            assert_eq!(status, StatusCode::OK, "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_a_later_version_kept_is_read_and_one_that_can_not_be_is_left_out() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let (newer, broken) = (
        world.definition(SaleKind::TimeSale, 5, 1).await,
        world.definition(SaleKind::TimeSale, 5, 1).await,
    );
    for sale in [&newer, &broken] {
        world.open(&ledger, sale).await;
        let answer = world.claim_for_sure(&api.url, sale, users(1)[0]).await;
        assert!(matches!(answer, Answer::Yes(_)), "{answer:?}");
    }
    for (sale, added) in [
        (&newer, r#"{"colour": "red"}"#),
        (&broken, r#"{"discount": 7}"#),
    ] {
        sqlx::query("UPDATE sales SET definition = definition || $2::jsonb WHERE uid = $1")
            .bind(sale.uid.0)
            .bind(added)
            .execute(&world.pool)
            .await
            .unwrap();
    }
    // The one is gone, which says that the other was read after the change.
    let gone = async |sale: &sale_stock::books::SaleDefinition| {
        let url = format!("{}/v1/time-sales/{}", api.url, sale.name);
        let answer = world.http.get(url).send().await.unwrap();
        answer.status() == StatusCode::NOT_FOUND
    };
    eventually(PLENTY, async || gone(&broken).await).await;
    assert!(!gone(&newer).await);
    let answer = world.claim_for_sure(&api.url, &newer, users(1)[0]).await;
    let Answer::Yes(claim) = answer else {
        panic!("{answer:?}");
    };
    eventually(PLENTY, async || world.status(claim).await.is_some()).await;

    // Whoever declares it is refused all the same.
    let mut body = serde_json::to_value(&newer).unwrap();
    body["coupon"] = serde_json::json!({"validForMs": 1, "colour": "red"});
    let url = format!("{}/internal/v1/sales/{}", ledger.url, newer.uid);
    let answer = world.http.put(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let text = answer.text().await.unwrap();
    assert!(text.contains("/coupon/colour"), "{text}");
}
