//! Each rule passes what is true and fails on a violation made up for it.

use time::macros::{date, datetime};

use super::super::books::{Booking, Entry, Hold, Journal, Moved, Night, Payment, Reservation};
use super::super::seen::{NotFound, OrderCall, PaymentCall, Told, Wish};
use super::*;

const ROOM: Uuid = Uuid::from_u128(1);
const SALE: Uuid = Uuid::from_u128(2);
const CAMPAIGN: Uuid = Uuid::from_u128(3);
const CONFIRMED: Uuid = Uuid::from_u128(10);
const CANCELLED: Uuid = Uuid::from_u128(11);
const EXPIRED: Uuid = Uuid::from_u128(12);
const CLAIM: Uuid = Uuid::from_u128(20);

fn guest(order: Uuid) -> Uuid {
    Uuid::from_u128(order.as_u128() + 100)
}

fn terms() -> Terms {
    let offer = |uid| Offer {
        uid,
        starts: timestamp(datetime!(2027-01-01 0:00 UTC)).expect("a time in range"),
        ends: timestamp(datetime!(2027-01-01 2:00 UTC)).expect("a time in range"),
    };
    Terms {
        first_night: date!(2027 - 02 - 01),
        night: 100_000,
        sale: offer(SALE),
        campaign: offer(CAMPAIGN),
    }
}

fn order(order_id: Uuid, phase: &str, claim_ids: &[Uuid], total: i64) -> Order {
    Order {
        order_id,
        user_id: guest(order_id),
        room_type_id: ROOM,
        check_in: date!(2027 - 02 - 01),
        check_out: date!(2027 - 02 - 03),
        claim_ids: claim_ids.to_vec(),
        total,
        phase: phase.to_owned(),
        expires_at: datetime!(2027-01-01 1:00 UTC),
    }
}

fn went(order_id: Uuid, ways: &[(&str, &str)]) -> Vec<Entry> {
    let mut from = "HOLDING";
    (1..)
        .zip(ways)
        .map(|(seq, (event, to))| Entry {
            order_id,
            seq,
            at: datetime!(2027-01-01 1:00 UTC),
            event: (*event).to_owned(),
            from_phase: std::mem::replace(&mut from, to).to_owned(),
            to_phase: (*to).to_owned(),
        })
        .collect()
}

fn hold(order_id: Uuid, state: &str) -> Hold {
    Hold {
        order_id,
        state: state.to_owned(),
        room_type_id: Some(ROOM),
        check_in: Some(date!(2027 - 02 - 01)),
        check_out: Some(date!(2027 - 02 - 03)),
    }
}

fn booking(order_id: Uuid, status: &str) -> Booking {
    Booking {
        order_id,
        user_id: guest(order_id),
        room_type_id: ROOM,
        check_in: date!(2027 - 02 - 01),
        check_out: date!(2027 - 02 - 03),
        status: status.to_owned(),
    }
}

fn journal(order: Uuid, kind: &str, amount: i64) -> Journal {
    Journal {
        order_id: order,
        payment_key: format!("pay-{order}"),
        kind: kind.to_owned(),
        transaction_key: format!("{kind}-{order}"),
        amount,
        sum: 0,
        debits: amount,
    }
}

fn moved(order: Uuid, kind: &str, amount: i64) -> Moved {
    Moved {
        transaction_key: format!("{kind}-{order}"),
        payment_key: format!("pay-{order}"),
        order_id: order,
        captured: kind == "CAPTURE",
        amount,
    }
}

fn placed(order: Uuid, amount: i64) -> OrderCall {
    OrderCall {
        user: guest(order),
        wish: Wish {
            room_type: ROOM,
            first_night: 0,
            nights: 2,
            coupon: None,
            sale_claim: None,
        },
        placed: Placed::Order { order, amount },
    }
}

