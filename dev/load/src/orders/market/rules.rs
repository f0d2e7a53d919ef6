//! Holds what the guests of a market saw against what the stores and the payment gateway hold, once every order has had
//! the time to end.
//!
//! Pure, and it knows nothing of how the services work: it reads rows and answers, and says which promise is not kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use time::Date;
use uuid::Uuid;

use super::books::{Books, Claim, Order};
use super::seen::{Paid, Placed, Seen};
use crate::platform::timestamp;

/// Clocks of one machine, read by two programs.
const CLOCK_GRAIN: SignedDuration = SignedDuration::from_millis(2);

/// A promise, as `--expect` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Rule {
    /// Of each night, nothing below zero and nothing above the allotment is reserved.
    NightsWithinAllotment,
    /// What is reserved of a night is what holds and bookings cover it.
    NightsAreHeld,
    /// A booking stands on a hold of all its nights.
    BookingsHoldNights,
    /// Orders go only where the saga lets them.
    Transitions,
    /// Every order has ended.
    OrdersEnd,
    /// No order expires before its time.
    NotBeforeTime,
    /// A confirmed order is booked, paid whole, and has used its claims.
    Confirmed,
    /// An order that came to nothing holds no night, no claim and no money.
    Ended,
    /// Nothing is done twice for an order, and nothing for an order that isn't there.
    OneEffect,
    /// A journal sums to nothing, and what is in the ledger stays as it is.
    Journals,
    /// Ledger and gateway tell of the same money.
    Gateway,
    /// What a guest was told is true.
    Answers,
    /// An order costs what its claims make it, and they are its guest's, taken in the sale's window.
    Prices,
    /// A claim serves one order.
    Claims,
    /// A claim that was acknowledged can be used.
    ClaimsKnown,
}

/// A promise that isn't kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// What was on offer.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) first_night: Date,
    /// Of a night, in won.
    pub(crate) night: i64,
    pub(crate) sale: Offer,
    pub(crate) campaign: Offer,
}

/// A sale of either kind, which takes a tenth off.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) uid: Uuid,
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
}

/// Every promise that isn't kept; none when all is well.
pub(crate) fn check(terms: &Terms, seen: &Seen, books: &Books) -> Vec<Violation> {
    let mut found = Found::default();
    let orders: HashMap<Uuid, &Order> = (books.orders.iter().map(|it| (it.order_id, it))).collect();
    let claims: HashMap<Uuid, &Claim> = (books.claims.iter().map(|it| (it.claim_id, it))).collect();
    nights(books, &mut found);
    bookings(books, &orders, &mut found);
    history(books, &mut found);
    outcomes(books, &mut found);
    one_effect(books, &orders, &mut found);
    ledger(books, &mut found);
    answers(terms, seen, books, &orders, &mut found);
    prices(terms, books, &claims, &mut found);
    claims_of_orders(books, &orders, &mut found);
    claims_known(seen, &claims, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: Rule, what: String) {
        self.0.push(Violation { rule, what });
    }
}

fn is_active(state: &str) -> bool {
    matches!(state, "HELD" | "BOOKED")
}

fn nights(books: &Books, found: &mut Found) {
    let mut held = BTreeMap::<(Uuid, Date), i32>::new();
    for hold in books.holds.iter().filter(|hold| is_active(&hold.state)) {
        let (Some(room_type), Some(from), Some(to)) =
            (hold.room_type_id, hold.check_in, hold.check_out)
        else {
            found.add(
                Rule::NightsAreHeld,
                format!("order {} holds no nights that are named", hold.order_id),
            );
            continue;
        };
        let nights = std::iter::successors(Some(from), |night| night.next_day());
        for night in nights.take_while(|night| *night < to) {
            *held.entry((room_type, night)).or_default() += 1;
        }
    }
    for night in &books.nights {
        let (reserved, allotment) = (night.reserved, night.allotment);
        if !(0..=allotment).contains(&reserved) {
            found.add(
                Rule::NightsWithinAllotment,
                format!("{reserved} of {allotment} reserved on {}", night.night),
            );
        }
        let held = held.remove(&(night.room_type_id, night.night));
        let held = held.unwrap_or(0);
        if held != reserved {
            found.add(
                Rule::NightsAreHeld,
                format!("{reserved} reserved on {}, by {held} holds", night.night),
            );
        }
    }
    for ((_, night), held) in held {
        found.add(
            Rule::NightsAreHeld,
            format!("{held} holds of {night}, which isn't offered"),
        );
    }
}

