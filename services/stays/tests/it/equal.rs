//! The index and PostgreSQL give equal answers to any query on any data.

use std::sync::Arc;

use chassis::health::Readiness;
use money::{Discount, Krw, Percent};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use secrecy::SecretString;
use sqlx::PgPool;
use stays::calendar::{Day, Nights};
use stays::discounts::Sale;
use stays::search::{Database, Hit, Index, Order, Position, Query, keep};
use stays::seed::{self, Plan};
use stays::stay::{Amenities, Amenity, Place, Region};
use stays::store::Store;
use testkit::{Postgres, eventually};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::PATIENCE;

const STAYS: u64 = 300;
const QUERIES: usize = 400;

/// Nights that have a calendar.
const DAYS: i32 = 40;

/// Puts every kind of night in: sold out, not offered, with each kind of discount, with a minimum, of the same price.
const UNSETTLE: &str = "
    SELECT setseed(0.5);
    DELETE FROM nights WHERE night >= (SELECT min(night) FROM nights) + 40 OR random() < 0.01;
    UPDATE nights SET price = (1 + floor(random() * 5)) * 33333 WHERE room_type_no % 2 = 0;
    UPDATE nights SET own_percent = NULL, own_amount = 1 + floor(random() * 60000) WHERE random() < 0.15;
    UPDATE nights SET own_percent = 1 + floor(random() * 99) WHERE own_amount IS NULL AND random() < 0.3;
    UPDATE nights SET min_nights = 1 + floor(random() * 4) WHERE random() < 0.1;
    UPDATE nights SET rooms_left = 0 WHERE random() < 0.04;
    UPDATE nights SET allotment = 0 WHERE random() < 0.01;
    UPDATE stays SET rating = 450, reviews = 1 WHERE stay_no % 3 = 0;
";

