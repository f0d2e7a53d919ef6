//! Seeding.

use sqlx::PgPool;
use stays::seed::{self, Plan};

use testkit::eventually;

use crate::world::{PATIENCE, World};

async fn digest(pool: &PgPool) -> (i64, i64, i64, String) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM stays), (SELECT count(*) FROM room_types), (SELECT count(*) FROM nights),
             (SELECT md5(string_agg(t, '|' ORDER BY t)) FROM (
                 SELECT s.stay_id || s.name || s.name_en || s.region || s.x || s.amenities::text || s.rating
                     || s.search_text
                     || r.room_type_id || r.capacity || n.night || n.price || coalesce(n.own_percent, 0) || n.allotment
                     || n.rooms_left || n.min_nights AS t
                 FROM stays s JOIN room_types r USING (stay_no) JOIN nights n USING (room_type_no)) all_of_it)",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_gives_the_same_stays_again_and_goes_on_where_it_was_killed() {
    let (one, other) = tokio::join!(World::new(), World::new());
    let plan = Plan {
        stays: 600,
        seed: 7,
        from: None,
        searches_only: false,
    };
    seed::run(&one.database_url, &plan).await.unwrap();
    let first = digest(&one.pool).await;
    assert_eq!(first.0, 600);
    assert_eq!(first.2, first.1 * 365);
    seed::run(&one.database_url, &plan).await.unwrap();
    assert_eq!(digest(&one.pool).await, first, "nothing the second time");

    // Killed after some stays: the rest is filled in.
    let some = Plan {
        stays: 130,
        ..plan.clone()
    };
    seed::run(&other.database_url, &some).await.unwrap();
    seed::run(&other.database_url, &plan).await.unwrap();
    assert_eq!(digest(&other.pool).await, first);

    // What is seeded is found, and booking hears of it.
    eventually(PATIENCE, async || {
        one.get("/v1/stays?pageSize=100").await.ids().len() == 100
    })
    .await;
    let told: i64 = sqlx::query_scalar(
        "SELECT coalesce(max(seq), 0) FROM (SELECT last_value AS seq FROM outbox_seq_seq) told",
    )
    .fetch_one(&one.pool)
    .await
    .unwrap();
    assert_eq!(told, first.1, "one message for each room type");
}
