//! The order saga: what an order goes through, and how it is undone. Pure: no clock, no store, no message.
//!
//! [`STEPS`] is the saga: five steps in a row, each beside its compensation. [`step`] takes an order's [`Saga`] and
//! something that happened, and answers the saga after it and what to ask of other services. Whoever calls it keeps
//! the answer and sends the effects in one transaction, with the order's row locked: of two events that can't both
//! have their way, such as a payment and the expiry, the first one under the lock does.
//!
//! It must never take money for nothing: whatever is captured and isn't for a booking that stands goes back.

mod event;
mod plan;
#[cfg(test)]
mod simulation;
mod step;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use money::Krw;
use uuid::Uuid;

pub use event::{Effect, Event, Refusal, Stepped, Verdict};
pub use plan::{Action, Command, Compensation, Plan, Progress, STEPS, StepName, Steps};
pub use step::{allowed, step};

/// The gateway's name of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PaymentKey(Arc<str>);

impl PaymentKey {
    /// As the gateway writes it.
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// As the gateway writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How an order that came to nothing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Its guest wanted so.
    Cancelled,
    /// It wasn't paid in time.
    Expired,
    /// Something in it could not be had.
    Failed,
}

impl End {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Failed => "FAILED",
        }
    }

    /// From [`End::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cancelled, Self::Expired, Self::Failed]
            .into_iter()
            .find(|end| end.as_str() == text)
    }
}

/// Where an order is: what its steps come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The nights and the discount are being kept.
    Holding,
    /// They are, and the guest may pay.
    AwaitingPayment,
    /// A payment is under way: nothing is known of its outcome, so time can't end the order.
    Paying,
    /// It is paid; the booking is being confirmed and the discount used.
    Confirming,
    /// All steps are done.
    Confirmed,
    /// Compensations are under way.
    Undoing(End),
    /// Money that is to go back doesn't, and a person must see to it; all else is undone.
    RefundRefused(End),
    /// Nothing is left of it.
    Ended(End),
}

impl Phase {
    /// As it is stored and shown to engineers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Holding => "HOLDING",
            Self::AwaitingPayment => "AWAITING_PAYMENT",
            Self::Paying => "PAYING",
            Self::Confirming => "CONFIRMING",
            Self::Confirmed => "CONFIRMED",
            Self::Undoing(End::Cancelled) => "UNDOING_CANCELLED",
            Self::Undoing(End::Expired) => "UNDOING_EXPIRED",
            Self::Undoing(End::Failed) => "UNDOING_FAILED",
            Self::RefundRefused(End::Cancelled) => "REFUND_REFUSED_CANCELLED",
            Self::RefundRefused(End::Expired) => "REFUND_REFUSED_EXPIRED",
            Self::RefundRefused(End::Failed) => "REFUND_REFUSED_FAILED",
            Self::Ended(end) => end.as_str(),
        }
    }

    /// The order's status in the API. An end is told as soon as it is decided, since nothing brings the order back;
    /// a payment that isn't settled yet leaves it awaiting payment.
    pub fn status(self) -> &'static str {
        match self {
            Self::Holding => "PENDING",
            Self::AwaitingPayment | Self::Paying | Self::Confirming => "AWAITING_PAYMENT",
            Self::Confirmed => "CONFIRMED",
            Self::Undoing(end) | Self::RefundRefused(end) | Self::Ended(end) => end.as_str(),
        }
    }

    /// Nothing more is to happen by itself.
    pub fn is_at_rest(self) -> bool {
        matches!(
            self,
            Self::Confirmed | Self::RefundRefused(_) | Self::Ended(_)
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of an order's money.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Money {
    /// The payment that is under way, or the one that was captured.
    pub payment_key: Option<PaymentKey>,
    /// Until when the outcome of a payment under way is waited for. Later than any gateway takes to know.
    pub settled_by: Option<Timestamp>,
    /// What was captured for the order.
    pub captured: Krw,
    /// How much of it is to go back.
    pub refund_due: Krw,
    /// How much of it went back.
    pub refunded: Krw,
}

/// Everything that decides what happens to an order next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saga {
    /// What is to be paid.
    pub total: Krw,
    /// Until when it may be paid.
    pub expires_at: Timestamp,
    /// How far each step is.
    pub steps: Steps,
    /// How it ends, once that is decided. Nothing takes it back.
    pub end: Option<End>,
    /// Its money.
    pub money: Money,
    /// The booking, once there is one.
    pub booking: Option<Uuid>,
}

impl Saga {
    /// An order before its first step. One that costs nothing has no payment to wait for.
    pub fn new(total: Krw, expires_at: Timestamp, discounted: bool) -> Self {
        let mut steps = Steps::default();
        if !discounted {
            steps[StepName::ReserveDiscount] = Progress::Skipped;
            steps[StepName::RedeemDiscount] = Progress::Skipped;
        }
        if total.is_zero() {
            steps[StepName::TakePayment] = Progress::Skipped;
        }
        Self {
            total,
            expires_at,
            steps,
            end: None,
            money: Money::default(),
            booking: None,
        }
    }

    /// Where the order is.
    pub fn phase(&self) -> Phase {
        if let Some(end) = self.end {
            let under_way =
                |name: StepName| matches!(self.steps[name], Progress::Asked | Progress::Undoing);
            return if StepName::ALL.into_iter().any(under_way) {
                Phase::Undoing(end)
            } else if self.steps[StepName::TakePayment] == Progress::UndoRefused {
                Phase::RefundRefused(end)
            } else {
                Phase::Ended(end)
            };
        }
        match self.steps.first_unfinished() {
            Some(StepName::HoldNights | StepName::ReserveDiscount) => Phase::Holding,
            Some(StepName::TakePayment) if self.steps[StepName::TakePayment] == Progress::Asked => {
                Phase::Paying
            }
            Some(StepName::TakePayment) => Phase::AwaitingPayment,
            Some(StepName::ConfirmBooking | StepName::RedeemDiscount) => Phase::Confirming,
            None => Phase::Confirmed,
        }
    }

    /// When somebody must look at the order again though nothing was heard of it: its expiry, or the time to ask again
    /// for what was not answered. `None` once it is at rest.
    pub fn due_at(&self, remind_at: Timestamp) -> Option<Timestamp> {
        match self.phase() {
            Phase::Holding => Some(self.expires_at.min(remind_at)),
            Phase::AwaitingPayment => Some(self.expires_at),
            Phase::Paying => Some(self.money.settled_by.unwrap_or(self.expires_at)),
            Phase::Confirming | Phase::Undoing(_) => Some(remind_at),
            Phase::Confirmed | Phase::RefundRefused(_) | Phase::Ended(_) => None,
        }
    }
}
