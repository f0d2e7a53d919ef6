//! The `Idempotency-Key` header.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::problem::{Problem, common};

/// The request header that carries the key.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key that is taken, in characters.
const KEY_CHARS_MAX: usize = 255;

/// The key of a request, in its bare form or as the quoted string of RFC 8941 that the IETF's draft of this header
/// asks for: for a handler that is idempotent by itself and wants to tell attempts apart.
pub fn key_of(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Problem> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid_key());
    }
    let text = value.to_str().map_err(|_| invalid_key())?.trim();
    let key = match text.strip_prefix('"') {
        None => Cow::Borrowed(text),
        Some(rest) => Cow::Owned(unquote(rest).ok_or_else(invalid_key)?),
    };
    let visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if !(1..=KEY_CHARS_MAX).contains(&key.len()) || !key.bytes().all(visible) {
        return Err(invalid_key());
    }
    Ok(Some(key))
}

fn invalid_key() -> Problem {
    common::IDEMPOTENCY_KEY_INVALID.problem(format!(
        "send one Idempotency-Key of 1 to {KEY_CHARS_MAX} visible ASCII characters"
    ))
}

/// The text of a quoted string after its first quote: up to the closing one, with nothing behind it.
fn unquote(rest: &str) -> Option<String> {
    let mut key = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => key.push(
                chars
                    .next()
                    .filter(|escaped| matches!(escaped, '"' | '\\'))?,
            ),
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn key(text: &str) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(
            KEY_HEADER,
            HeaderValue::from_bytes(text.as_bytes()).expect("a header value"),
        );
        Ok(key_of(&headers)?.map(Cow::into_owned))
    }

    #[test]
    fn bare_and_quoted_keys_are_the_same_key() {
        let bare = key("8e03978e-40d5-43dd-bc93-6894a57f9324").expect("valid");
        assert_eq!(
            bare.as_deref(),
            Some("8e03978e-40d5-43dd-bc93-6894a57f9324")
        );
        assert_eq!(
            key("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"").expect("valid"),
            bare
        );
        assert_eq!(
            key(r#""a\"b\\c""#).expect("valid").as_deref(),
            Some(r#"a"b\c"#)
        );
    }

    #[test]
    fn a_key_of_255_characters_is_the_longest() {
        assert!(key(&"k".repeat(255)).is_ok());
        assert!(key(&"k".repeat(256)).is_err());
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in ["", "\"\"", "\"open", "\"a\" b", r#""a\n""#, "k\u{e9}y"] {
            assert!(key(text).is_err(), "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append(KEY_HEADER, HeaderValue::from_static("a"));
        twice.append(KEY_HEADER, HeaderValue::from_static("b"));
        assert!(key_of(&twice).is_err());
    }

    #[test]
    fn no_key_is_no_key() {
        assert_eq!(key_of(&HeaderMap::new()).expect("none is fine"), None);
    }
}
