//! Discounts in a real Redis.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sale_stock::RedisSettings;
use sale_stock::books::{AmountDiscount, Discount, Target};
use sale_stock::discounts::{Discounts, SaleDiscount};

const PATIENCE: Duration = Duration::from_secs(60);

fn discount(sale_id: &str, amount: i64, lasts: SignedDuration) -> SaleDiscount {
    let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    SaleDiscount {
        sale_id: sale_id.to_owned(),
        discount: Discount::Amount(AmountDiscount { amount }),
        target: Target {
            regions: vec!["jeju".to_owned()],
            ..Target::default()
        },
        stay_dates: None,
        starts_at: now,
        ends_at: now + lasts,
    }
}

async fn discounts() -> Discounts {
    let settings = RedisSettings::new(testkit::Redis::shared().await.url());
    Discounts::connect_lazy(&settings, &testkit::unique_name("namespace")).unwrap()
}

#[tokio::test]
async fn what_is_written_is_read_until_it_is_removed() {
    let discounts = discounts().await;
    assert_eq!(discounts.read().await.unwrap().discounts, []);
    let hour = SignedDuration::from_hours(1);
    let (b, a) = (discount("b", 1, hour), discount("a", 2, hour));
    discounts.put(&b).await.unwrap();
    discounts.put(&a).await.unwrap();
    assert_eq!(
        discounts.read().await.unwrap().discounts,
        [a, b.clone()],
        "in the order of their ids"
    );
    let changed = discount("a", 3, hour * 2);
    discounts.put(&changed).await.unwrap();
    assert_eq!(
        discounts.read().await.unwrap().discounts,
        [changed, b.clone()]
    );
    discounts.remove("a").await.unwrap();
    discounts.remove("a").await.unwrap();
    assert_eq!(discounts.read().await.unwrap().discounts, [b]);
}

#[tokio::test]
async fn a_discount_is_gone_when_its_sale_ends_and_nobody_does_anything() {
    let discounts = discounts().await;
    let short = discount("short", 1, SignedDuration::from_millis(1_500));
    let long = discount("long", 1, SignedDuration::from_hours(1));
    discounts.put(&short).await.unwrap();
    discounts.put(&long).await.unwrap();
    testkit::eventually(PATIENCE, async || {
        let read = discounts.read().await.unwrap();
        let over = read.now.0 >= short.ends_at.as_millisecond();
        assert!(!over || !read.discounts.contains(&short), "{read:?}");
        assert!(read.discounts.contains(&long));
        over
    })
    .await;
    let over = discount("over", 1, SignedDuration::from_secs(-5));
    discounts.put(&over).await.unwrap();
    assert_eq!(discounts.read().await.unwrap().discounts, [long]);
}

#[tokio::test]
async fn namespaces_share_nothing_and_a_value_of_others_is_counted() {
    let (one, other) = (discounts().await, discounts().await);
    let sale = discount("jeju", 1, SignedDuration::from_hours(1));
    one.put(&sale).await.unwrap();
    assert_eq!(other.read().await.unwrap().discounts, []);
    other.remove("jeju").await.unwrap();
    assert_eq!(
        one.read().await.unwrap().discounts,
        std::slice::from_ref(&sale)
    );

    let url = testkit::Redis::shared().await.url();
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let index = format!("{one:?}");
    let index = index.split('"').nth(1).unwrap();
    redis::cmd("SET")
        .arg(format!("{index}:jeju"))
        .arg("{}")
        .exec_async(&mut redis)
        .await
        .unwrap();
    let read = one.read().await.unwrap();
    assert_eq!((read.discounts.len(), read.unreadable), (0, 1));
}
