//! Verdicts that don't flap: a change of mind takes some time of hearing the same.

use std::time::{Duration, Instant};

/// How long something must fail before a condition says so. With the slowest measuring interval it stays within the
/// 30 s in which a condition must follow what it speaks of.
pub const FAILS_AFTER: Duration = Duration::from_secs(6);

/// How long something must work again before a condition says so.
pub const WORKS_AFTER: Duration = Duration::from_secs(3);

/// Whether something works, told from how it was found each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steady {
    verdict: Option<bool>,
    against_since: Option<Instant>,
}

impl Steady {
    /// Begins with the verdict that was published before, if there was one.
    #[must_use]
    pub fn starting(verdict: Option<bool>) -> Self {
        Self {
            verdict,
            against_since: None,
        }
    }

    /// Hears how it was found at `at`, and says whether it works. The first finding is believed at once.
    pub fn hear(&mut self, works: bool, at: Instant) -> bool {
        let Some(verdict) = self.verdict else {
            self.verdict = Some(works);
            return works;
        };
        if verdict == works {
            self.against_since = None;
            return verdict;
        }
        let since = *self.against_since.get_or_insert(at);
        let patience = if works { WORKS_AFTER } else { FAILS_AFTER };
        if at.duration_since(since) >= patience {
            *self = Self::starting(Some(works));
        }
        self.verdict == Some(true)
    }

    /// What is certain needs no patience.
    pub fn set(&mut self, works: bool) {
        *self = Self::starting(Some(works));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_failure_changes_nothing_and_a_long_one_does() {
        let start = Instant::now();
        let mut steady = Steady::default();
        assert!(steady.hear(true, start));
        assert!(steady.hear(false, start + Duration::from_secs(1)));
        assert!(steady.hear(true, start + Duration::from_secs(3)));
        assert!(steady.hear(false, start + Duration::from_secs(5)));
        assert!(steady.hear(false, start + Duration::from_secs(10)));
        assert!(!steady.hear(false, start + Duration::from_secs(11)));
    }

    #[test]
    fn what_comes_and_goes_stays_failed() {
        let start = Instant::now();
        let mut steady = Steady::starting(Some(false));
        for second in 0..60 {
            assert!(
                !steady.hear(second % 2 == 0, start + Duration::from_secs(second)),
                "second {second}"
            );
        }
        let back = start + Duration::from_secs(100);
        assert!(!steady.hear(true, back));
        assert!(steady.hear(true, back + WORKS_AFTER));
    }

    #[test]
    fn the_first_finding_is_believed() {
        assert!(!Steady::default().hear(false, Instant::now()));
    }
}
