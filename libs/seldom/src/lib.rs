//! One line a second in the log for what may happen a hundred times a second: in an outage its first words are what
//! somebody reads, and the rest would cost more than it says.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Lets one report a second through.
#[derive(Debug)]
pub struct Seldom {
    start: Instant,
    /// The last second in which one was let through; they count from 1.
    second: AtomicU64,
    unsaid: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

impl Seldom {
    /// One that has let nothing through yet.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            second: AtomicU64::new(0),
            unsaid: AtomicU64::new(0),
        }
    }

    /// Some, once in a second, with the number of times that it was `None` since.
    pub fn turn(&self) -> Option<u64> {
        self.turn_in(self.start.elapsed().as_secs() + 1)
    }

    fn turn_in(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) == second {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.unsaid.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_told_with_the_number_of_those_that_were_not() {
        let seldom = Seldom::new();
        let seconds = [1, 1, 1, 2, 7, 7];
        let told = seconds.map(|second| seldom.turn_in(second));
        assert_eq!(told, [Some(0), None, None, Some(2), Some(0), None]);
    }
}