fn bookings(books: &Books, orders: &HashMap<Uuid, &Order>, found: &mut Found) {
    let holds: HashMap<Uuid, _> = books.holds.iter().map(|it| (it.order_id, it)).collect();
    let mut booked = HashSet::new();
    for booking in &books.bookings {
        let hold = holds.get(&booking.order_id);
        let state = hold.map_or("none", |hold| hold.state.as_str());
        let same = hold.is_some_and(|hold| {
            hold.room_type_id == Some(booking.room_type_id)
                && hold.check_in == Some(booking.check_in)
                && hold.check_out == Some(booking.check_out)
        });
        let theirs = orders
            .get(&booking.order_id)
            .is_some_and(|order| order.user_id == booking.user_id);
        let stands = booking.status == "CONFIRMED";
        if stands {
            booked.insert(booking.order_id);
        }
        if !same || !theirs || stands != (state == "BOOKED") {
            found.add(
                Rule::BookingsHoldNights,
                format!(
                    "order {}: the booking is {}, its hold {state}{}{}",
                    booking.order_id,
                    booking.status,
                    if same { "" } else { " of other nights" },
                    if theirs { "" } else { ", for another guest" }
                ),
            );
        }
    }
    for hold in books.holds.iter().filter(|hold| hold.state == "BOOKED") {
        if !booked.contains(&hold.order_id) {
            found.add(
                Rule::BookingsHoldNights,
                format!("order {} is held as booked, without one", hold.order_id),
            );
        }
    }
}

/// Where an order may go, from each phase.
const WAYS: [(&str, &[&str]); 14] = [
    (
        "HOLDING",
        &[
            "AWAITING_PAYMENT",
            "CONFIRMING",
            "UNDOING_CANCELLED",
            "UNDOING_EXPIRED",
            "UNDOING_FAILED",
            "FAILED",
        ],
    ),
    (
        "AWAITING_PAYMENT",
        &[
            "PAYING",
            "CONFIRMING",
            "UNDOING_CANCELLED",
            "UNDOING_EXPIRED",
            "UNDOING_FAILED",
        ],
    ),
    (
        "PAYING",
        &[
            "AWAITING_PAYMENT",
            "CONFIRMING",
            "UNDOING_CANCELLED",
            "UNDOING_EXPIRED",
            "UNDOING_FAILED",
        ],
    ),
    (
        "CONFIRMING",
        &["CONFIRMED", "UNDOING_CANCELLED", "UNDOING_FAILED", "FAILED"],
    ),
    ("CONFIRMED", &["UNDOING_CANCELLED"]),
    (
        "UNDOING_CANCELLED",
        &["CANCELLED", "REFUND_REFUSED_CANCELLED"],
    ),
    ("UNDOING_EXPIRED", &["EXPIRED", "REFUND_REFUSED_EXPIRED"]),
    ("UNDOING_FAILED", &["FAILED", "REFUND_REFUSED_FAILED"]),
    // A person has the money given back after all.
    ("REFUND_REFUSED_CANCELLED", &["CANCELLED"]),
    ("REFUND_REFUSED_EXPIRED", &["EXPIRED"]),
    ("REFUND_REFUSED_FAILED", &["FAILED"]),
    // Money that comes late goes back.
    ("CANCELLED", &["UNDOING_CANCELLED"]),
    ("EXPIRED", &["UNDOING_EXPIRED"]),
    ("FAILED", &["UNDOING_FAILED"]),
];

