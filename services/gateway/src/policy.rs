//! How much the gateway takes on, and what it does when an endpoint fails it.
//!
//! It decides and knows nothing of sockets. Rate limits, circuit breakers and retries of answers belong here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::metrics;

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

/// Bounds the requests that are worked on at the same time, and the bodies that are in memory.
#[derive(Debug)]
pub(crate) struct Admission {
    in_flight: AtomicUsize,
    in_flight_max: usize,
    held_bytes: AtomicUsize,
    held_bytes_max: usize,
}

impl Admission {
    /// An admission that lets in at most so many, with bodies of at most so many bytes together.
    pub(crate) fn new(in_flight_max: usize, held_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            in_flight_max,
            held_bytes: AtomicUsize::new(0),
            held_bytes_max,
        })
    }

    /// Whether there is no place at the moment: what is refused at once costs next to nothing.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.in_flight_max
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

/// The bytes of one request's body; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Held {
    /// Nothing yet.
    pub(crate) fn new(admission: &Arc<Admission>) -> Self {
        Self {
            admission: Arc::clone(admission),
            bytes: 0,
        }
    }

    /// So many bytes more. False: there is no room for them, and none were taken.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let held = &self.admission.held_bytes;
        if held.fetch_add(bytes, Ordering::Relaxed) + bytes > self.admission.held_bytes_max {
            held.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        metrics::BODY_BYTES_HELD.add(bytes as i64);
        true
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = &self.admission.held_bytes;
        held.fetch_sub(self.bytes, Ordering::Relaxed);
        metrics::BODY_BYTES_HELD.sub(self.bytes as i64);
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
        let admission = Admission::new(2, 0);
        let first = admission.enter();
        let second = admission.enter();
        assert!(first.is_some() && second.is_some());
        assert!(admission.enter().is_none() && admission.is_full());
        drop(first);
        assert!(
            admission.enter().is_some(),
            "a place that was given back is free, and a refusal takes none"
        );
    }

    #[test]
    fn no_more_bytes_of_bodies_are_held_than_there_is_room_for() {
        let admission = Admission::new(0, 10);
        let (mut one, mut other) = (Held::new(&admission), Held::new(&admission));
        assert!(one.grow(4) && other.grow(6) && !one.grow(1));
        assert_eq!(one.bytes(), 4);
        drop(one);
        assert!(other.grow(4), "what was given back is free");
    }
}
