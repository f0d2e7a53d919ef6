//! The problem codes of orders, each with its status, and which failure is which.

use chassis::problem::{Code, Problem, common};
use http::StatusCode;

use crate::desk::DeskError;
use crate::peers::PeerError;
use crate::pricing::PricingError;
use crate::saga::Refusal;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($code:literal, $status:ident, $title:literal);)+) => {
        $($(#[$doc])* pub(super) const $name: Code = Code::new($code, StatusCode::$status, $title);)+

        /// All of them, for the API's reference.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    /// No room is left for one of the nights, or it isn't offered.
    NO_ROOM = ("UNAVAILABLE", CONFLICT, "Not available");
    /// No such room type.
    ROOM_TYPE_NOT_FOUND = ("ROOM_TYPE_NOT_FOUND", NOT_FOUND, "No such room type");
    /// The room type takes fewer.
    TOO_MANY_GUESTS = ("TOO_MANY_GUESTS", UNPROCESSABLE_ENTITY, "Too many guests");
    /// No coupon of this id that is the caller's and can be used.
    COUPON_NOT_FOUND = ("COUPON_NOT_FOUND", NOT_FOUND, "No such coupon");
    /// No time-sale claim of this id that is the caller's and can be used.
    CLAIM_NOT_FOUND = ("CLAIM_NOT_FOUND", NOT_FOUND, "No such claim");
    /// The coupon's terms aren't met.
    COUPON_NOT_APPLICABLE = ("COUPON_NOT_APPLICABLE", UNPROCESSABLE_ENTITY, "The coupon is not for this order");
    /// The time sale covers none of the nights.
    CLAIM_NOT_APPLICABLE = ("CLAIM_NOT_APPLICABLE", UNPROCESSABLE_ENTITY, "The time sale is not for this order");
    /// No order of this id that is the caller's.
    ORDER_NOT_FOUND = ("ORDER_NOT_FOUND", NOT_FOUND, "No such order");
    /// The time to pay is over.
    ORDER_EXPIRED = ("ORDER_EXPIRED", CONFLICT, "The order has expired");
    /// The order can't be paid now.
    ORDER_NOT_PAYABLE = ("ORDER_NOT_PAYABLE", CONFLICT, "The order can't be paid");
    /// The amount isn't the order's.
    AMOUNT_MISMATCH = ("AMOUNT_MISMATCH", UNPROCESSABLE_ENTITY, "Not the order's amount");
    /// The order has ended otherwise, or the stay has begun.
    ORDER_NOT_CANCELLABLE = ("ORDER_NOT_CANCELLABLE", CONFLICT, "The order can't be cancelled");
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Store(error) => error.into(),
            DeskError::Peer(error) => of_peer(error),
            DeskError::NoCoupon => {
                COUPON_NOT_FOUND.problem("the caller has no such coupon that can be used")
            }
            DeskError::NoClaim => {
                CLAIM_NOT_FOUND.problem("the caller has no such claim that can be used")
            }
            DeskError::Pricing(error) => of_pricing(&error),
            DeskError::KeyReused => {
                common::IDEMPOTENCY_KEY_REUSED.problem("this key came with another order before")
            }
            DeskError::NoOrder => ORDER_NOT_FOUND.problem("the caller has no such order"),
            DeskError::StayBegun => ORDER_NOT_CANCELLABLE.problem("the stay has begun"),
            DeskError::Refused(refusal) => match refusal {
                Refusal::Expired => ORDER_EXPIRED.problem("the time to pay is over"),
                Refusal::NotPayable => ORDER_NOT_PAYABLE
                    .problem("it is not waiting for this payment; look at its status"),
                Refusal::AmountMismatch => {
                    AMOUNT_MISMATCH.problem("pay the amount that the order says")
                }
                Refusal::NotCancellable => {
                    ORDER_NOT_CANCELLABLE.problem("the order has ended already")
                }
            },
        }
    }
}

fn of_pricing(error: &PricingError) -> Problem {
    match error {
        PricingError::SaleNotApplicable => CLAIM_NOT_APPLICABLE.problem(error.to_string()),
        PricingError::BelowMinimum(_) | PricingError::OtherRegion => {
            COUPON_NOT_APPLICABLE.problem(error.to_string())
        }
        PricingError::OtherNights | PricingError::TooMuch => Problem::internal(error),
    }
}

fn of_peer(error: PeerError) -> Problem {
    match error {
        PeerError::Away { peer, .. } => {
            tracing::warn!(%error, "a peer is away");
            Problem::unavailable(format!("{peer} can't be asked right now"))
        }
        PeerError::Refused {
            status,
            ref code,
            ref detail,
            ..
        } => match (status, code.as_str()) {
            (StatusCode::NOT_FOUND, "ROOM_TYPE_NOT_FOUND") => {
                ROOM_TYPE_NOT_FOUND.problem("no room type has this id")
            }
            (StatusCode::CONFLICT, _) => {
                NO_ROOM.problem("not every night can be had; look at the availability")
            }
            (StatusCode::UNPROCESSABLE_ENTITY, "TOO_MANY_GUESTS") => {
                TOO_MANY_GUESTS.problem("the room type takes fewer guests")
            }
            (StatusCode::BAD_REQUEST, _) => common::VALIDATION.problem(detail.clone()),
            _ => Problem::internal(error),
        },
        PeerError::Strange { .. } => Problem::internal(error),
    }
}
