//! The identifiers and quantities of the protocol, one type each.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Highest `perUserLimit` of a sale: a user's slots are 0 to this minus one.
pub const PER_USER_LIMIT_MAX: u8 = 10;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// A sale's `metadata.uid`: a sale made again under the same name shares nothing with the first.
    SaleUid
);
uuid_id!(
    /// A user, as the token's `sub` names him.
    UserId
);
uuid_id!(
    /// One unit taken by one user. UUIDv7, given by the process that asks for the unit.
    ClaimId
);

impl ClaimId {
    /// A new id, ordered by time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Which opening of the gate: raised by one by every recovery. 0 means never opened.
    Epoch(u64)
);
number!(
    /// The number of a claim within its sale, from 1, in the order in which units were taken.
    Sequence(u64)
);
number!(
    /// Units.
    Stock(u32)
);
number!(
    /// Milliseconds since 1970, by Redis's clock unless said otherwise.
    UnixMillis(i64)
);
number!(
    /// Which of a user's units of a sale: 0 to `perUserLimit - 1`.
    Slot(u8)
);

impl Epoch {
    /// The epoch that a recovery of this one opens.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl UnixMillis {
    /// As a timestamp; `None` outside the years -9999 to 9999.
    pub fn timestamp(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_millisecond(self.0).ok()
    }
}

impl From<jiff::Timestamp> for UnixMillis {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time.as_millisecond())
    }
}

/// A digest of the `Idempotency-Key` of a claim request; it chooses the slot when a user may hold several
/// units. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The request had no key.
    pub const NONE: Self = Self(0);

    /// For a signed 64-bit column; `from_i64` is the way back.
    pub fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// From a signed 64-bit column.
    pub fn from_i64(value: i64) -> Self {
        Self(value.cast_unsigned())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for KeyHash {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
