//! What a guest asks for.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The most nights of one order.
pub const NIGHTS_MAX: usize = 30;

/// The most guests that anybody can ask for; a room type's own capacity is less.
pub const GUESTS_MAX: u16 = 100;

/// The nights of a stay: from check-in to the night before check-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StayDates {
    /// The first night.
    pub check_in: Date,
    /// The day of leaving, not a night.
    pub check_out: Date,
}

/// Why dates are none of a stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatesError {
    /// There is no night between them.
    #[error("is not after checkIn")]
    Reversed,
    /// There are too many.
    #[error("is more than {NIGHTS_MAX} nights after checkIn")]
    TooLong,
}

impl StayDates {
    /// One to [`NIGHTS_MAX`] nights.
    pub fn new(check_in: Date, check_out: Date) -> Result<Self, DatesError> {
        if check_out <= check_in {
            return Err(DatesError::Reversed);
        }
        let dates = Self {
            check_in,
            check_out,
        };
        if dates.nights().count() > NIGHTS_MAX {
            return Err(DatesError::TooLong);
        }
        Ok(dates)
    }

    /// Each night by its date; one more than the most is as far as it counts.
    pub fn nights(self) -> impl Iterator<Item = Date> {
        self.check_in
            .series(jiff::Span::new().days(1))
            .take_while(move |night| *night < self.check_out)
            .take(NIGHTS_MAX + 1)
    }
}

/// An order as its guest asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Which room type.
    pub room_type_id: Uuid,
    /// When.
    pub dates: StayDates,
    /// How many people.
    pub guests: u16,
    /// A coupon of the guest's.
    pub coupon_id: Option<Uuid>,
    /// A claim of the guest's on a time sale.
    pub time_sale_claim_id: Option<Uuid>,
}

/// What a guest wants to order.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[schema(as = NewOrder)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WishBody {
    room_type_id: Uuid,
    /// The first night; not before today in Seoul.
    check_in: Date,
    /// The day of leaving: 1 to 30 nights later.
    check_out: Date,
    #[schema(minimum = 1, maximum = 100)]
    guests: u16,
    /// A coupon of the caller's.
    coupon_id: Option<Uuid>,
    /// A claim of the caller's on a time sale.
    time_sale_claim_id: Option<Uuid>,
}

impl WishBody {
    /// What is asked for, if it makes sense on `today`; the error is the field and what is wrong with it.
    pub fn check(self, today: Date) -> Result<Wish, (&'static str, String)> {
        if self.check_in < today {
            return Err(("/checkIn", "is in the past".to_owned()));
        }
        let dates = StayDates::new(self.check_in, self.check_out)
            .map_err(|error| ("/checkOut", error.to_string()))?;
        if !(1..=GUESTS_MAX).contains(&self.guests) {
            return Err(("/guests", format!("is not from 1 to {GUESTS_MAX}")));
        }
        Ok(Wish {
            room_type_id: self.room_type_id,
            dates,
            guests: self.guests,
            coupon_id: self.coupon_id,
            time_sale_claim_id: self.time_sale_claim_id,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn the_day_of_leaving_is_no_night() {
        let dates = StayDates::new(date(2026, 12, 30), date(2027, 1, 2)).unwrap();
        let nights: Vec<Date> = dates.nights().collect();
        assert_eq!(
            nights,
            [date(2026, 12, 30), date(2026, 12, 31), date(2027, 1, 1)]
        );
    }

    #[test]
    fn a_stay_has_one_night_to_thirty() {
        let from = date(2026, 12, 1);
        let until = |day| StayDates::new(from, day);
        assert_eq!(until(from), Err(DatesError::Reversed));
        assert_eq!(until(date(2026, 11, 30)), Err(DatesError::Reversed));
        assert!(until(date(2026, 12, 31)).is_ok());
        assert_eq!(until(date(2027, 1, 1)), Err(DatesError::TooLong));
        assert_eq!(until(date(9999, 12, 31)), Err(DatesError::TooLong));
    }
}
