//! One look at one resource: set up, measure, say what is so. Shared by every kind of sale.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
    core::error_boundary::InvalidObject,
    runtime::{
        controller::{self, Action, Controller},
        reflector::Store,
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
    config::Config,
    discounts::Telling,
    metrics::{self, NotReady, Outcome},
    neighbours::{Neighbours, Watched},
    plan::{self, Memory},
    platform::{Platform, Refusal},
    publish::Publisher,
    reasons::{condition, event},
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

/// How often a resource that can't be read is complained of.
const UNREADABLE_LOOK: Duration = Duration::from_secs(60);

/// How often the finalizer's removal is tried anew when somebody else changes the resource meanwhile.
const FINALIZER_TRIES: u32 = 5;

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

/// The controller of one kind in one namespace, which shows what it watches to the reconciler of the other.
pub(crate) fn controller<K: SaleResource>(
    client: &Client,
    config: &Config,
) -> Controller<Watched<K>> {
    let watched = Api::namespaced(client.clone(), &config.process.namespace);
    Controller::new(watched, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(config.concurrency))
}

/// Looks after the resources of one kind in one namespace.
pub(crate) struct Reconciler<K: SaleResource> {
    api: Api<K>,
    others: Neighbours<K::Other>,
    publisher: Publisher,
    platform: Platform,
    cleanup_deadline: Duration,
    not_ready: NotReady,
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
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            generation: meta.generation,
            deleting: meta.deletion_timestamp.is_some(),
            released: cleanup::released(meta),
        }
    }
}

/// What a look came to.
struct Look {
    changed: bool,
    /// `None`: the resource is gone.
    again_at: Option<Instant>,
}

impl Look {
    fn again_after(changed: bool, wait: Duration) -> Self {
        Self {
            changed,
            again_at: Some(Instant::now() + wait),
        }
    }

    fn last(changed: bool) -> Self {
        Self {
            changed,
            again_at: None,
        }
    }
}

impl<K: SaleResource> Reconciler<K> {
    /// A reconciler of the resources that `config` gives it; `others` are those of the other kind, as watched.
    pub(crate) fn new(
        client: &Client,
        config: &Config,
        platform: Platform,
        others: Store<Watched<K::Other>>,
    ) -> Self {
        let namespace = &config.process.namespace;
        let other_api = Api::namespaced(client.clone(), namespace);
        Self {
            api: Api::namespaced(client.clone(), namespace),
            others: Neighbours::new(namespace, other_api, others),
            publisher: Publisher::new(client.clone(), config.process.instance.clone()),
            platform,
            cleanup_deadline: config.cleanup_deadline,
            not_ready: NotReady::of(K::KIND),
            remembered: Mutex::default(),
        }
    }

    /// Reconciles until `stop` is cancelled; what is under way then is finished.
    pub(crate) async fn run(self, controller: Controller<Watched<K>>, stop: CancellationToken) {
        let context = Arc::new(self);
        let reconciler = Arc::clone(&context);
        controller
            .graceful_shutdown_on(async move { stop.cancelled().await })
            .run(
                |resource, context: Arc<Self>| async move { context.reconcile(&resource).await },
                |_, failure, _| Action::requeue(failure.again_after),
                context,
            )
            .for_each(|result| async {
                match result {
                    Ok(_) => {}
                    // Removed since it was asked for; without us, if we still remember it.
                    Err(controller::Error::ObjectNotFound(gone)) => {
                        let uid = gone.extra.uid.as_deref().unwrap_or_default();
                        reconciler.forget(&gone.name, uid);
                    }
                    // Logged where it happened.
                    Err(controller::Error::ReconcilerFailed(..)) => {}
                    Err(error) => {
                        metrics::watch_failed(K::KIND);
                        warn!(kind = K::KIND, %error, "watch failed; it is begun again");
                    }
                }
            })
            .await;
    }

