//! The other services as models: what they hold, and that they do each thing once.

use money::Krw;
use uuid::Uuid;

use super::super::{Event, PaymentKey};
use super::Random;
use super::planted::Planted;

/// Nights that there are rooms for.
pub(super) const NIGHTS: usize = 4;
/// Rooms of each night.
pub(super) const ALLOTMENT: i64 = 3;
/// Claims that orders may want.
pub(super) const CLAIMS: usize = 4;

/// How often, of a hundred, booking finds a hold gone, and promotions a claim over.
const HOLD_GONE: u64 = 4;
const CLAIM_OVER: u64 = 3;
/// How often, of a hundred, the gateway refuses a refund.
const REFUND_REFUSED: u64 = 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kept {
    #[default]
    Nothing,
    Refused,
    /// For a while.
    Loosely,
    /// Booked, or used.
    Firmly,
    Released,
}

/// An order's part in `booking`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nights {
    pub(super) first: usize,
    pub(super) after_last: usize,
    pub(super) held: Kept,
    pub(super) hold_ends: i64,
}

/// `booking`.
#[derive(Debug, Default)]
pub(super) struct Booking {
    pub(super) reserved: [i64; NIGHTS],
}

impl Booking {
    pub(super) fn hold(&mut self, order: &mut Nights) -> Event {
        let nights = order.first..order.after_last;
        match order.held {
            Kept::Nothing if self.reserved[nights.clone()].iter().all(|n| *n < ALLOTMENT) => {
                self.reserved[nights].iter_mut().for_each(|n| *n += 1);
                order.held = Kept::Loosely;
                Event::Held
            }
            Kept::Loosely | Kept::Firmly => Event::Held,
            // What was released stays so: a command that comes after its own compensation does nothing.
            Kept::Released => Event::HoldRefused(String::new()),
            Kept::Nothing | Kept::Refused => {
                order.held = Kept::Refused;
                Event::HoldRefused(String::new())
            }
        }
    }

    pub(super) fn confirm(
        &mut self,
        order: &mut Nights,
        now: i64,
        booking: Uuid,
        faults: Option<&mut Random>,
    ) -> Event {
        let gone = faults.is_some_and(|random| random.percent(HOLD_GONE));
        match order.held {
            Kept::Firmly => Event::BookingConfirmed(booking),
            Kept::Loosely if now < order.hold_ends && !gone => {
                order.held = Kept::Firmly;
                Event::BookingConfirmed(booking)
            }
            Kept::Loosely => {
                self.free(order);
                Event::BookingRefused
            }
            _ => Event::BookingRefused,
        }
    }

    pub(super) fn release(&mut self, order: &mut Nights, planted: Option<Planted>) -> Event {
        match order.held {
            Kept::Loosely | Kept::Firmly => self.free(order),
            Kept::Released if planted == Some(Planted::FreesTwice) => self.free(order),
            Kept::Nothing => order.held = Kept::Released,
            Kept::Refused | Kept::Released => {}
        }
        Event::NightsReleased
    }

    /// Holds whose time is over end by themselves.
    pub(super) fn sweep(&mut self, order: &mut Nights, now: i64) {
        if order.held == Kept::Loosely && now >= order.hold_ends {
            self.free(order);
        }
    }

    fn free(&mut self, order: &mut Nights) {
        order.held = Kept::Released;
        let nights = &mut self.reserved[order.first..order.after_last];
        nights.iter_mut().for_each(|n| *n -= 1);
    }
}

/// An order's part in `promotions`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Discount {
    pub(super) claim: Option<usize>,
    pub(super) held: Kept,
}

/// `promotions`: how many orders each claim serves.
#[derive(Debug, Default)]
pub(super) struct Promotions {
    pub(super) serves: [u8; CLAIMS],
}

impl Promotions {
    pub(super) fn reserve(
        &mut self,
        order: &mut Discount,
        planted: Option<Planted>,
        faults: Option<&mut Random>,
    ) -> Event {
        let over = faults.is_some_and(|random| random.percent(CLAIM_OVER));
        match (order.held, order.claim) {
            (Kept::Loosely | Kept::Firmly, _) => Event::DiscountReserved,
            (Kept::Nothing, Some(claim))
                if !over
                    && (self.serves[claim] == 0 || planted == Some(Planted::ClaimServesTwo)) =>
            {
                self.serves[claim] += 1;
                order.held = Kept::Loosely;
                Event::DiscountReserved
            }
            (Kept::Released, _) => Event::DiscountRefused(String::new()),
            _ => {
                order.held = Kept::Refused;
                Event::DiscountRefused(String::new())
            }
        }
    }

