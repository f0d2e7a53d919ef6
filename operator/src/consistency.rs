//! Whether Redis, the log and the ledger agree on what is claimed.
//!
//! The three are read one after the other while guests claim, so that their numbers differ all the time and nothing is
//! wrong. They are compared at rest only: nothing in the log that the ledger hasn't read, nothing in Redis that it
//! hasn't settled, and the same numbers twice in a row. While claims flow, the last verdict holds; where there is none,
//! as after a recovery in the middle of a sale, it is enough that what is under way explains the difference.

use std::time::{Duration, Instant};

use sale_stock::{
    Snapshot,
    books::{Books, PartitionPosition},
};

use crate::{
    reasons::{
        BOOKS_AGREE, DRIFT, KAFKA_UNREACHABLE, LEDGER_BEHIND, LEDGER_UNREACHABLE, NOT_MEASURED,
        NOT_OPENED, RECOVERING, REDIS_UNREACHABLE, STOCK_MISSING,
    },
    steady::Steady,
};

/// How long drift must persist at rest before a recovery is asked for: a recovery stops the sale for some seconds.
pub const REPAIR_AFTER: Duration = Duration::from_secs(10);

/// How long a recovery that was asked for has to do its work before the next one is asked for.
pub const REPAIR_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How long the ledger may stand still before records that it hasn't read.
pub const BEHIND_AFTER: Duration = Duration::from_secs(15);

/// What is remembered from one comparison to the next.
#[derive(Clone, Debug, Default)]
pub struct Consistency {
    steady: Steady,
    /// Whether Kafka says how far the log goes.
    log_measured: Steady,
    /// The last verdict: it holds while nothing can be said.
    last: Option<Verdict>,
    figures: Option<Figures>,
    /// Since when drift was seen at rest.
    drift_since: Option<Instant>,
    repair_asked: Option<Instant>,
    /// Where the ledger was when it last got on, and when that was.
    progress: Option<(Vec<PartitionPosition>, Instant)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Figures {
    redis: u32,
    ledger: u32,
    unreleased: u32,
    positions: Vec<PartitionPosition>,
}

impl Figures {
    /// Units that Redis holds too many (above zero) or too few (below).
    fn drift(&self) -> i64 {
        let (redis, ledger) = (i64::from(self.redis), i64::from(self.ledger));
        // Entries of ended claims may be there still, or gone already.
        let most = ledger + i64::from(self.unreleased);
        if redis > most {
            redis - most
        } else {
            (redis - ledger).min(0)
        }
    }
}

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's status; `None` is Unknown.
    pub consistent: Option<bool>,
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message.
    pub message: String,
    /// Measured just now: units that Redis holds too many or too few.
    pub drift: Option<i64>,
    /// What was measured before no longer holds.
    pub drift_is_void: bool,
    /// A recovery should be asked for, with this as its reason.
    pub repair: Option<String>,
}

impl Verdict {
    fn agreed() -> Self {
        Self::new(
            Some(true),
            BOOKS_AGREE,
            "Redis, the log and the ledger agree",
        )
    }

    fn new(consistent: Option<bool>, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            consistent,
            reason,
            message: message.into(),
            drift: None,
            drift_is_void: false,
            repair: None,
        }
    }
}

impl Consistency {
    /// Begins with what was published before.
    #[must_use]
    pub fn starting(agreed: bool) -> Self {
        if !agreed {
            return Self::default();
        }
        Self {
            steady: Steady::starting(Some(true)),
            log_measured: Steady::starting(Some(true)),
            last: Some(Verdict::agreed()),
            ..Self::default()
        }
    }

    /// Compares the stock in Redis, looked at before and after, with the books, all of it read at about `at`.
    pub fn compare(
        &mut self,
        (before, redis): (Option<&Snapshot>, Option<&Snapshot>),
        books: Option<&Books>,
        at: Instant,
    ) -> Verdict {
        let verdict = self.judge(before, redis, books, at);
        self.last = Some(Verdict {
            drift: None,
            drift_is_void: false,
            repair: None,
            ..verdict.clone()
        });
        verdict
    }

