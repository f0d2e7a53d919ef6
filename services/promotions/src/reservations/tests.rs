use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const GUEST: UserId = UserId(Uuid::from_u128(1));
const OTHER: UserId = UserId(Uuid::from_u128(2));

fn order(n: u128) -> OrderId {
    OrderId(Uuid::from_u128(n))
}

fn claim(n: u128) -> ClaimId {
    ClaimId(Uuid::from_u128(n))
}

fn of(user: UserId, standing: Standing, over: bool) -> Claim {
    Claim {
        user,
        kind: SaleKind::TimeSale,
        standing,
        over,
    }
}

fn free(user: UserId) -> Claim {
    of(user, Standing::Free, false)
}

fn reserve(n: u128, claims: &[ClaimId]) -> DiscountCommand {
    DiscountCommand::Reserve {
        order_id: order(n),
        user_id: GUEST.0,
        claim_ids: claims.iter().map(|claim| claim.0).collect(),
    }
}

fn redeem(n: u128) -> DiscountCommand {
    DiscountCommand::Redeem { order_id: order(n) }
}

fn release(n: u128) -> DiscountCommand {
    DiscountCommand::Release { order_id: order(n) }
}

fn code(reply: &OrderReply) -> &str {
    match reply {
        OrderReply::DiscountReserved { .. } => "reserved",
        OrderReply::DiscountRedeemed { .. } => "redeemed",
        OrderReply::DiscountReleased { .. } => "released",
        OrderReply::DiscountRefused { code, .. } => code,
        other => panic!("not of promotions: {other:?}"),
    }
}

fn told(desk: &mut Desk, command: &DiscountCommand) -> String {
    code(&desk.apply(command)).to_owned()
}

#[test]
fn each_step_is_done_once_and_answered_the_same_again() {
    let mut desk = Desk::new([], [(claim(1), free(GUEST)), (claim(2), free(GUEST))]);
    let both = [claim(1), claim(2)];
    for _ in 0..2 {
        assert_eq!(told(&mut desk, &reserve(1, &both)), "reserved");
        assert_eq!(
            desk.claims[&claim(1)].standing,
            Standing::Reserved(order(1))
        );
    }
    assert_eq!(told(&mut desk, &reserve(2, &[claim(2)])), "CLAIM_TAKEN");
    for _ in 0..2 {
        assert_eq!(told(&mut desk, &redeem(1)), "redeemed");
        assert_eq!(desk.claims[&claim(2)].standing, Standing::Used(order(1)));
    }
    assert_eq!(told(&mut desk, &reserve(3, &[claim(2)])), "CLAIM_TAKEN");
    for _ in 0..2 {
        assert_eq!(told(&mut desk, &release(1)), "released");
        assert_eq!(desk.claims[&claim(2)].standing, Standing::Free);
    }
    // The late ones find that it is over.
    assert_eq!(told(&mut desk, &redeem(1)), "NOT_RESERVED");
    assert_eq!(told(&mut desk, &reserve(1, &both)), "RESERVATION_RELEASED");
    assert_eq!(told(&mut desk, &reserve(4, &both)), "reserved");
    assert_eq!(told(&mut desk, &release(1)), "released");
    assert_eq!(
        desk.claims[&claim(1)].standing,
        Standing::Reserved(order(4))
    );
}

#[test]
fn all_claims_are_kept_or_none() {
    let bad = [
        (of(OTHER, Standing::Free, false), "CLAIM_NOT_FOUND"),
        (of(OTHER, Standing::Ended, true), "CLAIM_NOT_FOUND"),
        (of(GUEST, Standing::Free, true), "CLAIM_ENDED"),
        (of(GUEST, Standing::Ended, true), "CLAIM_ENDED"),
        (of(GUEST, Standing::Used(order(9)), false), "CLAIM_TAKEN"),
    ];
    for (second, code) in bad {
        let mut desk = Desk::new([], [(claim(1), free(GUEST)), (claim(2), second)]);
        let both = reserve(1, &[claim(1), claim(2)]);
        assert_eq!(told(&mut desk, &both), code);
        assert_eq!(told(&mut desk, &both), code);
        assert_eq!(desk.moved().count(), 0);
        assert_eq!(told(&mut desk, &redeem(1)), "NOT_RESERVED");
        assert_eq!(told(&mut desk, &release(1)), "released");
        assert_eq!(desk.moved().count(), 0);
    }
    let mut desk = Desk::default();
    assert_eq!(told(&mut desk, &reserve(1, &[])), "INVALID_REQUEST");
    assert_eq!(told(&mut desk, &reserve(2, &[claim(7)])), "CLAIM_NOT_FOUND");
}

#[test]
fn what_is_kept_is_used_however_late() {
    let over = of(GUEST, Standing::Reserved(order(1)), true);
    let kept = Reservation::Reserved([claim(1)].into());
    let mut desk = Desk::new([(order(1), kept)], [(claim(1), over)]);
    assert_eq!(told(&mut desk, &redeem(1)), "redeemed");
}

#[test]
fn a_release_that_comes_first_refuses_what_it_releases() {
    let mut desk = Desk::new([], [(claim(1), free(GUEST))]);
    assert_eq!(told(&mut desk, &release(1)), "released");
    assert_eq!(
        told(&mut desk, &reserve(1, &[claim(1)])),
        "RESERVATION_RELEASED"
    );
    assert_eq!(desk.moved().count(), 0);
}

proptest! {
    /// Whatever is asked in whatever order, a claim is with the one order whose reservation says so, or free.
    #[test]
    fn a_claim_is_never_of_two_orders(asked in prop::collection::vec((0..3_u8, 0..4_u128, 0..3_u128, 0..3_u128), 1..60)) {
        let mut desk = Desk::new([], (0..3).map(|n| (claim(n), free(GUEST))));
        for (what, of, first, second) in asked {
            desk.apply(&match what {
                0 => reserve(of, &[claim(first), claim(second)]),
                1 => redeem(of),
                _ => release(of),
            });
            let mut with = BTreeMap::new();
            for (order, reservation) in &desk.reservations {
                let (claims, standing) = match reservation {
                    Reservation::Reserved(claims) => (claims, Standing::Reserved(*order)),
                    Reservation::Redeemed(claims) => (claims, Standing::Used(*order)),
                    Reservation::Released(_) | Reservation::Refused(_) => continue,
                };
                for claim in claims {
                    prop_assert_eq!(with.insert(*claim, standing), None);
                }
            }
            for (id, claim) in &desk.claims {
                prop_assert_eq!(claim.standing, with.get(id).copied().unwrap_or(Standing::Free));
            }
        }
    }
}
