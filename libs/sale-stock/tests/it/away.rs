//! Redis gone, hanging, back.

use std::time::Duration;

use sale_stock::{
    ClaimReply, Epoch, GateWrite, Outcome, RedisSettings, SaleStock, StockError, Unopened,
};
use testkit::{Redis, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{claim_one, gate, new_sale, new_user, open, request, terms};

const PATIENCE: Duration = Duration::from_secs(60);

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

/// An address that leads each new connection to the port that the sender says; those that stand stay as they are.
async fn address() -> (String, watch::Sender<u16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (leads_to, port) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = *port.borrow();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                // Ends when either does.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (url, leads_to)
}

#[tokio::test]
async fn a_redis_that_was_demoted_is_left_for_the_one_that_is_primary_now() {
    let (first, second) = (Redis::start().await.unwrap(), Redis::start().await.unwrap());
    let (url, leads_to) = address().await;
    leads_to.send_replace(first.port());
    // One notices by asking for a sign of life, the other by what it is told when it writes.
    let asker = SaleStock::connect_lazy(&RedisSettings::new(&url)).unwrap();
    let writer = SaleStock::connect_lazy(&RedisSettings::new(&url)).unwrap();
    let sale = open(&writer, terms(5, 1)).await;
    asker.ping().await.unwrap();

    let client = redis::Client::open(first.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut demote = redis::cmd("REPLICAOF");
    demote.arg("127.0.0.1").arg(second.port());
    let _: () = demote.query_async(&mut connection).await.unwrap();
    leads_to.send_replace(second.port());

    assert!(matches!(asker.ping().await, Err(StockError::Replica)));
    eventually(PATIENCE, async || asker.ping().await).await;
    let rebuilt = eventually(PATIENCE, async || {
        let rebuild = writer.begin_rebuild(sale, Epoch(2)).await?;
        let new = gate(2, terms(5, 1), writer.time().await?);
        writer.write_gate(rebuild, &new).await
    })
    .await;
    assert_eq!(rebuilt, GateWrite::Opened);
    assert!(matches!(
        claim_one(&writer, sale, request(new_user())).await,
        Outcome::Taken { .. }
    ));
}
