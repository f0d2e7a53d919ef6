//! Looks at orders whose time has come: those that weren't paid expire, and what wasn't answered is asked again.
//!
//! Any number of replicas may do it at once. Each locks rows that no other looks at, and decides by what the row says
//! under the lock, not by why it was chosen.

use std::sync::Arc;
use std::time::Duration;

use events::planted::planted;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::saga::Event;
use crate::{metrics, store};

/// How often there is a look when nothing was due.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Orders of one transaction: few enough that none is locked for long.
const BATCH: i64 = 50;

/// How often the orders that wait are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Looks until it is told to stop.
pub(crate) async fn run(desk: Arc<Desk>, stop: CancellationToken) {
    let mut away = false;
    loop {
        let pause = match look(&desk).await {
            Ok(looked_at) => {
                away = false;
                if looked_at == BATCH as usize {
                    Duration::ZERO
                } else {
                    LOOK_EVERY
                }
            }
            Err(error) => {
                // Once, not every half second.
                if !away {
                    tracing::warn!(%error, "orders that are due wait");
                }
                away = true;
                LOOK_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One batch; how many orders it had.
async fn look(desk: &Desk) -> Result<usize, sqlx::Error> {
    let mut tx = desk.pool().begin().await?;
    let due = store::lock_due(&mut tx, BATCH).await?;
    if due.is_empty() {
        return Ok(0);
    }
    if planted("blind-expiry") {
        // As a job does that reads its list elsewhere: when it comes to write, it doesn't look again.
        tx.rollback().await?;
        tokio::time::sleep(LOOK_EVERY).await;
        tx = desk.pool().begin().await?;
    }
    let now = store::now(&mut tx).await?;
    let mut all = Vec::with_capacity(due.len());
    let looked_at = due.len();
    for mut order in due {
        let (_, counted) = desk.happens(&mut tx, &mut order, now, &Event::Due).await?;
        all.push(counted);
    }
    tx.commit().await?;
    for counted in all {
        counted.count();
    }
    Ok(looked_at)
}

/// Shows how many orders wait to be paid, until it is told to stop.
pub(crate) async fn count(desk: Arc<Desk>, stop: CancellationToken) {
    loop {
        match store::unpaid(desk.pool()).await {
            Ok(unpaid) => metrics::UNPAID.set(unpaid),
            Err(error) => tracing::debug!(%error, "unpaid orders are not counted"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
    }
}
