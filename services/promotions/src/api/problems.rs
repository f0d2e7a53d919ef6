//! The problem codes of promotions, each with its status.

use chassis::problem::{Code, Problem};
use http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($status:ident, $title:literal);)+) => {
        $($(#[$doc])* pub(super) const $name: Code = Code::new(stringify!($name), StatusCode::$status, $title);)+

        /// All of them, for the API's reference.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    /// No unit is left.
    SOLD_OUT = (CONFLICT, "Sold out");
    /// Before the window.
    NOT_STARTED = (CONFLICT, "The sale has not started");
    /// After the window.
    ENDED = (CONFLICT, "The sale has ended");
    /// Paused by those who run it.
    PAUSED = (CONFLICT, "The sale is paused");
    /// A time sale's claim that paid for an order can't be given back.
    CLAIM_USED = (CONFLICT, "The claim has been used");
    /// A time sale's claim that an order keeps can't be given back meanwhile.
    CLAIM_RESERVED = (CONFLICT, "An order keeps the claim");
    /// No sale or campaign of this kind and name.
    SALE_NOT_FOUND = (NOT_FOUND, "No such sale");
    /// No claim of this id that is the caller's.
    CLAIM_NOT_FOUND = (NOT_FOUND, "No such claim");
    /// The stock is being rebuilt, or this claim settled.
    RECOVERING = (SERVICE_UNAVAILABLE, "The sale is recovering");
    /// Whether the claim stands is not known yet.
    CLAIM_UNKNOWN = (SERVICE_UNAVAILABLE, "The outcome of the claim is not known");
    /// The claim is taken, but not known to be recorded.
    CLAIM_UNSETTLED = (SERVICE_UNAVAILABLE, "The claim is not settled yet");
}

/// 503 RECOVERING.
pub(super) fn recovering() -> Problem {
    RECOVERING
        .problem("the sale's stock is being put right; ask again")
        .retry_after(1)
}

/// 503 CLAIM_UNKNOWN.
pub(super) fn unknown() -> Problem {
    CLAIM_UNKNOWN
        .problem("the claim may or may not have been recorded; ask again")
        .retry_after(1)
}

/// 404 SALE_NOT_FOUND.
pub(super) fn no_sale() -> Problem {
    SALE_NOT_FOUND.problem("nothing is sold under this id")
}

/// 404 CLAIM_NOT_FOUND.
pub(super) fn no_claim() -> Problem {
    CLAIM_NOT_FOUND.problem("the caller has no such claim")
}

/// 503 for a store that is away. The cause is logged, not told.
pub(super) fn away(error: &dyn std::error::Error) -> Problem {
    tracing::warn!(error = %error, "store away");
    Problem::unavailable("a store is away; ask again")
}
