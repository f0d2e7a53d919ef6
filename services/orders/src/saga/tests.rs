#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use money::Krw;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const TOTAL: i64 = 120_000;
const EXPIRES: i64 = 900;
const SETTLED: i64 = 1_800;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn krw(won: i64) -> Krw {
    Krw::new(won).unwrap()
}

fn key(name: &str) -> PaymentKey {
    PaymentKey::new(name)
}

fn asked(name: &str) -> Event {
    Event::PaymentAsked {
        key: key(name),
        amount: krw(TOTAL),
        settled_by: at(SETTLED),
    }
}

fn captured(name: &str) -> Event {
    Event::PaymentCaptured {
        key: key(name),
        amount: krw(TOTAL),
    }
}

/// An order and everything it asked for.
struct Order {
    saga: Saga,
    asked: Vec<Effect>,
}

impl Order {
    fn new(discounted: bool) -> Self {
        Self {
            saga: Saga::new(krw(TOTAL), at(EXPIRES), discounted),
            asked: Vec::new(),
        }
    }

    fn on(&mut self, second: i64, event: Event) -> Verdict {
        let stepped = step(self.saga.clone(), at(second), &event);
        self.saga = stepped.saga;
        self.asked = stepped.effects;
        stepped.verdict
    }

    /// With these events at the first second.
    fn after(events: impl IntoIterator<Item = Event>) -> Self {
        let mut order = Self::new(true);
        for event in events {
            order.on(0, event);
        }
        order
    }
}

/// What an order goes through when all goes well.
fn good_way() -> Vec<Event> {
    vec![
        Event::Placed,
        Event::Held,
        Event::DiscountReserved,
        asked("pay"),
        captured("pay"),
        Event::BookingConfirmed(Uuid::from_u128(1)),
        Event::DiscountRedeemed,
    ]
}

#[test]
fn the_steps_stand_in_their_order() {
    for (index, (plan, name)) in STEPS.iter().zip(StepName::ALL).enumerate() {
        assert_eq!((plan.name, name as usize), (name, index));
        assert_eq!(name.plan(), plan);
    }
}

#[test]
fn when_all_goes_well_an_order_is_confirmed() {
    use Phase::*;
    let mut order = Order::new(true);
    let phases: Vec<Phase> = good_way()
        .into_iter()
        .map(|event| {
            assert_eq!(order.on(0, event), Verdict::Changed);
            order.saga.phase()
        })
        .collect();
    let expected = [
        Holding,
        Holding,
        AwaitingPayment,
        Paying,
        Confirming,
        Confirming,
        Confirmed,
    ];
    assert_eq!(phases, expected);
    assert_eq!(order.saga.booking, Some(Uuid::from_u128(1)));
}

/// Failed at every step: nothing that was done is left, last first.
#[test]
fn a_step_that_is_refused_undoes_all_before_it() {
    let code = || "GONE".to_owned();
    let refund = Effect::Refund {
        key: key("pay"),
        amount: krw(TOTAL),
    };
    let release = Effect::Ask(Command::ReleaseNights);
    let give_back = Effect::Ask(Command::ReleaseDiscount);
    let cases = [
        (1, Event::HoldRefused(code()), vec![]),
        (2, Event::DiscountRefused(code()), vec![release.clone()]),
        (5, Event::BookingRefused, vec![refund.clone(), give_back]),
        (6, Event::DiscountRefused(code()), vec![refund, release]),
    ];
    for (done, refusal, compensations) in cases {
        let mut order = Order::after(good_way().into_iter().take(done));
        order.on(1, refusal.clone());
        assert_eq!(order.asked, compensations, "{refusal:?}");
        assert_eq!(order.saga.end, Some(End::Failed), "{refusal:?}");
        for answer in [
            Event::NightsReleased,
            Event::DiscountReleased,
            Event::PaymentRefunded {
                key: key("pay"),
                amount: krw(TOTAL),
            },
        ] {
            order.on(2, answer);
        }
        assert_eq!(order.saga.phase(), Phase::Ended(End::Failed), "{refusal:?}");
        assert_eq!(order.saga.money.refunded, order.saga.money.captured);
    }
}

