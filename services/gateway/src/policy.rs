//! How much the gateway takes on, and what it does when an endpoint fails it.
//!
//! It decides and knows nothing of sockets. Rate limits, circuit breakers and retries of answers belong here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How often one request is sent at most: once, and once more when the first endpoint's connection failed.
pub(crate) const ATTEMPTS_MAX: usize = 2;

/// How a connection to an endpoint failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There never was a connection, so the endpoint has heard nothing.
    NotConnected,
    /// The connection ended before the answer began: what the endpoint has done is unknown.
    LostBeforeAnswer,
}

/// Whether a request is sent once more. `repeatable`: sending it twice has the effect of sending it once.
pub(crate) fn try_again(attempts: usize, failure: Failure, repeatable: bool) -> bool {
    attempts < ATTEMPTS_MAX && (failure == Failure::NotConnected || repeatable)
}

/// Bounds the requests that are worked on at the same time.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: AtomicUsize,
    in_flight_max: usize,
}

impl Admission {
    /// An admission that lets in at most so many.
    pub(crate) fn new(in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            in_flight_max,
        })
    }

    /// Lets one more in, or `None` when it is full.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket {
            admission: Arc::clone(self),
        };
        (before < self.in_flight_max).then_some(ticket)
    }
}

/// One request's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_left_is_sent_once_more_whatever_it_is() {
        assert!(try_again(1, Failure::NotConnected, false));
        assert!(!try_again(2, Failure::NotConnected, true));
    }

    #[test]
    fn what_may_have_arrived_is_sent_again_only_if_that_changes_nothing() {
        assert!(try_again(1, Failure::LostBeforeAnswer, true));
        assert!(!try_again(1, Failure::LostBeforeAnswer, false));
        assert!(!try_again(2, Failure::LostBeforeAnswer, true));
    }

    #[test]
    fn no_more_are_let_in_than_there_are_places() {
        let admission = Admission::new(2);
        let first = admission.enter();
        let second = admission.enter();
        assert!(first.is_some() && second.is_some());
        assert!(admission.enter().is_none());
        drop(first);
        assert!(
            admission.enter().is_some(),
            "a place that was given back is free, and a refusal takes none"
        );
    }
}
