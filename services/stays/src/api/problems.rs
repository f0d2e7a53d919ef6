//! The problem codes of this service, each with its status.

use chassis::problem::{Code, Problem};
use http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($status:ident, $title:literal);)+) => {
        $($(#[$doc])* pub(crate) const $name: Code = Code::new(stringify!($name), StatusCode::$status, $title);)+

        /// All of them, for the API's reference.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    /// No stay of this id.
    STAY_NOT_FOUND = (NOT_FOUND, "No such stay");
    /// No room type of this id.
    ROOM_TYPE_NOT_FOUND = (NOT_FOUND, "No such room type");
    /// Another host's.
    NOT_YOUR_STAY = (FORBIDDEN, "Not your stay");
    /// A night that can't be had.
    UNAVAILABLE = (CONFLICT, "Not available");
    /// As many as a stay may have are there.
    TOO_MANY_ROOM_TYPES = (CONFLICT, "Too many room types");
    /// More people than the room type has room for.
    TOO_MANY_GUESTS = (UNPROCESSABLE_ENTITY, "Too many guests");
}

/// 404 STAY_NOT_FOUND.
pub(crate) fn no_stay() -> Problem {
    STAY_NOT_FOUND.problem("there is no stay with this id")
}

/// 404 ROOM_TYPE_NOT_FOUND.
pub(crate) fn no_room_type() -> Problem {
    ROOM_TYPE_NOT_FOUND.problem("there is no room type with this id")
}

/// 403 NOT_YOUR_STAY.
pub(crate) fn not_yours() -> Problem {
    NOT_YOUR_STAY.problem("only the host of a stay changes it")
}