#[test]
fn of_a_payment_and_the_expiry_the_first_wins() {
    let ready = || Order::after(good_way().into_iter().take(3));
    let mut paid_first = ready();
    assert_eq!(paid_first.on(EXPIRES - 1, asked("pay")), Verdict::Changed);
    assert_eq!(paid_first.on(EXPIRES, Event::Due), Verdict::Unchanged);
    assert_eq!(paid_first.saga.phase(), Phase::Paying);

    let mut expired_first = ready();
    assert_eq!(expired_first.on(EXPIRES, Event::Due), Verdict::Changed);
    let refused = Verdict::Refused(Refusal::Expired);
    assert_eq!(expired_first.on(EXPIRES, asked("pay")), refused);
    assert_eq!(
        ready().on(EXPIRES, asked("pay")),
        refused,
        "nobody looked yet"
    );
    assert_eq!(ready().on(EXPIRES - 1, Event::Due), Verdict::Unchanged);
}

#[test]
fn the_same_payment_may_ask_again_and_another_may_not() {
    let mut order = Order::after(good_way().into_iter().take(4));
    assert_eq!(order.on(1, asked("pay")), Verdict::Unchanged);
    let refused = Verdict::Refused(Refusal::NotPayable);
    assert_eq!(order.on(1, asked("other")), refused);
    let wrong = Event::PaymentAsked {
        key: key("pay"),
        amount: krw(1),
        settled_by: at(SETTLED),
    };
    assert_eq!(
        order.on(1, wrong),
        Verdict::Refused(Refusal::AmountMismatch)
    );
    order.on(1, captured("pay"));
    assert_eq!(
        order.on(2, asked("pay")),
        Verdict::Unchanged,
        "it was taken"
    );
}

#[test]
fn a_refused_payment_leaves_time_for_another() {
    let mut order = Order::after(good_way().into_iter().take(4));
    let refusal = |name| Event::PaymentRefused {
        key: key(name),
        code: "REJECT_CARD_COMPANY".to_owned(),
    };
    assert_eq!(order.on(1, refusal("other")), Verdict::Unchanged);
    assert_eq!(order.on(1, refusal("pay")), Verdict::Changed);
    assert_eq!(order.saga.phase(), Phase::AwaitingPayment);
    assert_eq!(order.on(2, asked("other")), Verdict::Changed);
    assert_eq!(
        order.on(3, refusal("pay")),
        Verdict::Unchanged,
        "said again"
    );
    assert_eq!(order.saga.phase(), Phase::Paying);
}

#[test]
fn an_order_whose_deposit_is_awaited_may_be_paid_and_may_expire() {
    let waits = || Event::DepositAwaited { key: key("pay") };
    let mut order = Order::after(good_way().into_iter().take(4));
    assert_eq!(order.on(1, waits()), Verdict::Changed);
    assert_eq!(order.saga.phase(), Phase::AwaitingPayment);
    assert_eq!(order.saga.due_at(at(60)), Some(at(EXPIRES)));
    // In time: it is set aside again, and paid.
    let mut paid = Order {
        saga: order.saga.clone(),
        asked: Vec::new(),
    };
    assert_eq!(paid.on(EXPIRES - 1, asked("pay")), Verdict::Changed);
    assert_eq!(paid.on(EXPIRES, Event::Due), Verdict::Unchanged);
    paid.on(EXPIRES + 1, captured("pay"));
    assert_eq!(paid.saga.phase(), Phase::Confirming);
    assert_eq!(paid.on(EXPIRES + 2, waits()), Verdict::Unchanged, "late");
    // Too late: it goes back.
    order.on(EXPIRES, Event::Due);
    assert_eq!(
        order.on(EXPIRES + 1, asked("pay")),
        Verdict::Refused(Refusal::Expired)
    );
    order.on(EXPIRES + 1, captured("pay"));
    let refund = Effect::Refund {
        key: key("pay"),
        amount: krw(TOTAL),
    };
    assert_eq!(order.asked, [refund]);
}

