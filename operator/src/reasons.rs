//! Why a condition is as it is, and what an event says happened: constants that people and tools can match.

/// Types of the conditions in a sale's status.
pub mod condition {
    /// Sums up: true when every other condition is.
    pub const READY: &str = "Ready";
    /// The stock is in Redis, under the terms of the spec, and guests can claim it inside the window.
    pub const STOCK_READY: &str = "StockReady";
    /// The topic of the sale's log is there, with the partitions it needs.
    pub const TOPIC_READY: &str = "TopicReady";
    /// Redis, the log and the ledger agree on what is claimed.
    pub const CONSISTENT: &str = "Consistent";
    /// A failover of Redis can't sell twice what was sold.
    pub const FAILOVER_SAFE: &str = "FailoverSafe";
}

/// `Ready`: every other condition is true.
pub const EVERYTHING_READY: &str = "EverythingReady";
/// `Ready`: the resource is being deleted, and what it owned is being closed and removed.
pub const CLOSING: &str = "Closing";
/// `Ready`: the deletion can't get on; the message says with what.
pub const CLEANUP_STUCK: &str = "CleanupStuck";

/// `StockReady`: the gate in Redis is open and holds the terms of the spec.
pub const STOCK_SEEDED: &str = "StockSeeded";
/// `StockReady`: the ledger has not taken the definition yet.
pub const DEFINITION_PENDING: &str = "DefinitionPending";
/// `StockReady`: the gate holds the terms of an older generation of the spec.
pub const TERMS_PENDING: &str = "TermsPending";
/// `StockReady`: Redis holds no gate that it wrote itself in its present run.
pub const STOCK_MISSING: &str = "StockMissing";
/// `StockReady`, `Consistent`: the gate is closed while the stock is rebuilt from the ledger.
pub const RECOVERING: &str = "Recovering";
/// `StockReady`, `Consistent`: Redis doesn't answer.
pub const REDIS_UNREACHABLE: &str = "RedisUnreachable";
/// `StockReady`, `Consistent`, `TopicReady`: the ledger doesn't answer.
pub const LEDGER_UNREACHABLE: &str = "LedgerUnreachable";
/// `StockReady`: a sale of another kind has this name.
pub const NAME_TAKEN: &str = "NameTaken";
/// `StockReady`: the spec asks for less stock than is claimed.
pub const STOCK_BELOW_CLAIMED: &str = "StockBelowClaimed";
/// `StockReady`: the ledger refused the definition for another reason; the message has it.
pub const DEFINITION_REFUSED: &str = "DefinitionRefused";
/// `StockReady`: the spec can't work, though the schema let it in.
pub const SPEC_REFUSED: &str = "SpecRefused";
/// `StockReady`: waits for the topic.
pub const WAITING_FOR_TOPIC: &str = "WaitingForTopic";

/// `TopicReady`: it is there.
pub const TOPIC_EXISTS: &str = "TopicExists";
/// `TopicReady`, `Consistent`: Kafka doesn't answer.
pub const KAFKA_UNREACHABLE: &str = "KafkaUnreachable";
/// `TopicReady`: a topic of this name with records of somebody else is in the way.
pub const TOPIC_FOREIGN: &str = "TopicForeign";
/// `TopicReady`: Kafka refused to make or to change the topic; the message has why.
pub const TOPIC_REFUSED: &str = "TopicRefused";

/// `Consistent`: measured, and they agree.
pub const BOOKS_AGREE: &str = "BooksAgree";
/// `Consistent`: measured at rest, and they don't agree.
pub const DRIFT: &str = "Drift";
/// `Consistent`: the ledger doesn't get on with reading the log.
pub const LEDGER_BEHIND: &str = "LedgerBehind";
/// `Consistent`: the sale was never opened, so there is nothing to compare.
pub const NOT_OPENED: &str = "NotOpened";
/// `Consistent`: nothing has been measured yet.
pub const NOT_MEASURED: &str = "NotMeasured";

/// `FailoverSafe`: Redis has had no replicas since the operator was started.
pub const NO_REPLICAS: &str = "NoReplicas";
/// `FailoverSafe`: a primary of Redis that lost its replicas stops in time.
pub const REPLICAS_GUARDED: &str = "ReplicasGuarded";
/// `FailoverSafe`: a primary of Redis that lost its replicas goes on selling; the message says what to set.
pub const REPLICAS_UNGUARDED: &str = "ReplicasUnguarded";
/// `FailoverSafe`: Redis doesn't say.
pub const REPLICAS_UNKNOWN: &str = "ReplicasUnknown";

/// Reasons of events that no condition has.
pub mod event {
    /// The sale is known and its start lies ahead.
    pub const SCHEDULED: &str = "Scheduled";
    /// The start is near.
    pub const WARMING: &str = "Warming";
    /// Guests can claim.
    pub const OPENED: &str = "Opened";
    /// Every unit is claimed.
    pub const SOLD_OUT: &str = "SoldOut";
    /// A unit is for sale again after the sale was sold out.
    pub const BACK_IN_STOCK: &str = "BackInStock";
    /// Claims are stopped by `spec.paused`.
    pub const PAUSED: &str = "Paused";
    /// Claims go on after a pause.
    pub const RESUMED: &str = "Resumed";
    /// Claims are stopped while the stock is rebuilt from the ledger.
    pub const RECOVERING: &str = "Recovering";
    /// Claims go on after a recovery.
    pub const RECOVERED: &str = "Recovered";
    /// The window is over.
    pub const ENDED: &str = "Ended";
    /// The topic was made.
    pub const TOPIC_CREATED: &str = "TopicCreated";
    /// The topic that held the sale's claims is gone, and was made anew. The ledger keeps what it had read.
    pub const TOPIC_LOST: &str = "TopicLost";
    /// The topic was given more partitions.
    pub const TOPIC_GROWN: &str = "TopicGrown";
    /// Redis and the ledger disagreed at rest; a recovery was asked for.
    pub const DRIFT_FOUND: &str = "DriftFound";
    /// The spec, or the definition made from it, can't work.
    pub const SPEC_REFUSED: &str = "SpecRefused";
    /// The deletion can't get on.
    pub const CLEANUP_STUCK: &str = "CleanupStuck";
    /// The books are closed and everything that the sale owned is removed.
    pub const REMOVED: &str = "Removed";
    /// The resource was let go of on request, before everything was removed.
    pub const RELEASED: &str = "Released";
}
