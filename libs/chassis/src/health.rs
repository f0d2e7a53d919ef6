//! Whether a process can do its work now: what /readyz answers.
//!
//! Every part that the process can't work without is a [`Dependency`] of its [`Readiness`], unready until the task
//! that watches it says otherwise. A process that lost one stays alive and says so; it never exits for it.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus::IntGaugeVec;
use serde::Serialize;
use tracing::{info, warn};

/// Why a dependency that nobody has reported on yet is unready.
const NOT_YET: &str = "not reached yet";

/// The readiness of a process: ready when all its dependencies are and it isn't shutting down. Clones share it.
#[derive(Clone, Default)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    shutting_down: AtomicBool,
    dependencies: Mutex<Vec<Arc<State>>>,
}

impl Readiness {
    /// A process with no dependencies: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a dependency, unready until it is said to be ready. `name` is shown by /readyz and is the label of
    /// `quokka_dependency_ready`: a short word such as `redis`.
    pub fn dependency(&self, name: &'static str) -> Dependency {
        let state = Arc::new(State {
            name,
            missing: Mutex::new(Some(NOT_YET.to_owned())),
            ready: gauge(name),
        });
        state.ready.set(0);
        self.dependencies().push(Arc::clone(&state));
        Dependency { state }
    }

    /// Whether the process can do its work now.
    pub fn is_ready(&self) -> bool {
        self.report().is_ready()
    }

    /// What is there and what is missing, as /readyz answers it.
    pub fn report(&self) -> Report {
        let mut report = Report {
            shutting_down: self.inner.shutting_down.load(Ordering::Acquire),
            missing: Vec::new(),
            ready: Vec::new(),
        };
        for state in self.dependencies().iter() {
            match state.missing().clone() {
                Some(reason) => report.missing.push(Missing {
                    name: state.name,
                    reason,
                }),
                None => report.ready.push(state.name),
            }
        }
        report
    }

    /// From now on the process is not ready, whatever its dependencies say. There is no way back.
    pub fn shutting_down(&self) {
        self.inner.shutting_down.store(true, Ordering::Release);
    }

    fn dependencies(&self) -> std::sync::MutexGuard<'_, Vec<Arc<State>>> {
        self.inner
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that a process can't work without. Clones speak of the same thing.
#[derive(Clone)]
pub struct Dependency {
    state: Arc<State>,
}

struct State {
    name: &'static str,
    /// Why it is unready; `None` when it is ready.
    missing: Mutex<Option<String>>,
    ready: prometheus::IntGauge,
}

impl State {
    fn missing(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dependency {
    /// It is there. A change is logged, saying it again is not.
    pub fn set_ready(&self) {
        if self.state.missing().take().is_some() {
            self.state.ready.set(1);
            info!(dependency = self.state.name, "dependency is ready");
        }
    }

    /// It is not there; `reason` is shown by /readyz, so it must not contain a secret. A change from ready is logged.
    pub fn set_unready(&self, reason: impl fmt::Display) {
        let reason = reason.to_string();
        let before = self.state.missing().replace(reason.clone());
        if before.is_none_or(|before| before == NOT_YET && reason != NOT_YET) {
            self.state.ready.set(0);
            warn!(
                dependency = self.state.name,
                reason, "dependency is not ready"
            );
        }
    }

    /// Tells again and again whether `check` succeeds, with a pause of `every`. It never returns.
    pub async fn watch<E, F>(&self, every: Duration, mut check: impl FnMut() -> F) -> Infallible
    where
        E: fmt::Display,
        F: Future<Output = Result<(), E>>,
    {
        loop {
            match check().await {
                Ok(()) => self.set_ready(),
                Err(error) => self.set_unready(error),
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Whether it is there, as last told.
    pub fn is_ready(&self) -> bool {
        self.state.missing().is_none()
    }

    /// The name it was added under.
    pub fn name(&self) -> &'static str {
        self.state.name
    }
}

/// What a process can and can't reach at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The process has been told to end.
    pub shutting_down: bool,
    /// What it waits for.
    pub missing: Vec<Missing>,
    /// What is there.
    pub ready: Vec<&'static str>,
}

impl Report {
    /// Whether the process can do its work.
    pub fn is_ready(&self) -> bool {
        !self.shutting_down && self.missing.is_empty()
    }
}

/// A dependency that isn't there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Its name.
    pub name: &'static str,
    /// What was last heard of it.
    pub reason: String,
}

fn gauge(name: &'static str) -> prometheus::IntGauge {
    static READY: std::sync::LazyLock<IntGaugeVec> = std::sync::LazyLock::new(|| {
        crate::metrics::int_gauge_vec(
            "quokka_dependency_ready",
            "Whether a thing that the process can't work without is there (1) or not (0).",
            &["dependency"],
        )
    });
    READY.with_label_values(&[name])
}
