//! Calendar dates and the nights of a stay.

use std::fmt;

use time::{Date, Month};

/// Most nights that one stay may have. Orders take 30; this only bounds what a message can make us do.
pub const NIGHTS_MAX: u16 = 366;

/// The nights of a stay: from check-in to the day before check-out, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nights {
    check_in: Date,
    check_out: Date,
}

/// Dates that are no stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not two dates with 1 to {NIGHTS_MAX} nights between them")]
pub struct NightsError;

impl Nights {
    /// The nights between two dates.
    pub fn new(check_in: Date, check_out: Date) -> Result<Self, NightsError> {
        let nights = (check_out - check_in).whole_days();
        if (1..=i64::from(NIGHTS_MAX)).contains(&nights) {
            Ok(Self {
                check_in,
                check_out,
            })
        } else {
            Err(NightsError)
        }
    }

    /// The same from `YYYY-MM-DD`.
    pub fn parse(check_in: &str, check_out: &str) -> Result<Self, NightsError> {
        let date = |text| parse_date(text).ok_or(NightsError);
        Self::new(date(check_in)?, date(check_out)?)
    }

    /// The first night.
    pub fn check_in(self) -> Date {
        self.check_in
    }

    /// The day of leaving, not a night.
    pub fn check_out(self) -> Date {
        self.check_out
    }

    /// The nights, the first one first.
    pub fn iter(self) -> impl Iterator<Item = Date> {
        std::iter::successors(Some(self.check_in), |night| night.next_day())
            .take_while(move |night| *night < self.check_out)
    }
}

impl fmt::Display for Nights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.check_in, self.check_out)
    }
}

/// Reads `YYYY-MM-DD`, and nothing else.
pub fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let number = |range| {
        let digits: &str = text.get(range)?;
        digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| digits.parse::<u16>().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
}

/// Writes `YYYY-MM-DD`.
pub fn date_text(date: Date) -> String {
    format!(
        "{:04}-{:02}-{:02}",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_day_of_leaving_is_no_night() {
        let nights = Nights::parse("2026-12-30", "2027-01-02").unwrap();
        let texts: Vec<String> = nights.iter().map(date_text).collect();
        assert_eq!(texts, ["2026-12-30", "2026-12-31", "2027-01-01"]);
    }

    #[test]
    fn what_is_no_stay_is_refused() {
        for (check_in, check_out) in [
            ("2026-12-05", "2026-12-05"),
            ("2026-12-06", "2026-12-05"),
            ("2026-12-05", "2028-12-05"),
            ("2026-02-30", "2026-03-01"),
            ("20261205", "20261206"),
            ("2026-12-5", "2026-12-06"),
            ("2026-1२-5", "2026-12-06"),
            ("", "2026-12-06"),
        ] {
            assert_eq!(
                Nights::parse(check_in, check_out),
                Err(NightsError),
                "{check_in} {check_out}"
            );
        }
    }

    #[test]
    fn a_date_survives_reading_and_writing() {
        for text in ["2026-12-05", "2028-02-29", "0001-01-01"] {
            assert_eq!(parse_date(text).map(date_text).as_deref(), Some(text));
        }
    }
}
