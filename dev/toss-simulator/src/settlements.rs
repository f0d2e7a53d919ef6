//! What the gateway pays out, as `GET /v1/settlements` lists it: one record for each transaction, from the day after.
//!
//! Each day is settled by itself, and paid out two working days later (Saturdays and Sundays are none, holidays are).
//! What the gateway keeps differs from contract to contract; these fees are the simulator's own.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::model::{Cancel, Means, SEOUL, Status, Transaction};
use crate::refusal::Refusal;

/// Working days from the sale to the payout.
const PAID_OUT_AFTER: u8 = 2;
/// Records of one answer at most, and how many without a size.
const SIZE_MAX: usize = 5_000;
const SIZE_DEFAULT: usize = 100;
/// The fee without VAT in ten thousandths, except for virtual accounts.
const FEE: i64 = 300;
/// The fee of a deposit in won, without VAT. It stays when the money goes back.
const DEPOSIT_FEE: i64 = 300;
/// VAT is a tenth.
const VAT: i64 = 10;

/// One transaction as it is settled. Amounts are in won, and below zero where money went back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Settlement {
    pub m_id: &'static str,
    pub payment_key: String,
    pub transaction_key: String,
    pub order_id: String,
    pub currency: &'static str,
    pub method: &'static str,
    pub amount: i64,
    pub interest_fee: i64,
    /// They add up to `supplyAmount` and `vat`.
    pub fees: Vec<Fee>,
    pub supply_amount: i64,
    pub vat: i64,
    /// `amount` without the fees.
    pub pay_out_amount: i64,
    pub approved_at: String,
    /// The day of the transaction, in Korea.
    pub sold_date: Date,
    pub paid_out_date: Date,
    pub cancel: Option<Cancel>,
}

/// What the gateway keeps.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Fee {
    pub r#type: &'static str,
    pub fee: i64,
}

/// The query of `GET /v1/settlements`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dates {
    start_date: String,
    end_date: String,
    #[serde(default)]
    date_type: Option<String>,
    #[serde(default)]
    page: Option<usize>,
    #[serde(default)]
    size: Option<usize>,
}

/// Which date a record is looked for by.
#[derive(Debug, Clone, Copy)]
enum DateType {
    Sold,
    PaidOut,
}

/// A query that makes sense.
#[derive(Debug)]
pub(crate) struct Asked {
    by: DateType,
    dates: RangeInclusive<Date>,
    /// Records before the page.
    skip: usize,
    size: usize,
}

impl Dates {
    /// Both dates are part of the time asked for; the first page is 1.
    pub(crate) fn asked(&self) -> Result<Asked, Refusal> {
        let by = match self.date_type.as_deref() {
            None | Some("soldDate") => DateType::Sold,
            Some("paidOutDate") => DateType::PaidOut,
            Some(_) => return Err(Refusal::new("INVALID_REQUEST")),
        };
        let dates: (Option<Date>, Option<Date>) =
            (self.start_date.parse().ok(), self.end_date.parse().ok());
        let page = self.page.unwrap_or(1).checked_sub(1);
        let size = self.size.unwrap_or(SIZE_DEFAULT);
        let ((Some(start), Some(end)), Some(before), 1..=SIZE_MAX) = (dates, page, size) else {
            return Err(Refusal::new("INVALID_REQUEST"));
        };
        if start > end {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        Ok(Asked {
            by,
            dates: start..=end,
            skip: before.saturating_mul(size),
            size,
        })
    }
}

impl Asked {
    pub(crate) fn page_of(&self, all: impl Iterator<Item = Settlement>) -> Vec<Settlement> {
        let asked_for = |settlement: &Settlement| {
            let date = match self.by {
                DateType::Sold => settlement.sold_date,
                DateType::PaidOut => settlement.paid_out_date,
            };
            self.dates.contains(&date)
        };
        all.filter(asked_for)
            .skip(self.skip)
            .take(self.size)
            .collect()
    }
}

/// The date in Korea.
pub(crate) fn date(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::fixed(SEOUL)).date()
}

/// A transaction as it is settled; none before the day after.
pub(crate) fn settle(transaction: &Transaction, today: Date) -> Option<Settlement> {
    let sold_date = date(transaction.at);
    // Nobody paid into an account that was closed: nothing moved.
    if sold_date >= today || transaction.approved_at.is_empty() {
        return None;
    }
    let reversed = transaction.status == Status::WaitingForDeposit;
    let back = reversed || transaction.cancel.is_some();
    let amount = if back {
        -transaction.amount
    } else {
        transaction.amount
    };
    let supply_amount = match transaction.method == Means::VirtualAccount.method() {
        true if back => 0,
        true => DEPOSIT_FEE,
        false => amount * FEE / 10_000,
    };
    let vat = supply_amount / VAT;
    Some(Settlement {
        m_id: transaction.m_id,
        payment_key: transaction.payment_key.clone(),
        transaction_key: transaction.transaction_key.clone(),
        order_id: transaction.order_id.clone(),
        currency: transaction.currency,
        method: transaction.method,
        amount,
        interest_fee: 0,
        fees: vec![Fee {
            r#type: "BASE",
            fee: supply_amount + vat,
        }],
        supply_amount,
        vat,
        pay_out_amount: amount - supply_amount - vat,
        approved_at: transaction.approved_at.clone(),
        sold_date,
        paid_out_date: paid_out(sold_date),
        cancel: transaction.cancel.clone(),
    })
}

fn paid_out(sold: Date) -> Date {
    let working = |date: &Date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
    let mut days = sold
        .series(jiff::Span::new().days(1))
        .skip(1)
        .filter(working);
    // Dates end in the year 9999, which no sale is near.
    days.nth(usize::from(PAID_OUT_AFTER) - 1).unwrap_or(sold)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_payout_comes_two_working_days_after_the_sale() {
        for (sold, expected) in [
            ("2026-12-01", "2026-12-03"),
            ("2026-12-03", "2026-12-07"),
            ("2026-12-04", "2026-12-08"),
            ("2026-12-05", "2026-12-08"),
            ("2026-12-06", "2026-12-08"),
        ] {
            let sold: Date = sold.parse().unwrap();
            assert_eq!(paid_out(sold).to_string(), expected, "sold on {sold}");
        }
    }
}
