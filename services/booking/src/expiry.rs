//! Ends holds whose time is over. Any number of replicas may do it: each takes holds that no other works on, and a hold
//! that is confirmed or released meanwhile is no longer one.
//!
//! Orders ends its own holds in time; this is for those that it could not. Nobody is told: an order that asks for its
//! booking afterwards is refused it.

use std::time::Duration;

use events::outbox::Messages;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{metrics, store};

/// Most holds of one transaction.
const BATCH_MAX: i64 = 100;

/// How long one transaction may take, from asking for a connection to the commit.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Ends what is due, again and again, every so often.
pub async fn run(pool: PgPool, every: Duration, stop: CancellationToken) {
    let mut pause = every;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let ended = tokio::time::timeout(TIMEOUT, expire(&pool))
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut));
        pause = match ended {
            // There may be more.
            Ok(ended) if ended >= BATCH_MAX.unsigned_abs() => Duration::ZERO,
            Ok(_) => every,
            Err(error) => {
                tracing::warn!(%error, "holds whose time is over stay until they are looked at again");
                every
            }
        };
    }
}

/// Ends holds that are due, up to a batch of them; answers how many it ended.
pub async fn expire(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let holds = store::lock_due_holds(&mut tx, BATCH_MAX).await?;
    if holds.is_empty() {
        return Ok(0);
    }
    let orders: Vec<_> = holds.iter().map(|(order, _)| *order).collect();
    let mut desk = store::load_desk(&mut tx, holds, std::iter::empty()).await?;
    let mut ended = 0;
    for order in orders {
        ended += u64::from(desk.expire(order));
    }
    store::write_desk(&mut tx, &desk, Messages::new()).await?;
    tx.commit().await?;
    metrics::EXPIRED.inc_by(ended);
    Ok(ended)
}