    /// The ledger doesn't know the sale: there is nothing to compare.
    pub fn never_opened(&mut self) -> Verdict {
        let verdict = self.unsure(NOT_OPENED, "the stock was not opened yet");
        self.last = Some(verdict.clone());
        verdict
    }

    fn judge(
        &mut self,
        before: Option<&Snapshot>,
        redis: Option<&Snapshot>,
        books: Option<&Books>,
        at: Instant,
    ) -> Verdict {
        let (redis, books) = match (redis, books) {
            (_, None) => {
                return self.unsure(LEDGER_UNREACHABLE, "the ledger's books can't be read");
            }
            (None, _) => return self.unsure(REDIS_UNREACHABLE, "the stock in Redis can't be read"),
            (Some(redis), Some(books)) => (redis, books),
        };
        if books.epoch.0 == 0 {
            return self.unsure(NOT_OPENED, "the stock was not opened yet");
        }
        if !books.closed
            && let Some(verdict) = self.unopened(redis, books)
        {
            return verdict;
        }
        let log_measured = self.log_measured.hear(books.lag.is_some(), at);
        let lag = match (books.lag, self.standing()) {
            (Some(lag), _) if log_measured => lag,
            // One question that wasn't answered says nothing.
            (None, Some(standing)) if log_measured => {
                self.forget();
                return standing;
            }
            _ => return self.unsure(KAFKA_UNREACHABLE, "Kafka doesn't say how far the log goes"),
        };
        if self.stands_still(books, lag, at) {
            return self.unsure(
                LEDGER_BEHIND,
                "the ledger doesn't get on with reading the log",
            );
        }

        let figures = Figures {
            redis: redis.claimed,
            ledger: books.stock.claimed.0,
            unreleased: books.unreleased,
            positions: books.positions.clone(),
        };
        let at_rest = lag == 0 && redis.unsettled == 0 && self.figures.as_ref() == Some(&figures);
        self.figures = Some(figures.clone());
        if !at_rest {
            self.drift_since = None;
            return self.under_load(before, redis, books, at);
        }
        self.at_rest(&figures, at)
    }

    /// The last verdict, if it is one that holds while nothing can be said.
    fn standing(&self) -> Option<Verdict> {
        self.last
            .clone()
            .filter(|last| [BOOKS_AGREE, DRIFT].contains(&last.reason))
    }

    /// Never finds drift, nor the end of one: under load the one may be an illusion, and the other hidden.
    fn under_load(
        &mut self,
        before: Option<&Snapshot>,
        redis: &Snapshot,
        books: &Books,
        at: Instant,
    ) -> Verdict {
        if let Some(standing) = self.standing() {
            return standing;
        }
        let explained = before.and_then(|before| is_explained(before, books, redis));
        if explained.is_some_and(|explained| self.steady.hear(explained, at)) {
            return Verdict {
                drift: Some(0),
                ..Verdict::agreed()
            };
        }
        Verdict::new(
            None,
            NOT_MEASURED,
            "claims are on their way; compared when they have settled",
        )
    }

    fn at_rest(&mut self, figures: &Figures, at: Instant) -> Verdict {
        let drift = figures.drift();
        let agree = self.steady.hear(drift == 0, at);
        let mut verdict = match (agree, drift) {
            (true, _) => Verdict::agreed(),
            (false, 0) => match &self.last {
                Some(last) if last.reason == DRIFT => last.clone(),
                _ => Verdict::new(
                    None,
                    NOT_MEASURED,
                    "they agree, for too short a time to be sure",
                ),
            },
            (false, _) => Verdict::new(
                Some(false),
                DRIFT,
                format!(
                    "Redis holds {} units as claimed, the ledger {}",
                    figures.redis, figures.ledger
                ),
            ),
        };
        verdict.drift = Some(drift);
        if drift == 0 {
            self.drift_since = None;
            return verdict;
        }
        let since = *self.drift_since.get_or_insert(at);
        let due = at.duration_since(since) >= REPAIR_AFTER;
        let alone = self
            .repair_asked
            .is_none_or(|asked| at.duration_since(asked) >= REPAIR_AGAIN_AFTER);
        if due && alone {
            self.repair_asked = Some(at);
            verdict.repair = Some(format!(
                "drift: Redis holds {} units as claimed, the ledger {}",
                figures.redis, figures.ledger
            ));
        }
        verdict
    }