    async fn reconcile(&self, watched: &Watched<K>) -> Result<Action, Failure> {
        let entry = self.entry(watched);
        let mut remembered = entry.lock().await;
        let seen = Seen::of(watched.meta());
        if remembered.seen == Some(seen)
            && let Some(wait) = remembered
                .due
                .and_then(|due| due.checked_duration_since(Instant::now()))
            && !wait.is_zero()
        {
            return Ok(Action::requeue(wait));
        }
        let look = async {
            match &watched.0 {
                Ok(resource) => self.look(resource, &mut remembered).await,
                Err(invalid) => self.complain(watched, invalid).await,
            }
        };
        let looked = match timeout(LOOK_LIMIT, look).await {
            Ok(looked) => looked,
            Err(_) => Err(Error::TimedOut),
        };
        remembered.seen = Some(seen);
        match looked {
            Ok(Look { changed, again_at }) => {
                remembered.backoff.reset();
                metrics::reconciled(
                    K::KIND,
                    if changed {
                        Outcome::Changed
                    } else {
                        Outcome::Unchanged
                    },
                );
                remembered.due = again_at;
                let Some(due) = again_at else {
                    self.forget(&watched.name_any(), &watched.uid().unwrap_or_default());
                    return Ok(Action::await_change());
                };
                // The look took its time, and what it waits for comes when it comes.
                Ok(Action::requeue(
                    due.saturating_duration_since(Instant::now()),
                ))
            }
            Err(error) => {
                let again_after = remembered.backoff.next_wait();
                remembered.due = Some(Instant::now() + again_after);
                metrics::reconciled(K::KIND, Outcome::Failed);
                warn!(kind = K::KIND, sale = watched.name_any(), %error, ?again_after, "look failed");
                Err(Failure { error, again_after })
            }
        }
    }

    async fn look(&self, resource: &K, remembered: &mut Remembered) -> Result<Look, Error> {
        let ours = is_held(resource);
        match (resource.meta().deletion_timestamp.as_ref(), ours) {
            (Some(_), false) => Ok(Look::last(false)),
            (Some(since), true) => self.clean_up(resource, since.0, remembered).await,
            (None, ours) => {
                if !ours {
                    self.set_finalizer(resource).await?;
                }
                self.apply(resource, remembered).await
            }
        }
    }

