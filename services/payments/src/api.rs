//! The routes of the service.

mod confirm;
mod problems;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::post;
use chassis::auth::Verifier;
use chassis::serve::Shutdown;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::work::Work;

pub use problems::CODES;

/// What the handlers share.
#[derive(Clone, FromRef)]
pub struct ApiState {
    work: Work,
    verifier: Verifier,
    payments: Payments,
}

/// Payments that guests wait for. They go on when the guest has gone, within a bound, and the process waits for them.
#[derive(Clone)]
pub(crate) struct Payments {
    tasks: TaskTracker,
    room: Arc<Semaphore>,
    wait: Duration,
}

impl ApiState {
    /// With a task of `shutdown` that waits for the payments under way.
    pub fn new(work: Work, verifier: Verifier, config: &Config, shutdown: &Shutdown) -> Self {
        let payments = Payments {
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(config.toss_calls)),
            wait: config.confirm_wait,
        };
        let (tasks, stop) = (payments.tasks.clone(), shutdown.token());
        // Half of the grace period: what the gateway hasn't answered by then is settled by the next process.
        let patience = config.process.shutdown_grace / 2;
        shutdown.task("payments-under-way", async move {
            stop.cancelled().await;
            tasks.close();
            if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
                tracing::warn!(
                    count = tasks.len(),
                    "payments under way are left to the settler"
                );
            }
        });
        Self {
            work,
            verifier,
            payments,
        }
    }
}

/// Every route, by path.
pub fn routes(state: ApiState) -> Router {
    Router::new()
        .route("/v1/payments/confirm", post(confirm::confirm))
        .route("/v1/payments/webhooks/toss", post(webhooks::toss))
        .with_state(state)
}