/// One order that was confirmed with a time-sale claim, one that was paid and cancelled, and one that nobody paid.
fn good() -> (Seen, Books) {
    let seen = Seen {
        orders: vec![
            placed(CONFIRMED, 180_000),
            placed(CANCELLED, 200_000),
            placed(EXPIRED, 200_000),
        ],
        payments: vec![PaymentCall {
            order: CONFIRMED,
            key: format!("pay-{CONFIRMED}"),
            paid: Paid::Captured,
        }],
        told: vec![Told {
            order: CANCELLED,
            status: "CONFIRMED".to_owned(),
        }],
        ..Seen::default()
    };
    let night = |night| Night {
        room_type_id: ROOM,
        night,
        allotment: 1,
        reserved: 1,
    };
    let paid = [
        ("NIGHTS_HELD", "AWAITING_PAYMENT"),
        ("PAYMENT_BEGUN", "PAYING"),
        ("PAYMENT_CAPTURED", "CONFIRMING"),
        ("BOOKING_CONFIRMED", "CONFIRMED"),
    ];
    let undone = [
        ("CANCEL_ASKED", "UNDOING_CANCELLED"),
        ("NIGHTS_RELEASED", "CANCELLED"),
    ];
    let late = [
        ("NIGHTS_HELD", "AWAITING_PAYMENT"),
        ("TIME_OVER", "UNDOING_EXPIRED"),
        ("NIGHTS_RELEASED", "EXPIRED"),
    ];
    let journals = vec![
        journal(CONFIRMED, "CAPTURE", 180_000),
        journal(CANCELLED, "CAPTURE", 200_000),
        journal(CANCELLED, "REFUND", 200_000),
    ];
    let books = Books {
        orders: vec![
            order(CONFIRMED, "CONFIRMED", &[CLAIM], 180_000),
            order(CANCELLED, "CANCELLED", &[], 200_000),
            order(EXPIRED, "EXPIRED", &[], 200_000),
        ],
        history: [
            went(CONFIRMED, &paid),
            went(CANCELLED, &[paid.as_slice(), &undone].concat()),
            went(EXPIRED, &late),
        ]
        .concat(),
        nights: vec![night(date!(2027 - 02 - 01)), night(date!(2027 - 02 - 02))],
        holds: vec![
            hold(CONFIRMED, "BOOKED"),
            hold(CANCELLED, "RELEASED"),
            hold(EXPIRED, "RELEASED"),
        ],
        bookings: vec![
            booking(CONFIRMED, "CONFIRMED"),
            booking(CANCELLED, "CANCELLED"),
        ],
        payments: vec![Payment {
            order_id: CONFIRMED,
            payment_key: format!("pay-{CONFIRMED}"),
            state: "CAPTURED".to_owned(),
        }],
        journals_before: journals[..1].to_vec(),
        journals,
        claims: vec![Claim {
            claim_id: CLAIM,
            sale_uid: SALE,
            user_id: guest(CONFIRMED),
            status: "USED".to_owned(),
            claimed_at: datetime!(2027-01-01 0:10 UTC),
            ended_at: None,
            order_id: Some(CONFIRMED),
        }],
        reservations: vec![Reservation {
            order_id: CONFIRMED,
            state: "REDEEMED".to_owned(),
        }],
        moved: vec![
            moved(CONFIRMED, "CAPTURE", 180_000),
            moved(CANCELLED, "CAPTURE", 200_000),
            moved(CANCELLED, "REFUND", 200_000),
        ],
        balances: HashMap::from([
            (format!("pay-{CONFIRMED}"), 180_000),
            (format!("pay-{CANCELLED}"), 0),
        ]),
    };
    (seen, books)
}

