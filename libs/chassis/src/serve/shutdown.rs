//! The end of a process, and the background tasks that are awaited in it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::ServeError;

/// How long a task that keeps failing waits before it is started again, at first and at most.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The end of a process, and the background tasks that are awaited in it. Clones share it.
#[derive(Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Somebody asked for the end.
    asked: CancellationToken,
    /// The process is on its way out; requests are still finished.
    draining: CancellationToken,
    /// Requests are finished; background tasks should end.
    stop: CancellationToken,
    tasks: Mutex<Tasks>,
    task_ended: Notify,
}

#[derive(Default)]
struct Tasks {
    next_id: u64,
    running: BTreeMap<u64, (String, AbortHandle)>,
    failure: Option<ServeError>,
}

impl Shutdown {
    /// The end of a process that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when background tasks should end: after the last request is answered, so that a task which
    /// requests depend on outlives them.
    pub fn token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Cancelled as soon as the process is on its way out: for connections that live long and should be told.
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Waits until background tasks should end.
    pub async fn cancelled(&self) {
        self.inner.stop.cancelled().await;
    }

    /// Ends the process as SIGTERM does.
    pub fn trigger(&self) {
        self.inner.asked.cancel();
    }

    /// Runs a task for as long as the process lives. It should end when [`Shutdown::token`] is cancelled; if it
    /// ends before that, or panics, the whole process ends and fails with its name.
    pub fn task<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        self.spawn(name.into(), future, true);
    }

    /// Runs a task that may end when it is done, and is awaited at the end of the process if it isn't. If it fails
    /// or panics, the process fails with its name.
    pub fn job<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        self.spawn(name.into(), future, false);
    }

    /// Runs a task that is started again, after a growing pause, whenever it fails or panics; its failures are logged.
    /// For work that others don't depend on at once. An `Ok` before the end of the process is a failure too.
    pub fn restarting_task<F, Make>(&self, name: impl Into<String>, mut make: Make)
    where
        F: Future<Output: TaskEnd> + Send + 'static,
        Make: FnMut() -> F + Send + 'static,
    {
        let name = name.into();
        let stop = self.token();
        let label = name.clone();
        let supervise = async move {
            let mut pause = RESTART_PAUSE.0;
            loop {
                let started = Instant::now();
                let cause = cause_of(AssertUnwindSafe(make()).catch_unwind().await);
                if stop.is_cancelled() {
                    return;
                }
                if started.elapsed() > RESTART_PAUSE.1 {
                    pause = RESTART_PAUSE.0;
                }
                warn!(
                    task = label,
                    cause,
                    pause_ms = pause.as_millis() as u64,
                    "task ended and is started again"
                );
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause) => pause = (pause * 2).min(RESTART_PAUSE.1),
                }
            }
        };
        self.spawn(name, supervise, true);
    }

    fn spawn<F>(&self, name: String, future: F, must_live: bool)
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let mut tasks = self.inner.tasks();
        let id = tasks.next_id;
        tasks.next_id += 1;
        let handle = tokio::spawn(async move {
            let end = AssertUnwindSafe(future).catch_unwind().await;
            inner.ended(id, end.map(TaskEnd::into_result), must_live);
        });
        // The lock is still held, so a task that ends at once finds itself in the table.
        tasks.running.insert(id, (name, handle.abort_handle()));
    }

    /// The process is on its way out.
    pub(super) fn begin(&self) {
        self.inner.draining.cancel();
    }

    /// Waits until somebody asks for the end.
    pub(super) async fn asked(&self) {
        self.inner.asked.cancelled().await;
    }

    /// Cancels the token and waits for the tasks; answers the names of those that were cut off.
    pub(super) async fn end_tasks(&self, deadline: Instant) -> Vec<String> {
        self.inner.stop.cancel();
        loop {
            let ended = self.inner.task_ended.notified();
            if self.inner.tasks().running.is_empty() {
                return Vec::new();
            }
            if timeout_at(deadline, ended).await.is_err() {
                break;
            }
        }
        let running = std::mem::take(&mut self.inner.tasks().running);
        running
            .into_values()
            .map(|(name, task)| {
                task.abort();
                name
            })
            .collect()
    }

    /// Why the process fails, if it does.
    pub(super) fn take_failure(&self) -> Option<ServeError> {
        self.inner.tasks().failure.take()
    }
}

impl Inner {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, id: u64, end: std::thread::Result<Result<(), TaskError>>, must_live: bool) {
        let failed = !matches!(end, Ok(Ok(())));
        let too_early = must_live && !self.stop.is_cancelled();
        {
            let mut tasks = self.tasks();
            let Some((name, _)) = tasks.running.remove(&id) else {
                return;
            };
            if failed || too_early {
                let cause = cause_of(end);
                error!(task = name, cause, "task ended");
                tasks
                    .failure
                    .get_or_insert(ServeError::TaskEnded { name, cause });
                self.asked.cancel();
            }
        }
        self.task_ended.notify_waiters();
    }
}

/// What a task may end with: nothing, or a `Result` whose error says why.
pub trait TaskEnd: Send + 'static {
    /// The end as a result.
    fn into_result(self) -> Result<(), TaskError>;
}

/// Why a task ended.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

impl TaskEnd for () {
    fn into_result(self) -> Result<(), TaskError> {
        Ok(())
    }
}

impl TaskEnd for Infallible {
    fn into_result(self) -> Result<(), TaskError> {
        match self {}
    }
}

impl<E: Into<TaskError> + Send + 'static> TaskEnd for Result<(), E> {
    fn into_result(self) -> Result<(), TaskError> {
        self.map_err(Into::into)
    }
}

fn cause_of(end: std::thread::Result<impl TaskEnd>) -> String {
    match end.map(TaskEnd::into_result) {
        Ok(Ok(())) => "it returned".to_owned(),
        Ok(Err(error)) => {
            let mut cause = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                cause.push_str(": ");
                cause.push_str(&error.to_string());
                source = error.source();
            }
            cause
        }
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            format!("it panicked: {message}")
        }
    }
}
