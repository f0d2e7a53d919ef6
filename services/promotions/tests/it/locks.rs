//! Orders wait for whoever changes the same claim, and for nobody else.

use std::sync::Arc;
use std::time::Duration;

use events::saga::DiscountCommand;
use sale_stock::books::{SaleDefinition, SaleKind};
use sale_stock::{ClaimId, UserId};
use sqlx::{Postgres, Transaction};
use testkit::eventually;
use tokio::time::timeout;

use crate::orders::{ask_in, order, redeem, release, reserve};
use crate::world::{PLENTY, Role, Told, World, users};

/// Longer than whatever waits for nobody can take. Shorter than a test's transaction stays open.
const AT_ONCE: Duration = Duration::from_secs(30);

/// A transaction that stays open. Its `now()` is the time of its beginning.
struct Open {
    tx: Transaction<'static, Postgres>,
    /// Its connection, as PostgreSQL knows it.
    pid: i32,
}

impl Open {
    async fn begin(world: &World) -> Self {
        let mut tx = world.pool.begin().await.unwrap();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        Self { tx, pid }
    }

    async fn ask(&mut self, command: DiscountCommand) -> String {
        ask_in(&mut self.tx, command).await
    }
}

impl World {
    /// A platform with a sale, and claims that are recorded, in the order of their ids.
    async fn sold<const CLAIMS: usize>(kind: SaleKind, stock: u32) -> Stage<CLAIMS> {
        let world = Arc::new(Self::start().await);
        // Rows are found in the order in which they lie: that of locks must not hang on a plan.
        sqlx::query(
            "DO $$ DECLARE plan text; BEGIN
                FOREACH plan IN ARRAY ARRAY['enable_indexscan', 'enable_bitmapscan'] LOOP
                    EXECUTE format('ALTER DATABASE %I SET %I = off', current_database(), plan);
                END LOOP;
            END $$",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        let (ledger, api) = (world.ledger().await, world.api().await);
        let sale = world.definition(kind, stock, 1).await;
        world.open(&ledger, &sale).await;
        let mut claims = Vec::new();
        for guest in users(CLAIMS) {
            claims.push((guest, world.recorded(&api, &sale, guest).await));
        }
        claims.sort_by_key(|(_, claim)| claim.0);
        world.at_rest(&ledger, sale.uid).await;
        let told = Told {
            yes: claims.clone(),
            ..Told::default()
        };
        Stage {
            world,
            ledger,
            api,
            sale,
            claims: claims.try_into().unwrap(),
            told,
        }
    }

    /// Waits until somebody waits for a lock that the transaction of this connection holds.
    async fn until_waited_for(&self, pid: i32) {
        const SQL: &str =
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid)))";
        self.until(SQL, pid).await;
    }

    /// Waits until the transaction of this connection waits for somebody's lock.
    async fn until_waiting(&self, pid: i32) {
        self.until("SELECT cardinality(pg_blocking_pids($1)) > 0", pid)
            .await;
    }

    async fn until(&self, condition: &'static str, pid: i32) {
        eventually(PLENTY, async || {
            let asked = sqlx::query_scalar::<_, bool>(condition).bind(pid);
            asked.fetch_one(&self.pool).await.unwrap()
        })
        .await;
    }

    /// Ends the time of claims, the first one's first.
    async fn make_due_one_by_one(&self, claims: impl IntoIterator<Item = ClaimId>) {
        for claim in claims {
            sqlx::query("UPDATE claims SET expires_at = now() WHERE claim_id = $1")
                .bind(claim.0)
                .execute(&self.pool)
                .await
                .unwrap();
        }
    }
}

