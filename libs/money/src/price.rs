//! The lowest-price rule.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Discount, Krw};

/// Which discount made a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = DiscountUsed)]
pub enum Used {
    /// None lowers it.
    None,
    /// The room type's own.
    Own,
    /// The time sale's.
    TimeSale,
}

/// What one night costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NightPrice {
    /// To be paid: at most `original`.
    pub amount: Krw,
    /// Without any discount.
    pub original: Krw,
    /// Which discount made the difference.
    pub used: Used,
}

impl NightPrice {
    /// What the discount takes off.
    pub fn off(&self) -> Krw {
        self.original.saturating_sub(self.amount)
    }
}

/// What a night costs: the lowest of its price, its price with the room type's own discount and its price with the time
/// sale's. Discounts never add up. Where both discounts come to the same price, the own one is used, so that a time
/// sale is charged for only where it gives something. An amount is taken off each night.
#[inline]
pub fn lowest(price: Krw, own: Option<Discount>, sale: Option<Discount>) -> NightPrice {
    let mut night = NightPrice {
        amount: price,
        original: price,
        used: Used::None,
    };
    for (discount, used) in [(own, Used::Own), (sale, Used::TimeSale)] {
        if let Some(amount) = discount.map(|discount| discount.apply(price))
            && amount < night.amount
        {
            night.amount = amount;
            night.used = used;
        }
    }
    night
}

/// What a stay costs: the sum over its nights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StayPrice {
    /// To be paid, before a coupon.
    pub amount: Krw,
    /// Without any discount: `amount + own_off + time_sale_off`.
    pub original: Krw,
    /// What own discounts take off.
    pub own_off: Krw,
    /// What the time sale takes off.
    pub time_sale_off: Krw,
}

impl StayPrice {
    /// The sum of the nights; `None` if that is more than can be counted.
    pub fn of<'a>(nights: impl IntoIterator<Item = &'a NightPrice>) -> Option<Self> {
        let mut stay = Self::default();
        for night in nights {
            stay.amount = stay.amount.checked_add(night.amount)?;
            stay.original = stay.original.checked_add(night.original)?;
            let off = match night.used {
                Used::None => continue,
                Used::Own => &mut stay.own_off,
                Used::TimeSale => &mut stay.time_sale_off,
            };
            *off = off.checked_add(night.off())?;
        }
        Some(stay)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discount::tests::{any_discount, any_krw, percent, won};

    #[test]
    fn the_lower_of_two_discounts_counts_alone() {
        let night = lowest(won(100_000), Some(percent(10)), Some(percent(40)));
        assert_eq!((night.amount, night.used), (won(60_000), Used::TimeSale));
        let night = lowest(won(100_000), Some(percent(40)), Some(percent(10)));
        assert_eq!((night.amount, night.used), (won(60_000), Used::Own));
        let night = lowest(won(100_000), None, None);
        assert_eq!((night.amount, night.used), (won(100_000), Used::None));
    }

    #[test]
    fn a_tie_goes_to_the_own_discount() {
        let sale = Discount::Amount(won(10_000));
        let night = lowest(won(100_000), Some(percent(10)), Some(sale));
        assert_eq!((night.amount, night.used), (won(90_000), Used::Own));
    }

    #[test]
    fn a_discount_that_takes_nothing_off_is_not_used() {
        let night = lowest(won(50), Some(percent(1)), Some(Discount::Amount(Krw::ZERO)));
        assert_eq!((night.amount, night.used), (won(50), Used::None));
    }

    #[test]
    fn a_stay_is_rounded_night_by_night() {
        let nights =
            [won(101), won(101), won(101)].map(|price| lowest(price, None, Some(percent(50))));
        let stay = StayPrice::of(&nights).unwrap();
        // 3 * (101 - 50), not 303 - 151.
        assert_eq!(stay.amount, won(153));
        assert_eq!(
            (stay.original, stay.own_off, stay.time_sale_off),
            (won(303), won(0), won(150))
        );
    }

    #[test]
    fn the_names_on_the_wire_are_those_of_the_contract() {
        let names =
            [Used::None, Used::Own, Used::TimeSale].map(|used| serde_json::to_value(used).unwrap());
        assert_eq!(names, ["NONE", "OWN", "TIME_SALE"]);
    }

    proptest! {
        #[test]
        fn no_other_choice_is_lower(
            price in any_krw(),
            own in prop::option::of(any_discount()),
            sale in prop::option::of(any_discount()),
        ) {
            let night = lowest(price, own, sale);
            let own_price = own.map_or(price, |own| own.apply(price));
            let sale_price = sale.map_or(price, |sale| sale.apply(price));
            prop_assert_eq!(night.amount, price.min(own_price).min(sale_price));
            let of_used = match night.used {
                Used::None => price,
                Used::Own => own_price,
                Used::TimeSale => sale_price,
            };
            prop_assert_eq!(night.amount, of_used);
            prop_assert!(night.used != Used::TimeSale || sale_price < own_price);
        }

        #[test]
        fn a_stay_adds_up(nights in prop::collection::vec(
            (0..=100_000_000_i64, prop::option::of(any_discount()), prop::option::of(any_discount())), 1..30,
        )) {
            let nights: Vec<_> = nights
                .into_iter()
                .map(|(price, own, sale)| lowest(won(price), own, sale))
                .collect();
            let stay = StayPrice::of(&nights).unwrap();
            prop_assert_eq!(stay.amount, nights.iter().map(|night| night.amount).sum());
            let parts = [stay.amount, stay.own_off, stay.time_sale_off];
            prop_assert_eq!(stay.original, parts.iter().sum());
        }
    }
}
