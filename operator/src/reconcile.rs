//! One look at one resource: set up, measure, say what is so. Shared by every kind of sale.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        controller::{self, Action, Controller},
        watcher,
    },
};
use quokka_crds::{API_VERSION, SaleStatus};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    backoff::{Backoff, jitter},
    cleanup::{self, Unfinished},
    metrics::{self, Outcome},
    plan::{self, Memory},
    platform::{Platform, Refusal},
    publish::Publisher,
    reasons::event,
    sale::SaleResource,
    story::Happening,
};

/// Keeps a resource until what it owns is removed.
pub const FINALIZER: &str = "quokka.travel/sale";

/// The owner of the status in server-side apply.
pub const FIELD_MANAGER: &str = "quokka-operator";

/// The owner of the finalizer in server-side apply: another, so that applying the one doesn't drop the other.
const FINALIZER_MANAGER: &str = "quokka-operator-finalizer";

/// A look that takes longer is given up and tried again: somebody accepts requests and doesn't answer.
const LOOK_LIMIT: Duration = Duration::from_secs(25);

/// How often a sale that is being removed is looked at while the ledger drains.
const DRAIN_LOOK: Duration = Duration::from_secs(1);

/// Why a look failed. What Kafka, the ledger and Redis do is no failure: it is in the conditions.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{doing}: {source}")]
    Kube {
        doing: &'static str,
        source: Box<kube::Error>,
    },
    #[error("not done within {LOOK_LIMIT:?}")]
    TimedOut,
}

/// A failed look, and when to try again.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct Failure {
    #[source]
    error: Error,
    again_after: Duration,
}

fn kube_error(doing: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Kube {
        doing,
        source: Box::new(source),
    }
}

/// Runs the controller of one kind in one namespace.
pub struct Reconciler<K: SaleResource> {
    api: Api<K>,
    others: Api<K::Other>,
    publisher: Publisher,
    platform: Platform,
    cleanup_deadline: Duration,
    remembered: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Remembered>>>>,
}

/// What is kept of a resource between two looks. All of it can be lost.
#[derive(Default)]
struct Remembered {
    /// What a look depends on besides time, at the last one.
    seen: Option<Seen>,
    /// When the next look is due. Our own writes come back as changes; they are no reason to look.
    due: Option<Instant>,
    memory: Option<Memory>,
    refusal: Option<Refusal>,
    /// The status as written last: the watch may be behind.
    written: Option<(u128, SaleStatus)>,
    backoff: Backoff,
    /// Steps of a removal that failed in a row.
    removal_backoff: Backoff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    generation: Option<i64>,
    deleting: bool,
    released: bool,
}

impl Seen {
    fn of<K: SaleResource>(resource: &K) -> Self {
        let meta = resource.meta();
        Self {
            generation: meta.generation,
            deleting: meta.deletion_timestamp.is_some(),
            released: cleanup::released(resource),
        }
    }
}

/// What a look came to.
struct Look {
    changed: bool,
    /// `None`: the resource is gone.
    again_after: Option<Duration>,
}