    /// A resource that can't be read, though the schema let it in: nothing of it is touched, and its deletion waits
    /// until it is mended.
    async fn complain(&self, watched: &Watched<K>, invalid: &InvalidObject) -> Result<Look, Error> {
        warn!(
            kind = K::KIND,
            sale = watched.name_any(),
            error = invalid.error,
            "resource can't be read"
        );
        self.not_ready.set(&watched.name_any(), true);
        let occasion = format!(
            "{}.unreadable",
            invalid.metadata.generation.unwrap_or_default()
        );
        let happening = Happening::new(event::SPEC_REFUSED, "Read", occasion, &invalid.error);
        self.publish(watched, &happening.warning()).await?;
        Ok(Look::again_after(false, UNREADABLE_LOOK))
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
                return Ok(Look::again_after(changed, plan::MEASURE_IDLE));
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
        let at = Instant::now();
        let plan = plan::plan(&sale, &status, &visit.observed, memory, (visit.now, at));
        debug!(sale = sale.definition.name, observed = ?visit.observed, phase = ?plan.status.phase, "looked");
        if let Some(drift) = plan.drift {
            metrics::drift(&sale.definition.name, drift);
        } else if plan.drift_is_void {
            metrics::forget(&sale.definition.name);
        }
        // Before anything is written: a repair must not wait for the Kubernetes API.
        if let Some(reason) = plan.repair
            && let Err(error) = self.platform.ledger.recover(sale.uid(), reason).await
        {
            warn!(sale = sale.definition.name, %error, "a recovery can't be asked for now");
        }
        let telling = Telling::of(&sale, &plan.status, &visit.observed.ledger);
        self.platform.tell_discount(&sale, &telling).await;
        let happenings: Vec<_> = visit
            .happenings
            .into_iter()
            .chain(plan.happenings)
            .collect();
        let changed = self
            .say(resource, remembered, &status, plan.status, &happenings)
            .await?;
        // Only a look that has nothing to be in time for may be a little early.
        let idle = plan.look_again_at == at + plan::MEASURE_IDLE;
        Ok(Look {
            changed,
            again_at: Some(if idle {
                at + jitter(plan::MEASURE_IDLE)
            } else {
                plan.look_again_at
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
        let uid = resource.uid().and_then(|uid| uid.parse().ok());
        if cleanup::released(resource.meta()) {
            let note = self.platform.abandon(resource, uid).await;
            let happening = Happening::removal(event::RELEASED, note).warning();
            return self.let_go(resource, &happening).await;
        }
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
            let note = "the books are closed; topic and keys are removed";
            return self
                .let_go(resource, &Happening::removal(event::REMOVED, note))
                .await;
        };
        let waited = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
        let stuck = waited >= self.cleanup_deadline;
        let generation = resource.meta().generation.unwrap_or_default();
        let (next, happenings) = plan::closing(
            &status,
            generation,
            &unfinished,
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
        Ok(Look::again_after(changed, again_after))
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
        self.not_ready.set(&resource.name_any(), !is_ready(&next));
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

    /// An event that the API refuses is told in the log alone: for want of a right, of room in a quota or of a
    /// webhook's consent, nothing else is left undone.
    async fn publish<R>(&self, resource: &R, happening: &Happening) -> Result<(), Error>
    where
        R: Resource<DynamicType = ()>,
    {
        match self.publisher.publish(resource, happening).await {
            // But for 429: somebody who is overloaded says yes later.
            Err(kube::Error::Api(status))
                if (400..500).contains(&status.code) && status.code != 429 =>
            {
                let (reason, note) = (happening.reason, &happening.note);
                warn!(
                    kind = K::KIND,
                    sale = resource.name_any(),
                    reason,
                    note,
                    refusal = status.message,
                    "event refused"
                );
                Ok(())
            }
            published => published.map_err(kube_error("publish an event")),
        }
    }

    async fn set_finalizer(&self, resource: &K) -> Result<(), Error> {
        let name = resource.name_any();
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": K::KIND,
            "metadata": { "name": name, "uid": resource.uid(), "finalizers": [FINALIZER] },
        });
        let params = PatchParams::apply(FINALIZER_MANAGER).force();
        match self.api.patch(&name, &params, &Patch::Apply(&patch)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(kube_error("write the finalizer")(error)),
        }
    }

    /// Tells how the removal ended, and lets the resource go.
    async fn let_go(&self, resource: &K, happening: &Happening) -> Result<Look, Error> {
        metrics::forget(&resource.name_any());
        // Nobody looks at the resource again, so that what couldn't be told now is told in the log alone.
        if let Err(error) = self.publish(resource, happening).await {
            let (reason, note) = (happening.reason, &happening.note);
            warn!(kind = K::KIND, sale = resource.name_any(), reason, note, %error, "event not published");
        }
        self.remove_finalizer(resource).await?;
        Ok(Look::last(true))
    }

    /// Takes the finalizer off, whoever put it there: what is applied by one manager leaves what another owns too.
    async fn remove_finalizer(&self, resource: &K) -> Result<(), Error> {
        let name = resource.name_any();
        let mut newest = resource.clone();
        let mut tries = 0;
        while newest.uid() == resource.uid() && is_held(&newest) {
            let others: Vec<_> = newest
                .finalizers()
                .iter()
                .filter(|finalizer| *finalizer != FINALIZER)
                .collect();
            // The version keeps a finalizer that somebody adds or removes meanwhile from being undone.
            let patch = json!({
                "metadata": { "resourceVersion": newest.resource_version(), "finalizers": others },
            });
            let patched = self
                .api
                .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            tries += 1;
            match patched {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
                Err(kube::Error::Api(status))
                    if status.is_conflict() && tries < FINALIZER_TRIES => {}
                Err(error) => return Err(kube_error("remove the finalizer")(error)),
            }
            let read = self.api.get_opt(&name).await;
            match read.map_err(kube_error("read the finalizers"))? {
                Some(read) => newest = read,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn entry(&self, resource: &Watched<K>) -> Arc<tokio::sync::Mutex<Remembered>> {
        let key = resource.uid().unwrap_or_default();
        Arc::clone(
            self.remembered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        )
    }

    fn forget(&self, name: &str, uid: &str) {
        self.not_ready.set(name, false);
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
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

/// Whether the resource stays until we let go of it.
fn is_held<K: SaleResource>(resource: &K) -> bool {
    resource
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
}

fn is_ready(status: &SaleStatus) -> bool {
    status
        .conditions
        .iter()
        .any(|is| is.type_ == condition::READY && is.status == "True")
}

/// Resource versions are numbers that grow.
fn version<K: SaleResource>(resource: &K) -> Option<u128> {
    resource.resource_version()?.parse().ok()
}
