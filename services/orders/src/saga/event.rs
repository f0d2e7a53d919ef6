//! What happens to an order, and what follows.

use jiff::Timestamp;
use money::Krw;
use uuid::Uuid;

use super::{Command, PaymentKey, Saga};

/// Something that happened to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest ordered.
    Placed,
    /// The nights are held.
    Held,
    /// They can't be.
    HoldRefused(String),
    /// They are free again.
    NightsReleased,
    /// The claims are kept.
    DiscountReserved,
    /// They can't be kept, or can't be used.
    DiscountRefused(String),
    /// The claims are used.
    DiscountRedeemed,
    /// They are their guest's again.
    DiscountReleased,
    /// The guest wants to pay: may a payment begin?
    PaymentAsked {
        /// Which payment.
        key: PaymentKey,
        /// How much the guest thinks it is.
        amount: Krw,
        /// Until when its outcome will be waited for.
        settled_by: Timestamp,
    },
    /// Money was taken.
    PaymentCaptured {
        /// By which payment.
        key: PaymentKey,
        /// How much.
        amount: Krw,
    },
    /// No money was taken.
    PaymentRefused {
        /// By which payment.
        key: PaymentKey,
        /// Why.
        code: String,
    },
    /// No money was taken yet: the guest is to pay it into an account.
    DepositAwaited {
        /// By which payment.
        key: PaymentKey,
    },
    /// Money went back.
    PaymentRefunded {
        /// Of which payment.
        key: PaymentKey,
        /// How much.
        amount: Krw,
    },
    /// Money doesn't go back, unless a person sees to it.
    PaymentRefundRefused {
        /// Of which payment.
        key: PaymentKey,
        /// Why.
        code: String,
    },
    /// There is a booking.
    BookingConfirmed(Uuid),
    /// There is none: the hold was gone.
    BookingRefused,
    /// The guest cancels.
    CancelAsked {
        /// What a confirmed order's guest gets back by the rules.
        refund: Krw,
    },
    /// [`Saga::due_at`] has come.
    Due,
}

impl Event {
    /// Its name in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Held => "NIGHTS_HELD",
            Self::HoldRefused(_) => "HOLD_REFUSED",
            Self::NightsReleased => "NIGHTS_RELEASED",
            Self::DiscountReserved => "DISCOUNT_RESERVED",
            Self::DiscountRefused(_) => "DISCOUNT_REFUSED",
            Self::DiscountRedeemed => "DISCOUNT_REDEEMED",
            Self::DiscountReleased => "DISCOUNT_RELEASED",
            Self::PaymentAsked { .. } => "PAYMENT_BEGUN",
            Self::PaymentCaptured { .. } => "PAYMENT_CAPTURED",
            Self::PaymentRefused { .. } => "PAYMENT_REFUSED",
            Self::DepositAwaited { .. } => "DEPOSIT_AWAITED",
            Self::PaymentRefunded { .. } => "PAYMENT_REFUNDED",
            Self::PaymentRefundRefused { .. } => "REFUND_REFUSED",
            Self::BookingConfirmed(_) => "BOOKING_CONFIRMED",
            Self::BookingRefused => "BOOKING_REFUSED",
            Self::CancelAsked { .. } => "CANCEL_ASKED",
            Self::Due => "TIME_OVER",
        }
    }

    /// What the history says besides: a code or an amount.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::HoldRefused(code)
            | Self::DiscountRefused(code)
            | Self::PaymentRefused { code, .. }
            | Self::PaymentRefundRefused { code, .. } => Some(code.clone()),
            Self::PaymentCaptured { amount, .. } | Self::PaymentRefunded { amount, .. } => {
                Some(amount.to_string())
            }
            _ => None,
        }
    }
}

/// Something to ask of another service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Anything but a refund: the order says the rest.
    Ask(Command),
    /// Give money of a payment back. The same for the same payment, however often it is asked.
    Refund {
        /// Of which payment.
        key: PaymentKey,
        /// How much.
        amount: Krw,
    },
}

/// Why something asked for isn't done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The time to pay is over.
    Expired,
    /// The order isn't one that can be paid now.
    NotPayable,
    /// The amount isn't the order's.
    AmountMismatch,
    /// The order has ended otherwise.
    NotCancellable,
}

/// What an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Something is different.
    Changed,
    /// It was known, or doesn't matter any more.
    Unchanged,
    /// What wasn't answered is asked again.
    Reminded,
    /// It isn't done.
    Refused(Refusal),
}

/// An order after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// Its saga.
    pub saga: Saga,
    /// What to ask, in this order.
    pub effects: Vec<Effect>,
    /// What the event came to.
    pub verdict: Verdict,
}
