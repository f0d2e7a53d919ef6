//! The saga's one function.

use events::planted::planted;
use jiff::Timestamp;
use money::Krw;

use super::{
    Action, Command, Compensation, Effect, End, Event, PaymentKey, Phase, Progress, Refusal, STEPS,
    Saga, StepName, Stepped, Verdict,
};

/// What becomes of an order by an event at a time. Events may come twice, late, and in any order.
pub fn step(saga: Saga, now: Timestamp, event: &Event) -> Stepped {
    let from = saga.phase();
    let mut next = Next {
        saga,
        effects: Vec::new(),
    };
    let verdict = next.take(now, event);
    let to = next.saga.phase();
    debug_assert!(
        from == to || allowed(from, to),
        "{from} -> {to} by {event:?}"
    );
    Stepped {
        saga: next.saga,
        effects: next.effects,
        verdict,
    }
}

/// Whether an order may go from one phase to another.
pub fn allowed(from: Phase, to: Phase) -> bool {
    use Phase::{
        AwaitingPayment, Confirmed, Confirming, Ended, Holding, Paying, RefundRefused, Undoing,
    };
    match (from, to) {
        // An order that costs nothing has no payment to wait for.
        (Holding, AwaitingPayment | Confirming)
        | (AwaitingPayment, Paying | Confirming)
        | (Paying, AwaitingPayment | Confirming)
        | (Confirming, Confirmed)
        | (Holding | AwaitingPayment | Paying, Undoing(_))
        | (Confirming, Undoing(End::Cancelled | End::Failed))
        | (Confirmed, Undoing(End::Cancelled)) => true,
        // Nothing was held that would have to be freed; or all of it was free already.
        (Holding | Confirming, Ended(End::Failed)) => true,
        // The way back is a late capture, which is refunded.
        (Undoing(from), Ended(to)) | (Ended(from), Undoing(to)) => from == to,
        // A person has the money given back after all.
        (Undoing(from), RefundRefused(to)) | (RefundRefused(from), Ended(to)) => from == to,
        _ => false,
    }
}

struct Next {
    saga: Saga,
    effects: Vec<Effect>,
}

impl Next {
    fn take(&mut self, now: Timestamp, event: &Event) -> Verdict {
        match event {
            Event::Placed => self.place(),
            Event::Held => self.done(StepName::HoldNights),
            Event::HoldRefused(_) => self.refused(StepName::HoldNights),
            Event::NightsReleased => self.undone(StepName::HoldNights),
            Event::DiscountReserved => self.done(StepName::ReserveDiscount),
            Event::DiscountRefused(_) => self.discount_refused(),
            Event::DiscountRedeemed => self.done(StepName::RedeemDiscount),
            Event::DiscountReleased => self.undone(StepName::ReserveDiscount),
            Event::BookingConfirmed(booking) => {
                let verdict = self.done(StepName::ConfirmBooking);
                if verdict == Verdict::Changed {
                    self.saga.booking = Some(*booking);
                }
                verdict
            }
            Event::BookingRefused => self.booking_refused(),
            Event::PaymentAsked {
                key,
                amount,
                settled_by,
            } => self.pay(now, key, *amount, *settled_by),
            Event::PaymentCaptured { key, amount } => self.captured(key, *amount),
            // Until the deposit comes, nothing is under way: the order may be paid, and time may end it.
            Event::PaymentRefused { key, .. } | Event::DepositAwaited { key } => {
                self.payment_over(key)
            }
            Event::PaymentRefunded { key, amount } => self.refunded(key, *amount),
            Event::PaymentRefundRefused { key, .. } => self.refund_refused(key),
            Event::CancelAsked { refund } => self.cancel(*refund),
            Event::Due => self.due(now),
        }
    }

    fn progress(&mut self, name: StepName) -> &mut Progress {
        &mut self.saga.steps[name]
    }

    fn place(&mut self) -> Verdict {
        if *self.progress(StepName::HoldNights) != Progress::Todo || self.saga.end.is_some() {
            return Verdict::Unchanged;
        }
        self.advance();
        Verdict::Changed
    }

    /// Begins the first step that isn't done, unless it is under way.
    fn advance(&mut self) {
        let Some(name) = self.saga.steps.first_unfinished() else {
            return;
        };
        if let (Progress::Todo, Action::Ask(command)) = (*self.progress(name), name.plan().action) {
            *self.progress(name) = Progress::Asked;
            self.effects.push(Effect::Ask(command));
        }
    }

    /// A step that was asked for is done. What is being undone stays so: its compensation was asked for after it.
    fn done(&mut self, name: StepName) -> Verdict {
        if self.saga.end.is_some() || *self.progress(name) != Progress::Asked {
            return Verdict::Unchanged;
        }
        *self.progress(name) = Progress::Done;
        self.advance();
        Verdict::Changed
    }