fn may_go(from: &str, to: &str) -> bool {
    let ways = WAYS.iter().find(|(phase, _)| *phase == from);
    from == to || ways.is_some_and(|(_, ways)| ways.contains(&to))
}

fn history(books: &Books, found: &mut Found) {
    let mut by_order = HashMap::<Uuid, Vec<_>>::new();
    for entry in &books.history {
        by_order.entry(entry.order_id).or_default().push(entry);
    }
    for order in &books.orders {
        let mut entries = by_order.remove(&order.order_id).unwrap_or_default();
        entries.sort_by_key(|entry| entry.seq);
        let mut phase = "HOLDING";
        for (seq, entry) in (1..).zip(entries) {
            if entry.seq != seq || entry.from_phase != phase || !may_go(phase, &entry.to_phase) {
                found.add(
                    Rule::Transitions,
                    format!(
                        "order {}: {} -> {} by {} from {phase}, as entry {} where {seq} comes next",
                        order.order_id, entry.from_phase, entry.to_phase, entry.event, entry.seq
                    ),
                );
            }
            if entry.to_phase.ends_with("EXPIRED")
                && entry.event == "TIME_OVER"
                && entry.at < order.expires_at
            {
                found.add(
                    Rule::NotBeforeTime,
                    format!(
                        "order {} expired at {}, its time is {}",
                        order.order_id, entry.at, order.expires_at
                    ),
                );
            }
            phase = &entry.to_phase;
        }
        if phase != order.phase {
            found.add(
                Rule::Transitions,
                format!(
                    "order {} is {}, its history ends with {phase}",
                    order.order_id, order.phase
                ),
            );
        }
    }
}

/// What is left of an order, everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Left {
    held: bool,
    booked: bool,
    /// Claims that it keeps, and that it has used.
    reserved: usize,
    used: usize,
    reservation: Option<String>,
    in_ledger: i64,
    at_gateway: i64,
}

fn left_of(books: &Books) -> HashMap<Uuid, Left> {
    let mut left = HashMap::<Uuid, Left>::new();
    for hold in &books.holds {
        left.entry(hold.order_id).or_default().held = is_active(&hold.state);
    }
    for booking in &books.bookings {
        left.entry(booking.order_id).or_default().booked |= booking.status == "CONFIRMED";
    }
    for claim in &books.claims {
        let Some(order) = claim.order_id else {
            continue;
        };
        let of = left.entry(order).or_default();
        match claim.status.as_str() {
            "USED" => of.used += 1,
            _ => of.reserved += 1,
        }
    }
    for reservation in &books.reservations {
        left.entry(reservation.order_id).or_default().reservation = Some(reservation.state.clone());
    }
    for journal in &books.journals {
        let sign = if journal.kind == "CAPTURE" { 1 } else { -1 };
        left.entry(journal.order_id).or_default().in_ledger += sign * journal.amount;
    }
    for moved in &books.moved {
        let sign = if moved.captured { 1 } else { -1 };
        left.entry(moved.order_id).or_default().at_gateway += sign * moved.amount;
    }
    left
}

