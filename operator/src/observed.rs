//! What was found of a sale in Kafka, in the ledger and in Redis: the input of the pure core.

use crate::replicas::Guard;
use sale_stock::{Snapshot, books::Books};

/// Everything that was found at one time.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The sale's topic.
    pub topic: TopicState,
    /// The ledger's books.
    pub ledger: LedgerState,
    /// The stock in Redis as it was before the books were read, if it was read.
    pub redis_before: Option<Snapshot>,
    /// The stock in Redis after that, or why it couldn't be read.
    pub redis: Result<Snapshot, String>,
    /// Whether a failover of Redis is safe.
    pub guard: Guard,
}

/// The topic, after what could be done for it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// It is there, with this many partitions.
    Exists {
        /// Its partitions, at least as many as asked for.
        partitions: u32,
    },
    /// Kafka doesn't answer.
    Unreachable(String),
    /// It holds records that are not this sale's.
    Foreign,
    /// It holds records, and the ledger, which would know whose, doesn't answer.
    Unclear,
    /// It belongs to the sale of the other kind that has the same name.
    OtherSales(String),
    /// Kafka won't make or change it.
    Refused(String),
}

/// The ledger, after it was told the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// It has the definition of the resource's generation.
    Applied(Books),
    /// It doesn't have the definition: the topic isn't there, or it can't take it now.
    NotTold(Option<Books>),
    /// It refused the definition.
    Refused {
        /// The books of an older definition, if there is one.
        books: Option<Books>,
        /// One of the reasons of `StockReady`.
        reason: &'static str,
        /// What it said.
        message: String,
    },
    /// It doesn't answer.
    Unreachable(String),
}

impl LedgerState {
    /// The books, where there are any.
    #[must_use]
    pub fn books(&self) -> Option<&Books> {
        match self {
            Self::Applied(books) => Some(books),
            Self::NotTold(books) | Self::Refused { books, .. } => books.as_ref(),
            Self::Unreachable(_) => None,
        }
    }
}
