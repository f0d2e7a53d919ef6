//! Asks the gateway about what isn't known, and makes the refunds: what a process left behind when it died is finished
//! by any other.

use std::future::ready;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::{REFUNDS_REFUSED, UNSETTLED};
use crate::payment::{OpenRefund, Payment};
use crate::store::StoreError;
use crate::work::Work;

/// How many of a kind are taken at once.
const TAKEN_AT_ONCE: i64 = 16;
/// How many are worked on at the same time.
const AT_THE_SAME_TIME: usize = 8;
/// How often what isn't settled is counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// The pause after the database failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// Settles until it is told to stop. What is under way then is finished: each call has its timeout.
pub async fn run(work: Work, every: Duration, stop: CancellationToken) {
    let mut counted: Option<Instant> = None;
    while !stop.is_cancelled() {
        if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            counted = Some(Instant::now());
            count(&work).await;
        }
        let pause = match round(&work, &stop).await {
            Ok(true) => continue,
            Ok(false) => every,
            Err(error) => {
                tracing::warn!(%error, "payments are settled later");
                FAILED_PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether there was anything to do.
async fn round(work: &Work, stop: &CancellationToken) -> Result<bool, StoreError> {
    // Others go on with what this process has taken when it dies: after the longest that one step can take, which asks,
    // calls and asks again.
    let lease = work.times().call * 3 + work.times().asking;
    let payments = work.store().due_payments(TAKEN_AT_ONCE, lease).await?;
    let refunds = work.store().due_refunds(TAKEN_AT_ONCE, lease).await?;
    let any = !payments.is_empty() || !refunds.is_empty();
    let settle: Vec<_> = (payments.into_iter())
        .map(|payment| settle(work.clone(), payment, stop.clone()))
        .collect();
    let give_back: Vec<_> = (refunds.into_iter())
        .map(|refund| give_back(work.clone(), refund, stop.clone()))
        .collect();
    futures::join!(
        stream::iter(settle)
            .buffer_unordered(AT_THE_SAME_TIME)
            .for_each(ready),
        stream::iter(give_back)
            .buffer_unordered(AT_THE_SAME_TIME)
            .for_each(ready),
    );
    Ok(any)
}

async fn settle(work: Work, payment: Payment, stop: CancellationToken) {
    let settled = until_cut(&stop, work.settle(&payment)).await;
    tell(settled, "payment", payment.payment_id);
}

async fn give_back(work: Work, refund: OpenRefund, stop: CancellationToken) {
    let refunded = until_cut(&stop, work.refund(&refund)).await;
    tell(refunded, "refund", refund.refund_id);
}

/// The end of the process doesn't wait a minute for the gateway: what is cut off is asked about by the next.
async fn until_cut(
    stop: &CancellationToken,
    step: impl Future<Output = Result<(), StoreError>>,
) -> Option<Result<(), StoreError>> {
    const GOES_ON_FOR: Duration = Duration::from_secs(5);
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(GOES_ON_FOR).await;
    };
    tokio::select! {
        done = step => Some(done),
        () = cut => None,
    }
}

fn tell(done: Option<Result<(), StoreError>>, kind: &'static str, id: uuid::Uuid) {
    if let Some(Err(error)) = done {
        tracing::warn!(kind, %id, %error, "not settled yet");
    }
}

async fn count(work: &Work) {
    const WITHIN: Duration = Duration::from_secs(5);
    if let Ok(Ok(now)) = timeout(WITHIN, work.store().unsettled()).await {
        UNSETTLED.with_label_values(&["payment"]).set(now.payments);
        UNSETTLED.with_label_values(&["refund"]).set(now.refunds);
        REFUNDS_REFUSED.set(now.refused);
    }
}
