//! What happens in the worlds, counted: a simulation that never meets a race proves nothing about it.

use super::super::{End, Event, Phase, Refusal, Verdict};

/// What happened at least once, so that the suite can see that it does.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen([u64; SEEN.len()]);

const SEEN: [&str; 18] = [
    "confirmed",
    "cancelled before payment",
    "cancelled while paying",
    "cancelled after confirmation",
    "expired unpaid",
    "expired while paying, the outcome overdue",
    "failed",
    "late capture",
    "payment refused by the gateway",
    "a deposit awaited",
    "paid by a deposit",
    "payment refused for its time",
    "payment refused for its amount",
    "booking refused",
    "reminded",
    "refund refused",
    "refunded after a refusal",
    "an event after the end",
];

impl Seen {
    pub(super) fn note(&mut self, what: &str) {
        if let Some(index) = SEEN.iter().position(|name| *name == what) {
            self.0[index] += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }

    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        SEEN.into_iter().zip(self.0).collect()
    }
}

impl Seen {
    /// Notes what an event came to.
    pub(super) fn event(&mut self, before: Phase, after: Phase, event: &Event, verdict: Verdict) {
        let ended = matches!(
            before,
            Phase::Undoing(_) | Phase::RefundRefused(_) | Phase::Ended(_)
        );
        match (before, after, event) {
            (_, Phase::Confirmed, _) if before != after => self.note("confirmed"),
            (Phase::Confirmed, Phase::Undoing(End::Cancelled), _) => {
                self.note("cancelled after confirmation");
            }
            (Phase::Paying, Phase::Undoing(End::Cancelled), _) => {
                self.note("cancelled while paying");
            }
            (Phase::Paying, Phase::Undoing(End::Expired), _) => {
                self.note("expired while paying, the outcome overdue");
            }
            (_, Phase::Undoing(End::Cancelled), _) if !ended => {
                self.note("cancelled before payment");
            }
            (_, Phase::Undoing(End::Expired), _) if !ended => self.note("expired unpaid"),
            (_, Phase::Undoing(End::Failed) | Phase::Ended(End::Failed), _) if !ended => {
                self.note("failed");
            }
            (_, _, Event::PaymentCaptured { .. }) if ended && verdict == Verdict::Changed => {
                self.note("late capture");
            }
            (_, Phase::RefundRefused(_), _) if before != after => self.note("refund refused"),
            (Phase::RefundRefused(_), Phase::Ended(_), _) => {
                self.note("refunded after a refusal");
            }
            (Phase::Paying, Phase::AwaitingPayment, Event::DepositAwaited { .. }) => {
                self.note("a deposit awaited");
            }
            (Phase::Paying, Phase::AwaitingPayment, _) => {
                self.note("payment refused by the gateway");
            }
            _ if ended && verdict == Verdict::Unchanged => self.note("an event after the end"),
            _ => {}
        }
        match (event, verdict) {
            (_, Verdict::Refused(Refusal::Expired)) => self.note("payment refused for its time"),
            (_, Verdict::Refused(Refusal::AmountMismatch)) => {
                self.note("payment refused for its amount");
            }
            (_, Verdict::Reminded) => self.note("reminded"),
            (Event::BookingRefused, Verdict::Changed) => self.note("booking refused"),
            _ => {}
        }
    }
}