fn day_offset() -> impl Strategy<Value = (i32, i32)> {
    prop_oneof![
        8 => (0..DAYS - 3, 1..5_i32),
        1 => (0..DAYS, 1..=30_i32),
        1 => (300..365_i32, 1..3_i32),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let region = prop::option::weighted(0.6, prop::sample::select(&Region::ALL[..]));
    let amenities = prop::collection::vec(prop::sample::select(&Amenity::ALL[..]), 0..3);
    let word = prop::sample::select(vec![
        "바다",
        "호텔",
        "펜",
        "ocean",
        "h",
        "제주",
        "seoul",
        "없는말",
        "%",
        "_",
    ]);
    let words = prop::collection::vec(word, 0..3);
    let order = prop_oneof![
        3 => Just(Order::Price),
        1 => Just(Order::Rating),
        1 => (33.0..38.5_f64, 126.0..130.0_f64)
            .prop_map(|(lat, lng)| Order::Distance(Place::new(lat, lng).unwrap().point())),
    ];
    let prices = prop_oneof![
        3 => Just((0, i64::MAX)),
        1 => (0..200_000_i64, 0..400_000_i64).prop_map(|(min, more)| (min, min + more)),
    ];
    (
        region,
        day_offset(),
        1..9_u16,
        prices,
        amenities,
        words,
        order,
    )
        .prop_map(
            |(region, (from, count), guests, (min_price, max_price), amenities, words, order)| {
                let today = Day::today();
                let check_in = today.plus(from);
                Query {
                    region,
                    nights: Nights::between(check_in, check_in.plus(count), today).unwrap(),
                    guests,
                    min_price,
                    max_price,
                    amenities: amenities.into_iter().collect::<Amenities>(),
                    words: words.into_iter().map(str::to_owned).collect(),
                    order,
                    after: None,
                    limit: 10_000,
                }
            },
        )
}

fn sales(stays: Vec<Uuid>, rooms: Vec<Uuid>) -> impl Strategy<Value = Vec<Arc<Sale>>> {
    let discount = prop_oneof![
        (1..=99_u8).prop_map(|of| Discount::Percent(Percent::new(of).unwrap())),
        (0..150_000_i64).prop_map(|won| Discount::Amount(Krw::new(won).unwrap())),
    ];
    let dates = prop_oneof![
        Just((Day::MIN, Day::MAX)),
        (0..DAYS, 0..10_i32).prop_map(|(from, more)| {
            let first = Day::today().plus(from);
            (first, first.plus(more))
        }),
    ];
    let sale = (
        discount,
        dates,
        prop::collection::vec(prop::sample::select(&Region::ALL[..]), 0..4),
        prop::collection::vec(prop::sample::select(stays), 0..20),
        prop::collection::vec(prop::sample::select(rooms), 0..20),
    );
    prop::collection::vec(sale, 0..4).prop_map(|sales| {
        (0..)
            .zip(sales)
            .map(
                |(number, (discount, (first, last), regions, stays, room_types))| {
                    Arc::new(Sale {
                        id: format!("sale-{number}").into(),
                        discount,
                        first,
                        last,
                        regions,
                        stays,
                        room_types,
                        starts_ms: 0,
                        ends_ms: i64::MAX,
                    })
                },
            )
            .collect()
    })
}

struct Both {
    index: Arc<Index>,
    database: Database,
    pool: PgPool,
    stop: CancellationToken,
}

impl Both {
    async fn new() -> Self {
        let created = Postgres::shared().await.create_database().await.unwrap();
        let url = SecretString::from(created.url.clone());
        let plan = Plan {
            stays: STAYS,
            seed: 3,
            from: None,
            searches_only: true,
        };
        seed::run(&url, &plan).await.unwrap();
        let pool = created.pool().await.unwrap();
        sqlx::raw_sql(UNSETTLE).execute(&pool).await.unwrap();
        let both = Self {
            index: Arc::new(Index::new()),
            database: Database::connect_lazy(&url).unwrap(),
            stop: CancellationToken::new(),
            pool: pool.clone(),
        };
        let dependency = Readiness::new().dependency("search-index");
        tokio::spawn(keep(
            Arc::clone(&both.index),
            Store::new(pool),
            dependency,
            both.stop.clone(),
        ));
        eventually(PATIENCE, async || both.index.is_loaded()).await;
        both
    }

    async fn ids(&self, table: &'static str) -> Vec<Uuid> {
        let sql = match table {
            "stays" => "SELECT stay_id FROM stays ORDER BY 1",
            _ => "SELECT room_type_id FROM room_types ORDER BY 1",
        };
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap()
    }

    /// What both answer; they agree.
    async fn search(&self, query: &Query, sales: &[Arc<Sale>]) -> Vec<Hit> {
        let (one, other) = (
            self.index.search(query, sales),
            self.database.search(query, sales).await.unwrap(),
        );
        if one != other {
            let first = one.iter().zip(&other).find(|(one, other)| one != other);
            panic!(
                "{} and {} hits, first different: {first:?}\n{query:?}\n{sales:?}",
                one.len(),
                other.len()
            );
        }
        one
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_and_postgresql_give_equal_answers() {
    let both = Both::new().await;
    let mut runner = TestRunner::deterministic();
    let queries = query();
    let sales = sales(both.ids("stays").await, both.ids("room_types").await);
    let (mut hits, mut by_sale, mut paged) = (0, 0, 0);
    for number in 0..QUERIES {
        let mut query = queries.new_tree(&mut runner).unwrap().current();
        let sales = sales.new_tree(&mut runner).unwrap().current();
        let all = both.search(&query, &sales).await;
        assert!(
            all.windows(2)
                .all(|pair| pair[0].position < pair[1].position)
        );
        hits += all.len();
        by_sale += all.iter().filter(|hit| hit.offer.sale.is_some()).count();
        if number % 3 != 0 || all.is_empty() {
            continue;
        }
        // Pages put together are the whole list: nothing twice, nothing left out.
        query.limit = 1 + all.len() / 4;
        let mut together: Vec<Hit> = Vec::new();
        loop {
            let page = both.search(&query, &sales).await;
            let Some(last) = page.last() else { break };
            query.after = Some(Position { ..last.position });
            together.extend(page);
        }
        assert_eq!(together, all);
        paged += 1;
    }
    // The test would prove nothing on queries that find nothing.
    assert!(
        hits > 2_000 && by_sale > 200 && paged > 20,
        "{hits} {by_sale} {paged}"
    );
    both.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_stay_equal_while_everything_changes() {
    let both = Both::new().await;
    let mut runner = TestRunner::deterministic();
    let queries = query();
    for round in 0..10 {
        let changed: Vec<(i32,)> = sqlx::query_as(
            "WITH changed AS (
                 UPDATE nights SET price = price + 1000, rooms_left = (rooms_left + 1) % 3, own_amount = NULL,
                     own_percent = CASE WHEN random() < 0.5 THEN 20 END
                 WHERE room_type_no % 10 = $1 RETURNING room_type_no, night
             )
             SELECT count(pg_notify('quokka_stays_changed', format('nights %s %s %s', room_type_no, first, last))::text)::int
             FROM (SELECT room_type_no, min(night) - date '1970-01-01' AS first, max(night) - date '1970-01-01' AS last
                 FROM changed GROUP BY room_type_no) ranges",
        )
        .bind(round)
        .fetch_all(&both.pool)
        .await
        .unwrap();
        assert!(changed[0].0 > 10);
        let query = queries.new_tree(&mut runner).unwrap().current();
        eventually(PATIENCE, async || {
            both.index.search(&query, &[]) == both.database.search(&query, &[]).await.unwrap()
        })
        .await;
    }
    both.stop.cancel();
}
