//! One world: orders, services, guests and time, and what must be true of them.

use jiff::Timestamp;
use money::Krw;
use uuid::Uuid;

use super::super::{
    Command, Effect, End, Event, PaymentKey, Phase, Progress, Saga, StepName, Stepped, Verdict,
    allowed,
};
use super::Random;
use super::channel::{Channel, Delivery};
use super::planted::{Planted, step_with};
use super::seen::Seen;
use super::services::{
    Booking, CLAIMS, Discount, Kept, Known, NIGHTS, Nights, Payments, Promotions,
};

pub(super) const ORDERS_PER_WORLD: usize = 8;

/// Things that happen before everything drains.
const ACTIONS: usize = ORDERS_PER_WORLD * 100;
/// Rounds in which everything must have come to rest.
const ROUNDS_MAX: usize = 40;
/// How much time passes from one round to the next.
const ROUND: i64 = 20;
/// How long an unknown outcome is waited for.
const SETTLE: i64 = 30;
/// How much later than everything else a hold ends by itself.
const HOLD_MARGIN: i64 = 20;

/// Another service, and the topics to and from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Booking,
    Promotions,
    Payments,
}

const PEERS: [Peer; 3] = [Peer::Booking, Peer::Promotions, Peer::Payments];

fn peer_of(effect: &Effect) -> Peer {
    match effect {
        Effect::Ask(Command::HoldNights | Command::ConfirmBooking | Command::ReleaseNights) => {
            Peer::Booking
        }
        Effect::Ask(
            Command::ReserveDiscount | Command::RedeemDiscount | Command::ReleaseDiscount,
        ) => Peer::Promotions,
        Effect::Ask(Command::Refund) | Effect::Refund { .. } => Peer::Payments,
    }
}

/// An order as every service sees it.
pub(super) struct Order {
    pub(super) saga: Saga,
    pub(super) nights: Nights,
    pub(super) discount: Discount,
    pub(super) payments: Payments,
    commands: [Channel<Effect>; 3],
    replies: [Channel<Event>; 3],
    /// What a guest who cancels a confirmed order doesn't get back.
    pub(super) kept: i64,
    payments_begun: usize,
}

pub(super) struct World {
    random: Random,
    planted: Option<Planted>,
    /// Whether things go wrong now.
    faults: bool,
    now: i64,
    pub(super) orders: Vec<Order>,
    pub(super) booking: Booking,
    pub(super) promotions: Promotions,
    keys: Vec<PaymentKey>,
    pub(super) seen: Seen,
    story: Option<Vec<String>>,
}

fn at(now: i64) -> Timestamp {
    Timestamp::from_second(now).expect("a world lasts minutes")
}

