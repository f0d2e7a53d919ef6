//! The gate of a sale: what it holds, how it is measured, closed, changed and written.

use crate::{Epoch, SaleUid, Sequence, Stock, UnixMillis, Unopened};

/// What of a definition the gate enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateTerms {
    /// Generation of the definition; older ones never replace newer ones.
    pub generation: i64,
    /// First instant of the window.
    pub starts: UnixMillis,
    /// First instant after the window.
    pub ends: UnixMillis,
    /// Units for sale in all.
    pub stock: Stock,
    /// Units a user may hold at once.
    pub per_user_limit: u8,
    /// No claims while true.
    pub paused: bool,
}

/// A gate as it stands in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Which opening.
    pub epoch: Epoch,
    /// Whether claims are let through (inside the window).
    pub open: bool,
    /// Whether this run of the server wrote it (R1), and it has all the entries that were put behind it.
    pub own_run: bool,
    /// What it enforces.
    pub terms: GateTerms,
    /// The modulus of the partitioning in this epoch.
    pub partitions: u32,
    /// The last sequence number given out.
    pub sequence: Sequence,
}

impl Gate {
    /// Why no request passes; `None` if they do, the window permitting.
    pub fn unopened(&self) -> Option<Unopened> {
        if !self.open {
            Some(Unopened::Closed)
        } else if !self.own_run {
            Some(Unopened::Foreign)
        } else {
            None
        }
    }
}

/// One consistent look at a sale in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// `None`: never opened, or lost.
    pub gate: Option<Gate>,
    /// Entries, of any mark: units not for sale.
    pub claimed: u32,
    /// Of them, those the ledger hasn't settled.
    pub unsettled: u32,
    /// Redis's clock.
    pub now: UnixMillis,
}

/// What closing a gate came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It is closed and holds the given epoch.
    Closed,
    /// There is none: a missing gate stays missing.
    Missing,
    /// It holds a higher epoch, or is open in this very one: the caller's turn is over.
    Newer(Epoch),
}

/// What changing a gate's terms came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateUpdate {
    /// The terms hold.
    Applied,
    /// There is no gate: the next recovery writes the terms.
    Missing,
    /// The gate has terms of a later generation.
    Newer,
    /// The stock would fall below the units claimed. Nothing was changed.
    BelowClaimed(Stock),
}

/// A gate to be written at the end of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewGate {
    /// The epoch this recovery won.
    pub epoch: Epoch,
    /// What it enforces.
    pub terms: GateTerms,
    /// The modulus of the partitioning from this epoch on.
    pub partitions: u32,
    /// The last sequence number that the ledger knows.
    pub sequence: Sequence,
    /// Redis's clock as the recovery read it before it checked that its epoch is still the ledger's.
    pub read_at: UnixMillis,
}

/// What writing a gate came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateWrite {
    /// The sale is open with the rebuilt entries.
    Opened,
    /// More than [`crate::GATE_WRITE_VALIDITY`] has passed, or Redis's clock was set back.
    TooLate,
    /// A gate of this or a higher epoch stands.
    Newer(Epoch),
    /// Entries of the rebuild are missing: Redis lost them meanwhile.
    RebuildLost,
}

/// Entries being gathered under keys of their own until [`crate::SaleStock::write_gate`] puts them in place.
#[derive(Debug)]
pub struct Rebuild {
    pub(crate) sale: SaleUid,
    pub(crate) key: String,
    pub(crate) entries: u64,
}

impl Rebuild {
    /// Entries put in so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}