    /// Redis and the ledger can't agree while there is no gate of Redis's present run that is open.
    fn unopened(&mut self, redis: &Snapshot, books: &Books) -> Option<Verdict> {
        let verdict = match redis.gate {
            Some(gate) if gate.unopened().is_none() && !books.recovering => return None,
            _ if books.recovering => Verdict::new(
                Some(false),
                RECOVERING,
                "the stock is being rebuilt from the ledger",
            ),
            Some(gate) if gate.own_run => {
                Verdict::new(Some(false), RECOVERING, "the gate in Redis is closed")
            }
            Some(_) => Verdict::new(
                Some(false),
                STOCK_MISSING,
                "Redis was restarted and holds an old copy",
            ),
            None => Verdict::new(Some(false), STOCK_MISSING, "Redis has lost the sale"),
        };
        self.steady.set(false);
        self.forget();
        Some(Verdict {
            drift_is_void: true,
            ..verdict
        })
    }

    /// Whether there are records that the ledger hasn't read and it hasn't read any for long.
    fn stands_still(&mut self, books: &Books, lag: u64, at: Instant) -> bool {
        match &self.progress {
            Some((positions, since)) if lag > 0 && *positions == books.positions => {
                at.duration_since(*since) >= BEHIND_AFTER
            }
            _ => {
                self.progress = Some((books.positions.clone(), at));
                false
            }
        }
    }

    fn unsure(&mut self, reason: &'static str, message: &str) -> Verdict {
        self.forget();
        Verdict::new(None, reason, message)
    }

    fn forget(&mut self) {
        self.figures = None;
        self.drift_since = None;
    }
}