    pub(super) fn redeem(&mut self, order: &mut Discount) -> Event {
        match order.held {
            Kept::Loosely | Kept::Firmly => {
                order.held = Kept::Firmly;
                Event::DiscountRedeemed
            }
            _ => Event::DiscountRefused(String::new()),
        }
    }

    pub(super) fn release(&mut self, order: &mut Discount) -> Event {
        match (order.held, order.claim) {
            (Kept::Loosely | Kept::Firmly, Some(claim)) => {
                self.serves[claim] -= 1;
                order.held = Kept::Released;
            }
            (Kept::Nothing, _) => order.held = Kept::Released,
            _ => {}
        }
        Event::DiscountReleased
    }
}

/// What is known of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The gateway was asked.
    Asked,
    /// A virtual account waits.
    Waiting,
    Captured,
    Refused,
}

/// An order's part in `payments`.
#[derive(Debug, Default)]
pub(super) struct Payments {
    pub(super) payment: Option<(PaymentKey, Known)>,
    pub(super) captured: i64,
    pub(super) refunded: i64,
    refunds: Vec<PaymentKey>,
    /// What the gateway refuses to give back, for good.
    pub(super) refused: Option<(PaymentKey, Krw)>,
}

impl Payments {
    pub(super) fn clear(&mut self) {
        self.refunds.clear();
        self.payment = None;
        self.refused = None;
        (self.captured, self.refunded) = (0, 0);
    }

    /// At most one capture for an order: nothing else begins while one may be.
    pub(super) fn may_begin(&self) -> bool {
        self.payment
            .as_ref()
            .is_none_or(|(_, known)| *known == Known::Refused)
    }

    pub(super) fn is_unsettled(&self) -> bool {
        self.payment
            .as_ref()
            .is_some_and(|(_, known)| matches!(known, Known::Asked | Known::Waiting))
    }

    /// The payment whose deposit is waited for.
    pub(super) fn waiting(&self) -> Option<PaymentKey> {
        let (key, known) = self.payment.as_ref()?;
        (*known == Known::Waiting).then(|| key.clone())
    }

    /// The gateway issues a virtual account instead of taking money.
    pub(super) fn wait_for_deposit(&mut self) -> Option<Event> {
        let (key, known) = self.payment.as_mut()?;
        if *known != Known::Asked {
            return None;
        }
        *known = Known::Waiting;
        Some(Event::DepositAwaited { key: key.clone() })
    }

    /// The gateway's answer to the payment under way, or what came of its virtual account.
    pub(super) fn settle(&mut self, captured: bool, amount: Krw) -> Option<Event> {
        let (key, known) = self.payment.as_mut()?;
        if !matches!(known, Known::Asked | Known::Waiting) {
            return None;
        }
        let key = key.clone();
        Some(if captured {
            *known = Known::Captured;
            self.captured += amount.get();
            Event::PaymentCaptured { key, amount }
        } else {
            *known = Known::Refused;
            Event::PaymentRefused {
                key,
                code: String::new(),
            }
        })
    }

    pub(super) fn refund(
        &mut self,
        key: &PaymentKey,
        amount: Krw,
        planted: Option<Planted>,
        faults: Option<&mut Random>,
    ) -> Event {
        let known = self.refunds.contains(key);
        if !known && faults.is_some_and(|random| random.percent(REFUND_REFUSED)) {
            self.refunds.push(key.clone());
            self.refused = Some((key.clone(), amount));
        }
        if self
            .refused
            .as_ref()
            .is_some_and(|(refused, _)| refused == key)
        {
            return Event::PaymentRefundRefused {
                key: key.clone(),
                code: String::new(),
            };
        }
        let again = planted == Some(Planted::RefundsTwice);
        if again || !self.refunds.contains(key) {
            self.refunds.push(key.clone());
            self.refunded += amount.get();
        }
        Event::PaymentRefunded {
            key: key.clone(),
            amount,
        }
    }

    /// A person gives back what was refused, at the gateway itself; `payments` sees it and tells.
    pub(super) fn give_back_by_hand(&mut self) -> Option<Event> {
        let (key, amount) = self.refused.take()?;
        self.refunded += amount.get();
        Some(Event::PaymentRefunded { key, amount })
    }
}