/// Each order has come to one of its ends, and everything that belongs to it with it.
fn outcomes(books: &Books, found: &mut Found) {
    let left = left_of(books);
    for order in &books.orders {
        let left = left.get(&order.order_id).cloned().unwrap_or_default();
        let claims = order.claim_ids.len();
        match order.phase.as_str() {
            "CONFIRMED" => {
                let expected = Left {
                    held: true,
                    booked: true,
                    reserved: 0,
                    used: claims,
                    reservation: (claims > 0).then(|| "REDEEMED".to_owned()),
                    in_ledger: order.total,
                    at_gateway: order.total,
                };
                if left != expected {
                    found.add(
                        Rule::Confirmed,
                        format!(
                            "order {} for {} won with {claims} claims: {left:?}",
                            order.order_id, order.total
                        ),
                    );
                }
            }
            "CANCELLED"
            | "EXPIRED"
            | "FAILED"
            | "REFUND_REFUSED_CANCELLED"
            | "REFUND_REFUSED_EXPIRED"
            | "REFUND_REFUSED_FAILED" => {
                let reservation = left.reservation.as_deref();
                let let_go = matches!(reservation, None | Some("RELEASED" | "REFUSED"));
                // What the gateway refused to give back waits for a person. All else has ended.
                let held = match order.phase.starts_with("REFUND_REFUSED") {
                    true => order.total,
                    false => 0,
                };
                let expected = Left {
                    reservation: left.reservation.clone(),
                    in_ledger: held,
                    at_gateway: held,
                    ..Left::default()
                };
                if left != expected || !let_go {
                    found.add(
                        Rule::Ended,
                        format!("order {} is {}: {left:?}", order.order_id, order.phase),
                    );
                }
            }
            phase => found.add(
                Rule::OrdersEnd,
                format!("order {} is still {phase}", order.order_id),
            ),
        }
    }
}

/// How often each was met.
fn counted<K: std::hash::Hash + Eq>(all: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

fn one_effect(books: &Books, orders: &HashMap<Uuid, &Order>, found: &mut Found) {
    let journals = |kind: &'static str| {
        let of_kind = books.journals.iter().filter(move |it| it.kind == kind);
        counted(of_kind.map(|journal| journal.order_id))
    };
    let moved = |captured: bool| {
        let of_kind = books
            .moved
            .iter()
            .filter(move |moved| moved.captured == captured);
        counted(of_kind.map(|moved| moved.order_id))
    };
    // Guests of a market get all or nothing back: one refund at most.
    let effects = [
        ("captures in the ledger", journals("CAPTURE")),
        ("refunds in the ledger", journals("REFUND")),
        ("captures at the gateway", moved(true)),
        ("refunds at the gateway", moved(false)),
        (
            "holds",
            counted(books.holds.iter().map(|hold| hold.order_id)),
        ),
        (
            "bookings",
            counted(books.bookings.iter().map(|it| it.order_id)),
        ),
        (
            "reservations of claims",
            counted(books.reservations.iter().map(|it| it.order_id)),
        ),
    ];
    for (what, counts) in effects {
        for (order, count) in counts {
            if count > 1 {
                found.add(Rule::OneEffect, format!("{count} {what} for order {order}"));
            }
            if !orders.contains_key(&order) {
                found.add(
                    Rule::OneEffect,
                    format!("{what} for {order}, which is no order"),
                );
            }
        }
    }
}

