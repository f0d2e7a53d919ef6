//! Durations as Kubernetes writes them: `10m`, `720h`, `1h30m`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Hours, minutes and seconds, each at most once and in this order. What the API server lets in;
/// [`KubeDuration::from_str`] reads exactly these.
const PATTERN: &str = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$";

/// A length of time in whole seconds, written `10m`, `720h` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KubeDuration(Duration);

/// What is wrong with a duration's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as 10m, 720h or 1h30m")]
pub struct DurationError(String);

impl KubeDuration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A duration of whole minutes.
    #[must_use]
    pub const fn from_mins(minutes: u64) -> Self {
        Self::from_secs(minutes * 60)
    }

    /// The same, for the standard library.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for KubeDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DurationError(text.to_owned());
        let mut rest = text;
        let mut seconds = 0_u64;
        for (unit, factor) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((number, after)) = rest.split_once(unit) else {
                continue;
            };
            let number: u32 = number.parse().map_err(|_| error())?;
            seconds += u64::from(number) * factor;
            rest = after;
        }
        if text.is_empty() || !rest.is_empty() || text.contains('+') {
            return Err(error());
        }
        Ok(Self::from_secs(seconds))
    }
}

impl fmt::Display for KubeDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds == 0 {
            return f.write_str("0s");
        }
        for (value, unit) in [
            (seconds / 3600, 'h'),
            (seconds / 60 % 60, 'm'),
            (seconds % 60, 's'),
        ] {
            if value > 0 {
                write!(f, "{value}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for KubeDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KubeDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for KubeDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "KubeDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": 20 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::KubeDuration;

    #[test]
    fn reads_what_kubernetes_writes_and_writes_it_back() {
        for (text, seconds, canonical) in [
            ("10m", 600, "10m"),
            ("720h", 2_592_000, "720h"),
            ("1h30m", 5_400, "1h30m"),
            ("90m", 5_400, "1h30m"),
            ("1h0m5s", 3_605, "1h5s"),
            ("0s", 0, "0s"),
        ] {
            let duration: KubeDuration = text.parse().unwrap();
            assert_eq!(duration.get().as_secs(), seconds, "{text}");
            assert_eq!(duration.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "10",
            "m",
            "10x",
            "10m1h",
            "-10m",
            "+10m",
            "1.5h",
            "10m ",
            "1h-5m",
            "99999999999h",
        ] {
            assert!(text.parse::<KubeDuration>().is_err(), "{text:?} was read");
        }
    }
}
