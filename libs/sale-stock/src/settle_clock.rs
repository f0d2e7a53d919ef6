//! Decides up to which touch an entry is stale, by two clocks, so that a step of Redis's clock never makes
//! a live request's entry look old.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::{ACK_DEADLINE, UnixMillis};

/// Past [`ACK_DEADLINE`], what a step of Redis's clock too small to be noticed may amount to.
const MARGIN: Duration = Duration::from_secs(2);

/// Readings closer to each other than this aren't kept, which bounds their number.
const SPACING: Duration = Duration::from_millis(250);

/// Most readings kept while the ledger is behind. Leaving out further ones only makes the cutoff come later.
const SAMPLES_MAX: usize = 4_096;

/// Readings of Redis's clock, each with the caller's own monotonic clock.
///
/// An entry is stale if it was last touched before a reading that is A older, on the caller's clock, than the time up
/// to which the ledger has read the log: had its append been acknowledged, the ledger would know. When Redis's clock
/// goes back, what was read before says nothing any more and is forgotten.
#[derive(Debug, Default)]
pub struct SettleClock {
    samples: VecDeque<(UnixMillis, Instant)>,
    latest: Option<UnixMillis>,
}

impl SettleClock {
    /// No readings yet: nothing is stale for the first A.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a reading of Redis's clock and returns the latest touch that is stale, if any is. `read_up_to` is when the
    /// log held nothing yet that the ledger has not read by now.
    pub fn observe(
        &mut self,
        redis: UnixMillis,
        now: Instant,
        read_up_to: Instant,
    ) -> Option<UnixMillis> {
        if self.latest.is_some_and(|latest| latest > redis) {
            self.samples.clear();
        }
        self.latest = Some(redis);
        let spaced =
            |(_, at): &(UnixMillis, Instant)| now.saturating_duration_since(*at) >= SPACING;
        if self.samples.back().is_none_or(spaced) && self.samples.len() < SAMPLES_MAX {
            self.samples.push_back((redis, now));
        }
        let horizon = read_up_to.min(now);
        let mut cutoff = None;
        while let Some((sample, at)) = self.samples.front().copied() {
            if horizon.saturating_duration_since(at) < ACK_DEADLINE + MARGIN {
                break;
            }
            cutoff = Some(sample);
            // The last one that is old enough stays, so that frequent callers always have one.
            let next_is_old = self.samples.get(1).is_some_and(|(_, next)| {
                horizon.saturating_duration_since(*next) >= ACK_DEADLINE + MARGIN
            });
            if !next_is_old {
                break;
            }
            self.samples.pop_front();
        }
        cutoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// With a ledger that has read everything.
    fn observe(clock: &mut SettleClock, redis: UnixMillis, now: Instant) -> Option<UnixMillis> {
        clock.observe(redis, now, now)
    }

    #[test]
    fn nothing_is_stale_before_the_deadline_has_passed_on_both_clocks() {
        let start = Instant::now();
        let mut clock = SettleClock::new();
        assert_eq!(observe(&mut clock, UnixMillis(1_000), start), None);
        assert_eq!(observe(&mut clock, UnixMillis(7_000), at(start, 6)), None);
        assert_eq!(
            observe(&mut clock, UnixMillis(8_000), at(start, 7)),
            Some(UnixMillis(1_000))
        );
    }

    #[test]
    fn a_step_forward_makes_nothing_stale_early() {
        let start = Instant::now();
        let mut clock = SettleClock::new();
        observe(&mut clock, UnixMillis(0), start);
        assert_eq!(observe(&mut clock, UnixMillis(600_000), at(start, 1)), None);
        assert_eq!(
            observe(&mut clock, UnixMillis(606_500), at(start, 7)),
            Some(UnixMillis(0))
        );
    }

    #[test]
    fn a_step_back_starts_the_wait_again() {
        let start = Instant::now();
        let mut clock = SettleClock::new();
        observe(&mut clock, UnixMillis(600_000), start);
        assert_eq!(observe(&mut clock, UnixMillis(10_000), at(start, 8)), None);
        assert_eq!(
            observe(&mut clock, UnixMillis(17_000), at(start, 15)),
            Some(UnixMillis(10_000))
        );
    }

    #[test]
    fn nothing_is_stale_that_the_ledger_may_have_yet_to_read() {
        let start = Instant::now();
        let mut clock = SettleClock::new();
        for second in 0..60 {
            let redis = UnixMillis(second * 1_000);
            let now = at(start, second.unsigned_abs());
            // The database is away from the third second on.
            assert_eq!(clock.observe(redis, now, now.min(at(start, 3))), None);
        }
        assert_eq!(
            clock.observe(UnixMillis(60_000), at(start, 60), at(start, 20)),
            Some(UnixMillis(13_000))
        );
    }

    #[test]
    fn a_caller_that_never_stops_asking_still_gets_a_cutoff() {
        let start = Instant::now();
        let mut clock = SettleClock::new();
        let mut last = None;
        for tick in 0..2_000_u64 {
            let now = start + Duration::from_millis(tick * 10);
            last = observe(
                &mut clock,
                UnixMillis(i64::try_from(tick * 10).unwrap_or(0)),
                now,
            );
        }
        let cutoff = last.map(|c| c.0);
        assert!(cutoff > Some(19_990 - 7_500), "{cutoff:?}");
        assert!(clock.samples.len() < 40, "{}", clock.samples.len());
    }
}
