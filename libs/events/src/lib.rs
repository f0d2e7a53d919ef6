//! The Kafka contract: what the records of a sale's log are, where they go, how they are appended and how
//! they are read in batches.
//!
//! An append tells three things apart: in the log, certainly not in the log, and unknown. Nothing here may
//! turn the third into one of the others.

pub mod consumer;
pub mod inbox;
pub mod outbox;
pub mod planted;
mod polled;
pub mod producer;
mod record;
pub mod saga;
mod topic;
pub mod topics;
mod trace;

pub use record::{ClaimTaken, ClaimsRecord, Record, RecordError, Returned, SaleEvent, Voided};
pub use topic::{Partition, claims_topic, partition_of};
pub use trace::TraceParent;
