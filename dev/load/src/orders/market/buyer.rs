//! A guest of a market: orders again and again, and pays, cancels, walks away, or is refused by the payment gateway.
//!
//! Whatever isn't answered is asked again, as an app does it: an order with the same key, a payment with the same body.

use std::collections::HashSet;
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::seen::{NotFound, OrderCall, Paid, PaymentCall, Placed, Seen, Told, Wish};
use super::{Market, Progress};
use crate::e2e::TIMEOUT;
use crate::guests::Guest;
use crate::history::{ClaimCall, Outcome, Refusal, outcome_of};
use crate::http::{Answer, Call, Connection};
use crate::platform::Declared;

/// How long a guest goes on asking for one answer. Faults are shorter.
const PATIENCE: Duration = Duration::from_secs(90);

/// The pause before somebody asks again, at first and at most: it doubles.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// A claim that was taken this recently is there to be used: its own time is longer.
const FRESH: SignedDuration = SignedDuration::from_secs(20);

/// What somebody wants to do with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intention {
    Pay,
    /// Never comes back.
    Abandon,
    /// With a card that the gateway refuses.
    PayWithABadCard,
    CancelUnpaid,
    /// Pays, and cancels when the booking stands, or at once.
    CancelPaid,
}

impl Intention {
    /// One in five walks away, and one in five has a card that is refused.
    pub(super) fn random(rng: &mut StdRng) -> Self {
        match rng.random_range(0..10) {
            0 | 1 => Self::Abandon,
            2 | 3 => Self::PayWithABadCard,
            4 => Self::CancelUnpaid,
            5 => Self::CancelPaid,
            _ => Self::Pay,
        }
    }
}

/// The code of a request that another one with its key is ahead of.
const IN_FLIGHT: &str = "IDEMPOTENCY_IN_FLIGHT";

/// What was answered, once it was.
struct Answered {
    status: u16,
    body: Value,
}

impl Answered {
    fn of(answer: &Answer) -> Self {
        Self {
            status: answer.status.as_u16(),
            body: serde_json::from_slice(&answer.body).unwrap_or_default(),
        }
    }

