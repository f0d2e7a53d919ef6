//! Amounts of Korean won.

use std::fmt;
use std::iter::Sum;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An amount in whole won, never negative. In JSON an integer.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(into = "i64", try_from = "i64")]
#[schema(minimum = 0)]
pub struct Krw(i64);

/// No amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no amount in KRW: an amount is not negative")]
pub struct KrwError(pub i64);

impl Krw {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount of so many won, unless it is negative.
    pub const fn new(won: i64) -> Result<Self, KrwError> {
        if won < 0 {
            Err(KrwError(won))
        } else {
            Ok(Self(won))
        }
    }

    /// How many won: at least 0.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Both together; `None` if that is more than can be counted.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(won) => Some(Self(won)),
            None => None,
        }
    }

    /// What is left; `None` if `other` is more than there is.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        if other.0 > self.0 {
            None
        } else {
            Some(Self(self.0 - other.0))
        }
    }

    /// So many times the amount; `None` if that is more than can be counted.
    pub fn checked_mul(self, times: u32) -> Option<Self> {
        self.0.checked_mul(i64::from(times)).map(Self)
    }

    /// What is left, and nothing if `other` is at least as much.
    pub const fn saturating_sub(self, other: Self) -> Self {
        if other.0 > self.0 {
            Self::ZERO
        } else {
            Self(self.0 - other.0)
        }
    }

    /// All of them together; `None` if that is more than can be counted.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }

    /// `percent` of it, rounded down to a whole won.
    #[inline]
    pub(crate) fn percent(self, percent: u8) -> Self {
        let percent = percent.min(100);
        // Almost always: this is a few cycles where the other is a call.
        if let Some(times) = self.0.checked_mul(i64::from(percent)) {
            return Self(times / 100);
        }
        // Widened, so that no amount overflows; the quotient is at most the amount for a percentage of at most 100.
        let share = i128::from(self.0) * i128::from(percent) / 100;
        Self(i64::try_from(share).unwrap_or(self.0))
    }
}

impl TryFrom<i64> for Krw {
    type Error = KrwError;

    fn try_from(won: i64) -> Result<Self, KrwError> {
        Self::new(won)
    }
}

impl From<Krw> for i64 {
    fn from(amount: Krw) -> Self {
        amount.0
    }
}

/// # Panics
/// If the sum is more than can be counted (9.2 * 10^18 won); use [`Krw::checked_sum`] on what others send.
impl Sum for Krw {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self::checked_sum(amounts).expect("a sum of money fits 64 bits")
    }
}

impl<'a> Sum<&'a Self> for Krw {
    fn sum<I: Iterator<Item = &'a Self>>(amounts: I) -> Self {
        amounts.copied().sum()
    }
}

/// As people read it: `12,000 KRW`.
impl fmt::Display for Krw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3 + 4);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text.push_str(" KRW");
        f.pad(&text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_is_written_with_its_thousands_apart() {
        let written = [0, 7, 999, 1_000, 12_000, 1_234_567].map(|won| Krw(won).to_string());
        let expected = [
            "0 KRW",
            "7 KRW",
            "999 KRW",
            "1,000 KRW",
            "12,000 KRW",
            "1,234,567 KRW",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn a_negative_amount_is_refused_wherever_it_comes_from() {
        assert_eq!(Krw::new(-1), Err(KrwError(-1)));
        assert!(serde_json::from_str::<Krw>("-1").is_err());
        assert!(serde_json::from_str::<Krw>("1.5").is_err());
        assert_eq!(serde_json::from_str::<Krw>("1500").unwrap(), Krw(1_500));
        assert_eq!(serde_json::to_string(&Krw(1_500)).unwrap(), "1500");
    }

    #[test]
    fn what_does_not_fit_is_none() {
        let most = Krw(i64::MAX);
        assert_eq!(most.checked_add(Krw(1)), None);
        assert_eq!(most.checked_mul(2), None);
        assert_eq!(Krw::ZERO.checked_sub(Krw(1)), None);
        assert_eq!(Krw::ZERO.saturating_sub(Krw(1)), Krw::ZERO);
        assert_eq!(Krw::checked_sum([most, Krw(1)]), None);
    }

    proptest! {
        #[test]
        fn no_operation_makes_a_negative_amount(a in 0..=i64::MAX, b in 0..=i64::MAX, times: u32) {
            let (a, b) = (Krw(a), Krw(b));
            let made = [a.checked_add(b), a.checked_sub(b), a.checked_mul(times), Some(a.saturating_sub(b))];
            for amount in made.into_iter().flatten() {
                prop_assert!(amount >= Krw::ZERO);
            }
        }

        #[test]
        fn adding_and_taking_away_again_changes_nothing(a in 0..=i64::MAX / 2, b in 0..=i64::MAX / 2) {
            prop_assert_eq!(Krw(a).checked_add(Krw(b)).unwrap().checked_sub(Krw(b)), Some(Krw(a)));
        }

        #[test]
        fn the_order_of_a_sum_does_not_matter(mut won in prop::collection::vec(0..=1_i64 << 40, 0..30)) {
            let forward: Krw = won.iter().copied().map(Krw).sum();
            won.reverse();
            prop_assert_eq!(Krw::checked_sum(won.into_iter().map(Krw)), Some(forward));
        }
    }
}