fn ledger(books: &Books, found: &mut Found) {
    let mut by_key = HashMap::new();
    let mut balances = HashMap::<&str, i64>::new();
    for journal in &books.journals {
        if journal.sum != 0 || journal.debits != journal.amount {
            found.add(
                Rule::Journals,
                format!(
                    "the journal of {} for {} won sums to {} with debits of {}",
                    journal.transaction_key, journal.amount, journal.sum, journal.debits
                ),
            );
        }
        by_key.insert(journal.transaction_key.as_str(), journal);
        let sign = if journal.kind == "CAPTURE" { 1 } else { -1 };
        *balances.entry(&journal.payment_key).or_default() += sign * journal.amount;
    }
    for payment in &books.payments {
        let captured = payment.state == "CAPTURED";
        if captured != balances.contains_key(payment.payment_key.as_str()) {
            found.add(
                Rule::Journals,
                format!(
                    "payment {} of order {} is {}, and {} in the ledger",
                    payment.payment_key,
                    payment.order_id,
                    payment.state,
                    if captured { "not" } else { "is" }
                ),
            );
        }
        if payment.state == "INTENT" {
            found.add(
                Rule::OrdersEnd,
                format!(
                    "nobody knows what became of payment {}",
                    payment.payment_key
                ),
            );
        }
    }
    for before in &books.journals_before {
        if by_key.get(before.transaction_key.as_str()) != Some(&before) {
            found.add(
                Rule::Journals,
                format!(
                    "the journal of {} isn't what it was",
                    before.transaction_key
                ),
            );
        }
    }
    for (payment, balance) in &balances {
        if *balance < 0 {
            found.add(
                Rule::Journals,
                format!("{} won more went back than came by {payment}", -balance),
            );
        }
    }
    for moved in &books.moved {
        let same = by_key
            .remove(moved.transaction_key.as_str())
            .is_some_and(|journal| {
                journal.amount == moved.amount
                    && (journal.kind == "CAPTURE") == moved.captured
                    && journal.order_id == moved.order_id
            });
        if !same {
            found.add(
                Rule::Gateway,
                format!("{moved:?} at the gateway has no such journal"),
            );
        }
    }
    for key in by_key.into_keys() {
        found.add(
            Rule::Gateway,
            format!("the journal of {key} is of nothing that moved at the gateway"),
        );
    }
    for (payment, held) in &books.balances {
        let balance = balances.get(payment.as_str()).copied().unwrap_or(0);
        if balance != *held {
            found.add(
                Rule::Gateway,
                format!("the gateway holds {held} won of {payment}, the ledger says {balance}"),
            );
        }
    }
}

/// What a guest was told must be so.
fn answers(
    terms: &Terms,
    seen: &Seen,
    books: &Books,
    orders: &HashMap<Uuid, &Order>,
    found: &mut Found,
) {
    let mut asked = HashMap::<Uuid, usize>::new();
    let mut told = HashSet::new();
    for call in &seen.orders {
        let (order, amount) = match call.placed {
            Placed::Order { order, amount } => (order, amount),
            Placed::Unknown => {
                *asked.entry(call.user).or_default() += 1;
                continue;
            }
            Placed::Refused(_) => continue,
        };
        let wish = &call.wish;
        let day = |after: i32| terms.first_night + time::Duration::days(i64::from(after));
        let same = orders.get(&order).is_some_and(|row| {
            row.user_id == call.user
                && row.room_type_id == wish.room_type
                && row.check_in == day(wish.first_night)
                && row.check_out == day(wish.first_night + wish.nights)
                && row.total == amount
        });
        if !same {
            found.add(
                Rule::Answers,
                format!("order {order} isn't what its guest was told: {call:?}"),
            );
        }
        if !told.insert(order) {
            found.add(Rule::Answers, format!("order {order} was told of twice"));
        }
    }
    // An order of a guest's that nobody was told of came of a call without an answer.
    let guests: HashSet<Uuid> = seen.orders.iter().map(|call| call.user).collect();
    for order in &books.orders {
        if !guests.contains(&order.user_id) || told.contains(&order.order_id) {
            continue;
        }
        match asked.get_mut(&order.user_id) {
            Some(left) if *left > 0 => *left -= 1,
            _ => found.add(
                Rule::Answers,
                format!("nobody asked for order {}", order.order_id),
            ),
        }
    }
    let captured: HashSet<&str> = (books.moved.iter().filter(|moved| moved.captured))
        .map(|moved| moved.payment_key.as_str())
        .collect();
    for call in &seen.payments {
        let taken = captured.contains(call.key.as_str());
        match &call.paid {
            Paid::Captured if !taken => found.add(
                Rule::Answers,
                format!(
                    "payment {} of order {} was told to be captured",
                    call.key, call.order
                ),
            ),
            Paid::NotTaken(code) if taken => found.add(
                Rule::Answers,
                format!("payment {} was refused with {code}, and captured", call.key),
            ),
            _ => {}
        }
    }
    for end in &seen.told {
        let now = orders.get(&end.order).map(|order| order.phase.as_str());
        // A booking may be cancelled; nothing else that was told is taken back.
        let stands = now == Some(&end.status)
            || end.status == "CONFIRMED"
                && matches!(now, Some("CANCELLED" | "REFUND_REFUSED_CANCELLED"))
            || now.is_some_and(|phase| {
                let way = ["UNDOING", "REFUND_REFUSED"];
                way.iter().any(|way| phase.starts_with(way)) && phase.ends_with(&end.status)
            });
        if !stands {
            found.add(
                Rule::Answers,
                format!(
                    "order {} was told to be {} and is {}",
                    end.order,
                    end.status,
                    now.unwrap_or("none")
                ),
            );
        }
    }
    for what in &seen.broken {
        found.add(Rule::Answers, what.clone());
    }
}

