//! The stock of a sale in Redis: the scripts that take, settle and give back units, and their typed client.
//!
//! Redis is a filter: what it holds may vanish, or come back old, at any time. The log and the ledger are
//! the record, and the rules that keep a yes true (R1 to R9) are named where the code follows them. Nothing
//! here may hand out a unit that the gate's own server run did not hold.

pub mod books;
mod client;
pub mod discounts;
mod entry;
mod gate;
mod ids;
mod link;
mod scripts;
mod settle_clock;

pub use client::{RedisSettings, SaleStock, StockError};
pub use entry::{
    ClaimReply, ClaimRequest, Ending, Entry, EntryRef, GiveBack, Holding, Mark, OpenReply, Outcome,
    RebuiltEntry, Settled, Stale, Unopened,
};
pub use gate::{Closing, Gate, GateTerms, GateUpdate, GateWrite, NewGate, Rebuild, Snapshot};
pub use ids::{
    ClaimId, Epoch, KeyHash, PER_USER_LIMIT_MAX, SaleUid, Sequence, Slot, Stock, UnixMillis, UserId,
};
pub use settle_clock::SettleClock;

use std::time::Duration;

/// Counted from the sending of the script call on the caller's monotonic clock: an append acknowledged
/// later than this is answered "unknown" (R2). Longer than the producer's `message.timeout.ms`.
pub const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// How long after reading Redis's clock a recovery may still write its gate. A recovery that lost its
/// turn can't write later than this, and the next one waits it out before it fences.
pub const GATE_WRITE_VALIDITY: Duration = Duration::from_secs(1);
