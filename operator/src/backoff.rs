//! How long to wait before trying again.

use std::time::Duration;

use rand::RngExt as _;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait: conditions must follow within 30 s of what they speak of coming back.
const LONGEST: Duration = Duration::from_secs(15);

/// Failures in a row of one object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: twice the one before, up to 15 s, less a random part of up to half, so that
    /// objects that failed together don't come back together.
    pub fn next_wait(&mut self) -> Duration {
        let wait = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A wait that is up to a tenth shorter, at random: objects looked at together drift apart.
#[must_use]
pub fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.9..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_over_after_success() {
        let mut backoff = Backoff::default();
        for step in 0..20 {
            let full = FIRST.saturating_mul(1 << step.min(10)).min(LONGEST);
            let wait = backoff.next_wait();
            assert!(wait <= full && wait >= full / 2, "step {step}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