/// The sale price is charged if and only if there is a claim for it, taken in the window by the guest who orders.
fn prices(terms: &Terms, books: &Books, claims: &HashMap<Uuid, &Claim>, found: &mut Found) {
    for order in &books.orders {
        let nights = (order.check_out - order.check_in).whole_days();
        let mut expected = nights * terms.night;
        for id in &order.claim_ids {
            let claim = claims.get(id).filter(|claim| {
                let offers = [&terms.sale, &terms.campaign].into_iter();
                let in_time = |offer: &Offer| {
                    timestamp(claim.claimed_at)
                        .is_ok_and(|at| (offer.starts..offer.ends).contains(&at))
                };
                let mut of = offers.filter(|offer| offer.uid == claim.sale_uid);
                claim.user_id == order.user_id && of.any(in_time)
            });
            match claim {
                Some(_) => expected = expected * 9 / 10,
                None => found.add(
                    Rule::Prices,
                    format!(
                        "order {} is by the claim {id}, which its guest didn't take in time",
                        order.order_id
                    ),
                ),
            }
        }
        if order.total != expected {
            found.add(
                Rule::Prices,
                format!(
                    "order {} of {nights} nights with {} claims costs {} instead of {expected}",
                    order.order_id,
                    order.claim_ids.len(),
                    order.total
                ),
            );
        }
    }
}

fn claims_of_orders(books: &Books, orders: &HashMap<Uuid, &Order>, found: &mut Found) {
    for claim in &books.claims {
        let order = claim.order_id.and_then(|order| orders.get(&order));
        let as_it_must_be = match claim.status.as_str() {
            "USED" => order.is_some_and(|order| {
                order.phase == "CONFIRMED" && order.claim_ids.contains(&claim.claim_id)
            }),
            "RESERVED" => order.is_some_and(|order| order.claim_ids.contains(&claim.claim_id)),
            _ => claim.order_id.is_none(),
        };
        if !as_it_must_be {
            found.add(
                Rule::Claims,
                format!(
                    "claim {} is {} by order {:?}, which is {}",
                    claim.claim_id,
                    claim.status,
                    claim.order_id,
                    order.map_or("none", |order| order.phase.as_str())
                ),
            );
        }
    }
    let mut used = HashMap::<Uuid, Uuid>::new();
    for order in (books.orders.iter()).filter(|order| order.phase == "CONFIRMED") {
        for claim in &order.claim_ids {
            if let Some(other) = used.insert(*claim, order.order_id) {
                found.add(
                    Rule::Claims,
                    format!("claim {claim} serves orders {other} and {}", order.order_id),
                );
            }
        }
    }
}

/// A guest who was told yes a moment ago isn't told that there is no such claim.
fn claims_known(seen: &Seen, claims: &HashMap<Uuid, &Claim>, found: &mut Found) {
    for not_found in &seen.not_found {
        let ended = claims.get(&not_found.claim).and_then(|row| row.ended_at);
        let ended = ended.and_then(|at| timestamp(at).ok());
        if ended.is_none_or(|at| at > not_found.answered + CLOCK_GRAIN) {
            found.add(
                Rule::ClaimsKnown,
                format!(
                    "claim {} was not found at {}",
                    not_found.claim, not_found.answered
                ),
            );
        }
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