impl<K: SaleResource> Reconciler<K> {
    /// A reconciler of the resources in `namespace`.
    #[must_use]
    pub fn new(
        client: &Client,
        namespace: &str,
        instance: &str,
        platform: Platform,
        cleanup_deadline: Duration,
    ) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            others: Api::namespaced(client.clone(), namespace),
            publisher: Publisher::new(client.clone(), instance.to_owned()),
            platform,
            cleanup_deadline,
            remembered: Mutex::default(),
        }
    }

    /// Reconciles until `stop` is cancelled; what is under way then is finished.
    pub async fn run(self, concurrency: u16, stop: CancellationToken) {
        let context = Arc::new(self);
        Controller::new(context.api.clone(), watcher::Config::default())
            .with_config(controller::Config::default().concurrency(concurrency))
            .graceful_shutdown_on(async move { stop.cancelled().await })
            .run(
                |resource, context: Arc<Self>| async move { context.reconcile(&resource).await },
                |_, failure, _| Action::requeue(failure.again_after),
                context,
            )
            .for_each(|result| async {
                match result {
                    Ok(_) => {}
                    // Removed since it was asked for.
                    Err(controller::Error::ObjectNotFound(_)) => {}
                    // Logged where it happened.
                    Err(controller::Error::ReconcilerFailed(..)) => {}
                    Err(error) => warn!(kind = K::KIND, %error, "watch failed; it is begun again"),
                }
            })
            .await;
    }

    async fn reconcile(&self, resource: &K) -> Result<Action, Failure> {
        let entry = self.entry(resource);
        let mut remembered = entry.lock().await;
        let seen = Seen::of(resource);
        if remembered.seen == Some(seen)
            && let Some(wait) = remembered
                .due
                .and_then(|due| due.checked_duration_since(Instant::now()))
            && !wait.is_zero()
        {
            return Ok(Action::requeue(wait));
        }
        let looked = match timeout(LOOK_LIMIT, self.look(resource, &mut remembered)).await {
            Ok(looked) => looked,
            Err(_) => Err(Error::TimedOut),
        };
        remembered.seen = Some(seen);
        match looked {
            Ok(Look {
                changed,
                again_after,
            }) => {
                remembered.backoff.reset();
                metrics::reconciled(
                    K::KIND,
                    if changed {
                        Outcome::Changed
                    } else {
                        Outcome::Unchanged
                    },
                );
                let Some(wait) = again_after else {
                    self.forget(resource);
                    return Ok(Action::await_change());
                };
                remembered.due = Some(Instant::now() + wait);
                Ok(Action::requeue(wait))
            }
            Err(error) => {
                let again_after = remembered.backoff.next_wait();
                remembered.due = Some(Instant::now() + again_after);
                metrics::reconciled(K::KIND, Outcome::Failed);
                warn!(kind = K::KIND, sale = resource.name_any(), %error, ?again_after, "look failed");
                Err(Failure { error, again_after })
            }
        }
    }

    async fn look(&self, resource: &K, remembered: &mut Remembered) -> Result<Look, Error> {
        let ours = resource
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER);
        match (resource.meta().deletion_timestamp.as_ref(), ours) {
            (Some(_), false) => Ok(Look {
                changed: false,
                again_after: None,
            }),
            (Some(since), true) => self.clean_up(resource, since.0, remembered).await,
            (None, ours) => {
                if !ours {
                    self.set_finalizer(resource, &[FINALIZER]).await?;
                }
                self.apply(resource, remembered).await
            }
        }
    }

    async fn apply(&self, resource: &K, remembered: &mut Remembered) -> Result<Look, Error> {
        let status = remembered.status(resource);
        let sale = match resource.sale() {
            Ok(sale) => sale,
            Err(error) => {
                let generation = resource.meta().generation.unwrap_or_default();
                let (next, happenings) =
                    plan::refuse(&status, generation, &error, self.platform.clock.now());
                let changed = self
                    .say(resource, remembered, &status, next, &happenings)
                    .await?;
                return Ok(Look {
                    changed,
                    again_after: Some(plan::MEASURE_IDLE),
                });
            }
        };
        let visit = self
            .platform
            .visit(&sale, &status, &mut remembered.refusal, &self.others)
            .await
            .map_err(kube_error("look for a sale of the other kind"))?;
        let memory = remembered
            .memory
            .get_or_insert_with(|| Memory::starting(&status));
        let plan = plan::plan(
            &sale,
            &status,
            &visit.observed,
            memory,
            (visit.now, Instant::now()),
        );
        debug!(sale = sale.definition.name, observed = ?visit.observed, phase = ?plan.status.phase, "looked");
        if let Some(drift) = plan.drift {
            metrics::drift(&sale.definition.name, drift);
        }
        let happenings: Vec<_> = visit
            .happenings
            .into_iter()
            .chain(plan.happenings)
            .collect();
        let changed = self
            .say(resource, remembered, &status, plan.status, &happenings)
            .await?;
        if let Some(reason) = plan.repair
            && let Err(error) = self.platform.ledger.recover(sale.uid(), reason).await
        {
            warn!(sale = sale.definition.name, %error, "a recovery can't be asked for now");
        }
        let wait = plan.look_again_after;
        Ok(Look {
            changed,
            again_after: Some(if wait == plan::MEASURE_IDLE {
                jitter(wait)
            } else {
                wait
            }),
        })
    }

    async fn clean_up(
        &self,
        resource: &K,
        since: Timestamp,
        remembered: &mut Remembered,
    ) -> Result<Look, Error> {
        let status = remembered.status(resource);
        let name = resource.name_any();
        let done = |reason, note: &str| Happening::new(reason, "Remove", "deleted", note);
        if cleanup::released(resource) {
            let note = format!("let go of as asked by the annotation {}", cleanup::RELEASE);
            self.publish(resource, &done(event::RELEASED, &note).warning())
                .await?;
            return self.let_go(resource).await;
        }
        let uid = resource.uid().and_then(|uid| uid.parse().ok());
        let removed = match uid {
            Some(uid) => {
                self.platform
                    .remove(resource, uid, &status, &self.others)
                    .await
            }
            // Nothing can be owned under a uid that isn't one.
            None => Ok(()),
        };
        let Err(unfinished) = removed else {
            self.publish(
                resource,
                &done(
                    event::REMOVED,
                    "the books are closed; topic and keys are removed",
                ),
            )
            .await?;
            metrics::forget(&name);
            return self.let_go(resource).await;
        };
        let waited = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
        let stuck = waited >= self.cleanup_deadline;
        let happenings: Vec<_> = stuck
            .then(|| {
                let hint = format!(
                    "{unfinished}; annotate the resource with {}=true to let go of it",
                    cleanup::RELEASE
                );
                done(event::CLEANUP_STUCK, &hint).warning()
            })
            .into_iter()
            .collect();
        let generation = resource.meta().generation.unwrap_or_default();
        let next = plan::closing(
            &status,
            generation,
            &unfinished.to_string(),
            stuck,
            self.platform.clock.now(),
        );
        let changed = self
            .say(resource, remembered, &status, next, &happenings)
            .await?;
        let Unfinished { failed, .. } = unfinished;
        let again_after = if failed {
            remembered.removal_backoff.next_wait()
        } else {
            DRAIN_LOOK
        };
        Ok(Look {
            changed,
            again_after: Some(again_after),
        })
    }

    /// Publishes what happened, and then writes the status in which it has happened: after a crash in between it is
    /// told again, under the same names.
    async fn say(
        &self,
        resource: &K,
        remembered: &mut Remembered,
        before: &SaleStatus,
        next: SaleStatus,
        happenings: &[Happening],
    ) -> Result<bool, Error> {
        for happening in happenings {
            self.publish(resource, happening).await?;
        }
        if next == *before {
            return Ok(!happenings.is_empty());
        }
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": K::KIND,
            // The uid keeps the status of a resource that was removed from landing on its successor.
            "metadata": { "name": resource.name_any(), "uid": resource.uid() },
            "status": next,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self
            .api
            .patch_status(&resource.name_any(), &params, &Patch::Apply(&patch))
            .await
            .map_err(kube_error("write the status"))?;
        remembered.written = version(&written).map(|version| (version, next));
        Ok(true)
    }

    async fn publish(&self, resource: &K, happening: &Happening) -> Result<(), Error> {
        self.publisher
            .publish(resource, happening)
            .await
            .map_err(kube_error("publish an event"))
    }

    async fn set_finalizer(&self, resource: &K, finalizers: &[&str]) -> Result<(), Error> {
        let name = resource.name_any();
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": K::KIND,
            "metadata": { "name": name, "uid": resource.uid(), "finalizers": finalizers },
        });
        let params = PatchParams::apply(FINALIZER_MANAGER).force();
        match self.api.patch(&name, &params, &Patch::Apply(&patch)).await {
            Ok(_) => Ok(()),
            // It is gone, and what has its name now has another uid.
            Err(kube::Error::Api(status))
                if finalizers.is_empty() && (status.is_not_found() || status.is_conflict()) =>
            {
                Ok(())
            }
            Err(error) => Err(kube_error("write the finalizer")(error)),
        }
    }

    async fn let_go(&self, resource: &K) -> Result<Look, Error> {
        self.set_finalizer(resource, &[]).await?;
        Ok(Look {
            changed: true,
            again_after: None,
        })
    }

    fn entry(&self, resource: &K) -> Arc<tokio::sync::Mutex<Remembered>> {
        let key = resource.uid().unwrap_or_default();
        Arc::clone(
            self.remembered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        )
    }

    fn forget(&self, resource: &K) {
        let key = resource.uid().unwrap_or_default();
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }
}

impl Remembered {
    /// The newest status that is known: the watch's, or our own write that the watch has not shown yet.
    fn status<K: SaleResource>(&self, resource: &K) -> SaleStatus {
        match (&self.written, version(resource)) {
            (Some((written, status)), Some(seen)) if *written > seen => status.clone(),
            _ => resource.sale_status().cloned().unwrap_or_default(),
        }
    }
}

/// Resource versions are numbers that grow.
fn version<K: SaleResource>(resource: &K) -> Option<u128> {
    resource.resource_version()?.parse().ok()
}