fn krw(won: u64) -> Krw {
    i64::try_from(won)
        .ok()
        .and_then(|won| Krw::new(won).ok())
        .expect("a small amount")
}

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>, tells: bool) -> Self {
        let order = || Order {
            saga: Saga::new(Krw::ZERO, Timestamp::UNIX_EPOCH, false),
            nights: Nights::default(),
            discount: Discount::default(),
            payments: Payments::default(),
            commands: Default::default(),
            replies: Default::default(),
            kept: 0,
            payments_begun: 0,
        };
        let mut world = Self {
            random: Random::new(seed),
            planted,
            faults: true,
            now: 0,
            orders: (0..ORDERS_PER_WORLD).map(|_| order()).collect(),
            booking: Booking::default(),
            promotions: Promotions::default(),
            keys: (0..4)
                .map(|n| PaymentKey::new(&format!("pay-{n}")))
                .collect(),
            seen: Seen::default(),
            story: tells.then(Vec::new),
        };
        world.reset(seed);
        world
    }

    /// The world of a seed; memory of the world before is used again.
    pub(super) fn reset(&mut self, seed: u64) {
        self.random = Random::new(seed);
        self.faults = true;
        self.now = 0;
        self.booking = Booking::default();
        self.promotions = Promotions::default();
        if let Some(story) = &mut self.story {
            story.clear();
        }
        for order in &mut self.orders {
            let random = &mut self.random;
            let first = random.below(NIGHTS as u64) as usize;
            let after_last = first + 1 + random.below((NIGHTS - first) as u64) as usize;
            let claim = random
                .percent(50)
                .then(|| random.below(CLAIMS as u64) as usize);
            // A coupon may pay for all of it.
            let free = claim.is_some() && random.percent(5);
            let total = if free {
                Krw::ZERO
            } else {
                krw(1_000 + random.below(1_000_000))
            };
            let expires = 20 + random.below(100) as i64;
            order.saga = Saga::new(total, at(expires), claim.is_some());
            order.nights = Nights {
                first,
                after_last,
                held: Kept::Nothing,
                hold_ends: expires + SETTLE + HOLD_MARGIN,
            };
            order.discount = Discount {
                claim,
                held: Kept::Nothing,
            };
            order.payments.clear();
            order.commands.iter_mut().for_each(Channel::clear);
            order.replies.iter_mut().for_each(Channel::clear);
            (order.kept, order.payments_begun) = (0, 0);
        }
    }

    pub(super) fn story(&self) -> String {
        self.story
            .as_ref()
            .map(|lines| lines.join("\n"))
            .unwrap_or_default()
    }

    /// Lets things happen, lets everything drain, and looks. The error says what must not be.
    pub(super) fn run(&mut self) -> Result<(), String> {
        for _ in 0..ACTIONS {
            self.act()?;
            self.look()?;
        }
        self.drain()?;
        self.look_at_rest()
    }

    fn act(&mut self) -> Result<(), String> {
        let order = self.random.below(ORDERS_PER_WORLD as u64) as usize;
        let peer = PEERS[self.random.below(3) as usize];
        match self.random.below(100) {
            0..4 => self.happens(order, &Event::Placed, true).map(drop),
            4..38 => self.command(order, peer),
            38..72 => self.reply(order, peer),
            72..81 => self.pay(order),
            81..84 => self.settle(order),
            84..85 => self.cancel(order),
            85..91 => {
                let commits = !self.random.percent(10);
                self.happens(order, &Event::Due, commits).map(drop)
            }
            91..94 => self.give_back_by_hand(order),
            94..96 => {
                self.booking.sweep(&mut self.orders[order].nights, self.now);
                Ok(())
            }
            _ => {
                self.now += self.random.below(4) as i64;
                Ok(())
            }
        }
    }

    /// An event comes to an order, in a transaction that commits or not.
    fn happens(&mut self, index: usize, event: &Event, commits: bool) -> Result<Verdict, String> {
        let order = &mut self.orders[index];
        let before = order.saga.phase();
        // An order is placed in the transaction that makes it: nothing can happen to it before.
        let made = order.saga.steps[StepName::HoldNights] != Progress::Todo;
        if !made && *event != Event::Placed {
            return Ok(Verdict::Unchanged);
        }
        let Stepped {
            saga,
            effects,
            verdict,
        } = step_with(self.planted, order.saga.clone(), at(self.now), event);
        let after = saga.phase();
        if let Some(story) = &mut self.story {
            let (now, lost) = (self.now, if commits { "" } else { ", lost" });
            story.push(format!(
                "{now:>4} order {index}: {event:?}: {before} -> {after} {verdict:?} {effects:?}{lost}"
            ));
        }
        if before != after && !allowed(before, after) {
            return Err(format!("order {index}: {before} -> {after} by {event:?}"));
        }
        let overdue = order
            .saga
            .money
            .settled_by
            .is_some_and(|by| at(self.now) >= by);
        if commits
            && before == Phase::Paying
            && after == Phase::Undoing(End::Expired)
            && !overdue
            && order.payments.is_unsettled()
        {
            return Err(format!(
                "order {index} expired while its payment was under way"
            ));
        }
        if commits {
            order.saga = saga;
            self.seen.event(before, after, event, verdict);
        }
        if commits || self.planted == Some(Planted::SentBeforeCommit) {
            for effect in effects {
                self.orders[index].commands[peer_of(&effect) as usize].send(
                    effect,
                    true,
                    self.faults.then_some(&mut self.random),
                );
            }
        }
        Ok(verdict)
    }

    /// A service reads a command, does it, and answers.
    fn command(&mut self, index: usize, peer: Peer) -> Result<(), String> {
        let (now, planted) = (self.now, self.planted);
        let order = &mut self.orders[index];
        let mut random = self.faults.then_some(&mut self.random);
        let delivery = order.commands[peer as usize].deliver(random.as_deref_mut());
        let Delivery::New {
            message,
            commits: true,
        } = delivery
        else {
            return Ok(());
        };
        let (nights, discount) = (&mut order.nights, &mut order.discount);
        let reply = match &message {
            Effect::Ask(Command::HoldNights) => self.booking.hold(nights),
            Effect::Ask(Command::ConfirmBooking) => {
                let booking = Uuid::from_u128(index as u128 + 1);
                self.booking
                    .confirm(nights, now, booking, random.as_deref_mut())
            }
            Effect::Ask(Command::ReleaseNights) => self.booking.release(nights, planted),
            Effect::Ask(Command::ReserveDiscount) => {
                self.promotions
                    .reserve(discount, planted, random.as_deref_mut())
            }
            Effect::Ask(Command::RedeemDiscount) => self.promotions.redeem(discount),
            Effect::Ask(Command::ReleaseDiscount) => self.promotions.release(discount),
            Effect::Refund { key, amount } => {
                order
                    .payments
                    .refund(key, *amount, planted, random.as_deref_mut())
            }
            Effect::Ask(Command::Refund) => return Err(format!("order {index}: {message:?}")),
        };
        if let Some(story) = &mut self.story {
            story.push(format!(
                "{now:>4} order {index}: {message:?} is answered {reply:?}"
            ));
        }
        order.replies[peer as usize].send(reply, true, random);
        Ok(())
    }

    /// `orders` reads an answer.
    fn reply(&mut self, index: usize, peer: Peer) -> Result<(), String> {
        let random = self.faults.then_some(&mut self.random);
        match self.orders[index].replies[peer as usize].deliver(random) {
            Delivery::Nothing => Ok(()),
            // With its inbox forgotten, the saga itself must see through a repeated message.
            Delivery::Known(event) => {
                let before = self.orders[index].saga.clone();
                let verdict = self.happens(index, &event, true)?;
                let same = before == self.orders[index].saga;
                if !same && verdict != Verdict::Changed {
                    return Err(format!("order {index}: {event:?} changed it unsaid"));
                }
                Ok(())
            }
            Delivery::New { message, commits } => self.happens(index, &message, commits).map(drop),
        }
    }

    /// A guest pays, with the amount that was said or another one.
    fn pay(&mut self, index: usize) -> Result<(), String> {
        let order = &mut self.orders[index];
        let made = order.saga.steps[StepName::HoldNights] != Progress::Todo;
        if !made || !order.payments.may_begin() || self.random.percent(10) {
            return Ok(());
        }
        let begun = order.saga.money.payment_key.clone();
        let key = match begun.filter(|_| self.random.percent(60)) {
            Some(key) => key,
            None => {
                order.payments_begun += 1;
                self.keys[order.payments_begun % self.keys.len()].clone()
            }
        };
        let wrong = self.random.percent(4);
        let total = order.saga.total;
        let amount = if wrong { krw(7) } else { total };
        let event = Event::PaymentAsked {
            key: key.clone(),
            amount,
            settled_by: at(self.now + SETTLE),
        };
        let commits = !self.random.percent(6);
        let verdict = self.happens(index, &event, commits)?;
        if !commits || matches!(verdict, Verdict::Refused(_)) {
            return Ok(());
        }
        let phase = self.orders[index].saga.phase();
        let payable = matches!(phase, Phase::Paying | Phase::Confirming | Phase::Confirmed);
        if wrong || !payable {
            return Err(format!(
                "order {index}: a payment of {amount} was let through in {phase}"
            ));
        }
        // The answer may be lost, or payments dies before it notes that it will ask the gateway.
        if phase != Phase::Paying || self.random.percent(6) {
            return Ok(());
        }
        self.orders[index].payments.payment = Some((key, Known::Asked));
        if self.random.percent(65) {
            self.settle(index)?;
        }
        Ok(())
    }

    /// The gateway's answer becomes known, maybe when nobody waits for it any more.
    fn settle(&mut self, index: usize) -> Result<(), String> {
        let captured = self.random.percent(75);
        let deposit_later = self.random.percent(15);
        if let Some(key) = self.orders[index].payments.waiting()
            && captured
        {
            // A deposit came: the order is set aside for it again, unless it is over.
            let event = Event::PaymentAsked {
                key,
                amount: self.orders[index].saga.total,
                settled_by: at(self.now + SETTLE),
            };
            if self.happens(index, &event, true)? == Verdict::Changed {
                self.seen.note("paid by a deposit");
            }
        }
        let order = &mut self.orders[index];
        let waits = deposit_later.then(|| order.payments.wait_for_deposit());
        let reply = match waits.flatten() {
            Some(waits) => Some(waits),
            None => order.payments.settle(captured, order.saga.total),
        };
        if let Some(reply) = reply {
            let random = self.faults.then_some(&mut self.random);
            // Payments doesn't say it again: it is the outbox that must not lose it.
            order.replies[Peer::Payments as usize].send(reply, false, random);
        }
        Ok(())
    }

    fn give_back_by_hand(&mut self, index: usize) -> Result<(), String> {
        let order = &mut self.orders[index];
        if let Some(reply) = order.payments.give_back_by_hand() {
            let random = self.faults.then_some(&mut self.random);
            order.replies[Peer::Payments as usize].send(reply, false, random);
        }
        Ok(())
    }

    fn cancel(&mut self, index: usize) -> Result<(), String> {
        let order = &self.orders[index];
        let percent = [0, 50, 80, 100][self.random.below(4) as usize];
        let refund = krw(order.saga.total.get().unsigned_abs() * percent / 100);
        let confirmed = order.saga.phase() == Phase::Confirmed;
        let commits = !self.random.percent(10);
        let verdict = self.happens(index, &Event::CancelAsked { refund }, commits)?;
        let order = &mut self.orders[index];
        if commits && confirmed && verdict == Verdict::Changed {
            order.kept = order.saga.total.get() - refund.get();
        }
        Ok(())
    }

    /// Faults are over. Everything that was sent arrives, and time does the rest.
    fn drain(&mut self) -> Result<(), String> {
        self.faults = false;
        for _ in 0..ROUNDS_MAX {
            let mut rests = true;
            for index in 0..ORDERS_PER_WORLD {
                self.happens(index, &Event::Placed, true)?;
                self.settle(index)?;
                for peer in PEERS {
                    self.arrive(index, peer)?;
                }
                let due = self.orders[index].saga.due_at(at(self.now));
                if due.is_some_and(|due| due <= at(self.now)) {
                    self.happens(index, &Event::Due, true)?;
                }
                self.booking.sweep(&mut self.orders[index].nights, self.now);
                let order = &self.orders[index];
                rests &= order.saga.phase().is_at_rest()
                    && !order.payments.is_unsettled()
                    && order.commands.iter().all(Channel::is_drained)
                    && order.replies.iter().all(Channel::is_drained);
            }
            if rests {
                return Ok(());
            }
            self.now += ROUND;
        }
        let phases: Vec<Phase> = self.orders.iter().map(|order| order.saga.phase()).collect();
        Err(format!("not every order ended: {phases:?}"))
    }

    fn arrive(&mut self, index: usize, peer: Peer) -> Result<(), String> {
        while !self.orders[index].commands[peer as usize].is_drained() {
            self.command(index, peer)?;
        }
        while !self.orders[index].replies[peer as usize].is_drained() {
            self.reply(index, peer)?;
        }
        Ok(())
    }
}
