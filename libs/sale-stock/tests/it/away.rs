//! Redis gone, hanging, back.

use std::time::Duration;

use sale_stock::{ClaimReply, RedisSettings, SaleStock, StockError, Unopened};
use testkit::{Redis, eventually};

use crate::{new_sale, new_user, open, request, terms};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_redis_that_is_gone_is_an_error_and_is_found_again() {
    let redis = Redis::start().await.unwrap();
    let stock = SaleStock::connect_lazy(&RedisSettings::new(redis.url())).unwrap();
    stock.load_scripts().await.unwrap();
    redis.kill().await.unwrap();
    for _ in 0..3 {
        let error = stock
            .claim(new_sale(), &[request(new_user())])
            .await
            .unwrap_err();
        assert!(
            matches!(error, StockError::Redis { doing: "claim", .. }),
            "{error}"
        );
    }
    redis.resume().await.unwrap();
    // It has lost the scripts too.
    let reply = eventually(PATIENCE, async || {
        stock.claim(new_sale(), &[request(new_user())]).await
    })
    .await;
    assert_eq!(reply, ClaimReply::Unopened(Unopened::Missing));
}

#[tokio::test]
async fn a_redis_that_is_away_at_the_start_is_found_later() {
    let redis = Redis::start().await.unwrap();
    redis.kill().await.unwrap();
    let stock = SaleStock::connect_lazy(&RedisSettings::new(redis.url())).unwrap();
    stock.ping().await.unwrap_err();
    redis.resume().await.unwrap();
    eventually(PATIENCE, async || stock.ping().await).await;
}

#[tokio::test]
async fn a_redis_that_hangs_is_an_error_after_the_timeout() {
    let redis = Redis::start().await.unwrap();
    let settings = RedisSettings {
        response_timeout: Duration::from_millis(100),
        ..RedisSettings::new(redis.url())
    };
    let stock = SaleStock::connect_lazy(&settings).unwrap();
    let sale = open(&stock, terms(1, 1)).await;
    redis.freeze().unwrap();
    let hung = tokio::time::timeout(PATIENCE, stock.snapshot(sale))
        .await
        .expect("no answer at all");
    assert!(matches!(hung, Err(StockError::Redis { .. })), "{hung:?}");
    redis.thaw().unwrap();
    eventually(PATIENCE, async || stock.snapshot(sale).await).await;
}