/// The rules that do not hold once `change` has been made to what is good.
fn broken(change: impl FnOnce(&mut Seen, &mut Books)) -> Vec<Rule> {
    let (mut seen, mut books) = good();
    change(&mut seen, &mut books);
    let found = check(&terms(), &seen, &books);
    let mut rules: Vec<Rule> = found.into_iter().map(|it| it.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn in_books(change: impl FnOnce(&mut Books)) -> Vec<Rule> {
    broken(|_, books| change(books))
}

#[test]
fn a_true_history_passes() {
    let (seen, books) = good();
    assert_eq!(check(&terms(), &seen, &books), []);
}

#[test]
fn a_night_sold_twice_is_found() {
    let rules = in_books(|books| books.nights[0].reserved = 2);
    assert_eq!(rules, [Rule::NightsWithinAllotment, Rule::NightsAreHeld]);
    let rules = in_books(|books| books.nights[0].reserved = -1);
    assert_eq!(rules, [Rule::NightsWithinAllotment, Rule::NightsAreHeld]);
}

#[test]
fn a_night_that_is_reserved_for_nobody_is_found() {
    let rules = in_books(|books| {
        books.nights[1].allotment = 5;
        books.nights[1].reserved = 2;
    });
    assert_eq!(rules, [Rule::NightsAreHeld]);
    let rules = in_books(|books| {
        books.nights.pop();
    });
    assert_eq!(rules, [Rule::NightsAreHeld]);
}

#[test]
fn nights_that_an_ended_order_goes_on_holding_are_found() {
    let rules = in_books(|books| {
        books.holds[2].state = "HELD".to_owned();
        for night in &mut books.nights {
            night.allotment = 2;
            night.reserved = 2;
        }
    });
    assert_eq!(rules, [Rule::Ended]);
}

#[test]
fn a_booking_that_does_not_hold_all_its_nights_is_found() {
    let rules = in_books(|books| books.bookings[0].check_out = date!(2027 - 02 - 04));
    assert_eq!(rules, [Rule::BookingsHoldNights]);
    let rules = in_books(|books| drop(books.bookings.remove(0)));
    assert_eq!(rules, [Rule::BookingsHoldNights, Rule::Confirmed]);
    let rules = in_books(|books| books.bookings[0].user_id = guest(EXPIRED));
    assert_eq!(rules, [Rule::BookingsHoldNights]);
}

#[test]
fn a_way_that_the_saga_has_not_is_found() {
    let back = |books: &mut Books| {
        books.history.push(Entry {
            order_id: EXPIRED,
            seq: 4,
            at: datetime!(2027-01-01 1:01 UTC),
            event: "PAYMENT_CAPTURED".to_owned(),
            from_phase: "EXPIRED".to_owned(),
            to_phase: "CONFIRMING".to_owned(),
        });
    };
    assert_eq!(in_books(back), [Rule::Transitions]);
    let rules = in_books(|books| drop(books.history.remove(1)));
    assert_eq!(rules, [Rule::Transitions]);
}

/// The gateway refuses to give back what the cancelled order had been paid with.
fn refuse_the_refund(books: &mut Books) {
    books.orders[1].phase = "REFUND_REFUSED_CANCELLED".to_owned();
    let last = books
        .history
        .iter_mut()
        .rfind(|entry| entry.order_id == CANCELLED)
        .expect("it went somewhere");
    last.event = "REFUND_REFUSED".to_owned();
    last.to_phase = "REFUND_REFUSED_CANCELLED".to_owned();
    books.journals.pop();
    books.moved.pop();
    books.balances.insert(format!("pay-{CANCELLED}"), 200_000);
}

#[test]
fn a_refund_that_was_refused_rests_and_ends_when_a_person_gives_the_money_back() {
    let rules = broken(|seen, books| {
        refuse_the_refund(books);
        seen.told.push(Told {
            order: CANCELLED,
            status: "CANCELLED".to_owned(),
        });
    });
    assert_eq!(rules, []);
    let rules = in_books(|books| {
        refuse_the_refund(books);
        books.orders[1].phase = "CANCELLED".to_owned();
        books.history.push(Entry {
            order_id: CANCELLED,
            seq: 7,
            at: datetime!(2027-01-01 1:01 UTC),
            event: "PAYMENT_REFUNDED".to_owned(),
            from_phase: "REFUND_REFUSED_CANCELLED".to_owned(),
            to_phase: "CANCELLED".to_owned(),
        });
        books.journals.push(journal(CANCELLED, "REFUND", 200_000));
        books.moved.push(moved(CANCELLED, "REFUND", 200_000));
        books.balances.insert(format!("pay-{CANCELLED}"), 0);
    });
    assert_eq!(rules, []);
}

#[test]
fn a_refused_refund_of_an_order_that_holds_anything_else_is_found() {
    let rules = in_books(|books| {
        refuse_the_refund(books);
        books.reservations.push(Reservation {
            order_id: CANCELLED,
            state: "RESERVED".to_owned(),
        });
    });
    assert_eq!(rules, [Rule::Ended]);
}

#[test]
fn an_order_without_an_end_is_found() {
    let rules = in_books(|books| {
        books.orders[2].phase = "UNDOING_EXPIRED".to_owned();
        books.history.pop();
    });
    assert_eq!(rules, [Rule::OrdersEnd]);
}

#[test]
fn an_order_that_expired_before_its_time_is_found() {
    let rules = in_books(|books| books.orders[2].expires_at = datetime!(2027-01-01 1:00:01 UTC));
    assert_eq!(rules, [Rule::NotBeforeTime]);
}

#[test]
fn a_confirmed_order_that_is_not_paid_whole_is_found() {
    let rules = in_books(|books| {
        books.journals[0] = journal(CONFIRMED, "CAPTURE", 100_000);
        books.journals_before.clear();
        books.moved[0].amount = 100_000;
        books.balances.insert(format!("pay-{CONFIRMED}"), 100_000);
    });
    assert_eq!(rules, [Rule::Confirmed]);
}

#[test]
fn a_confirmed_order_whose_claim_is_not_used_is_found() {
    let rules = in_books(|books| {
        books.claims[0].status = "ISSUED".to_owned();
        books.claims[0].order_id = None;
    });
    assert_eq!(rules, [Rule::Confirmed]);
    let rules = in_books(|books| books.reservations[0].state = "RESERVED".to_owned());
    assert_eq!(rules, [Rule::Confirmed]);
}

#[test]
fn money_that_an_ended_order_keeps_is_found() {
    let rules = in_books(|books| {
        books.journals.pop();
        books.moved.pop();
        books.balances.insert(format!("pay-{CANCELLED}"), 200_000);
    });
    assert_eq!(rules, [Rule::Ended]);
}

#[test]
fn a_claim_that_an_ended_order_keeps_is_found() {
    let rules = in_books(|books| {
        let kept = Claim {
            claim_id: Uuid::from_u128(21),
            sale_uid: CAMPAIGN,
            user_id: guest(EXPIRED),
            status: "RESERVED".to_owned(),
            order_id: Some(EXPIRED),
            ..books.claims[0].clone()
        };
        books.orders[2].claim_ids = vec![kept.claim_id];
        books.orders[2].total = 180_000;
        books.claims.push(kept);
    });
    assert!(rules.contains(&Rule::Ended), "{rules:?}");
    let rules = in_books(|books| {
        books.reservations.push(Reservation {
            order_id: EXPIRED,
            state: "RESERVED".to_owned(),
        });
    });
    assert_eq!(rules, [Rule::Ended]);
}

#[test]
fn money_taken_or_given_back_twice_is_found() {
    let rules = in_books(|books| {
        let mut again = journal(CONFIRMED, "CAPTURE", 180_000);
        again.transaction_key.push_str("-again");
        again.payment_key.push_str("-again");
        let mut twice = moved(CONFIRMED, "CAPTURE", 180_000);
        twice.transaction_key.push_str("-again");
        twice.payment_key.push_str("-again");
        books.balances.insert(twice.payment_key.clone(), 180_000);
        books.journals.push(again);
        books.moved.push(twice);
    });
    assert_eq!(rules, [Rule::Confirmed, Rule::OneEffect]);
    let rules = in_books(|books| {
        let mut again = moved(CANCELLED, "REFUND", 200_000);
        again.transaction_key.push_str("-again");
        books.moved.push(again);
    });
    assert_eq!(rules, [Rule::Ended, Rule::OneEffect, Rule::Gateway]);
}

#[test]
fn a_hold_for_no_order_is_found() {
    let rules = in_books(|books| books.holds.push(hold(Uuid::from_u128(99), "RELEASED")));
    assert_eq!(rules, [Rule::OneEffect]);
}

#[test]
fn a_journal_that_does_not_sum_to_nothing_is_found() {
    let rules = in_books(|books| {
        books.journals[1].sum = 1;
    });
    assert_eq!(rules, [Rule::Journals]);
}

#[test]
fn a_payment_that_the_ledger_does_not_know_and_one_without_an_outcome_are_found() {
    let unknown = |state: &str| Payment {
        order_id: EXPIRED,
        payment_key: "pay-unknown".to_owned(),
        state: state.to_owned(),
    };
    let rules = in_books(|books| books.payments.push(unknown("CAPTURED")));
    assert_eq!(rules, [Rule::Journals]);
    let rules = in_books(|books| books.payments.push(unknown("INTENT")));
    assert_eq!(rules, [Rule::OrdersEnd]);
    let rules = in_books(|books| books.payments.push(unknown("REFUSED")));
    assert_eq!(rules, []);
    let rules = in_books(|books| books.payments[0].state = "REFUSED".to_owned());
    assert_eq!(rules, [Rule::Journals]);
}

#[test]
fn a_journal_that_was_rewritten_is_found() {
    let rules = in_books(|books| books.journals_before[0].amount = 1);
    assert_eq!(rules, [Rule::Journals]);
}

#[test]
fn more_back_than_was_taken_is_found() {
    let rules = in_books(|books| {
        for journal in books.journals.iter_mut().filter(|it| it.kind == "REFUND") {
            journal.amount = 300_000;
            journal.debits = 300_000;
        }
    });
    assert!(rules.contains(&Rule::Journals), "{rules:?}");
}

#[test]
fn a_transaction_without_a_journal_and_one_the_other_way_round_are_found() {
    let rules = in_books(|books| books.moved[0].transaction_key.push('x'));
    assert_eq!(rules, [Rule::Gateway]);
    let rules = in_books(|books| {
        books.balances.insert(format!("pay-{CONFIRMED}"), 1);
    });
    assert_eq!(rules, [Rule::Gateway]);
}

#[test]
fn an_order_that_a_guest_was_told_of_and_is_not_there_is_found() {
    let rules = broken(|seen, _| {
        let mut call = placed(CONFIRMED, 180_000);
        call.placed = Placed::Order {
            order: Uuid::from_u128(98),
            amount: 180_000,
        };
        seen.orders.push(call);
    });
    assert_eq!(rules, [Rule::Answers]);
    let rules = broken(|seen, _| seen.orders[0].placed = Placed::Refused("UNAVAILABLE".into()));
    assert_eq!(rules, [Rule::Answers]);
    let rules = broken(|seen, _| seen.orders[0].placed = Placed::Unknown);
    assert_eq!(rules, [], "nobody knows, and it may be");
}

#[test]
fn a_payment_that_was_told_otherwise_is_found() {
    let rules = broken(|seen, _| seen.payments[0].key.push('x'));
    assert_eq!(rules, [Rule::Answers]);
    let rules = broken(|seen, _| {
        seen.payments[0].paid = Paid::NotTaken("PAYMENT_REFUSED".to_owned());
    });
    assert_eq!(rules, [Rule::Answers]);
}

#[test]
fn an_end_that_was_taken_back_is_found() {
    for (order, status) in [(CONFIRMED, "CANCELLED"), (EXPIRED, "CONFIRMED")] {
        let rules = broken(|seen, _| {
            seen.told.push(Told {
                order,
                status: status.to_owned(),
            });
        });
        assert_eq!(rules, [Rule::Answers]);
    }
}

#[test]
fn a_price_that_is_not_of_its_claims_is_found() {
    let rules = in_books(|books| books.claims[0].claimed_at = datetime!(2027-01-01 2:00 UTC));
    assert!(rules.contains(&Rule::Prices), "after the end: {rules:?}");
    let rules = in_books(|books| books.claims[0].user_id = guest(EXPIRED));
    assert!(rules.contains(&Rule::Prices), "somebody else's: {rules:?}");
    let rules = broken(|seen, books| {
        books.orders[2].total = 180_000;
        seen.orders[2] = placed(EXPIRED, 180_000);
    });
    assert_eq!(rules, [Rule::Prices], "without a claim");
}

#[test]
fn a_claim_that_serves_two_orders_is_found() {
    let rules = in_books(|books| books.claims[0].order_id = Some(CANCELLED));
    assert!(rules.contains(&Rule::Claims), "{rules:?}");
    let rules = in_books(|books| {
        books.orders[1].phase = "CONFIRMED".to_owned();
        books.orders[1].claim_ids = vec![CLAIM];
    });
    assert!(rules.contains(&Rule::Claims), "{rules:?}");
}

#[test]
fn a_claim_that_was_acknowledged_and_not_found_is_found() {
    let answered = timestamp(datetime!(2027-01-01 0:10:01 UTC)).expect("a time in range");
    let not_found = NotFound {
        claim: CLAIM,
        answered,
    };
    assert_eq!(
        broken(|seen, _| seen.not_found.push(not_found)),
        [Rule::ClaimsKnown]
    );
    let rules = broken(|seen, books| {
        seen.not_found.push(not_found);
        books.claims.push(Claim {
            ended_at: Some(datetime!(2027-01-01 0:10 UTC)),
            status: "EXPIRED".to_owned(),
            order_id: None,
            ..books.claims[0].clone()
        });
    });
    assert_eq!(rules, [], "it had expired");
}
