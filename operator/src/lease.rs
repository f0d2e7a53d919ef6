//! Who leads: one replica holds a Lease and reconciles, the others wait for it.
//!
//! A lease is over when it wasn't renewed for its duration as the waiting replica's own clock measures it, from when it
//! saw the last renewal: clocks that differ don't matter. The leader takes itself for deposed some time before that,
//! when its renewals fail. What two leaders would do at once is harmless all the same: every step of a reconciliation
//! can be repeated, and the epochs of the ledger guard the stock.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What the lease is about and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseTerms {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who asks: the pod's name.
    pub holder: String,
    /// How long the others wait for a holder that is silent.
    pub duration: Duration,
}

impl LeaseTerms {
    /// How often a holder renews, and the others look.
    fn interval(&self) -> Duration {
        self.duration / 5
    }

    /// When a holder whose renewals fail must stop: before the others may begin.
    fn give_up_after(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// One replica's part in the election.
pub struct Election {
    leases: Api<Lease>,
    terms: LeaseTerms,
    /// The lease as last seen, and when this renewal of it was first seen.
    seen: Option<(Lease, Instant)>,
}

impl Election {
    /// Takes part in the election.
    #[must_use]
    pub fn new(client: Client, terms: LeaseTerms) -> Self {
        Self {
            leases: Api::namespaced(client, &terms.namespace),
            terms,
            seen: None,
        }
    }

    /// Waits until this replica holds the lease, or `stop` is cancelled: whether it leads. `heard` is told of every
    /// answer of the API, and of every silence.
    pub async fn win(
        &mut self,
        stop: &CancellationToken,
        heard: impl Fn(Result<(), &kube::Error>),
    ) -> bool {
        while !stop.is_cancelled() {
            match self.bounded(Self::try_acquire).await {
                Ok(true) => {
                    heard(Ok(()));
                    info!(lease = self.terms.name, holder = self.terms.holder, "leads");
                    return true;
                }
                Ok(false) => heard(Ok(())),
                Err(error) => heard(Err(&error)),
            }
            // Never cut off while asking: a lease won then would be held by nobody.
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(crate::backoff::jitter(self.terms.interval())) => {}
            }
        }
        false
    }

    /// Renews the lease for as long as it can be kept; returns when it is lost.
    pub async fn keep(&mut self, heard: impl Fn(Result<(), &kube::Error>)) {
        let mut renewed = Instant::now();
        loop {
            let deadline = renewed + self.terms.give_up_after();
            let attempt = async {
                sleep(self.terms.interval()).await;
                // The lease is good from when the renewal was sent, not from when it was heard of.
                (Instant::now(), self.bounded(Self::renew).await)
            };
            match timeout_at(deadline, attempt).await {
                Ok((sent, Ok(true))) => {
                    heard(Ok(()));
                    renewed = sent;
                }
                Ok((_, Ok(false))) => {
                    heard(Ok(()));
                    warn!(lease = self.terms.name, "the lease was taken by another");
                    return;
                }
                Ok((_, Err(error))) => {
                    heard(Err(&error));
                    warn!(lease = self.terms.name, %error, "the lease can't be renewed");
                }
                Err(_) => {
                    warn!(
                        lease = self.terms.name,
                        "the lease is given up: it couldn't be renewed in time"
                    );
                    return;
                }
            }
        }
    }

    /// Gives the lease back, so that another replica leads at once.
    pub async fn give_back(&mut self) {
        match self.bounded(Self::release).await {
            Ok(()) => info!(lease = self.terms.name, "gave the lease back"),
            Err(error) => {
                warn!(lease = self.terms.name, %error, "the lease can't be given back; it runs out")
            }
        }
    }

    /// No call may take so long that the lease runs out in the meantime.
    async fn bounded<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Self) -> Result<T, kube::Error>,
    ) -> Result<T, kube::Error> {
        let limit = self.terms.duration / 3;
        match timeout(limit, call(self)).await {
            Ok(result) => result,
            Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
        }
    }

    async fn try_acquire(&mut self) -> Result<bool, kube::Error> {
        let Some(current) = self.leases.get_opt(&self.terms.name).await? else {
            let new = self.lease(None);
            return self.won(self.leases.create(&PostParams::default(), &new).await);
        };
        let spec = current.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.terms.holder && !self.ran_out(&current, &spec) {
            return Ok(false);
        }
        let next = self.lease(Some(&current));
        self.won(
            self.leases
                .replace(&self.terms.name, &PostParams::default(), &next)
                .await,
        )
    }

    async fn renew(&mut self) -> Result<bool, kube::Error> {
        let Some((held, _)) = self.seen.clone() else {
            return Ok(false);
        };
        let next = self.lease(Some(&held));
        let replaced = self
            .leases
            .replace(&self.terms.name, &PostParams::default(), &next)
            .await;
        if self.won(replaced)? {
            return Ok(true);
        }
        // Somebody wrote to it: perhaps our own write whose answer was lost.
        let Some(current) = self.leases.get_opt(&self.terms.name).await? else {
            return Ok(false);
        };
        let ours = current
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref())
            == Some(&self.terms.holder);
        self.seen = Some((current, Instant::now()));
        Ok(ours)
    }

    async fn release(&mut self) -> Result<(), kube::Error> {
        let Some((mut held, _)) = self.seen.take() else {
            return Ok(());
        };
        let ours = held
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref())
            == Some(&self.terms.holder);
        if !ours {
            return Ok(());
        }
        if let Some(spec) = &mut held.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        self.leases
            .replace(&self.terms.name, &PostParams::default(), &held)
            .await
            .map(drop)
    }

    /// Whether the lease wasn't renewed for its duration, as this replica saw it.
    fn ran_out(&mut self, current: &Lease, spec: &LeaseSpec) -> bool {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let since = match &self.seen {
            Some((seen, since)) if version(seen) == version(current) => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((current.clone(), now));
                now
            }
        };
        let seconds = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        since.elapsed() >= seconds.map_or(self.terms.duration, Duration::from_secs)
    }

    /// The lease as this replica wants it, to be written over `current` and nothing newer.
    fn lease(&self, current: Option<&Lease>) -> Lease {
        let before = current
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let held_before = before.holder_identity.as_ref() == Some(&self.terms.holder);
        let now = MicroTime(Timestamp::now());
        let transitions = before.lease_transitions.unwrap_or_default();
        Lease {
            metadata: current.map_or_else(
                || ObjectMeta {
                    name: Some(self.terms.name.clone()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.terms.holder.clone()),
                lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
                acquire_time: if held_before {
                    before.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(if held_before || current.is_none() {
                    transitions
                } else {
                    transitions + 1
                }),
                ..LeaseSpec::default()
            }),
        }
    }

    fn won(&mut self, written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
