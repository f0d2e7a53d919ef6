//! What the simulator can be asked to do wrong. Each fault has a name and is off until it is switched on.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// The faults that are on. A probability is from 0 (off) to 1 (always).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// The same seed gives the same sequence of faults for the same sequence of calls.
    pub seed: u64,
    /// Which calls `slow`, `conflict`, `serverError`, `chargeAndDropAnswer` and `chargeAndServerError` apply to.
    pub on: Vec<Operation>,
    /// How many calls are hit before all these faults are over; without it they go on.
    pub times: Option<u32>,
    /// The call takes effect, and the connection is cut instead of answering.
    pub charge_and_drop_answer: f64,
    /// The call takes effect, and the answer is 500.
    pub charge_and_server_error: f64,
    /// The answer comes late by `slowMillis`; the call takes effect first.
    pub slow: f64,
    /// How late.
    pub slow_millis: u64,
    /// 409 IDEMPOTENT_REQUEST_PROCESSING without an effect.
    pub conflict: f64,
    /// 500 FAILED_INTERNAL_SYSTEM_PROCESSING without an effect.
    pub server_error: f64,
    /// A confirm is refused with `refuseCode`, and the payment is aborted.
    pub refuse: f64,
    /// With which code.
    pub refuse_code: String,
    /// A cancel is refused with `refuseCancelCode`: no money goes back.
    pub refuse_cancel: f64,
    /// With which code.
    pub refuse_cancel_code: String,
    /// A webhook is never sent.
    pub webhooks_lost: f64,
    /// A webhook is sent twice.
    pub webhooks_repeated: f64,
    /// A webhook is held back, so that later ones overtake it.
    pub webhooks_reordered: f64,
}

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// `POST /v1/payments/confirm`
    Confirm,
    /// `POST /v1/payments/{paymentKey}/cancel`
    Cancel,
    /// Every `GET`.
    Query,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 0,
            on: vec![Operation::Confirm, Operation::Cancel],
            times: None,
            charge_and_drop_answer: 0.0,
            charge_and_server_error: 0.0,
            slow: 0.0,
            slow_millis: 0,
            conflict: 0.0,
            server_error: 0.0,
            refuse: 0.0,
            refuse_code: "REJECT_CARD_PAYMENT".to_owned(),
            refuse_cancel: 0.0,
            refuse_cancel_code: "NOT_CANCELABLE_PAYMENT".to_owned(),
            webhooks_lost: 0.0,
            webhooks_repeated: 0.0,
            webhooks_reordered: 0.0,
        }
    }
}

impl Faults {
    /// The name of a probability that is none.
    pub(crate) fn mistake(&self) -> Option<&'static str> {
        let probabilities = [
            ("chargeAndDropAnswer", self.charge_and_drop_answer),
            ("chargeAndServerError", self.charge_and_server_error),
            ("slow", self.slow),
            ("conflict", self.conflict),
            ("serverError", self.server_error),
            ("refuse", self.refuse),
            ("refuseCancel", self.refuse_cancel),
            ("webhooksLost", self.webhooks_lost),
            ("webhooksRepeated", self.webhooks_repeated),
            ("webhooksReordered", self.webhooks_reordered),
        ];
        probabilities
            .into_iter()
            .find(|(_, p)| !(0.0..=1.0).contains(p))
            .map(|(name, _)| name)
    }
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hit {
    pub(crate) drop_answer: bool,
    pub(crate) error_after: bool,
    pub(crate) delay: Option<Duration>,
    pub(crate) conflict: bool,
    pub(crate) error_before: bool,
    pub(crate) refuse: Option<String>,
}

/// What happens to one webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WebhookHit {
    pub(crate) lost: bool,
    pub(crate) repeated: bool,
    pub(crate) held_back: bool,
}

/// The faults with their dice.
pub(crate) struct Dice {
    faults: Faults,
    rng: StdRng,
    left: Option<u32>,
}

impl Dice {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            rng: StdRng::seed_from_u64(faults.seed),
            left: faults.times,
            faults,
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.faults.clone()
    }

    fn falls(&mut self, probability: f64) -> bool {
        // The dice are thrown only for faults that are on, so that a seed is stable when others are added.
        probability > 0.0 && self.rng.random_bool(probability)
    }

    pub(crate) fn call(&mut self, operation: Operation) -> Hit {
        let mut hit = Hit::default();
        if self.left == Some(0) {
            return hit;
        }
        if self.faults.on.contains(&operation) {
            let faults = self.faults.clone();
            hit.conflict = self.falls(faults.conflict);
            hit.error_before = !hit.conflict && self.falls(faults.server_error);
            hit.drop_answer = self.falls(faults.charge_and_drop_answer);
            hit.error_after = self.falls(faults.charge_and_server_error);
            if self.falls(faults.slow) {
                hit.delay = Some(Duration::from_millis(faults.slow_millis));
            }
        }
        if operation == Operation::Confirm && self.falls(self.faults.refuse) {
            hit.refuse = Some(self.faults.refuse_code.clone());
        }
        if operation == Operation::Cancel && self.falls(self.faults.refuse_cancel) {
            hit.refuse = Some(self.faults.refuse_cancel_code.clone());
        }
        if hit != Hit::default()
            && let Some(left) = &mut self.left
        {
            *left -= 1;
        }
        hit
    }

    pub(crate) fn webhook(&mut self) -> WebhookHit {
        let faults = self.faults.clone();
        WebhookHit {
            lost: self.falls(faults.webhooks_lost),
            repeated: self.falls(faults.webhooks_repeated),
            held_back: self.falls(faults.webhooks_reordered),
        }
    }
}