struct Stage<const CLAIMS: usize> {
    world: Arc<World>,
    ledger: Role,
    api: Role,
    sale: SaleDefinition,
    claims: [(UserId, ClaimId); CLAIMS],
    told: Told,
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_with_other_claims_of_a_sale_and_its_log_wait_for_nobody() {
    let mut stage = World::sold::<2>(SaleKind::CouponCampaign, 3).await;
    let (world, sale) = (&stage.world, &stage.sale);
    let [(first, kept), (second, coupon)] = stage.claims;
    let mut held = Open::begin(world).await;
    assert_eq!(held.ask(reserve(order(), first, &[kept])).await, "reserved");

    let other = order();
    for (command, answer) in [
        (reserve(other, second, &[coupon]), "reserved"),
        (redeem(other), "redeemed"),
        (release(other), "released"),
    ] {
        let told = timeout(AT_ONCE, world.ask(command)).await;
        assert_eq!(told.expect("an order waits"), answer);
    }
    let third = users(1)[0];
    let recorded = timeout(AT_ONCE, world.recorded(&stage.api, sale, third)).await;
    stage
        .told
        .yes
        .push((third, recorded.expect("the log waits")));

    // Who wants the same claim waits, and doesn't get it.
    let late = {
        let world = Arc::clone(world);
        tokio::spawn(async move { world.ask(reserve(order(), first, &[kept])).await })
    };
    world.until_waited_for(held.pid).await;
    held.tx.commit().await.unwrap();
    assert_eq!(late.await.unwrap(), "CLAIM_TAKEN");
    assert_eq!(world.status(kept).await.as_deref(), Some("RESERVED"));
    assert_eq!(world.status(coupon).await.as_deref(), Some("ISSUED"));
    world.check(&stage.ledger, sale, &stage.told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_waits_for_the_order_that_is_about_to_keep_the_claim() {
    let stage = World::sold::<2>(SaleKind::TimeSale, 2).await;
    let (world, sale) = (&stage.world, &stage.sale);
    let [(guest, kept), (_, due)] = stage.claims;
    // The order comes before the time is over, and its transaction ends after it.
    stage.ledger.signal("STOP");
    let mut held = Open::begin(world).await;
    world.make_due_one_by_one([due, kept]).await;
    let keeping = order();
    let told = held.ask(reserve(keeping, guest, &[kept])).await;
    assert_eq!(told, "reserved");
    stage.ledger.signal("CONT");

    world.until_waited_for(held.pid).await;
    // Who waits for a claim holds none that comes after it, though it lies before it and was due before it.
    let not_locked =
        "SELECT claim_id FROM claims WHERE claim_id = $1 FOR NO KEY UPDATE SKIP LOCKED";
    let not_locked = sqlx::query(not_locked).bind(due.0);
    let not_locked = not_locked.fetch_optional(&world.pool).await.unwrap();
    assert!(not_locked.is_some(), "the later claim is locked");
    assert_eq!(world.status(due).await.as_deref(), Some("ACCEPTED"));
    held.tx.commit().await.unwrap();
    world.until_status(due, "EXPIRED").await;
    assert_eq!(world.status(kept).await.as_deref(), Some("RESERVED"));
    world.check(&stage.ledger, sale, &stage.told).await;

    assert_eq!(world.ask(release(keeping)).await, "released");
    world.until_status(kept, "EXPIRED").await;
    world.check(&stage.ledger, sale, &stage.told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_the_expiry_of_its_claim() {
    let stage = World::sold::<1>(SaleKind::TimeSale, 1).await;
    let (world, sale) = (&stage.world, &stage.sale);
    let [(guest, claim)] = stage.claims;
    // The ledger's transaction stays open where it has ended the claim.
    for statement in [
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$",
        "CREATE TRIGGER wait AFTER UPDATE ON claims FOR EACH ROW WHEN (NEW.status = 'EXPIRED') EXECUTE FUNCTION wait()",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    let mut door = Open::begin(world).await;
    sqlx::query("SELECT pg_advisory_xact_lock(1)")
        .execute(&mut *door.tx)
        .await
        .unwrap();
    let mut late = Open::begin(world).await;
    let waiting = late.pid;
    world.make_due_one_by_one([claim]).await;
    world.until_waited_for(door.pid).await;

    let refused = order();
    let asked = tokio::spawn(async move {
        let told = late.ask(reserve(refused, guest, &[claim])).await;
        late.tx.commit().await.unwrap();
        told
    });
    world.until_waiting(waiting).await;
    assert_eq!(world.status(claim).await.as_deref(), Some("ACCEPTED"));
    door.tx.commit().await.unwrap();
    assert_eq!(asked.await.unwrap(), "CLAIM_ENDED");
    assert_eq!(world.ask(redeem(refused)).await, "NOT_RESERVED");
    assert_eq!(world.status(claim).await.as_deref(), Some("EXPIRED"));
    world.check(&stage.ledger, sale, &stage.told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_waits_for_the_order_that_is_about_to_keep_the_claim() {
    let stage = World::sold::<2>(SaleKind::TimeSale, 2).await;
    let (world, sale) = (&stage.world, &stage.sale);
    for ((guest, claim), kept) in stage.claims.into_iter().zip([true, false]) {
        let mut held = Open::begin(world).await;
        let told = held.ask(reserve(order(), guest, &[claim])).await;
        assert_eq!(told, "reserved");
        world.append_return(sale, guest, claim).await;
        world.until_waited_for(held.pid).await;
        if kept {
            held.tx.commit().await.unwrap();
        } else {
            held.tx.rollback().await.unwrap();
        }
        // Once the ledger has read the return, whatever it has come to.
        world.at_rest(&stage.ledger, sale.uid).await;
        world.check(&stage.ledger, sale, &stage.told).await;
        let wanted = if kept { "RESERVED" } else { "RETURNED" };
        assert_eq!(world.status(claim).await.as_deref(), Some(wanted));
    }
}
