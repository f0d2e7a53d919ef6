//! Calendar dates. A date is a day in Asia/Seoul, wherever the process runs.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::ToSpan as _;
use jiff::civil::{self, Date};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// How far ahead of today a calendar may go: the first night that it may not have.
pub const HORIZON_DAYS: i32 = 366;

/// Most nights of one stay.
pub const NIGHTS_MAX: i32 = 30;

/// Seoul is nine hours ahead of UTC, all year round and since 1988.
const SEOUL_AHEAD_SECONDS: i64 = 9 * 3_600;

const EPOCH: Date = civil::date(1970, 1, 1);

/// The Julian day number of 1970-01-01.
const EPOCH_JULIAN: i32 = 2_440_588;

/// A calendar date, counted in days since 1970-01-01. In JSON `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = Date)]
pub struct Day(i32);

impl Day {
    /// So early and so late that every date of a stay is between them.
    pub const MIN: Self = Self(0);
    /// See [`Day::MIN`]: 2199-12-31.
    pub const MAX: Self = Self(84_005);

    /// The date so many days after 1970-01-01, if it is between [`Day::MIN`] and [`Day::MAX`].
    pub fn new(days: i32) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&days)
            .then_some(Self(days))
    }

    /// Today in Seoul by the clock of this machine.
    pub fn today() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(0) + SEOUL_AHEAD_SECONDS;
        i32::try_from(seconds.div_euclid(86_400))
            .ok()
            .and_then(Self::new)
            .unwrap_or(Self::MAX)
    }

    /// Days since 1970-01-01.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// So many days later; not before [`Day::MIN`] and not after [`Day::MAX`].
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days).clamp(Self::MIN.0, Self::MAX.0))
    }

    /// How many days after `earlier` it is.
    pub const fn since(self, earlier: Self) -> i32 {
        self.0 - earlier.0
    }

    /// The date that people read.
    pub fn date(self) -> Date {
        EPOCH.saturating_add(self.0.days())
    }

    /// The same date, if it is between [`Day::MIN`] and [`Day::MAX`].
    pub fn of(date: Date) -> Option<Self> {
        date.since(EPOCH)
            .ok()
            .and_then(|span| Self::new(span.get_days()))
    }

    /// As PostgreSQL is given it.
    pub(crate) fn sql(self) -> time::Date {
        time::Date::from_julian_day(EPOCH_JULIAN + self.0)
            .expect("days from 1970 to 2199 are dates")
    }

    /// As PostgreSQL gives it.
    pub(crate) fn from_sql(date: time::Date) -> Option<Self> {
        Self::new(date.to_julian_day() - EPOCH_JULIAN)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.date().fmt(f)
    }
}

impl std::str::FromStr for Day {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let exact = text.len() == 10 && text.is_ascii();
        text.parse()
            .ok()
            .filter(|_| exact)
            .and_then(Self::of)
            .ok_or("is not a date such as 2026-12-05")
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The nights of one stay: from check-in to the night before check-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nights {
    first: Day,
    count: i32,
}

/// Why two dates make no stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NightsError {
    /// Check-out is not after check-in.
    #[error("check-out is not after check-in")]
    Reversed,
    /// More nights than anybody may book at once.
    #[error("a stay has at most {NIGHTS_MAX} nights")]
    TooMany,
    /// Check-in was before today.
    #[error("check-in is in the past")]
    Past,
}

impl Nights {
    /// The nights between two dates, of which the first is not before `today`.
    pub fn between(check_in: Day, check_out: Day, today: Day) -> Result<Self, NightsError> {
        let count = check_out.since(check_in);
        match count {
            ..=0 => Err(NightsError::Reversed),
            _ if count > NIGHTS_MAX => Err(NightsError::TooMany),
            _ if check_in < today => Err(NightsError::Past),
            _ => Ok(Self {
                first: check_in,
                count,
            }),
        }
    }

    /// The day of arrival, and the first night.
    pub const fn check_in(self) -> Day {
        self.first
    }

    /// The day of leaving, which is not a night.
    pub fn check_out(self) -> Day {
        self.first.plus(self.count)
    }

    /// How many: 1 to [`NIGHTS_MAX`].
    pub const fn count(self) -> i32 {
        self.count
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_date_survives_being_counted() {
        for text in ["1970-01-01", "2024-02-29", "2026-12-05", "2199-12-31"] {
            let day: Day = text.parse().unwrap();
            assert_eq!(day.to_string(), text);
            assert_eq!(Day::from_sql(day.sql()), Some(day));
            assert_eq!(day.sql().to_string(), text);
        }
        assert_eq!("2199-12-31".parse(), Ok(Day::MAX));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "2026-13-01",
            "2026-02-30",
            "20261205",
            "2026-12-05T00:00:00",
            "2200-01-01",
            "1969-12-31",
            "",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_stay_is_one_to_thirty_nights_from_today_on() {
        let today: Day = "2026-12-05".parse().unwrap();
        let nights = |from, to| Nights::between(today.plus(from), today.plus(to), today);
        assert_eq!(nights(0, 1).map(Nights::count), Ok(1));
        assert_eq!(nights(1, 31).map(Nights::count), Ok(30));
        assert_eq!(nights(1, 32), Err(NightsError::TooMany));
        assert_eq!(nights(1, 1), Err(NightsError::Reversed));
        assert_eq!(nights(2, 1), Err(NightsError::Reversed));
        assert_eq!(nights(-1, 1), Err(NightsError::Past));
        assert_eq!(nights(3, 5).unwrap().check_out(), today.plus(5));
    }
}
