//! Bugs that the simulation must find: each is what a hurried change could bring.

use jiff::Timestamp;
use money::Krw;

use super::super::{
    Command, Effect, Event, Phase, Progress, Saga, StepName, Stepped, Verdict, step,
};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// An order that comes to nothing keeps its nights.
    NightsNotReleased,
    /// An order that comes to nothing keeps its claim.
    DiscountNotReleased,
    /// Money that comes after the end is kept.
    LateCaptureKept,
    /// Time ends an order while its payment is under way.
    ExpiresWhilePaying,
    /// A payment is let through for an order that has ended.
    PaysAfterTheEnd,
    /// A paid order is confirmed without a booking.
    ConfirmedUnbooked,
    /// A paid order's claim isn't used.
    DiscountNotRedeemed,
    /// Each time a refund is asked for, it is another one.
    RefundsTwice,
    /// An order that fails after it was paid keeps the money.
    FailureKeepsMoney,
    /// A refund that the gateway refuses counts as made.
    RefusedRefundForgotten,
    /// Messages go out though the state they belong to is lost.
    SentBeforeCommit,
    /// Booking frees nights as often as it is told to.
    FreesTwice,
    /// A cancelled order is refunded whole, whatever the rules say.
    RefundsTooMuch,
    /// What wasn't answered is never asked again.
    NeverReminds,
    /// Promotions lets a claim serve two orders.
    ClaimServesTwo,
}

impl Planted {
    pub(super) const ALL: [Self; 15] = [
        Self::NightsNotReleased,
        Self::DiscountNotReleased,
        Self::LateCaptureKept,
        Self::ExpiresWhilePaying,
        Self::PaysAfterTheEnd,
        Self::ConfirmedUnbooked,
        Self::DiscountNotRedeemed,
        Self::RefundsTwice,
        Self::FailureKeepsMoney,
        Self::RefusedRefundForgotten,
        Self::SentBeforeCommit,
        Self::FreesTwice,
        Self::RefundsTooMuch,
        Self::NeverReminds,
        Self::ClaimServesTwo,
    ];
}

/// [`step`] with a bug around it; the saga itself has no place for one.
pub(super) fn step_with(
    planted: Option<Planted>,
    mut saga: Saga,
    now: Timestamp,
    event: &Event,
) -> Stepped {
    let Some(planted) = planted else {
        return step(saga, now, event);
    };
    let nothing = |saga: Saga, verdict| Stepped {
        saga,
        effects: Vec::new(),
        verdict,
    };
    let phase = saga.phase();
    match (planted, event) {
        (Planted::LateCaptureKept, Event::PaymentCaptured { .. }) if saga.end.is_some() => {
            return nothing(saga, Verdict::Unchanged);
        }
        (Planted::PaysAfterTheEnd, Event::PaymentAsked { .. }) if saga.end.is_some() => {
            return nothing(saga, Verdict::Changed);
        }
        (Planted::ExpiresWhilePaying, Event::Due) if phase == Phase::Paying => {
            saga.money.settled_by = Some(saga.expires_at);
        }
        (Planted::RefundsTooMuch, Event::CancelAsked { .. }) => {
            let refund = saga.money.captured;
            return step(saga, now, &Event::CancelAsked { refund });
        }
        (Planted::NeverReminds, Event::Due) => {
            let stepped = step(saga.clone(), now, event);
            return if stepped.verdict == Verdict::Reminded {
                nothing(saga, Verdict::Unchanged)
            } else {
                stepped
            };
        }
        _ => {}
    }
    let mut stepped = step(saga, now, event);
    match planted {
        Planted::NightsNotReleased => stepped.forget(
            StepName::HoldNights,
            Progress::Undone,
            &Effect::Ask(Command::ReleaseNights),
        ),
        Planted::DiscountNotReleased => stepped.forget(
            StepName::ReserveDiscount,
            Progress::Undone,
            &Effect::Ask(Command::ReleaseDiscount),
        ),
        Planted::ConfirmedUnbooked => stepped.forget(
            StepName::ConfirmBooking,
            Progress::Done,
            &Effect::Ask(Command::ConfirmBooking),
        ),
        Planted::DiscountNotRedeemed => stepped.forget(
            StepName::RedeemDiscount,
            Progress::Done,
            &Effect::Ask(Command::RedeemDiscount),
        ),
        Planted::RefusedRefundForgotten => {
            let progress = &mut stepped.saga.steps[StepName::TakePayment];
            if *progress == Progress::UndoRefused {
                *progress = Progress::Undone;
            }
        }
        Planted::FailureKeepsMoney if *event == Event::BookingRefused => {
            let is_refund = |effect: &Effect| matches!(effect, Effect::Refund { .. });
            if stepped.effects.iter().any(is_refund) {
                stepped.effects.retain(|effect| !is_refund(effect));
                stepped.saga.steps[StepName::TakePayment] = Progress::Undone;
                stepped.saga.money.refund_due = Krw::ZERO;
            }
        }
        _ => {}
    }
    stepped
}

impl Stepped {
    fn forget(&mut self, name: StepName, progress: Progress, effect: &Effect) {
        if self.effects.contains(effect) {
            self.effects.retain(|asked| asked != effect);
            self.saga.steps[name] = progress;
        }
    }
}
