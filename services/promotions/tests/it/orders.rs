//! Claims that orders keep, use and let go of.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chassis::postgres::Schema;
use events::consumer::{BatchConsumer, ConsumerSettings};
use events::inbox::{Delivered, Handler as _};
use events::saga::{
    DiscountCommand, Envelope, ORDER_REPLIES, OrderId, OrderReply, PROMOTIONS_COMMANDS,
};
use events::{Record, Returned, SaleEvent, TraceParent, outbox, partition_of, topics};
use promotions::ledger::orders::Commands;
use promotions::store::MIGRATIONS;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::StatusCode;
use sale_stock::books::{SaleDefinition, SaleKind};
use sale_stock::{ClaimId, UserId};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use testkit::spans::Spans;
use testkit::{eventually, unique_name};
use uuid::Uuid;

use crate::world::{Answer, Breaks, PLENTY, Role, Told, World, rush, users};

pub(crate) fn order() -> OrderId {
    OrderId(Uuid::now_v7())
}

pub(crate) fn reserve(order_id: OrderId, user: UserId, claims: &[ClaimId]) -> DiscountCommand {
    DiscountCommand::Reserve {
        order_id,
        user_id: user.0,
        claim_ids: claims.iter().map(|claim| claim.0).collect(),
    }
}

pub(crate) fn redeem(order_id: OrderId) -> DiscountCommand {
    DiscountCommand::Redeem { order_id }
}

pub(crate) fn release(order_id: OrderId) -> DiscountCommand {
    DiscountCommand::Release { order_id }
}

/// What an answer comes to, and to whom.
fn read(reply: &OrderReply) -> (OrderId, &str) {
    match reply {
        OrderReply::DiscountReserved { order_id } => (*order_id, "reserved"),
        OrderReply::DiscountRedeemed { order_id } => (*order_id, "redeemed"),
        OrderReply::DiscountReleased { order_id } => (*order_id, "released"),
        OrderReply::DiscountRefused { order_id, code } => (*order_id, code),
        other => panic!("not of promotions: {other:?}"),
    }
}

/// Has a command handled in a transaction; answers what the order is told once it is committed.
pub(crate) async fn ask_in(
    tx: &mut Transaction<'static, Postgres>,
    command: DiscountCommand,
) -> String {
    Commands.handle(tx, command).await.unwrap();
    // Before the commit, so that it can't have been sent yet.
    let payload: String = sqlx::query_scalar(
        "SELECT payload FROM outbox WHERE topic = $1 AND xmin = pg_current_xact_id()::xid",
    )
    .bind(ORDER_REPLIES)
    .fetch_one(&mut **tx)
    .await
    .unwrap();
    let reply: Envelope<OrderReply> = serde_json::from_str(&payload).unwrap();
    read(&reply.body).1.to_owned()
}

impl World {
    /// Has a command handled as the inbox does; answers what the order is told.
    pub(crate) async fn ask(&self, command: DiscountCommand) -> String {
        let mut tx = self.pool.begin().await.unwrap();
        let told = ask_in(&mut tx, command).await;
        tx.commit().await.unwrap();
        told
    }