#[test]
fn an_outcome_that_never_comes_does_not_hold_an_order_for_ever() {
    let mut order = Order::after(good_way().into_iter().take(4));
    assert_eq!(order.saga.due_at(at(60)), Some(at(SETTLED)));
    assert_eq!(order.on(SETTLED - 1, Event::Due), Verdict::Unchanged);
    assert_eq!(order.on(SETTLED, Event::Due), Verdict::Changed);
    assert_eq!(order.saga.end, Some(End::Expired));
}

#[test]
fn a_late_capture_is_refunded_once() {
    let mut order = Order::after(good_way().into_iter().take(4));
    order.on(SETTLED, Event::Due);
    order.on(SETTLED, Event::NightsReleased);
    order.on(SETTLED, Event::DiscountReleased);
    assert_eq!(order.saga.phase(), Phase::Ended(End::Expired));
    order.on(SETTLED + 1, captured("pay"));
    let refund = Effect::Refund {
        key: key("pay"),
        amount: krw(TOTAL),
    };
    assert_eq!(order.asked, std::slice::from_ref(&refund));
    assert_eq!(order.saga.phase(), Phase::Undoing(End::Expired));
    order.on(SETTLED + 2, captured("pay"));
    assert_eq!(order.asked, [], "told again");
    order.on(SETTLED + 3, Event::Due);
    assert_eq!(order.asked, [refund], "not answered yet");
    let refunded = Event::PaymentRefunded {
        key: key("pay"),
        amount: krw(TOTAL),
    };
    order.on(SETTLED + 4, refunded);
    assert_eq!(order.saga.phase(), Phase::Ended(End::Expired));
}

#[test]
fn a_refund_that_is_refused_waits_for_a_person() {
    let mut order = Order::after(good_way());
    order.on(1, Event::CancelAsked { refund: krw(TOTAL) });
    let refused = Event::PaymentRefundRefused {
        key: key("pay"),
        code: "NOT_CANCELABLE_PAYMENT".to_owned(),
    };
    assert_eq!(order.on(2, refused.clone()), Verdict::Changed);
    assert_eq!(order.saga.phase(), Phase::Undoing(End::Cancelled));
    order.on(3, Event::NightsReleased);
    order.on(3, Event::DiscountReleased);
    assert_eq!(order.saga.phase(), Phase::RefundRefused(End::Cancelled));
    assert_eq!(order.saga.phase().status(), "CANCELLED");
    assert_eq!(order.saga.due_at(at(60)), None, "time doesn't mend it");
    assert_eq!(order.on(4, refused), Verdict::Unchanged, "said again");
    assert_eq!(
        order.on(5, asked("other")),
        Verdict::Refused(Refusal::NotPayable)
    );
    let again = Event::CancelAsked { refund: krw(TOTAL) };
    assert_eq!(order.on(5, again), Verdict::Unchanged);
    let refunded = Event::PaymentRefunded {
        key: key("pay"),
        amount: krw(TOTAL),
    };
    assert_eq!(order.on(6, refunded), Verdict::Changed, "by hand");
    assert_eq!(order.saga.phase(), Phase::Ended(End::Cancelled));
    assert_eq!(order.saga.money.refunded, krw(TOTAL));
}

#[test]
fn money_that_is_not_the_orders_price_goes_back() {
    let mut order = Order::after(good_way().into_iter().take(4));
    let less = Event::PaymentCaptured {
        key: key("pay"),
        amount: krw(5),
    };
    order.on(1, less);
    let refund = Effect::Refund {
        key: key("pay"),
        amount: krw(5),
    };
    assert_eq!(order.asked, [refund]);
    assert_eq!(order.saga.phase(), Phase::AwaitingPayment);

    let mut paid = Order::after(good_way());
    paid.on(1, captured("second"));
    let refund = Effect::Refund {
        key: key("second"),
        amount: krw(TOTAL),
    };
    assert_eq!(paid.asked, [refund]);
    assert_eq!(paid.saga.phase(), Phase::Confirmed);
}

