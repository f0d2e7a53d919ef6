//! The kinds of values a setting can have.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

/// A kind of value that can be read from an environment variable.
pub trait Setting: Sized {
    /// Reads the value. The error says what is wrong and must not contain the text itself, which may be secret.
    fn parse(text: &str) -> Result<Self, String>;

    /// Stands in for a value that couldn't be read, until [`super::Env::finish`] refuses the whole.
    fn placeholder() -> Self;

    /// What to give instead, such as `a duration, such as 10s or 5m`.
    fn describe() -> &'static str;
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn placeholder() -> Self {
        Self::new()
    }

    fn describe() -> &'static str {
        "some text"
    }
}

macro_rules! whole_number {
    ($($type:ty: $describe:literal),+ $(,)?) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| "is not a number in range".to_owned())
            }

            fn placeholder() -> Self {
                1
            }

            fn describe() -> &'static str {
                $describe
            }
        }
    )+};
}

whole_number! {
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number from 0 up",
    usize: "a whole number from 0 up",
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither".to_owned()),
        }
    }

    fn placeholder() -> Self {
        false
    }

    fn describe() -> &'static str {
        "`true` or `false`"
    }
}

impl Setting for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "is not an address with a port".to_owned())
    }

    fn placeholder() -> Self {
        Self::from((Ipv4Addr::UNSPECIFIED, 0))
    }

    fn describe() -> &'static str {
        "an IP address and a port, such as 0.0.0.0:8080"
    }
}

impl Setting for Url {
    fn parse(text: &str) -> Result<Self, String> {
        let url = Self::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err("names no host".to_owned());
        }
        Ok(url)
    }

    fn placeholder() -> Self {
        Self::parse("http://placeholder.invalid").expect("a constant URL")
    }

    fn describe() -> &'static str {
        "a URL with its scheme and host, such as http://quokka-users:8080"
    }
}

impl Setting for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn placeholder() -> Self {
        Self::new()
    }

    fn describe() -> &'static str {
        "the path of a file"
    }
}

impl Setting for Vec<String> {
    fn parse(text: &str) -> Result<Self, String> {
        let items: Self = text.split(',').map(|item| item.trim().to_owned()).collect();
        if items.iter().any(String::is_empty) {
            return Err("has an empty item".to_owned());
        }
        Ok(items)
    }

    fn placeholder() -> Self {
        Self::new()
    }

    fn describe() -> &'static str {
        "a list separated by commas"
    }
}

impl Setting for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text).ok_or_else(|| "is not a duration".to_owned())
    }

    fn placeholder() -> Self {
        Self::from_secs(1)
    }

    fn describe() -> &'static str {
        "a duration such as 250ms, 10s, 5m, 1h30m or 30d"
    }
}

/// Reads a duration of whole numbers with units, as Kubernetes writes them: `250ms`, `10s`, `5m`, `1h30m`; days
/// (`30d`) are taken too. `None` for anything else, a bare number included: its unit would be a guess.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let part = match &rest[..unit_end] {
            "ms" => Duration::from_millis(count),
            "s" => Duration::from_secs(count),
            "m" => Duration::from_secs(count.checked_mul(60)?),
            "h" => Duration::from_secs(count.checked_mul(3_600)?),
            "d" => Duration::from_secs(count.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}