    /// A step that was asked for can't be done. If it was to be undone, that is all it takes.
    fn refused(&mut self, name: StepName) -> Verdict {
        match (self.saga.end, *self.progress(name)) {
            (None, Progress::Asked) => {
                *self.progress(name) = Progress::Refused;
                self.undo(End::Failed, self.saga.money.captured);
                Verdict::Changed
            }
            (Some(_), Progress::Undoing) => self.undone(name),
            _ => Verdict::Unchanged,
        }
    }

    fn undone(&mut self, name: StepName) -> Verdict {
        if *self.progress(name) != Progress::Undoing {
            return Verdict::Unchanged;
        }
        *self.progress(name) = Progress::Undone;
        Verdict::Changed
    }

    fn discount_refused(&mut self) -> Verdict {
        self.refused_later(StepName::RedeemDiscount, StepName::ReserveDiscount)
    }

    fn booking_refused(&mut self) -> Verdict {
        self.refused_later(StepName::ConfirmBooking, StepName::HoldNights)
    }

    /// What was kept by `kept` was gone when `later` wanted it: there is nothing of either to undo.
    fn refused_later(&mut self, later: StepName, kept: StepName) -> Verdict {
        if self.saga.end.is_none() && *self.progress(later) == Progress::Asked {
            *self.progress(kept) = Progress::Undone;
            return self.refused(later);
        }
        self.refused(kept)
    }

    /// Decides the end, and asks for every compensation at once, last step first. A step whose outcome isn't known is
    /// undone like one that is done.
    fn undo(&mut self, end: End, refund: Krw) {
        debug_assert!(self.saga.end.is_none(), "an end is decided once");
        self.saga.end = Some(end);
        self.saga.money.refund_due = refund;
        for plan in STEPS.iter().rev() {
            let progress = *self.progress(plan.name);
            if !matches!(progress, Progress::Asked | Progress::Done) {
                continue;
            }
            *self.progress(plan.name) = match plan.compensation {
                // Nobody can say whether money will have been taken. If so, its capture is late, and refunded.
                _ if plan.name == StepName::TakePayment && progress == Progress::Asked => {
                    Progress::Todo
                }
                Compensation::Ask(Command::Refund) if self.saga.money.refund_due.is_zero() => {
                    Progress::Undone
                }
                Compensation::Ask(Command::ReleaseNights) if planted("skip-compensation") => {
                    Progress::Undone
                }
                Compensation::Ask(command) => {
                    let effect = self.effect(command);
                    self.effects.extend(effect);
                    Progress::Undoing
                }
                Compensation::With(_) => Progress::Undone,
            };
        }
    }

    /// Money of the captured payment is asked back by its key; a refund of no payment is none.
    fn effect(&self, command: Command) -> Option<Effect> {
        if command != Command::Refund {
            return Some(Effect::Ask(command));
        }
        let key = self.saga.money.payment_key.clone()?;
        Some(Effect::Refund {
            key,
            amount: self.saga.money.refund_due,
        })
    }

    /// The one place where a payment is let through: of it and the expiry, who comes first under the row's lock wins.
    fn pay(
        &mut self,
        now: Timestamp,
        key: &PaymentKey,
        amount: Krw,
        settled_by: Timestamp,
    ) -> Verdict {
        let phase = self.saga.phase();
        let known = self.saga.money.payment_key.as_ref() == Some(key);
        let refusal = match phase {
            Phase::Undoing(End::Expired)
            | Phase::RefundRefused(End::Expired)
            | Phase::Ended(End::Expired) => Refusal::Expired,
            Phase::Holding | Phase::Undoing(_) | Phase::RefundRefused(_) | Phase::Ended(_) => {
                Refusal::NotPayable
            }
            _ if amount != self.saga.total => Refusal::AmountMismatch,
            Phase::Paying | Phase::Confirming | Phase::Confirmed if known => {
                return Verdict::Unchanged;
            }
            Phase::Paying | Phase::Confirming | Phase::Confirmed => Refusal::NotPayable,
            Phase::AwaitingPayment if now >= self.saga.expires_at && !planted("blind-expiry") => {
                Refusal::Expired
            }
            Phase::AwaitingPayment => {
                *self.progress(StepName::TakePayment) = Progress::Asked;
                self.saga.money.payment_key = Some(key.clone());
                self.saga.money.settled_by = Some(settled_by.max(self.saga.expires_at));
                return Verdict::Changed;
            }
        };
        Verdict::Refused(refusal)
    }

