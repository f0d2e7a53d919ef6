//! The records of a sale's log, as JSON. One record may carry many claims of one partition, so that one
//! append serves a batch.

use sale_stock::{ClaimId, Epoch, KeyHash, SaleUid, Sequence, Slot, UnixMillis, UserId};
use serde::{Deserialize, Serialize};

/// The version this code writes, and the newest it reads.
const VERSION: u8 = 1;

/// One record of a sale's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose log. A record of another sale in a reused topic is not to be applied.
    pub sale: SaleUid,
    /// What happened.
    pub event: SaleEvent,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaleEvent {
    /// Units were taken from the gate of this epoch.
    Claims {
        /// The gate's.
        epoch: Epoch,
        /// In the order of their sequence.
        claims: Vec<ClaimTaken>,
    },
    /// The settling gave claims up: those that are not recorded yet never will be.
    Voids {
        /// The gate's.
        epoch: Epoch,
        /// Which.
        voids: Vec<Voided>,
    },
    /// Users gave their claims back.
    Returns(Vec<Returned>),
    /// A recovery: what comes later from lower epochs is void.
    Fence(Epoch),
}

/// A unit taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimTaken {
    /// By whom.
    pub user: UserId,
    /// The claim.
    pub claim: ClaimId,
    /// Its number within the sale.
    #[serde(rename = "seq")]
    pub sequence: Sequence,
    /// Which of the user's units.
    pub slot: Slot,
    /// The request's idempotency key.
    pub key: KeyHash,
    /// When, by Redis's clock.
    pub at: UnixMillis,
}

/// A claim given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voided {
    /// Whose.
    pub user: UserId,
    /// Which of the user's units: the entry to be removed if the claim turns out not to be recorded.
    pub slot: Slot,
    /// The claim.
    pub claim: ClaimId,
}

/// A claim given back by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// Whose.
    pub user: UserId,
    /// The claim.
    pub claim: ClaimId,
}

/// A Claims record to be written, without a copy of its claims.
#[derive(Debug, Serialize)]
pub struct ClaimsRecord<'a> {
    v: u8,
    sale: SaleUid,
    epoch: Epoch,
    claims: &'a [ClaimTaken],
}

impl<'a> ClaimsRecord<'a> {
    /// The claims of one partition that one script call took.
    pub fn new(sale: SaleUid, epoch: Epoch, claims: &'a [ClaimTaken]) -> Self {
        Self {
            v: VERSION,
            sale,
            epoch,
            claims,
        }
    }

    /// Writes the record's value to the end of `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        encode(self, buffer);
    }
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON of the shape.
    #[error("read a record: {0}")]
    Shape(#[from] serde_json::Error),
    /// Written by a later version of this code.
    #[error("read a record: version {0} is not known")]
    Version(u8),
    /// Neither claims, voids, returns nor a fence, or several at once.
    #[error("read a record: it must tell one thing, with its epoch")]
    Content,
}

/// The JSON object: `v` and `sale`, and then one of the contents with the epoch it belongs to.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u8,
    sale: SaleUid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims: Option<Vec<ClaimTaken>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voids: Option<Vec<Voided>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    returns: Option<Vec<Returned>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<bool>,
}

#[derive(Deserialize)]
struct Versioned {
    v: u8,
}

impl Record {
    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut wire = Wire {
            v: VERSION,
            sale: self.sale,
            epoch: None,
            claims: None,
            voids: None,
            returns: None,
            fence: None,
        };
        match &self.event {
            SaleEvent::Claims { epoch, claims } => {
                wire.epoch = Some(*epoch);
                wire.claims = Some(claims.clone());
            }
            SaleEvent::Voids { epoch, voids } => {
                wire.epoch = Some(*epoch);
                wire.voids = Some(voids.clone());
            }
            SaleEvent::Returns(returns) => wire.returns = Some(returns.clone()),
            SaleEvent::Fence(epoch) => {
                wire.epoch = Some(*epoch);
                wire.fence = Some(true);
            }
        }
        let mut buffer = Vec::new();
        encode(&wire, &mut buffer);
        buffer
    }

    /// Reads a record's value.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let wire: Wire = match serde_json::from_slice(value) {
            Ok(wire) => wire,
            // A later version may have fields that this one refuses: say that rather than which.
            Err(error) => {
                return Err(match serde_json::from_slice(value) {
                    Ok(Versioned { v }) if v > VERSION => RecordError::Version(v),
                    _ => RecordError::Shape(error),
                });
            }
        };
        if wire.v != VERSION {
            return Err(RecordError::Version(wire.v));
        }
        let event = match (
            wire.epoch,
            wire.claims,
            wire.voids,
            wire.returns,
            wire.fence,
        ) {
            (Some(epoch), Some(claims), None, None, None) => SaleEvent::Claims { epoch, claims },
            (Some(epoch), None, Some(voids), None, None) => SaleEvent::Voids { epoch, voids },
            (None, None, None, Some(returns), None) => SaleEvent::Returns(returns),
            (Some(epoch), None, None, None, Some(true)) => SaleEvent::Fence(epoch),
            _ => return Err(RecordError::Content),
        };
        Ok(Self {
            sale: wire.sale,
            event,
        })
    }
}

