//! What the database refuses, and what the comparison with the gateway finds.

use testkit::eventually;
use toss_simulator::Means;
use uuid::Uuid;

use crate::world::{PATIENCE, World};

async fn refused(world: &World, sql: &'static str) -> String {
    let error = sqlx::raw_sql(sql).execute(&world.pool).await.unwrap_err();
    error.to_string()
}

#[tokio::test]
async fn nothing_that_was_posted_is_rewritten_and_nothing_unbalanced_is_posted() {
    let world = World::start().await;
    let (order, key) = world.order(10_000, Means::Card);
    world.confirm(order, &key, 10_000).await.is_captured();
    for sql in [
        "UPDATE journals SET amount = 1",
        "DELETE FROM journals",
        "TRUNCATE journals, entries",
        "UPDATE entries SET amount = amount + 1",
        "DELETE FROM entries",
    ] {
        let reason = refused(&world, sql).await;
        assert!(reason.contains("only ever added to"), "{sql}: {reason}");
    }
    let late = "INSERT INTO entries (journal_id, line, account, amount)
        SELECT journal_id, 3, 'GATEWAY', 5 FROM journals";
    assert!(refused(&world, late).await.contains("is closed"));
    let half = "BEGIN;
        INSERT INTO journals (journal_id, payment_id, order_id, kind, transaction_key, amount, gateway_at)
        SELECT '00000000-0000-0000-0000-000000000001', payment_id, order_id, 'REFUND', 'x', 5, now() FROM payments;
        INSERT INTO entries VALUES ('00000000-0000-0000-0000-000000000001', 1, 'GUESTS', 5);
        COMMIT";
    assert!(refused(&world, half).await.contains("sums to 5"));
    let beyond = "BEGIN;
        INSERT INTO journals (journal_id, payment_id, order_id, kind, transaction_key, amount, gateway_at)
        SELECT '00000000-0000-0000-0000-000000000002', payment_id, order_id, 'REFUND', 'y', 10001, now() FROM payments;
        INSERT INTO entries VALUES ('00000000-0000-0000-0000-000000000002', 1, 'GUESTS', 10001),
            ('00000000-0000-0000-0000-000000000002', 2, 'GATEWAY', -10001);
        COMMIT";
    assert!(refused(&world, beyond).await.contains("more than it took"));
    let second = "INSERT INTO payments (payment_id, order_id, user_id, payment_key, amount, state)
        SELECT gen_random_uuid(), order_id, user_id, 'other', amount, 'INTENT' FROM payments";
    assert!(refused(&world, second).await.contains("payments_one_live"));
    world.books_are_true().await;
}

#[tokio::test]
async fn the_comparison_finds_what_only_one_side_has_and_heals_what_it_can() {
    let world = World::start().await;
    let (order, key) = world.order(10_000, Means::Card);
    world.confirm(order, &key, 10_000).await.is_captured();
    // Captured behind our back, and refused in our books: the next comparison has it asked about.
    let (late, late_key) = world.order(20_000, Means::Card);
    sqlx::query(
        "INSERT INTO payments (payment_id, order_id, user_id, payment_key, amount, state, refusal)
         VALUES ($1, $2, $3, $4, 20000, 'REFUSED', 'EXPIRED')",
    )
    .bind(Uuid::now_v7())
    .bind(late)
    .bind(world.guest)
    .bind(&late_key)
    .execute(&world.pool)
    .await
    .unwrap();
    world.gateway.confirm(&late_key).unwrap();
    world.until_state(&late_key, "CAPTURED").await;
    world.until_replies(late, 1).await;
    world.books_are_true().await;

    // A journal of nothing.
    sqlx::raw_sql(
        "BEGIN;
         INSERT INTO journals (journal_id, payment_id, order_id, kind, transaction_key, amount, gateway_at)
         SELECT '00000000-0000-0000-0000-000000000003', payment_id, order_id, 'REFUND', 'nowhere', 5, now()
         FROM payments LIMIT 1;
         INSERT INTO entries VALUES ('00000000-0000-0000-0000-000000000003', 1, 'GUESTS', 5),
             ('00000000-0000-0000-0000-000000000003', 2, 'GATEWAY', -5);
         COMMIT",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    eventually(PATIENCE, async || {
        world
            .number("SELECT count(*) FROM discrepancies WHERE kind = 'NO_TRANSACTION' AND resolved_at IS NULL")
            .await
            == 1
    })
    .await;
    eventually(PATIENCE, async || {
        world
            .metrics()
            .await
            .contains(r#"quokka_payment_discrepancies{kind="no_transaction"} 1"#)
    })
    .await;
}

#[tokio::test]
async fn the_metrics_that_alerts_rely_on_are_there_from_the_start() {
    let world = World::start().await;
    let metrics = world.metrics().await;
    for name in [
        r#"quokka_payment_gateway_requests_total{outcome="unknown"}"#,
        r#"quokka_payments_unsettled{kind="payment"}"#,
        r#"quokka_payment_discrepancies{kind="no_journal"}"#,
        r#"quokka_payment_discrepancies{kind="deposit_reversed"}"#,
        "quokka_refunds_refused",
        "quokka_outbox_oldest_seconds",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
}
