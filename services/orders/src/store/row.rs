//! Rows as orders, and times as the server has them.

use jiff::Timestamp;
use money::Krw;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Deposit, Order};
use crate::pricing::Price;
use crate::refunds::Policy;
use crate::saga::{End, Money, PaymentKey, Progress, Saga, StepName, Steps};
use crate::stay::StayDates;

/// A row of `orders` as the server gives it.
pub(super) struct Row {
    pub(super) order_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) room_type_id: Uuid,
    pub(super) stay_id: Uuid,
    pub(super) host_id: Uuid,
    pub(super) stay_name: String,
    pub(super) region: String,
    pub(super) check_in: time::Date,
    pub(super) check_out: time::Date,
    pub(super) guests: i16,
    pub(super) cancellation: String,
    pub(super) coupon_id: Option<Uuid>,
    pub(super) sale_claim_id: Option<Uuid>,
    pub(super) claim_ids: Vec<Uuid>,
    pub(super) price: Json<Price>,
    pub(super) total: i64,
    pub(super) end_as: Option<String>,
    pub(super) hold_nights: String,
    pub(super) reserve_discount: String,
    pub(super) take_payment: String,
    pub(super) confirm_booking: String,
    pub(super) redeem_discount: String,
    pub(super) booking_id: Option<Uuid>,
    pub(super) payment_key: Option<String>,
    pub(super) settled_by: Option<OffsetDateTime>,
    pub(super) captured: i64,
    pub(super) refund_due: i64,
    pub(super) refunded: i64,
    pub(super) deposit: Option<Json<Deposit>>,
    pub(super) expires_at: OffsetDateTime,
    pub(super) reminders: i32,
    pub(super) created_at: OffsetDateTime,
    pub(super) confirmed_at: Option<OffsetDateTime>,
    pub(super) ended_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for Order {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let mut steps = Steps::default();
        for (name, text) in [
            (StepName::HoldNights, &row.hold_nights),
            (StepName::ReserveDiscount, &row.reserve_discount),
            (StepName::TakePayment, &row.take_payment),
            (StepName::ConfirmBooking, &row.confirm_booking),
            (StepName::RedeemDiscount, &row.redeem_discount),
        ] {
            steps[name] = Progress::parse(text).ok_or_else(|| unreadable("a step", text))?;
        }
        let end = |text: &String| End::parse(text).ok_or_else(|| unreadable("end_as", text));
        let policy = Policy::parse(&row.cancellation)
            .ok_or_else(|| unreadable("cancellation", &row.cancellation))?;
        let (check_in, check_out) = (civil_date(row.check_in)?, civil_date(row.check_out)?);
        Ok(Self {
            order_id: row.order_id,
            user_id: row.user_id,
            room_type_id: row.room_type_id,
            stay_id: row.stay_id,
            host_id: row.host_id,
            stay_name: row.stay_name,
            region: row.region,
            dates: StayDates {
                check_in,
                check_out,
            },
            guests: row.guests.unsigned_abs(),
            policy,
            coupon_id: row.coupon_id,
            sale_claim_id: row.sale_claim_id,
            claim_ids: row.claim_ids,
            price: row.price.0,
            saga: Saga {
                total: krw(row.total)?,
                expires_at: timestamp(row.expires_at),
                steps,
                end: row.end_as.as_ref().map(end).transpose()?,
                money: Money {
                    payment_key: row.payment_key.as_deref().map(PaymentKey::new),
                    settled_by: row.settled_by.map(timestamp),
                    captured: krw(row.captured)?,
                    refund_due: krw(row.refund_due)?,
                    refunded: krw(row.refunded)?,
                },
                booking: row.booking_id,
            },
            deposit: row.deposit.map(|json| json.0),
            reminders: row.reminders.unsigned_abs(),
            created_at: timestamp(row.created_at),
            confirmed_at: row.confirmed_at.map(timestamp),
            ended_at: row.ended_at.map(timestamp),
        })
    }
}

fn unreadable(column: &str, text: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} is {text:?}").into())
}

fn krw(won: i64) -> Result<Krw, sqlx::Error> {
    Krw::new(won).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos())
        .expect("times of orders are between the years -9999 and 9999")
}

/// As the server keeps it, to the microsecond.
pub(super) fn sql_time(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanosecond())
        .expect("both types have the years -9999 to 9999")
}

fn civil_date(date: time::Date) -> Result<jiff::civil::Date, sqlx::Error> {
    let (year, month, day) = date.to_calendar_date();
    i16::try_from(year)
        .ok()
        .zip(i8::try_from(day).ok())
        .and_then(|(year, day)| jiff::civil::Date::new(year, u8::from(month) as i8, day).ok())
        .ok_or_else(|| unreadable("a date", &date.to_string()))
}

pub(super) fn sql_date(date: jiff::civil::Date) -> time::Date {
    let first = time::Date::from_ordinal_date(i32::from(date.year()), 1);
    first
        .ok()
        .and_then(|first| {
            first.checked_add(time::Duration::days(i64::from(date.day_of_year()) - 1))
        })
        .expect("both calendars have the years -9999 to 9999")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_survive_the_way_to_the_server_and_back() {
        for text in ["2026-12-31", "2028-02-29", "2026-01-01"] {
            let date: jiff::civil::Date = text.parse().unwrap();
            assert_eq!(sql_date(date).to_string(), text);
            assert_eq!(civil_date(sql_date(date)).unwrap(), date);
        }
        let at: Timestamp = "2026-12-01T03:00:00.123456Z".parse().unwrap();
        assert_eq!(timestamp(sql_time(at)), at);
    }
}