/// Whether Redis and the ledger differ by no more than the order of the three looks explains: the books were read
/// between two looks at Redis, so that a claim recorded or released meanwhile shows in one of them only. `None` if a
/// recovery lies between them.
fn is_explained(before: &Snapshot, books: &Books, after: &Snapshot) -> Option<bool> {
    let of_the_epoch = |redis: &Snapshot| redis.gate.is_some_and(|gate| gate.epoch == books.epoch);
    if !(of_the_epoch(before) && of_the_epoch(after)) {
        return None;
    }
    let recorded = |redis: &Snapshot| redis.claimed.saturating_sub(redis.unsettled);
    let active = books.stock.claimed.0;
    let held = active.saturating_add(books.unreleased);
    let known = recorded(before).min(recorded(after)) <= held;
    let kept = active <= before.claimed.max(after.claimed);
    Some(known && kept)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::{books, snapshot};

    struct Watch {
        consistency: Consistency,
        at: Instant,
    }

    impl Watch {
        fn new() -> Self {
            Self {
                consistency: Consistency::default(),
                at: Instant::now(),
            }
        }

        fn after(
            &mut self,
            seconds: u64,
            redis: Option<&Snapshot>,
            books: Option<&Books>,
        ) -> Verdict {
            self.at += Duration::from_secs(seconds);
            self.consistency.compare((None, redis), books, self.at)
        }

        /// A look in the middle of a sale: `before` and `after` as found in Redis, `ledger` as in the books between.
        fn under_load(&mut self, before: u32, ledger: u32, after: u32) -> Verdict {
            self.at += Duration::from_secs(2);
            let looked = |claimed| Snapshot {
                unsettled: 7,
                ..snapshot(claimed)
            };
            let (before, books, after) = (looked(before), books(ledger), looked(after));
            let redis = (Some(&before), Some(&after));
            self.consistency.compare(redis, Some(&books), self.at)
        }
    }

    #[test]
    fn the_same_numbers_twice_are_at_rest_and_agree() {
        let mut watch = Watch::new();
        assert_eq!(
            watch.after(0, Some(&snapshot(7)), Some(&books(7))).reason,
            NOT_MEASURED
        );
        let verdict = watch.after(2, Some(&snapshot(7)), Some(&books(7)));
        assert_eq!((verdict.consistent, verdict.drift), (Some(true), Some(0)));
    }

    #[test]
    fn moving_numbers_keep_the_verdict() {
        let mut watch = Watch::new();
        watch.after(0, Some(&snapshot(0)), Some(&books(0)));
        watch.after(2, Some(&snapshot(0)), Some(&books(0)));
        for claimed in 1..100 {
            let verdict = watch.after(2, Some(&snapshot(claimed * 10)), Some(&books(claimed * 9)));
            assert_eq!(
                (verdict.consistent, verdict.repair),
                (Some(true), None),
                "{claimed}"
            );
        }
    }

    #[test]
    fn drift_that_persists_is_said_and_repaired_once() {
        let mut watch = Watch::new();
        watch.after(0, Some(&snapshot(5)), Some(&books(5)));
        watch.after(2, Some(&snapshot(5)), Some(&books(5)));
        let mut repairs = 0;
        let mut said_after = None;
        for step in 1..=25 {
            let verdict = watch.after(2, Some(&snapshot(4)), Some(&books(5)));
            repairs += u32::from(verdict.repair.is_some());
            if verdict.consistent == Some(false) {
                said_after.get_or_insert(step * 2);
                assert_eq!((verdict.reason, verdict.drift), (DRIFT, Some(-1)));
            }
        }
        assert_eq!(repairs, 1);
        assert!(said_after.unwrap() <= 10, "said after {said_after:?} s");
        let again = (0..15)
            .filter_map(|_| watch.after(2, Some(&snapshot(4)), Some(&books(5))).repair)
            .count();
        assert_eq!(again, 1, "a repair that did not help is asked for again");
    }

    #[test]
    fn entries_of_ended_claims_are_no_drift() {
        let mut ended = books(3);
        ended.unreleased = 2;
        for redis in [3, 4, 5] {
            let mut watch = Watch::new();
            watch.after(0, Some(&snapshot(redis)), Some(&ended));
            assert_eq!(
                watch.after(2, Some(&snapshot(redis)), Some(&ended)).drift,
                Some(0)
            );
        }
        let mut watch = Watch::new();
        watch.after(0, Some(&snapshot(6)), Some(&ended));
        assert_eq!(
            watch.after(2, Some(&snapshot(6)), Some(&ended)).drift,
            Some(1)
        );
    }

    #[test]
    fn a_lost_gate_is_said_at_once_and_back_takes_a_while() {
        let mut watch = Watch::new();
        watch.after(0, Some(&snapshot(1)), Some(&books(1)));
        watch.after(2, Some(&snapshot(1)), Some(&books(1)));
        let mut lost = snapshot(0);
        lost.gate = None;
        let verdict = watch.after(2, Some(&lost), Some(&books(1)));
        assert_eq!(
            (verdict.consistent, verdict.reason, verdict.repair),
            (Some(false), STOCK_MISSING, None)
        );
        let back: Vec<_> = (0..4)
            .map(|_| {
                watch
                    .after(2, Some(&snapshot(1)), Some(&books(1)))
                    .consistent
            })
            .collect();
        assert_eq!(back.last().unwrap(), &Some(true));
        assert_ne!(back[0], Some(true));
    }

    #[test]
    fn after_a_recovery_in_mid_sale_guests_need_not_pause_for_the_books_to_agree() {
        let mut watch = Watch::new();
        let closed = Snapshot {
            gate: None,
            ..snapshot(0)
        };
        let lost = watch.after(0, Some(&closed), Some(&books(100)));
        assert!(lost.drift_is_void, "the drift before is no longer true");
        let verdicts: Vec<_> = (1..=4)
            .map(|look| watch.under_load(look * 100, look * 100 - 3, look * 100 + 4))
            .collect();
        assert_eq!(verdicts[0].consistent, None);
        let last = verdicts.last().unwrap();
        assert_eq!((last.consistent, last.reason), (Some(true), BOOKS_AGREE));
        let measured: Vec<_> = verdicts.iter().filter_map(|is| is.drift).collect();
        assert_eq!(measured, [0], "and the drift is shown again");
    }

    #[test]
    fn what_is_under_way_does_not_explain_everything() {
        // Redis lacks what the ledger holds; the ledger lacks what it has told Redis that it recorded.
        for (before, ledger, after) in [(100, 110, 105), (100, 90, 105)] {
            let mut watch = Watch::new();
            for _ in 0..10 {
                let verdict = watch.under_load(before, ledger, after);
                assert_eq!((verdict.consistent, verdict.reason), (None, NOT_MEASURED));
            }
        }
    }

    #[test]
    fn drift_found_at_rest_does_not_end_under_load() {
        let mut watch = Watch::new();
        for _ in 0..4 {
            watch.after(2, Some(&snapshot(4)), Some(&books(5)));
        }
        for look in 1..10 {
            let verdict = watch.under_load(look * 10, look * 10 - 3, look * 10);
            assert_eq!((verdict.consistent, verdict.reason), (Some(false), DRIFT));
        }
    }

    #[test]
    fn one_question_that_kafka_does_not_answer_changes_nothing_and_silence_is_said() {
        let mut watch = Watch::new();
        let mut silent = books(1);
        silent.lag = None;
        watch.after(0, Some(&snapshot(1)), Some(&books(1)));
        watch.after(2, Some(&snapshot(1)), Some(&books(1)));
        for _ in 0..5 {
            let verdict = watch.after(2, Some(&snapshot(1)), Some(&silent));
            assert_eq!(verdict.reason, BOOKS_AGREE);
            watch.after(2, Some(&snapshot(1)), Some(&books(1)));
        }
        let reasons: Vec<_> = (0..5)
            .map(|_| watch.after(2, Some(&snapshot(1)), Some(&silent)).reason)
            .collect();
        assert_eq!(reasons.last().unwrap(), &KAFKA_UNREACHABLE);
        let back: Vec<_> = (0..5)
            .map(|_| watch.after(2, Some(&snapshot(1)), Some(&books(1))).reason)
            .collect();
        assert_eq!((back[0], back[4]), (KAFKA_UNREACHABLE, BOOKS_AGREE));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let mut watch = Watch::new();
        assert_eq!(
            watch.after(0, None, Some(&books(1))).reason,
            REDIS_UNREACHABLE
        );
        assert_eq!(
            watch.after(0, Some(&snapshot(1)), None).reason,
            LEDGER_UNREACHABLE
        );
        let mut silent = books(1);
        silent.lag = None;
        assert_eq!(
            watch.after(0, Some(&snapshot(1)), Some(&silent)).reason,
            KAFKA_UNREACHABLE
        );
    }

    #[test]
    fn a_ledger_that_stands_still_is_said() {
        let mut watch = Watch::new();
        let mut behind = books(1);
        behind.lag = Some(4);
        let reasons: Vec<_> = (0..15)
            .map(|_| watch.after(2, Some(&snapshot(5)), Some(&behind)).reason)
            .collect();
        assert_eq!(reasons.last().unwrap(), &LEDGER_BEHIND);
        assert_eq!(reasons[1], NOT_MEASURED);
    }
}
