//! What is taken off a price.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::Krw;

/// A percentage that leaves something to take off and something to pay: 1 to 99. In JSON an integer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(into = "u8", try_from = "u8")]
#[schema(minimum = 1, maximum = 99)]
pub struct Percent(u8);

/// No percentage to discount by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no percentage to discount by: it is 1 to 99")]
pub struct PercentError(pub u8);

impl Percent {
    /// The percentage, if it is 1 to 99.
    pub const fn new(percent: u8) -> Result<Self, PercentError> {
        if matches!(percent, 1..=99) {
            Ok(Self(percent))
        } else {
            Err(PercentError(percent))
        }
    }

    /// 1 to 99.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = PercentError;

    fn try_from(percent: u8) -> Result<Self, PercentError> {
        Self::new(percent)
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

/// A discount on a price. In JSON `{"percent": 40}` or `{"amount": 30000}`, exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Discount {
    /// A part of the price.
    Percent(Percent),
    /// So much, and never more than the price.
    Amount(Krw),
}

impl Discount {
    /// What it takes off: a percentage of the price rounded down to a whole won, or the amount and at most the price.
    #[inline]
    pub fn off(self, price: Krw) -> Krw {
        match self {
            Self::Percent(percent) => price.percent(percent.get()),
            Self::Amount(amount) => amount.min(price),
        }
    }

    /// The price that remains to be paid.
    #[inline]
    pub fn apply(self, price: Krw) -> Krw {
        price.saturating_sub(self.off(price))
    }
}

/// A coupon's discount, on the total of an order. In JSON `{"percent": 10, "maxAmount": 20000}`, the most being
/// optional, or `{"amount": 5000}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponDiscount {
    /// What it takes off the total.
    #[serde(flatten)]
    pub discount: Discount,
    /// The most that it takes off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_amount: Option<Krw>,
}

impl CouponDiscount {
    /// What it takes off: the discount, at most its limit and at most the total.
    pub fn off(self, total: Krw) -> Krw {
        let off = self.discount.off(total);
        self.max_amount.map_or(off, |most| off.min(most))
    }

    /// The total that remains to be paid, at least nothing.
    pub fn apply(self, total: Krw) -> Krw {
        total.saturating_sub(self.off(total))
    }
}

impl From<Discount> for CouponDiscount {
    fn from(discount: Discount) -> Self {
        Self {
            discount,
            max_amount: None,
        }
    }
}

impl<'de> Deserialize<'de> for CouponDiscount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Wire {
            percent: Option<Percent>,
            amount: Option<Krw>,
            max_amount: Option<Krw>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let discount = match (wire.percent, wire.amount) {
            (Some(percent), None) => Discount::Percent(percent),
            (None, Some(amount)) => Discount::Amount(amount),
            _ => {
                return Err(D::Error::custom(
                    "a discount is a percent or an amount, exactly one",
                ));
            }
        };
        Ok(Self {
            discount,
            max_amount: wire.max_amount,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub(crate) fn won(won: i64) -> Krw {
        Krw::new(won).unwrap()
    }

    pub(crate) fn percent(percent: u8) -> Discount {
        Discount::Percent(Percent::new(percent).unwrap())
    }

    pub(crate) fn any_krw() -> impl Strategy<Value = Krw> {
        prop_oneof![0..=1_000_i64, 0..=10_000_000_i64, 0..=i64::MAX].prop_map(won)
    }

    pub(crate) fn any_discount() -> impl Strategy<Value = Discount> {
        prop_oneof![
            (1_u8..=99).prop_map(percent),
            any_krw().prop_map(Discount::Amount)
        ]
    }

    #[test]
    fn a_percentage_is_rounded_down_to_a_whole_won() {
        assert_eq!(percent(10).off(won(12_345)), won(1_234));
        assert_eq!(percent(10).apply(won(12_345)), won(11_111));
        assert_eq!(percent(33).off(won(100)), won(33));
        assert_eq!(percent(99).off(won(1)), won(0));
        assert_eq!(percent(40).apply(won(120_000)), won(72_000));
    }

    #[test]
    fn an_amount_never_takes_more_than_the_price() {
        assert_eq!(Discount::Amount(won(5_000)).apply(won(12_000)), won(7_000));
        assert_eq!(Discount::Amount(won(5_000)).apply(won(3_000)), Krw::ZERO);
    }

    #[test]
    fn a_coupon_takes_at_most_its_limit() {
        let coupon: CouponDiscount =
            serde_json::from_value(json!({"percent": 10, "maxAmount": 20_000})).unwrap();
        assert_eq!(coupon.off(won(100_000)), won(10_000));
        assert_eq!(coupon.off(won(1_000_000)), won(20_000));
        assert_eq!(coupon.apply(won(1_000_000)), won(980_000));
    }

    #[test]
    fn in_json_a_discount_is_exactly_one_of_two() {
        let read = |value| serde_json::from_value::<Discount>(value);
        assert_eq!(read(json!({"percent": 40})).unwrap(), percent(40));
        assert_eq!(
            read(json!({"amount": 5_000})).unwrap(),
            Discount::Amount(won(5_000))
        );
        assert_eq!(
            serde_json::to_value(percent(40)).unwrap(),
            json!({"percent": 40})
        );
        for bad in [
            json!({}),
            json!({"percent": 0}),
            json!({"percent": 100}),
            json!({"percent": 300}),
            json!({"amount": -1}),
            json!({"percent": 1, "amount": 1}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
            assert!(
                serde_json::from_value::<CouponDiscount>(bad.clone()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_coupon_discount_survives_writing_and_reading() {
        for value in [
            json!({"percent": 10, "maxAmount": 20_000}),
            json!({"amount": 5_000}),
        ] {
            let coupon: CouponDiscount = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(coupon).unwrap(), value);
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_and_what_remains_are_the_price(price in any_krw(), discount in any_discount()) {
            prop_assert_eq!(discount.off(price).checked_add(discount.apply(price)), Some(price));
        }

        #[test]
        fn a_percentage_never_takes_more_than_it_says(price in any_krw(), of in 1_u8..=99) {
            let off = i128::from(percent(of).off(price).get());
            let exact = i128::from(price.get()) * i128::from(of);
            prop_assert!(off * 100 <= exact && exact < (off + 1) * 100);
        }

        #[test]
        fn a_higher_price_never_costs_less(a in any_krw(), b in any_krw(), discount in any_discount()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(discount.apply(low) <= discount.apply(high));
        }

        #[test]
        fn a_coupon_keeps_its_limits(total in any_krw(), discount in any_discount(), most in any_krw()) {
            let coupon = CouponDiscount { discount, max_amount: Some(most) };
            prop_assert!(coupon.off(total) <= most.min(total));
            prop_assert!(coupon.off(total) <= discount.off(total));
            prop_assert_eq!(coupon.off(total).checked_add(coupon.apply(total)), Some(total));
        }
    }
}
