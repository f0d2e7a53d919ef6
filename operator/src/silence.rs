//! One silence heard by all. A server that accepts requests and doesn't answer costs whoever asks a whole timeout; it
//! must not cost each of a thousand sales as much.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How soon a server that didn't answer is asked again. Much less than conditions take to follow an outage.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A server's last silence. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Silence<E>(Arc<Mutex<Option<(Instant, E)>>>);

impl<E> Default for Silence<E> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E: Clone> Silence<E> {
    /// How the server failed to answer just now; it needn't be asked.
    pub(crate) fn recent(&self) -> Option<E> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .filter(|(at, _)| at.elapsed() < ASK_AGAIN_AFTER)
            .map(|(_, error)| error.clone())
    }

    /// The server was asked: how it failed to answer, if it did.
    pub(crate) fn heard(&self, error: Option<E>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            error.map(|error| (Instant::now(), error));
    }
}