#[test]
fn a_guest_may_cancel_at_any_moment_and_pays_only_for_a_booking() {
    let half = Event::CancelAsked {
        refund: krw(TOTAL / 2),
    };
    for done in 1..=7 {
        let mut order = Order::after(good_way().into_iter().take(done));
        let captured = order.saga.money.captured;
        assert_eq!(order.on(1, half.clone()), Verdict::Changed, "after {done}");
        assert_eq!(order.saga.end, Some(End::Cancelled));
        let due = if done == 7 { krw(TOTAL / 2) } else { captured };
        assert_eq!(order.saga.money.refund_due, due, "after {done}");
        assert_eq!(order.on(2, half.clone()), Verdict::Unchanged, "again");
    }
    let mut nothing_back = Order::after(good_way());
    nothing_back.on(1, Event::CancelAsked { refund: Krw::ZERO });
    let released = [
        Effect::Ask(Command::ReleaseDiscount),
        Effect::Ask(Command::ReleaseNights),
    ];
    assert_eq!(nothing_back.asked, released);
}

#[test]
fn what_costs_nothing_needs_no_payment() {
    let mut order = Order {
        saga: Saga::new(Krw::ZERO, at(EXPIRES), true),
        asked: Vec::new(),
    };
    for event in [Event::Placed, Event::Held, Event::DiscountReserved] {
        order.on(0, event);
    }
    assert_eq!(order.saga.phase(), Phase::Confirming);
    assert_eq!(order.asked, [Effect::Ask(Command::ConfirmBooking)]);
}

#[test]
fn progress_is_read_as_it_is_written() {
    for progress in [
        Progress::Todo,
        Progress::Asked,
        Progress::UndoRefused,
        Progress::Undone,
    ] {
        assert_eq!(Progress::parse(progress.as_str()), Some(progress));
    }
    assert_eq!(Progress::parse("done"), None);
}

fn any_event() -> impl Strategy<Value = Event> {
    let code = String::new;
    prop_oneof![
        Just(Event::Placed),
        Just(Event::Held),
        Just(Event::HoldRefused(code())),
        Just(Event::NightsReleased),
        Just(Event::DiscountReserved),
        Just(Event::DiscountRefused(code())),
        Just(Event::DiscountRedeemed),
        Just(Event::DiscountReleased),
        prop_oneof![Just("a"), Just("b")].prop_map(asked),
        prop_oneof![Just("a"), Just("b")].prop_map(captured),
        Just(Event::PaymentRefused {
            key: key("a"),
            code: code()
        }),
        Just(Event::DepositAwaited { key: key("a") }),
        Just(Event::PaymentRefunded {
            key: key("a"),
            amount: krw(TOTAL)
        }),
        Just(Event::PaymentRefundRefused {
            key: key("a"),
            code: code()
        }),
        Just(Event::BookingConfirmed(Uuid::nil())),
        Just(Event::BookingRefused),
        (0..=TOTAL).prop_map(|won| Event::CancelAsked { refund: krw(won) }),
        Just(Event::Due),
    ]
}

proptest! {
    /// Whatever comes in whatever order: only allowed transitions, an end stays, and what is unchanged is.
    #[test]
    fn no_order_of_events_leads_astray(
        events in prop::collection::vec((any_event(), 0i64..2_000), 1..40),
        discounted: bool,
    ) {
        let mut saga = step(Saga::new(krw(TOTAL), at(EXPIRES), discounted), at(0), &Event::Placed).saga;
        for (event, second) in events {
            let stepped = step(saga.clone(), at(second), &event);
            let (from, to) = (saga.phase(), stepped.saga.phase());
            prop_assert!(from == to || allowed(from, to), "{} -> {}", from, to);
            prop_assert!(saga.end.is_none() || saga.end == stepped.saga.end);
            if stepped.verdict != Verdict::Changed {
                prop_assert_eq!(&saga, &stepped.saga);
            }
            let money = &stepped.saga.money;
            prop_assert!(money.refund_due <= money.captured);
            saga = stepped.saga;
        }
    }
}