    /// Whether it needn't be asked for again.
    fn says_something(&self) -> bool {
        match (self.status, self.code()) {
            (429 | 502 | 503 | 504, _) => false,
            (409, code) => !matches!(code, IN_FLIGHT | "PAYMENT_PENDING"),
            _ => true,
        }
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// A claim that the guest may have.
#[derive(Clone, Copy)]
struct Held {
    claim: Uuid,
    /// When it was taken, if it was never used before.
    fresh: Option<Timestamp>,
}

/// A guest.
pub(super) struct Buyer<'a> {
    market: &'a Market<'a>,
    guest: Guest,
    rng: StdRng,
    api: Connection,
    toss: Connection,
    coupon: Option<Held>,
    sale_claim: Option<Held>,
    coupons_are_gone: bool,
    /// Claims that an order was asked for with.
    used: HashSet<Uuid>,
    seen: Seen,
}

impl<'a> Buyer<'a> {
    /// The `number`th guest of a run. The same seed has the same wishes.
    pub(super) fn new(market: &'a Market<'a>, guest: Guest, seed: u64, number: usize) -> Self {
        let number = u64::try_from(number).unwrap_or(0);
        Self {
            market,
            guest,
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number)),
            api: Connection::new(market.platform.api),
            toss: Connection::new(market.toss.at),
            coupon: None,
            sale_claim: None,
            coupons_are_gone: false,
            used: HashSet::new(),
            seen: Seen::default(),
        }
    }

    /// Orders so many times, one after the other, and answers what was seen.
    pub(super) async fn shop(mut self, orders: usize, progress: &Progress) -> Seen {
        for _ in 0..orders {
            self.claim().await;
            let wish = self.wish().await;
            let placed = self.place(wish).await;
            progress.ordered();
            if let Some((order, amount)) = placed {
                let intention = Intention::random(&mut self.rng);
                self.go_on(order, amount, intention).await;
            }
        }
        self.seen
    }

    /// Orders once and pays at the very moment at which the order expires, `by` earlier or later.
    pub(super) async fn pay_at_the_last_moment(mut self, by: SignedDuration) -> Seen {
        let wish = self.wish().await;
        let Some((order, amount)) = self.place(wish).await else {
            return self.seen;
        };
        let Some(payable) = self.until_decided(order).await else {
            return self.seen;
        };
        let expires = payable["expiresAt"].as_str().map(str::parse::<Timestamp>);
        if payable["status"] != "AWAITING_PAYMENT" {
            self.note_end(order, &payable);
            return self.seen;
        }
        let (Some(Ok(expires)), Some(key)) = (expires, self.session(order, amount, None).await)
        else {
            self.broken(format!("order {order} can't be paid: {payable}"));
            return self.seen;
        };
        crate::sale_run::sleep_until(expires + by).await;
        self.confirm(order, &key, amount).await;
        if let Some(end) = self.until_over(order).await {
            self.note_end(order, &end);
        }
        self.seen
    }

    fn broken(&mut self, what: String) {
        self.seen.broken.push(what);
    }

    /// Asks until there is an answer that says something; `None` if there is none in time.
    async fn ask(&mut self, call: &Call) -> Option<Answered> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE.0;
        loop {
            // An answer that comes too late is none.
            let sent = self.api.send(call, TIMEOUT);
            if let Ok(Ok(answer)) = timeout_at(deadline, sent).await {
                let answered = Answered::of(&answer);
                if answered.says_something() {
                    return Some(answered);
                }
            }
            if Instant::now() + pause >= deadline {
                return None;
            }
            sleep(pause.mul_f64(self.rng.random_range(0.5..1.5))).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Call {
        Call {
            method,
            body: body.map(|body| body.to_string().into()).unwrap_or_default(),
            // All paths are made here, of ids.
            ..Call::post(
                path.parse().unwrap_or_default(),
                Some(self.guest.authorization.clone()),
            )
        }
    }

    /// Half of the guests want a coupon and half of them the sale's price, until there is none.
    async fn claim(&mut self) {
        if self.coupon.is_none() && !self.coupons_are_gone && self.rng.random_bool(0.5) {
            let call = self.claim_once(&self.market.campaign).await;
            self.coupons_are_gone = call.outcome == Outcome::Refused(Refusal::SoldOut);
            self.coupon = self.held(&call);
            self.seen.coupons.push(call);
        }
        if self.sale_claim.is_none() && self.rng.random_bool(0.5) {
            let call = self.claim_once(&self.market.sale).await;
            self.sale_claim = self.held(&call);
            self.seen.sales.push(call);
        }
    }

    async fn claim_once(&mut self, sale: &Declared) -> ClaimCall {
        let call = self.call(Method::POST, &sale.claims_path(), None);
        let sent = Timestamp::now();
        let outcome = outcome_of(self.api.send(&call, TIMEOUT).await);
        ClaimCall {
            user: self.guest.user,
            sent,
            answered: Timestamp::now(),
            outcome,
        }
    }

    fn held(&self, call: &ClaimCall) -> Option<Held> {
        match call.outcome {
            Outcome::Claimed(claim) => Some(Held {
                claim,
                fresh: Some(call.sent).filter(|_| !self.used.contains(&claim)),
            }),
            _ => None,
        }
    }

    /// Some nights of some room, with the claims that can be used.
    async fn wish(&mut self) -> Wish {
        let rooms = &self.market.room_types;
        let room_type = rooms[self.rng.random_range(0..rooms.len())];
        let nights = self.rng.random_range(1..=3_i32.min(self.market.nights));
        let last = self.market.nights - nights;
        let first_night = self.rng.random_range(0..=last);
        let coupon = self.usable(self.coupon).await;
        self.coupon = self.coupon.filter(|_| coupon != Usable::Never);
        let sale_claim = self.usable(self.sale_claim).await;
        self.sale_claim = self.sale_claim.filter(|_| sale_claim != Usable::Never);
        let now = |held: Option<Held>, usable| {
            held.filter(|_| usable == Usable::Now)
                .map(|held| held.claim)
        };
        Wish {
            room_type,
            first_night,
            nights,
            coupon: now(self.coupon, coupon),
            sale_claim: now(self.sale_claim, sale_claim),
        }
    }

    /// Whether a claim can be used, as the guest's list of coupons and claims says.
    async fn usable(&mut self, held: Option<Held>) -> Usable {
        let Some(held) = held else {
            return Usable::Never;
        };
        if held.fresh.is_some() {
            return Usable::Now;
        }
        let path = format!("/v1/claims/{}", held.claim);
        let call = self.call(Method::GET, &path, None);
        let Some(answered) = self.ask(&call).await else {
            return Usable::Later;
        };
        match answered.body["status"].as_str() {
            Some("ACCEPTED" | "ISSUED") => Usable::Now,
            Some("RETURNED" | "EXPIRED") => Usable::Never,
            _ => Usable::Later,
        }
    }

    /// Orders, once for the wish; order and amount if there is one.
    async fn place(&mut self, wish: Wish) -> Option<(Uuid, i64)> {
        let body = json!({
            "roomTypeId": wish.room_type,
            "checkIn": self.market.day(wish.first_night),
            "checkOut": self.market.day(wish.first_night + wish.nights),
            "guests": 2,
            "couponId": wish.coupon,
            "timeSaleClaimId": wish.sale_claim,
        });
        let key = HeaderValue::from_str(&Uuid::new_v4().to_string()).ok();
        let call = Call {
            key,
            ..self.call(Method::POST, "/v1/orders", Some(&body))
        };
        // Some click twice. A refusal isn't kept for the key, so that one click may be taken after the other was refused.
        let answered = if self.rng.random_ratio(1, 10) {
            let mut other = Connection::new(self.market.platform.api);
            let (one, other) = tokio::join!(self.ask(&call), other.send(&call, TIMEOUT));
            let other = other.ok().map(|answer| Answered::of(&answer));
            match (one, other) {
                (Some(one), other) if one.status != 201 => other
                    .filter(|other| other.says_something() || other.code() == IN_FLIGHT)
                    .map(|other| if other.status == 201 { other } else { one }),
                (one, _) => one,
            }
        } else {
            self.ask(&call).await
        };
        let placed = self.placed(answered, &wish);
        let order = match placed {
            Placed::Order { order, amount } => Some((order, amount)),
            Placed::Refused(_) | Placed::Unknown => None,
        };
        self.used
            .extend([wish.coupon, wish.sale_claim].into_iter().flatten());
        for held in [&mut self.coupon, &mut self.sale_claim]
            .into_iter()
            .flatten()
        {
            held.fresh = held.fresh.filter(|_| !self.used.contains(&held.claim));
        }
        self.seen.orders.push(OrderCall {
            user: self.guest.user,
            wish,
            placed,
        });
        order
    }

    fn placed(&mut self, answered: Option<Answered>, wish: &Wish) -> Placed {
        let Some(answered) = answered else {
            return Placed::Unknown;
        };
        match (answered.status, answered.code()) {
            (201, _) => {
                let order = answered.body["orderId"].as_str().map(str::parse);
                if let (Some(Ok(order)), Some(amount)) = (order, answered.body["amount"].as_i64()) {
                    return Placed::Order { order, amount };
                }
                self.broken(format!("201 without an order: {}", answered.body));
                Placed::Unknown
            }
            (409, code @ "UNAVAILABLE") => Placed::Refused(code.to_owned()),
            (404, code @ "COUPON_NOT_FOUND") => {
                self.not_found(self.coupon, wish.coupon);
                self.coupon = None;
                Placed::Refused(code.to_owned())
            }
            (404, code @ "CLAIM_NOT_FOUND") => {
                self.not_found(self.sale_claim, wish.sale_claim);
                self.sale_claim = None;
                Placed::Refused(code.to_owned())
            }
            (status, _) => {
                self.broken(format!("an order: {status} {}", answered.body));
                Placed::Unknown
            }
        }
    }

    /// A claim that was taken a moment ago, and never used, isn't there.
    fn not_found(&mut self, held: Option<Held>, wanted: Option<Uuid>) {
        let answered = Timestamp::now();
        let taken = held.filter(|held| wanted == Some(held.claim));
        let taken = taken.and_then(|held| held.fresh);
        if let (Some(taken), Some(claim)) = (taken, wanted)
            && answered.duration_since(taken) < FRESH
        {
            self.seen.not_found.push(NotFound { claim, answered });
        }
    }

    async fn go_on(&mut self, order: Uuid, amount: i64, intention: Intention) {
        let Some(decided) = self.until_decided(order).await else {
            return;
        };
        if decided["status"] != "AWAITING_PAYMENT" {
            self.note_end(order, &decided);
            return;
        }
        match intention {
            Intention::Abandon => return,
            Intention::CancelUnpaid => {
                self.cancel(order).await;
                return;
            }
            Intention::PayWithABadCard => {
                self.pay(order, amount, Some("REJECT_CARD_PAYMENT")).await;
                // Half of them have another card.
                if self.rng.random_bool(0.5) {
                    return;
                }
                self.pay(order, amount, None).await;
            }
            Intention::Pay => self.pay(order, amount, None).await,
            Intention::CancelPaid => {
                self.pay(order, amount, None).await;
                if self.rng.random_bool(0.5) {
                    self.cancel(order).await;
                    return;
                }
            }
        }
        let Some(end) = self.until_over(order).await else {
            return;
        };
        self.note_end(order, &end);
        if intention == Intention::CancelPaid && end["status"] == "CONFIRMED" {
            self.cancel(order).await;
        }
    }

    async fn cancel(&mut self, order: Uuid) {
        let path = format!("/v1/orders/{order}/cancel");
        let call = self.call(Method::POST, &path, None);
        match self.ask(&call).await {
            Some(answered) if answered.status == 200 => self.note_end(order, &answered.body),
            // It had ended otherwise.
            Some(answered) if answered.status == 409 => {}
            Some(answered) => self.broken(format!(
                "a cancellation: {} {}",
                answered.status, answered.body
            )),
            None => {}
        }
    }

    async fn pay(&mut self, order: Uuid, amount: i64, refuse: Option<&str>) {
        match self.session(order, amount, refuse).await {
            Some(key) => self.confirm(order, &key, amount).await,
            None => self.broken(format!("no payment window for order {order}")),
        }
    }

    /// What the guest does in the payment window; the payment key.
    async fn session(&mut self, order: Uuid, amount: i64, refuse: Option<&str>) -> Option<String> {
        let body = json!({"orderId": order, "amount": amount, "refuseCode": refuse});
        let call = Call {
            authorization: None,
            ..self.call(Method::POST, "/simulator/sessions", Some(&body))
        };
        for _ in 0..3 {
            if let Ok(answer) = self.toss.send(&call, TIMEOUT).await {
                let body: Value = serde_json::from_slice(&answer.body).ok()?;
                return body["paymentKey"].as_str().map(str::to_owned);
            }
        }
        None
    }

    /// As the page does that the payment window leads back to; some guests click twice.
    async fn confirm(&mut self, order: Uuid, key: &str, amount: i64) {
        let body = json!({"paymentKey": key, "orderId": order, "amount": amount});
        let call = self.call(Method::POST, "/v1/payments/confirm", Some(&body));
        let answered = if self.rng.random_ratio(1, 10) {
            let mut other = Connection::new(self.market.platform.api);
            let (answered, _) = tokio::join!(self.ask(&call), other.send(&call, TIMEOUT));
            answered
        } else {
            self.ask(&call).await
        };
        let paid = match answered {
            None => Paid::Unknown,
            Some(answered) => match (answered.status, answered.code()) {
                (200, _) => Paid::Captured,
                (402, code @ "PAYMENT_REFUSED")
                | (409, code @ ("ORDER_EXPIRED" | "ORDER_NOT_PAYABLE")) => {
                    Paid::NotTaken(code.to_owned())
                }
                (status, _) => {
                    self.broken(format!("a payment: {status} {}", answered.body));
                    Paid::Unknown
                }
            },
        };
        self.seen.payments.push(PaymentCall {
            order,
            key: key.to_owned(),
            paid,
        });
    }

    /// The order, once it isn't pending any more.
    async fn until_decided(&mut self, order: Uuid) -> Option<Value> {
        self.until(order, |status| status != "PENDING").await
    }

    /// The order, once it has come to an end.
    async fn until_over(&mut self, order: Uuid) -> Option<Value> {
        self.until(order, |status| {
            !matches!(status, "PENDING" | "AWAITING_PAYMENT")
        })
        .await
    }

    async fn until(&mut self, order: Uuid, wanted: impl Fn(&str) -> bool) -> Option<Value> {
        let call = self.call(Method::GET, &format!("/v1/orders/{order}"), None);
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE.0;
        loop {
            let answered = self.ask(&call).await?;
            match answered.body["status"].as_str() {
                Some(status) if answered.status == 200 => {
                    if wanted(status) {
                        return Some(answered.body);
                    }
                }
                _ => {
                    self.broken(format!(
                        "order {order}: {} {}",
                        answered.status, answered.body
                    ));
                    return None;
                }
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn note_end(&mut self, order: Uuid, body: &Value) {
        let status = body["status"].as_str().unwrap_or_default();
        if matches!(status, "CONFIRMED" | "CANCELLED" | "EXPIRED" | "FAILED") {
            self.seen.told.push(Told {
                order,
                status: status.to_owned(),
            });
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usable {
    Now,
    /// An order has it.
    Later,
    /// There is none, or its time is over.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_five_walks_away_and_one_in_five_is_refused() {
        let mut rng = StdRng::seed_from_u64(7);
        let wanted: Vec<Intention> = (0..10_000).map(|_| Intention::random(&mut rng)).collect();
        for intention in [Intention::Abandon, Intention::PayWithABadCard] {
            let count = wanted.iter().filter(|it| **it == intention).count();
            assert!((1_800..2_200).contains(&count), "{intention:?}: {count}");
        }
    }
}
