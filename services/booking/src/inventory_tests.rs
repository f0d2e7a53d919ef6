#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use time::Duration;

use super::*;

fn room(n: u128) -> RoomTypeId {
    RoomTypeId(Uuid::from_u128(n))
}

fn order(n: u128) -> OrderId {
    OrderId(Uuid::from_u128(n))
}

fn day(n: u8) -> Date {
    Date::from_calendar_date(2026, time::Month::December, 1).unwrap() + Duration::days(i64::from(n))
}

fn want(room_type: u128, from: u8, nights: u8) -> Terms {
    Terms {
        user_id: Uuid::from_u128(7),
        room_type_id: room(room_type),
        nights: Nights::new(day(from), day(from + nights)).unwrap(),
        guests: 2,
        expires_at: OffsetDateTime::UNIX_EPOCH,
    }
}

fn desk(offered: i32) -> Desk {
    let night = Night {
        offered,
        reserved: 0,
    };
    let nights = (0..10).flat_map(|day_number| [1, 2].map(|n| ((room(n), day(day_number)), night)));
    Desk::new([], nights)
}

fn hold(n: u128, from: u8, nights: u8) -> Command {
    Command::Hold(order(n), Ok(want(1, from, nights)))
}

fn confirm(n: u128) -> Command {
    Command::Confirm(order(n), Uuid::from_u128(1_000 + n))
}

fn refused(n: u128, code: &str) -> OrderReply {
    OrderReply::HoldRefused {
        order_id: order(n),
        code: code.to_owned(),
    }
}

fn held(n: u128) -> OrderReply {
    OrderReply::Held { order_id: order(n) }
}

#[test]
fn all_nights_are_held_or_none() {
    let mut desk = desk(1);
    assert_eq!(desk.apply(&hold(1, 3, 2)), held(1));
    assert_eq!(desk.apply(&hold(2, 1, 4)), refused(2, "UNAVAILABLE"));
    let moved: Vec<_> = desk.moved().collect();
    assert_eq!(moved, [((room(1), day(3)), 1), ((room(1), day(4)), 1)]);
    assert_eq!(
        desk.apply(&hold(3, 1, 2)),
        held(3),
        "the refused one left nothing behind"
    );
    assert_eq!(
        desk.apply(&hold(4, 8, 5)),
        refused(4, "UNAVAILABLE"),
        "a night that isn't offered"
    );
}

#[test]
fn the_same_step_again_gets_the_same_answer_and_does_nothing() {
    let mut desk = desk(5);
    for command in [hold(1, 0, 3), confirm(1), Command::Release(order(1))] {
        let first = desk.apply(&command);
        let moved: Vec<_> = desk.moved().collect();
        assert_eq!(desk.apply(&command), first);
        assert_eq!(desk.moved().collect::<Vec<_>>(), moved);
    }
    assert_eq!(desk.moved().count(), 0);
}

#[test]
fn a_repeated_confirmation_names_the_first_booking() {
    let mut desk = desk(5);
    desk.apply(&hold(1, 0, 3));
    let first = desk.apply(&confirm(1));
    assert_eq!(
        desk.apply(&Command::Confirm(order(1), Uuid::from_u128(9))),
        first
    );
}

#[test]
fn a_hold_that_comes_after_its_release_is_refused() {
    let mut desk = desk(5);
    assert_eq!(
        desk.apply(&Command::Release(order(1))),
        OrderReply::NightsReleased { order_id: order(1) }
    );
    assert_eq!(desk.apply(&hold(1, 0, 3)), refused(1, "HOLD_ENDED"));
    assert_eq!(desk.moved().count(), 0);
}

#[test]
fn what_has_ended_is_not_booked() {
    let mut desk = desk(5);
    let no = |n| OrderReply::BookingRefused { order_id: order(n) };
    desk.apply(&hold(1, 0, 3));
    desk.apply(&Command::Release(order(1)));
    assert_eq!(desk.apply(&confirm(1)), no(1));
    desk.apply(&hold(2, 0, 3));
    assert!(desk.expire(order(2)));
    assert_eq!(desk.apply(&confirm(2)), no(2));
    assert_eq!(desk.apply(&confirm(3)), no(3), "nothing was ever held");
    assert!(!desk.expire(order(2)), "only once");
}

#[test]
fn a_booking_does_not_expire() {
    let mut desk = desk(5);
    desk.apply(&hold(1, 0, 3));
    desk.apply(&confirm(1));
    assert!(!desk.expire(order(1)));
}

#[test]
fn a_room_above_a_lowered_offer_is_not_given_again() {
    // Three were reserved when the host went down to two.
    let key = (room(1), day(0));
    let night = Night {
        offered: 2,
        reserved: 3,
    };
    let mut desk = Desk::new([(order(1), Hold::Held(want(1, 0, 1)))], [(key, night)]);
    assert_eq!((night.allotment(), night.left()), (3, 0));
    desk.apply(&Command::Release(order(1)));
    let night = desk.night(&key).unwrap();
    assert_eq!((night.allotment(), night.left()), (2, 0));
    assert_eq!(desk.apply(&hold(2, 0, 1)), refused(2, "UNAVAILABLE"));
}

#[test]
fn a_message_that_says_nothing_is_refused() {
    let message = BookingCommand::Hold {
        order_id: order(1),
        user_id: Uuid::nil(),
        room_type_id: room(1),
        check_in: "2026-12-05".to_owned(),
        check_out: "2026-12-05".to_owned(),
        guests: 2,
        expires_at_ms: 0,
    };
    let command = Command::read(&message, Uuid::nil());
    assert_eq!(desk(1).apply(&command), refused(1, "INVALID_REQUEST"));
}

#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    Expire(OrderId),
}

fn any_step() -> impl Strategy<Value = Step> {
    let orders = 0..6_u128;
    let hold =
        |(n, room_type, from, nights)| Command::Hold(order(n), Ok(want(room_type, from, nights)));
    prop_oneof![
        4 => (orders.clone(), 1..=2_u128, 0..9_u8, 1..4_u8).prop_map(move |wanted| Step::Command(hold(wanted))),
        2 => orders.clone().prop_map(|n| Step::Command(confirm(n))),
        2 => orders.clone().prop_map(|n| Step::Command(Command::Release(order(n)))),
        1 => orders.prop_map(|n| Step::Expire(order(n))),
    ]
}

proptest! {
    /// Whatever comes in whatever order: each night's count is that of the active holds on it, and never too high.
    #[test]
    fn reserved_is_the_number_of_active_holds(steps in prop::collection::vec(any_step(), 0..60), offered in 0..3_i32) {
        let mut desk = desk(offered);
        for step in steps {
            match step {
                Step::Command(command) => { desk.apply(&command); }
                Step::Expire(order) => { desk.expire(order); }
            }
            let active: Vec<Terms> = desk.holds.values().filter_map(Hold::active).collect();
            for ((room_type, date), night) in &desk.nights {
                let covering = active.iter().filter(|terms| {
                    terms.room_type_id == *room_type && terms.nights.iter().any(|night| night == *date)
                });
                prop_assert_eq!(usize::try_from(night.reserved).unwrap(), covering.count());
                prop_assert!(night.reserved <= offered);
            }
        }
    }
}
