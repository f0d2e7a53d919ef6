//! What a guest who cancels a confirmed order gets back.
//!
//! The calendar is Asia/Seoul's, where the stays are:
//! - until the day before check-in: all of it, whatever the stay's policy;
//! - on the day of check-in, by the policy: FLEXIBLE 80 %, MODERATE 50 %, STRICT nothing;
//! - after that day the stay has begun, and the order can't be cancelled any more.
//!
//! A part is rounded **down** to a whole won. An order that isn't confirmed yet gives back all that was paid; that is
//! not decided here.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use money::Krw;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Korea's offset from UTC. It has had no summer time since 1988.
const SEOUL: Offset = jiff::tz::offset(9);

/// A stay's cancellation policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[schema(as = OrderCancellation)]
#[serde(rename_all = "UPPERCASE")]
pub enum Policy {
    /// Most of it comes back.
    Flexible,
    /// Half of it.
    Moderate,
    /// Nothing.
    Strict,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flexible, Self::Moderate, Self::Strict];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flexible => "FLEXIBLE",
            Self::Moderate => "MODERATE",
            Self::Strict => "STRICT",
        }
    }

    /// From [`Policy::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }

    /// How much of a hundred comes back on the day of check-in.
    fn percent_on_the_day(self) -> i64 {
        match self {
            Self::Flexible => 80,
            Self::Moderate => 50,
            Self::Strict => 0,
        }
    }
}

/// The day in Seoul.
pub fn today_in_seoul(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::fixed(SEOUL)).date()
}

/// What comes back of `paid` when an order that begins on `check_in` is cancelled `now`; `None` after that day.
pub fn refund(paid: Krw, policy: Policy, check_in: Date, now: Timestamp) -> Option<Krw> {
    let today = today_in_seoul(now);
    if today < check_in {
        return Some(paid);
    }
    if today > check_in {
        return None;
    }
    // Widened, so that no amount overflows.
    let part = i128::from(paid.get()) * i128::from(policy.percent_on_the_day()) / 100;
    let part = i64::try_from(part).ok().and_then(|won| Krw::new(won).ok());
    Some(part.unwrap_or(paid).min(paid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn krw(won: i64) -> Krw {
        Krw::new(won).unwrap()
    }

    fn given(paid: i64, policy: Policy, now: &str) -> Option<i64> {
        refund(krw(paid), policy, date(2026, 12, 5), now.parse().unwrap()).map(Krw::get)
    }

    #[test]
    fn the_day_changes_at_midnight_in_seoul() {
        // 14:59:59 and 15:00:00 in UTC are the last second of the 4th and the first of the 5th in Seoul.
        let before = "2026-12-04T14:59:59Z";
        let on_the_day = "2026-12-04T15:00:00Z";
        let last = "2026-12-05T14:59:59Z";
        let after = "2026-12-05T15:00:00Z";
        for policy in Policy::ALL {
            assert_eq!(given(99_999, policy, before), Some(99_999));
            assert_eq!(given(99_999, policy, after), None);
        }
        for now in [on_the_day, last] {
            assert_eq!(
                given(99_999, Policy::Flexible, now),
                Some(79_999),
                "rounded down"
            );
            assert_eq!(
                given(99_999, Policy::Moderate, now),
                Some(49_999),
                "rounded down"
            );
            assert_eq!(given(99_999, Policy::Strict, now), Some(0));
        }
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in Policy::ALL {
            assert_eq!(Policy::parse(policy.as_str()), Some(policy));
            let json = serde_json::to_string(&policy).unwrap();
            assert_eq!(json, format!("{:?}", policy.as_str()));
        }
    }

    proptest! {
        #[test]
        fn a_refund_is_never_more_than_was_paid_and_never_grows(
            paid in 0..=i64::MAX,
            hours in 0i64..24 * 10,
            more in 0i64..24 * 10,
            policy in prop::sample::select(Policy::ALL.to_vec()),
        ) {
            let start: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
            let at = |hours| start + jiff::SignedDuration::from_hours(hours);
            let check_in = date(2026, 12, 5);
            let now = refund(krw(paid), policy, check_in, at(hours));
            let later = refund(krw(paid), policy, check_in, at(hours + more));
            prop_assert!(now.is_none_or(|now| now <= krw(paid)));
            prop_assert!(later.unwrap_or(Krw::ZERO) <= now.unwrap_or(Krw::ZERO));
            // Nobody is worse off with a more lenient policy.
            let by: Vec<_> = Policy::ALL.map(|policy| refund(krw(paid), policy, check_in, at(hours))).to_vec();
            prop_assert!(by.windows(2).all(|pair| pair[0] >= pair[1]));
        }

        #[test]
        fn what_is_kept_is_less_than_a_won_more_than_its_part(paid in 0..=1_000_000_000_000i64) {
            let on_the_day: Timestamp = "2026-12-05T03:00:00Z".parse().unwrap();
            let back = refund(krw(paid), Policy::Flexible, date(2026, 12, 5), on_the_day).unwrap().get();
            let kept_hundredths = (paid - back) * 100;
            prop_assert!(kept_hundredths >= paid * 20 && kept_hundredths < paid * 20 + 100);
        }
    }
}