    /// Money was taken. It pays for the order if that stands and waits for just this much; otherwise it goes back.
    fn captured(&mut self, key: &PaymentKey, amount: Krw) -> Verdict {
        let progress = *self.progress(StepName::TakePayment);
        let captured_before = matches!(
            progress,
            Progress::Done | Progress::Undoing | Progress::UndoRefused | Progress::Undone
        );
        if captured_before && self.saga.money.payment_key.as_ref() == Some(key) {
            return Verdict::Unchanged;
        }
        let awaited = matches!(self.saga.phase(), Phase::AwaitingPayment | Phase::Paying);
        if awaited && amount == self.saga.total {
            *self.progress(StepName::TakePayment) = Progress::Done;
            self.keep(key, amount);
            self.advance();
        } else if self.saga.end.is_some() && progress == Progress::Todo {
            *self.progress(StepName::TakePayment) = Progress::Undoing;
            self.keep(key, amount);
            self.saga.money.refund_due = amount;
            self.effects.extend(self.effect(Command::Refund));
        } else {
            // Not the order's price, or a second payment: none of its business, but the guest's money.
            if progress == Progress::Asked && self.saga.money.payment_key.as_ref() == Some(key) {
                self.forget_payment();
            }
            self.effects.push(Effect::Refund {
                key: key.clone(),
                amount,
            });
        }
        Verdict::Changed
    }

    fn keep(&mut self, key: &PaymentKey, amount: Krw) {
        self.saga.money.payment_key = Some(key.clone());
        self.saga.money.settled_by = None;
        self.saga.money.captured = amount;
    }

    /// The guest may try another means.
    fn forget_payment(&mut self) {
        *self.progress(StepName::TakePayment) = Progress::Todo;
        self.saga.money.payment_key = None;
        self.saga.money.settled_by = None;
    }

    fn payment_over(&mut self, key: &PaymentKey) -> Verdict {
        let under_way = *self.progress(StepName::TakePayment) == Progress::Asked;
        if !under_way || self.saga.money.payment_key.as_ref() != Some(key) {
            return Verdict::Unchanged;
        }
        self.forget_payment();
        Verdict::Changed
    }

    fn refunded(&mut self, key: &PaymentKey, amount: Krw) -> Verdict {
        if self.saga.money.payment_key.as_ref() != Some(key) {
            return Verdict::Unchanged;
        }
        // A person may have given back what the gateway had refused to.
        let progress = self.progress(StepName::TakePayment);
        if !matches!(progress, Progress::Undoing | Progress::UndoRefused) {
            return Verdict::Unchanged;
        }
        *progress = Progress::Undone;
        self.saga.money.refunded = amount;
        Verdict::Changed
    }

    /// The money isn't asked back again: whatever is wrong, time doesn't mend it.
    fn refund_refused(&mut self, key: &PaymentKey) -> Verdict {
        let own = self.saga.money.payment_key.as_ref() == Some(key);
        let progress = self.progress(StepName::TakePayment);
        if !own || *progress != Progress::Undoing {
            return Verdict::Unchanged;
        }
        *progress = Progress::UndoRefused;
        Verdict::Changed
    }

    fn cancel(&mut self, refund: Krw) -> Verdict {
        match self.saga.phase() {
            Phase::Undoing(End::Cancelled)
            | Phase::RefundRefused(End::Cancelled)
            | Phase::Ended(End::Cancelled) => Verdict::Unchanged,
            Phase::Undoing(_) | Phase::RefundRefused(_) | Phase::Ended(_) => {
                Verdict::Refused(Refusal::NotCancellable)
            }
            phase => {
                // Before there is a booking, nothing can be kept of what was paid.
                let captured = self.saga.money.captured;
                let refund = if phase == Phase::Confirmed {
                    refund.min(captured)
                } else {
                    captured
                };
                self.undo(End::Cancelled, refund);
                Verdict::Changed
            }
        }
    }

    /// Time is over for an order that isn't paid; anything else that wasn't answered is asked again.
    fn due(&mut self, now: Timestamp) -> Verdict {
        let unpaid_until = match self.saga.phase() {
            Phase::Holding | Phase::AwaitingPayment => Some(self.saga.expires_at),
            Phase::Paying => self.saga.money.settled_by,
            _ => None,
        };
        if unpaid_until.is_some_and(|until| now >= until) {
            self.undo(End::Expired, Krw::ZERO);
            return Verdict::Changed;
        }
        for plan in &STEPS {
            let unanswered = match (*self.progress(plan.name), plan.action, plan.compensation) {
                (Progress::Asked, Action::Ask(command), _)
                | (Progress::Undoing, _, Compensation::Ask(command)) => self.effect(command),
                _ => None,
            };
            self.effects.extend(unanswered);
        }
        if self.effects.is_empty() {
            Verdict::Unchanged
        } else {
            Verdict::Reminded
        }
    }
}
