//! What is asked of and told about single claims.

use uuid::Uuid;

use crate::{ClaimId, Epoch, KeyHash, Sequence, Slot, UnixMillis, UserId};

/// How far the record of a claim is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Taken; its append may be under way, in the log, or lost.
    Pending,
    /// In the ledger.
    Recorded,
    /// Being given back or expired: no repeat is told yes for it, and the ledger decides whether it ends.
    Ending,
    /// Given up by the settling (R6): no repeat may revive it, the ledger decides what it was.
    Voiding,
}

/// A claimed unit as Redis holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which of the user's units.
    pub slot: Slot,
    /// Which claim holds it.
    pub claim: ClaimId,
    /// How far its record has come.
    pub mark: Mark,
    /// When a request last asked for it; strictly greater than `claimed_at` once a repeat has.
    pub touched: UnixMillis,
    /// Its number within the sale.
    pub sequence: Sequence,
    /// The request's idempotency key.
    pub key: KeyHash,
    /// When it was taken.
    pub claimed_at: UnixMillis,
}

impl Entry {
    /// Reads the packed form `claim|mark|touched|sequence|key|claimedAt|slot`, as the claim script returns it.
    pub(crate) fn parse(packed: &str) -> Option<Self> {
        let (rest, slot) = packed.rsplit_once('|')?;
        Self::parse_value(rest, Slot(slot.parse().ok()?))
    }

    /// Reads a field's value: the packed form without the slot.
    pub(crate) fn parse_value(packed: &str, slot: Slot) -> Option<Self> {
        let mut parts = packed.split('|');
        let entry = Self {
            slot,
            claim: ClaimId(Uuid::try_parse(parts.next()?).ok()?),
            mark: match parts.next()? {
                "P" => Mark::Pending,
                "R" => Mark::Recorded,
                "E" => Mark::Ending,
                "V" => Mark::Voiding,
                _ => return None,
            },
            touched: UnixMillis(parts.next()?.parse().ok()?),
            sequence: Sequence(parts.next()?.parse().ok()?),
            key: parts.next()?.parse().ok()?,
            claimed_at: UnixMillis(parts.next()?.parse().ok()?),
        };
        parts.next().is_none().then_some(entry)
    }
}

/// One request for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRequest {
    /// For whom.
    pub user: UserId,
    /// The id the claim gets if a unit is taken.
    pub claim: ClaimId,
    /// The request's idempotency key.
    pub key: KeyHash,
}

/// The answer to a batch of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimReply {
    /// Nothing was looked at: guests are to come back.
    Unopened(Unopened),
    /// The gate stands open.
    Open(OpenReply),
}

/// Why a gate takes no requests at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// There is no gate: not opened yet, or Redis lost it.
    Missing,
    /// A recovery closed it, or the sale is over for good.
    Closed,
    /// Another run of the server wrote it (R1), or entries were lost that it held.
    Foreign,
}

/// The answer of an open gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReply {
    /// The epoch that the batch's claims belong to.
    pub epoch: Epoch,
    /// The modulus of the partitioning in this epoch.
    pub partitions: u32,
    /// Redis's clock: when the taken units were taken.
    pub now: UnixMillis,
    /// One for each request, in their order.
    pub outcomes: Vec<Outcome>,
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A unit was taken: not a yes before its append is acknowledged.
    Taken {
        /// Which of the user's units.
        slot: Slot,
        /// Its number within the sale.
        sequence: Sequence,
    },
    /// The user holds it already (R3 says what that means for each mark).
    Repeat(Entry),
    /// Before the window.
    NotStarted,
    /// After the window.
    Ended,
    /// Paused by the sale's definition.
    Paused,
    /// No unit is left.
    SoldOut,
}

/// Names an entry; it is touched only if it still holds this claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryRef {
    /// Whose.
    pub user: UserId,
    /// Which of the user's units.
    pub slot: Slot,
    /// Which claim.
    pub claim: ClaimId,
}

/// A claim whose append is certain not to be in the log (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveBack {
    /// Which entry.
    pub entry: EntryRef,
    /// When it was taken: an entry touched since then is left to the settling, since a repeat may have
    /// appended it.
    pub claimed_at: UnixMillis,
}

/// Entries that the settling has taken: nobody will be told yes for them any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The gate's epoch, for the Void records.
    pub epoch: Epoch,
    /// The modulus of the partitioning in this epoch.
    pub partitions: u32,
    /// The entries, now marked [`Mark::Voiding`].
    pub entries: Vec<EntryRef>,
}

/// What settling a consumed batch changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Entries marked recorded.
    pub recorded: u32,
    /// Entries removed; their units are for sale again.
    pub removed: u32,
    /// Whether the gate stood open in this run of the server. If not, a rebuild from an earlier reading of
    /// the ledger may put a removed entry back, so that ended claims are to be released again later.
    pub open: bool,
}

/// What announcing the end of claims came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was marked.
    Unopened(Unopened),
    /// No request that comes from now on is told yes for the claims, unless one of them turns out not to have ended.
    Begun {
        /// The modulus of the partitioning in this epoch.
        partitions: u32,
        /// Entries marked: a claim without one has ended before, or is not known to Redis.
        marked: u32,
    },
}

/// What a user holds of a sale, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// By slot.
    pub entries: Vec<Entry>,
    /// Why the entries may not be all that there are; `None` if the gate stands open.
    pub unopened: Option<Unopened>,
}

/// An active claim of the ledger, to be put into a rebuilt sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuiltEntry {
    /// Which entry.
    pub entry: EntryRef,
    /// Its number within the sale.
    pub sequence: Sequence,
    /// The request's idempotency key.
    pub key: KeyHash,
    /// When it was taken.
    pub claimed_at: UnixMillis,
}
