//! The problems that this service's routes answer, and which failure is which.

use chassis::problem::{Code, Problem, common};
use http::{HeaderValue, StatusCode, header};

use crate::hashing::HashingError;
use crate::identity::IdentityError;
use crate::metrics::{HASHING_REFUSED, SIGN_INS_SLOWED};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($status:ident, $title:literal);)+) => {
        $($(#[$doc])* pub(super) const $name: Code = Code::new(stringify!($name), StatusCode::$status, $title);)+

        /// All of them, to be found in the API's reference.
        #[cfg(test)]
        pub(super) const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    /// Another account has the address.
    EMAIL_TAKEN = (CONFLICT, "The e-mail address is taken");
    /// No account has this address and password; which of the two is wrong is not told.
    INVALID_CREDENTIALS = (UNAUTHORIZED, "The e-mail address or the password is wrong");
    /// A refresh token that is unknown, used or over; which is not told.
    INVALID_REFRESH_TOKEN = (UNAUTHORIZED, "The refresh token is not valid");
    /// Too many wrong passwords for the account from the guest's network, from that network, or for the account.
    TOO_MANY_WRONG_PASSWORDS = (TOO_MANY_REQUESTS, "Too many wrong passwords");
    /// More people sign up and in at once than passwords can be hashed for.
    OVERLOADED = (SERVICE_UNAVAILABLE, "Too many requests at once");
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::EmailTaken => {
                EMAIL_TAKEN.problem("an account with this e-mail address exists")
            }
            IdentityError::WrongCredentials => {
                challenged(INVALID_CREDENTIALS, "sign up first, or check both")
            }
            IdentityError::NotRefreshable => challenged(INVALID_REFRESH_TOKEN, "sign in again"),
            IdentityError::NoAccount => challenged(
                common::UNAUTHENTICATED,
                "the token's account does not exist",
            ),
            IdentityError::TooManyWrong(wait) => {
                SIGN_INS_SLOWED.inc();
                let seconds = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
                TOO_MANY_WRONG_PASSWORDS
                    .problem("wait before the next try")
                    .retry_after(seconds)
            }
            IdentityError::Hashing(HashingError::Overloaded) => {
                HASHING_REFUSED.inc();
                OVERLOADED
                    .problem("too many people sign up or in right now")
                    .retry_after(1)
            }
            IdentityError::Store(error) if chassis::postgres::is_unavailable(&error.source) => {
                tracing::warn!(%error, "the database is not there");
                Problem::unavailable("accounts can't be read or written right now")
            }
            error @ (IdentityError::Hashing(_)
            | IdentityError::Store(_)
            | IdentityError::Key(_)) => Problem::internal(error),
        }
    }
}

/// RFC 9110 wants a challenge with every 401.
fn challenged(code: Code, detail: &'static str) -> Problem {
    code.problem(detail)
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
