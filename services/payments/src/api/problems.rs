//! The problems that this service's routes answer, and which failure is which.

use chassis::problem::{Code, Problem};
use http::StatusCode;

use crate::orders;
use crate::store::StoreError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($status:ident, $title:literal);)+) => {
        $($(#[$doc])* pub(crate) const $name: Code = Code::new(stringify!($name), StatusCode::$status, $title);)+

        /// Every code of this service, for the API's reference.
        pub const CODES: &[Code] = &[$($name),+];
    };
}

codes! {
    /// No such order, or another guest's.
    ORDER_NOT_FOUND = (NOT_FOUND, "There is no such order");
    /// It wasn't paid in time.
    ORDER_EXPIRED = (CONFLICT, "The order has expired");
    /// It doesn't wait for a payment, or for another one.
    ORDER_NOT_PAYABLE = (CONFLICT, "The order can't be paid now");
    /// Another payment of the order came first, or its virtual account waits.
    PAYMENT_PENDING = (CONFLICT, "Another payment of the order comes first");
    /// The order costs something else.
    AMOUNT_MISMATCH = (UNPROCESSABLE_ENTITY, "The amount is not the order's");
    /// The card or account was refused: no money was taken, and another may be tried.
    PAYMENT_REFUSED = (PAYMENT_REQUIRED, "The payment was refused");
    /// The gateway doesn't accept us: no money was taken.
    PAYMENT_GATEWAY = (BAD_GATEWAY, "The payment gateway can't be used");
    /// Nobody knows yet whether money was taken: the same request again tells.
    PAYMENT_UNKNOWN = (SERVICE_UNAVAILABLE, "The payment's outcome is not known yet");
}

/// How soon to ask again about a payment whose outcome isn't known, in seconds.
const UNKNOWN_RETRY_AFTER: u32 = 2;

pub(crate) fn unknown() -> Problem {
    PAYMENT_UNKNOWN
        .problem(
            "it may have been captured: send the same request again to learn, and do not pay anew",
        )
        .retry_after(UNKNOWN_RETRY_AFTER)
}

impl From<orders::Refusal> for Problem {
    fn from(refusal: orders::Refusal) -> Self {
        match refusal {
            orders::Refusal::NotFound => order_not_found(),
            orders::Refusal::Expired => {
                ORDER_EXPIRED.problem("its time to be paid is over; no money was taken")
            }
            orders::Refusal::NotPayable => ORDER_NOT_PAYABLE
                .problem("it is not ready, paid, cancelled, or being paid otherwise"),
            orders::Refusal::AmountMismatch => amount_mismatch(),
        }
    }
}

pub(crate) fn order_not_found() -> Problem {
    ORDER_NOT_FOUND.problem("no order of yours has this id")
}

pub(crate) fn amount_mismatch() -> Problem {
    AMOUNT_MISMATCH.problem("send the order's amount")
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if chassis::postgres::is_unavailable(&error.source) {
            tracing::warn!(%error, "the database is not there");
            Self::unavailable("payments can't be read or written right now")
        } else {
            Self::internal(error)
        }
    }
}
