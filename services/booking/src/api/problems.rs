//! The problem codes of booking, each with its status.

use chassis::problem::{Code, Problem};
use http::StatusCode;

/// No booking of this id that is the caller's.
pub(super) const BOOKING_NOT_FOUND: Code = Code::new(
    "BOOKING_NOT_FOUND",
    StatusCode::NOT_FOUND,
    "No such booking",
);

/// All of them, for the API's reference.
pub const ALL: &[Code] = &[BOOKING_NOT_FOUND];

/// 404 BOOKING_NOT_FOUND.
pub(super) fn no_booking() -> Problem {
    BOOKING_NOT_FOUND.problem("the caller has no such booking")
}
