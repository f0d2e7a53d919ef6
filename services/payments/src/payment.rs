//! Payments and refunds as this service records them. Plain types and rules, no I/O.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::toss::{KOREA, RefundAccount};

/// The code with which `orders` is told that no deposit came while the order could be paid.
pub const DEPOSIT_OVERDUE: &str = "DEPOSIT_OVERDUE";
/// How long after its order's end a virtual account is looked at: whoever decides about the order then has decided.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(5);
/// The code with which `orders` is told that another payment of the order came first.
pub const ANOTHER_PAYMENT: &str = "ANOTHER_PAYMENT";

/// Where a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `orders` hasn't said yes yet: the gateway wasn't called.
    Asking,
    /// The gateway may have been called; what it did isn't known.
    Intent,
    /// A virtual account waits for its deposit.
    Waiting,
    /// Money was taken.
    Captured,
    /// No money was taken.
    Refused,
}

impl State {
    /// From the database's word.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ASKING" => Self::Asking,
            "INTENT" => Self::Intent,
            "WAITING" => Self::Waiting,
            "CAPTURED" => Self::Captured,
            "REFUSED" => Self::Refused,
            _ => return None,
        })
    }
}

/// A try to pay an order.
#[derive(Clone)]
pub struct Payment {
    /// Our name of it.
    pub payment_id: Uuid,
    /// Which order.
    pub order_id: Uuid,
    /// Whose.
    pub user_id: Uuid,
    /// The gateway's name of it.
    pub payment_key: String,
    /// What is to be paid, in won.
    pub amount: i64,
    /// Where it is.
    pub state: State,
    /// Part of the Idempotency-Key.
    pub attempt: i32,
    /// What was taken.
    pub captured: Option<i64>,
    /// By what means.
    pub method: Option<String>,
    /// By whose easy payment.
    pub provider: Option<String>,
    /// What true webhooks know.
    pub secret: Option<String>,
    /// Where a deposit would go back to.
    pub refund_account: Option<RefundAccount>,
    /// Where a deposit goes.
    pub deposit_to: Option<DepositTo>,
    /// Why it was refused.
    pub refusal: Option<String>,
    /// When it was captured.
    pub approved_at: Option<Timestamp>,
    /// How often the settler has asked.
    pub asks: i32,
    /// A call that was sent may still take effect.
    pub call_under_way: bool,
    /// Until when the order may be paid, by what `orders` said when the payment began.
    pub pay_by: Option<Timestamp>,
    /// That time has been over for a while.
    pub overdue: bool,
}

impl Payment {
    /// Until when a deposit is of use: as long as the gateway takes it and the order waits for it.
    pub fn deposit_by(&self) -> Option<Timestamp> {
        let due = self.deposit_to.as_ref().and_then(DepositTo::due_at);
        due.into_iter().chain(self.pay_by).min()
    }
}

/// The virtual account that a guest is to pay into.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepositTo {
    /// At which bank.
    pub bank_code: Option<String>,
    /// The number.
    pub account_number: Option<String>,
    /// Until when the gateway takes it, as it writes times.
    pub due_date: Option<String>,
}

impl DepositTo {
    /// Until when the gateway takes the deposit. A time without an offset is Korean.
    pub fn due_at(&self) -> Option<Timestamp> {
        let text = self.due_date.as_deref()?;
        text.parse().ok().or_else(|| {
            let local: DateTime = text.parse().ok()?;
            let at = local.to_zoned(TimeZone::fixed(KOREA)).ok()?;
            Some(at.timestamp())
        })
    }
}

/// A refund that isn't done yet, with its payment.
#[derive(Clone)]
pub struct OpenRefund {
    /// Which.
    pub refund_id: Uuid,
    /// Of which payment.
    pub payment: Payment,
    /// In won.
    pub amount: i64,
    /// In the guest's sight.
    pub reason: String,
    /// Part of the Idempotency-Key.
    pub attempt: i32,
    /// How often it was worked on before.
    pub asks: i32,
    /// A call that was sent may still take effect.
    pub call_under_way: bool,
}

/// How long until something is asked about again: doubles with each time, from a second on.
pub fn pause(asks: i32, max: Duration) -> Duration {
    let doublings = u32::try_from(asks.clamp(0, 16)).unwrap_or(0);
    Duration::from_secs(1 << doublings).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_deposit_is_read_with_and_without_an_offset() {
        let due = |text: &str| {
            let to = DepositTo {
                bank_code: None,
                account_number: None,
                due_date: Some(text.to_owned()),
            };
            to.due_at().map(|due| due.to_string())
        };
        let expected = Some("2026-12-08T03:00:00Z".to_owned());
        assert_eq!(due("2026-12-08T12:00:00+09:00"), expected);
        assert_eq!(due("2026-12-08T12:00:00"), expected);
        assert_eq!(due("soon"), None);
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let max = Duration::from_secs(30);
        let pauses = [0, 1, 2, 4, 5, 1_000, -1].map(|asks| pause(asks, max).as_secs());
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30, 1]);
    }
}