fn encode(value: &impl Serialize, buffer: &mut Vec<u8>) {
    let written = serde_json::to_writer(&mut *buffer, value);
    // Numbers, ids and lists of them always have a JSON form, and a Vec takes any number of bytes.
    debug_assert!(written.is_ok());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALE: &str = "0190b3a4-7c1e-7f00-8000-000000000001";
    const USER: &str = "0190b3a4-7c1e-7f00-8000-000000000002";
    const CLAIM: &str = "0190b3a4-7c1e-7f00-8000-000000000003";

    fn taken() -> ClaimTaken {
        ClaimTaken {
            user: USER.parse().unwrap(),
            claim: CLAIM.parse().unwrap(),
            sequence: Sequence(7),
            slot: Slot(1),
            key: KeyHash(255),
            at: UnixMillis(1_764_000_000_123),
        }
    }

    fn record(event: SaleEvent) -> Record {
        Record {
            sale: SALE.parse().unwrap(),
            event,
        }
    }

    /// What the log holds is read by every later version: these bytes may never stop being read.
    #[test]
    fn records_are_written_as_ever() {
        let user = format!(r#""user":"{USER}""#);
        let claim = format!(r#""claim":"{CLAIM}""#);
        let head = format!(r#"{{"v":1,"sale":"{SALE}""#);
        let (user_id, claim_id) = (USER.parse().unwrap(), CLAIM.parse().unwrap());
        let cases = [
            (
                SaleEvent::Claims {
                    epoch: Epoch(3),
                    claims: vec![taken()],
                },
                format!(
                    r#"{head},"epoch":3,"claims":[{{{user},{claim},"seq":7,"slot":1,"key":"00000000000000ff","at":1764000000123}}]}}"#
                ),
            ),
            (
                SaleEvent::Voids {
                    epoch: Epoch(3),
                    voids: vec![Voided {
                        user: user_id,
                        slot: Slot(0),
                        claim: claim_id,
                    }],
                },
                format!(r#"{head},"epoch":3,"voids":[{{{user},"slot":0,{claim}}}]}}"#),
            ),
            (
                SaleEvent::Returns(vec![Returned {
                    user: user_id,
                    claim: claim_id,
                }]),
                format!(r#"{head},"returns":[{{{user},{claim}}}]}}"#),
            ),
            (
                SaleEvent::Fence(Epoch(4)),
                format!(r#"{head},"epoch":4,"fence":true}}"#),
            ),
        ];
        for (event, text) in cases {
            let record = record(event);
            assert_eq!(String::from_utf8(record.encode()).unwrap(), text);
            assert_eq!(Record::decode(text.as_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn claims_are_written_the_same_without_a_copy() {
        let claims = [taken(), taken()];
        let mut written = Vec::new();
        ClaimsRecord::new(SALE.parse().unwrap(), Epoch(3), &claims).encode(&mut written);
        let copied = record(SaleEvent::Claims {
            epoch: Epoch(3),
            claims: claims.to_vec(),
        });
        assert_eq!(written, copied.encode());
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_reason() {
        let head = format!(r#""sale":"{SALE}""#);
        let shape =
            |text: &str| matches!(Record::decode(text.as_bytes()), Err(RecordError::Shape(_)));
        let content =
            |text: &str| matches!(Record::decode(text.as_bytes()), Err(RecordError::Content));
        assert!(shape(""));
        assert!(shape("[]"));
        assert!(shape(&format!("{{{head}}}")));
        assert!(shape(&format!(
            r#"{{"v":1,{head},"epoch":1,"fence":true,"more":1}}"#
        )));
        assert!(content(&format!(r#"{{"v":1,{head}}}"#)));
        assert!(content(&format!(r#"{{"v":1,{head},"epoch":1}}"#)));
        assert!(content(&format!(r#"{{"v":1,{head},"fence":true}}"#)));
        assert!(content(&format!(
            r#"{{"v":1,{head},"epoch":1,"fence":true,"returns":[]}}"#
        )));
        let later = format!(r#"{{"v":2,{head},"epoch":1,"merge":true}}"#);
        assert!(matches!(
            Record::decode(later.as_bytes()),
            Err(RecordError::Version(2))
        ));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }

        #[test]
        fn every_claim_survives_the_log(user: u128, claim: u128, seq: u64, slot in 0..10_u8, key: u64, at: i64) {
            let taken = ClaimTaken {
                user: UserId(uuid::Uuid::from_u128(user)),
                claim: ClaimId(uuid::Uuid::from_u128(claim)),
                sequence: Sequence(seq),
                slot: Slot(slot),
                key: KeyHash(key),
                at: UnixMillis(at),
            };
            let record = record(SaleEvent::Claims { epoch: Epoch(seq), claims: vec![taken] });
            prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
    }
}
