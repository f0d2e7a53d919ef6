//! The routes of the service.

mod confirm;
mod problems;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use chassis::auth::Verifier;
use chassis::openapi::{Document, Routes};
use chassis::serve::Shutdown;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use utoipa_axum::routes;

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
pub fn routes() -> Routes<ApiState> {
    Routes::new()
        .serve(routes!(confirm::confirm))
        .serve(routes!(webhooks::toss))
}

/// What is served through the gateway, in words.
pub fn document() -> Document {
    routes().into_document("Quokka payments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_fresh() {
        let written = include_str!("../openapi.json");
        assert!(
            document().to_json() == written,
            "stale: run `make generate`"
        );
    }

    #[test]
    fn every_problem_code_is_in_the_document() {
        let mut document = document();
        for code in CODES {
            assert!(document.has_code(*code), "{}", code.as_str());
        }
    }
}
