//! What an account is made of: an address, a name, a password. Each type can only hold what is allowed, so that no other
//! module has to check. No message here repeats what was given: it may end up in a log, and it is personal data.

use std::fmt;

use email_address::{EmailAddress, Options};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// RFC 5321 allows a path of 256 octets, two of which are its angle brackets.
const EMAIL_BYTES_MAX: usize = 254;
/// Long enough for any name in use; short enough to be shown.
const NAME_CHARS_MAX: usize = 100;
/// NIST SP 800-63B: eight characters or more.
const PASSWORD_CHARS_MIN: usize = 8;
/// Room for a passphrase, and a bound on what is hashed: at most 512 bytes.
const PASSWORD_CHARS_MAX: usize = 128;

/// Why a value can't be part of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error(
        "must be an e-mail address of at most {EMAIL_BYTES_MAX} ASCII characters, such as guest@example.com"
    )]
    Email,
    #[error("must have 1 to {NAME_CHARS_MAX} characters, none of them a control character")]
    Name,
    #[error("must have {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")]
    NewPassword,
    #[error("must have at most {PASSWORD_CHARS_MAX} characters")]
    Password,
}

/// An address, trimmed and in lower case: two spellings that differ in case only are one address.
///
/// ASCII only. An internationalised domain is written in its `xn--` form; quoted local parts and address literals
/// are refused, as are domains of a single label.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(format = "email", max_length = 254, example = "guest@example.com")]
pub(crate) struct Email(String);

impl Email {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = Invalid;

    fn try_from(given: String) -> Result<Self, Invalid> {
        let address = given.trim_ascii();
        if !address.is_ascii() || address.len() > EMAIL_BYTES_MAX || address.contains('"') {
            return Err(Invalid::Email);
        }
        let options = Options::default()
            .with_required_tld()
            .without_domain_literal()
            .without_display_text();
        EmailAddress::parse_with_options(address, options).map_err(|_| Invalid::Email)?;
        Ok(Self(address.to_ascii_lowercase()))
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(hidden)")
    }
}

/// What a person wants to be called, trimmed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(
    min_length = 1,
    max_length = 100,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
    example = "Kim Minji"
)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = Invalid;

    fn try_from(given: String) -> Result<Self, Invalid> {
        let name = given.trim();
        let count = name.chars().count();
        if count == 0 || count > NAME_CHARS_MAX || name.contains(char::is_control) {
            return Err(Invalid::Name);
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(hidden)")
    }
}

/// A password as given at sign-in: bounded, but not held to today's rules for a new one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, format = Password, max_length = 128)]
pub(crate) struct Password(SecretString);

impl Password {
    /// What is hashed. Never log it, never store it.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

impl TryFrom<String> for Password {
    type Error = Invalid;

    fn try_from(given: String) -> Result<Self, Invalid> {
        let fits = given.chars().count() <= PASSWORD_CHARS_MAX;
        let password = SecretString::from(given);
        fits.then_some(Self(password)).ok_or(Invalid::Password)
    }
}

/// A password good enough for a new account.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, format = Password, min_length = 8, max_length = 128)]
pub(crate) struct NewPassword(Password);

impl NewPassword {
    /// The password to hash.
    pub(crate) fn password(&self) -> &Password {
        &self.0
    }
}

impl TryFrom<String> for NewPassword {
    type Error = Invalid;

    fn try_from(given: String) -> Result<Self, Invalid> {
        let password = Password::try_from(given).map_err(|_| Invalid::NewPassword)?;
        let long_enough = password.0.expose_secret().chars().count() >= PASSWORD_CHARS_MIN;
        long_enough
            .then_some(Self(password))
            .ok_or(Invalid::NewPassword)
    }
}

/// What an account's owner sees of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    pub(crate) user_id: Uuid,
    /// In lower case.
    #[schema(format = "email")]
    pub(crate) email: String,
    pub(crate) name: String,
    /// What the owner may be: `guest`, `host`, `admin`.
    pub(crate) roles: Vec<String>,
    pub(crate) created_at: jiff::Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn email(text: &str) -> Result<Email, Invalid> {
        Email::try_from(text.to_owned())
    }

    #[test]
    fn an_address_is_trimmed_and_lowered() {
        assert_eq!(
            email("  Kim.Minji+Trip@Example.COM ").map(|e| e.0),
            Ok("kim.minji+trip@example.com".into())
        );
    }

    #[test]
    fn what_is_no_plain_address_is_refused() {
        let too_long = format!("{}@{}.com", "a".repeat(64), "b.".repeat(95));
        for bad in [
            "",
            "kim",
            "@example.com",
            "kim@",
            "kim@localhost",
            "a@b@example.com",
            "kim@example..com",
            "kim@-example.com",
            "kim kim@example.com",
            "kim@exam ple.com",
            "\"kim\"@example.com",
            "kim@[10.0.0.1]",
            "Kim <kim@example.com>",
            "민지@example.com",
            "kim@예시.com",
            "kim\n@example.com",
            "kim\0@example.com",
            ".kim@example.com",
            too_long.as_str(),
        ] {
            assert_eq!(email(bad), Err(Invalid::Email), "{bad:?}");
        }
    }

    #[test]
    fn a_new_password_counts_characters_and_not_bytes() {
        for (password, good) in [
            ("1234567".to_owned(), false),
            ("12345678".to_owned(), true),
            ("비밀번호여덟글자".to_owned(), true),
            ("비".repeat(128), true),
            ("a".repeat(129), false),
        ] {
            assert_eq!(
                NewPassword::try_from(password.clone()).is_ok(),
                good,
                "{password}"
            );
        }
    }

    #[test]
    fn nothing_personal_is_shown_by_debug() {
        let shown = format!(
            "{:?} {:?} {:?}",
            email("kim@example.com"),
            Name::try_from("Kim Minji".to_owned()),
            NewPassword::try_from("correct horse".to_owned())
        );
        for personal in ["kim", "Kim", "horse"] {
            assert!(!shown.contains(personal), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn normalising_an_address_twice_changes_nothing(text in "[ -~]{0,40}@[a-zA-Z0-9.-]{1,40}") {
            if let Ok(once) = email(&text) {
                prop_assert_eq!(email(once.as_str()), Ok(once.clone()));
                prop_assert_eq!(email(&text.to_ascii_uppercase()), Ok(once));
            }
        }

        #[test]
        fn a_name_that_is_taken_fits_the_column(text in "\\PC{0,120}|.{0,120}") {
            if let Ok(name) = Name::try_from(text) {
                prop_assert!((1..=100).contains(&name.as_str().chars().count()));
                prop_assert!(!name.as_str().contains('\0'));
            }
        }
    }
}