    /// What `orders` is told of a claim's worth.
    async fn discount(&self, ledger: &Role, user: UserId, claim: ClaimId) -> (u16, Value) {
        let url = format!("{}/internal/v1/discounts/{claim}?userId={user}", ledger.url);
        let answer = self.http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn unusable(&self, ledger: &Role, user: UserId, claim: ClaimId) -> bool {
        let (status, body) = self.discount(ledger, user, claim).await;
        status == 404 && body["code"] == "CLAIM_NOT_FOUND"
    }

    /// A claim that the ledger has.
    pub(crate) async fn recorded(
        &self,
        api: &Role,
        sale: &SaleDefinition,
        user: UserId,
    ) -> ClaimId {
        let Answer::Yes(claim) = self.claim_for_sure(&api.url, sale, user).await else {
            panic!("not sold");
        };
        eventually(PLENTY, async || self.status(claim).await.is_some()).await;
        claim
    }

    /// Ends the time of all claims of a sale.
    async fn make_due(&self, sale: &SaleDefinition) {
        sqlx::query("UPDATE claims SET expires_at = now() WHERE sale_uid = $1")
            .bind(sale.uid.0)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Appends a return as the API does for a claim that is its guest's to give back.
    pub(crate) async fn append_return(&self, sale: &SaleDefinition, user: UserId, claim: ClaimId) {
        let record = Record {
            sale: sale.uid,
            event: SaleEvent::Returns(vec![Returned { user, claim }]),
        };
        let partition = partition_of(user, sale.partitions);
        self.producer()
            .append(&sale.topic, partition, &record)
            .await
            .unwrap();
    }

    pub(crate) async fn until_status(&self, claim: ClaimId, wanted: &str) {
        eventually(PLENTY, async || match self.status(claim).await {
            Some(status) if status == wanted => Ok(()),
            other => Err(format!("{other:?} and not {wanted}")),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_claims_are_kept_used_and_given_back_once_each() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 2, 1).await;
    let campaign = world.definition(SaleKind::CouponCampaign, 2, 1).await;
    world.open(&ledger, &sale).await;
    world.open(&ledger, &campaign).await;
    let (guest, other) = (users(1)[0], users(1)[0]);
    let held = world.recorded(&api, &sale, guest).await;
    let coupon = world.recorded(&api, &campaign, guest).await;
    let both = [held, coupon];
    let statuses = async || (world.status(held).await, world.status(coupon).await);
    let pair = |one: &str, two: &str| (Some(one.to_owned()), Some(two.to_owned()));

    let (status, mut worth) = world.discount(&ledger, guest, held).await;
    assert!(worth["expiresAt"].take().is_string());
    let expected = json!({
        "claimId": held, "kind": "TIME_SALE", "saleId": sale.name, "discount": {"amount": 5_000},
        "target": {"regions": ["jeju"]}, "expiresAt": null,
    });
    assert_eq!((status, worth), (200, expected));
    let (status, worth) = world.discount(&ledger, guest, coupon).await;
    assert_eq!((status, &worth["kind"]), (200, &json!("COUPON")));
    assert_eq!(worth["regions"], json!([]));

    // Another guest's claim is none.
    assert!(world.unusable(&ledger, other, held).await);
    assert_eq!(
        world.ask(reserve(order(), other, &both)).await,
        "CLAIM_NOT_FOUND"
    );
    assert_eq!(statuses().await, pair("ACCEPTED", "ISSUED"));

    let (first, second) = (order(), order());
    for _ in 0..2 {
        assert_eq!(world.ask(reserve(first, guest, &both)).await, "reserved");
        assert_eq!(statuses().await, pair("RESERVED", "RESERVED"));
    }
    assert!(world.unusable(&ledger, guest, coupon).await);
    let taken = world.ask(reserve(second, guest, &[coupon])).await;
    assert_eq!(taken, "CLAIM_TAKEN");
    // The guest has it still, and no room for another.
    assert_eq!(
        world.read(&api, guest, held).await,
        (200, "ACCEPTED".to_owned())
    );
    assert_eq!(world.claim(&api.url, &sale, guest).await, Answer::Yes(held));

    for _ in 0..2 {
        assert_eq!(world.ask(redeem(first)).await, "redeemed");
        assert_eq!(statuses().await, pair("USED", "USED"));
        let back = world.give_back(&api, &sale, guest, held).await;
        assert_eq!(back, StatusCode::CONFLICT);
    }
    for _ in 0..2 {
        assert_eq!(world.ask(release(first)).await, "released");
        assert_eq!(statuses().await, pair("ACCEPTED", "ISSUED"));
    }
    assert_eq!(world.ask(redeem(first)).await, "NOT_RESERVED");
    assert_eq!(
        world.ask(reserve(first, guest, &both)).await,
        "RESERVATION_RELEASED"
    );
    // What another order has now isn't the first one's to release.
    let third = order();
    assert_eq!(world.ask(reserve(third, guest, &both)).await, "reserved");
    assert_eq!(world.ask(release(first)).await, "released");
    assert_eq!(world.ask(release(second)).await, "released");
    assert_eq!(statuses().await, pair("RESERVED", "RESERVED"));
    for (definition, claim) in [(&sale, held), (&campaign, coupon)] {
        let told = Told {
            yes: vec![(guest, claim)],
            ..Told::default()
        };
        world.check(&ledger, definition, &told).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_orders_keep_does_not_expire_and_what_they_let_go_comes_back_once() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 3, 1).await;
    world.open(&ledger, &sale).await;
    let mut told = Told::default();
    let mut claims = Vec::new();
    for guest in users(3) {
        let claim = world.recorded(&api, &sale, guest).await;
        told.hear(guest, Answer::Yes(claim));
        claims.push((guest, claim));
    }
    let [(keeper, kept), (user, used), (_, witness)] = claims[..] else {
        panic!("three claims");
    };
    let (keeping, using) = (order(), order());
    let reserved = world.ask(reserve(keeping, keeper, &[kept])).await;
    assert_eq!(reserved, "reserved");
    assert_eq!(world.ask(reserve(using, user, &[used])).await, "reserved");
    assert_eq!(world.ask(redeem(using)).await, "redeemed");

    world.make_due(&sale).await;
    world.until_status(witness, "EXPIRED").await;
    let back = world.give_back(&api, &sale, keeper, kept).await;
    assert_eq!(back, StatusCode::CONFLICT);
    // A guest who was quicker than that: his return is in the log behind the reservation.
    world.append_return(&sale, keeper, kept).await;
    // A rebuilt Redis has both units still.
    world.redis.flush().await.unwrap();
    eventually(PLENTY, async || world.epoch(sale.uid).await >= 2).await;
    world.check(&ledger, &sale, &told).await;
    assert_eq!(world.status(kept).await.as_deref(), Some("RESERVED"));
    assert_eq!(world.status(used).await.as_deref(), Some("USED"));
    let claimed = async || world.stock.snapshot(sale.uid).await.unwrap().claimed;
    assert_eq!(claimed().await, 2);

    // Due as it is, it goes back to stock as soon as it is let go of.
    assert_eq!(world.ask(release(keeping)).await, "released");
    world.until_status(kept, "EXPIRED").await;
    assert_eq!(world.ask(release(keeping)).await, "released");
    eventually(PLENTY, async || claimed().await == 1).await;
    let left = users(3);
    for guest in &left {
        told.hear(*guest, world.claim_for_sure(&api.url, &sale, *guest).await);
    }
    assert_eq!(told.yes.len(), 5, "two of three units have come back");
    world.check(&ledger, &sale, &told).await;
    assert_eq!(world.status(used).await.as_deref(), Some("USED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_over_are_refused() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 2, 1).await;
    let campaign = world.definition(SaleKind::CouponCampaign, 1, 1).await;
    world.open(&ledger, &sale).await;
    world.open(&ledger, &campaign).await;
    let (guest, other) = (users(1)[0], users(1)[0]);
    let coupon = world.recorded(&api, &campaign, guest).await;
    let returned = world.recorded(&api, &sale, guest).await;
    let expired = world.recorded(&api, &sale, other).await;
    let back = world.give_back(&api, &sale, guest, returned).await;
    assert_eq!(back, StatusCode::NO_CONTENT);
    world.until_status(returned, "RETURNED").await;
    world.make_due(&campaign).await;
    world.make_due(&sale).await;
    world.until_status(expired, "EXPIRED").await;
    for (user, claim) in [(guest, coupon), (guest, returned), (other, expired)] {
        assert!(world.unusable(&ledger, user, claim).await, "{claim}");
        let refused = order();
        for _ in 0..2 {
            let told = world.ask(reserve(refused, user, &[claim])).await;
            assert_eq!(told, "CLAIM_ENDED");
        }
        assert_eq!(world.ask(redeem(refused)).await, "NOT_RESERVED");
    }
    let nothing = ClaimId(Uuid::now_v7());
    assert!(world.unusable(&ledger, guest, nothing).await);
    assert_eq!(
        world.ask(reserve(order(), guest, &[nothing])).await,
        "CLAIM_NOT_FOUND"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_a_moment_ago_is_waited_for() {
    let world = World::start().await;
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, 1, 1).await;
    world.open(&ledger, &sale).await;
    let (guest, other) = (users(1)[0], users(1)[0]);
    let held_up = world.hold_up(sale.uid).await;
    let Answer::Yes(claim) = world.claim_for_sure(&api.url, &sale, guest).await else {
        panic!("not sold");
    };
    let (status, body) = world.discount(&ledger, guest, claim).await;
    assert_eq!((status, &body["code"]), (503, &json!("CLAIM_UNSETTLED")));
    assert!(world.unusable(&ledger, other, claim).await);
    held_up.rollback().await.unwrap();
    eventually(PLENTY, async || {
        world.discount(&ledger, guest, claim).await.0 == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_orders_and_a_return_one_gets_the_claim() {
    const CLAIMS: usize = 24;
    let world = Arc::new(World::start().await);
    let (ledger, api) = (world.ledger().await, world.api().await);
    let sale = world.definition(SaleKind::TimeSale, CLAIMS as u32, 2).await;
    world.open(&ledger, &sale).await;
    let told = rush(&world, &api, &sale, users(CLAIMS)).await.unwrap();
    world.at_rest(&ledger, sale.uid).await;
    let races = told.yes.iter().map(|(user, claim)| {
        let (world, api, sale) = (&world, &api, &sale);
        let (one, two) = (order(), order());
        async move {
            let (first, second, _) = tokio::join!(
                world.ask(reserve(one, *user, &[*claim])),
                world.ask(reserve(two, *user, &[*claim])),
                world.give_back(api, sale, *user, *claim),
            );
            let won = [(one, first), (two, second)];
            won.into_iter()
                .filter(|(_, told)| told == "reserved")
                .map(|(order, _)| order)
                .collect::<Vec<_>>()
        }
    });
    let winners = futures::future::join_all(races).await;
    world.at_rest(&ledger, sale.uid).await;
    for ((_, claim), winners) in told.yes.iter().zip(&winners) {
        let status = world.status(*claim).await.unwrap();
        match winners.len() {
            0 => assert_eq!(status, "RETURNED"),
            1 => assert_eq!(status, "RESERVED"),
            more => panic!("{more} orders have {claim}"),
        }
    }
    world.check(&ledger, &sale, &told).await;
    let lost = winners.iter().flatten();
    for order in lost {
        assert_eq!(world.ask(release(*order)).await, "released");
    }
    world.make_due(&sale).await;
    eventually(PLENTY, async || {
        world.stock.snapshot(sale.uid).await.unwrap().claimed == 0
    })
    .await;
    world.check(&ledger, &sale, &told).await;
}

/// `orders`, as far as promotions can tell.
struct Orders {
    producer: FutureProducer,
    replies: BatchConsumer,
    /// By the ids of the answers, so that one that is sent twice counts once.
    heard: HashMap<Uuid, OrderReply>,
}

impl Orders {
    async fn start(brokers: &str) -> Self {
        topics::ensure(brokers, &topics::saga(2)).await.unwrap();
        let replies = ConsumerSettings::new(brokers, unique_name("orders"), "orders");
        let replies = BatchConsumer::new(&replies).unwrap();
        replies.subscribe(&[ORDER_REPLIES]).unwrap();
        Self {
            producer: ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .create()
                .unwrap(),
            replies,
            heard: HashMap::new(),
        }
    }

    /// A command, delivered twice, and asked once more under another id.
    async fn send(&self, order: OrderId, body: DiscountCommand) {
        let first = Uuid::now_v7();
        for id in [first, first, Uuid::now_v7()] {
            let body = body.clone();
            let payload = serde_json::to_string(&Envelope { id, body }).unwrap();
            let key = order.0.to_string();
            let record = FutureRecord::to(PROMOTIONS_COMMANDS)
                .key(&key)
                .payload(&payload);
            self.producer.send(record, PLENTY).await.unwrap();
        }
    }

    /// Reads until each of the orders was told so twice: once for each id.
    async fn until(&mut self, orders: &[OrderId], wanted: &str) {
        let deadline = tokio::time::Instant::now() + PLENTY;
        loop {
            let mut told = HashMap::<OrderId, u32>::new();
            for (order, what) in self.heard.values().map(read) {
                *told.entry(order).or_default() += u32::from(what == wanted);
            }
            let times = |order| told.get(order).copied().unwrap_or(0);
            assert!(orders.iter().all(|order| times(order) <= 2), "{told:?}");
            if orders.iter().all(|order| times(order) == 2) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{wanted}: {told:?}");
            let batches = self
                .replies
                .next_batch(500, 1 << 20, Duration::from_secs(1))
                .await
                .unwrap_or_default();
            for record in batches.into_iter().flat_map(|batch| batch.records) {
                let reply: Envelope<OrderReply> = serde_json::from_slice(&record.value).unwrap();
                self.heard.insert(reply.id, reply.body);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_and_repeated_commands_have_each_effect_once() {
    const CLAIMS: usize = 40;
    let world = Breaks {
        kafka: true,
        ..Breaks::default()
    };
    let world = Arc::new(World::breaking(world).await);
    let (mut one, mut two) = tokio::join!(world.ledger(), world.ledger());
    let api = world.api().await;
    let sale = world.definition(SaleKind::TimeSale, CLAIMS as u32, 2).await;
    world.open(&one, &sale).await;
    let told = rush(&world, &api, &sale, users(CLAIMS)).await.unwrap();
    world.at_rest(&one, sale.uid).await;

    let mut orders = Orders::start(&world.kafka.brokers()).await;
    let of: Vec<OrderId> = told.yes.iter().map(|_| order()).collect();
    for (at, (order, (user, claim))) in of.iter().zip(&told.yes).enumerate() {
        orders.send(*order, reserve(*order, *user, &[*claim])).await;
        if at == CLAIMS / 2 {
            one.kill();
            one = world.ledger().await;
        }
    }
    two.kill();
    orders.until(&of, "reserved").await;

    let (cancelled, confirmed) = of.split_at(CLAIMS / 4);
    for (at, order) in confirmed.iter().enumerate() {
        orders.send(*order, redeem(*order)).await;
        if at == CLAIMS / 4 {
            one.kill();
            one = world.ledger().await;
        }
    }
    for order in cancelled {
        orders.send(*order, release(*order)).await;
    }
    orders.until(confirmed, "redeemed").await;
    orders.until(cancelled, "released").await;
    assert_eq!(orders.heard.len(), 4 * CLAIMS);

    let statuses = async |at: std::ops::Range<usize>| {
        let mut found = BTreeSet::new();
        for (_, claim) in &told.yes[at] {
            found.insert(world.status(*claim).await.unwrap());
        }
        found
    };
    let only = |status: &str| BTreeSet::from([status.to_owned()]);
    assert_eq!(statuses(0..CLAIMS / 4).await, only("ACCEPTED"));
    assert_eq!(statuses(CLAIMS / 4..CLAIMS).await, only("USED"));
    world.check(&one, &sale, &told).await;
}

#[tokio::test]
async fn orders_that_share_a_transaction_are_answered_each_in_its_own_trace() {
    let world = World::start().await;
    let schema = Schema::of(&MIGRATIONS).with(outbox::MIGRATION);
    schema.apply(&world.pool).await.unwrap();
    let _spans = Spans::of_this_thread();
    let mut traces = HashMap::new();
    let mut commands = Vec::new();
    for command in [reserve(order(), users(1)[0], &[]), release(order())] {
        let span = tracing::info_span!("command");
        let trace = span.in_scope(TraceParent::current).unwrap();
        traces.insert(command.order_id(), trace);
        commands.push(Delivered::new(command, span));
    }
    let mut tx = world.pool.begin().await.unwrap();
    Commands.handle_all(&mut tx, commands).await.unwrap();
    let sql = "SELECT payload, trace FROM outbox WHERE topic = $1";
    let replies: Vec<(String, Option<String>)> = sqlx::query_as(sql)
        .bind(ORDER_REPLIES)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    assert_eq!(replies.len(), 2);
    for (payload, trace) in replies {
        let reply: Envelope<OrderReply> = serde_json::from_str(&payload).unwrap();
        let expected = traces[&reply.body.order_id()].to_string();
        assert_eq!(trace, Some(expected), "{:?}", reply.body);
    }
}
