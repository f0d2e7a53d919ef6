//! Puts the stock of a sale right, from the ledger: the only way in which a gate is ever opened.
//!
//! Each attempt wins an epoch first, and every step after that may fail or be the process's last: whoever comes next
//! wins a higher epoch and starts again from the top. Two at once don't harm each other, since a gate is written only
//! by the holder of the highest epoch, within a second of making sure of that.

use std::time::Duration;

use events::producer::{AppendError, MetadataError, Producer};
use events::{Partition, Record, SaleEvent};
use sale_stock::{
    ACK_DEADLINE, Closing, Epoch, GATE_WRITE_VALIDITY, Gate, GateWrite, NewGate, SaleStock,
    SaleUid, StockError,
};
use tokio::time::{Instant, sleep, timeout};

use crate::planted::planted;
use crate::store::{RecoveryBegin, SaleRow, Store, StoreError};

/// Added to each wait that another clock is compared with.
const MARGIN: Duration = Duration::from_millis(100);

/// How long others keep off. Longer than the waits of an attempt; one that takes longer yet may be overtaken.
const LEASE: Duration = Duration::from_secs(10);

/// How long a fence may take to be appended to every partition.
const FENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the ledger may take to read up to the fence. A long log takes its time; the next attempt finds less.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether the ledger has read that far.
const READ_POLL: Duration = Duration::from_millis(50);

/// How long Kafka may take to say what partitions there are.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// How many claims are carried from the ledger to Redis at a time.
const REBUILD_PAGE: u32 = 5_000;

/// Why a recovery runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// The sale has never been open.
    Opening,
    /// Redis lost the gate.
    Missing,
    /// Redis restarted or failed over.
    Foreign,
    /// An earlier recovery didn't come to its end.
    Unfinished,
    /// Redis and the ledger disagree.
    Drift,
    /// Somebody asked for it.
    Requested,
    /// The sale is closed for good.
    Closing,
}

impl Cause {
    pub(super) const ALL: [Self; 7] = [
        Self::Opening,
        Self::Missing,
        Self::Foreign,
        Self::Unfinished,
        Self::Drift,
        Self::Requested,
        Self::Closing,
    ];

    /// As in metrics labels.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Missing => "gate_missing",
            Self::Foreign => "gate_foreign",
            Self::Unfinished => "unfinished",
            Self::Drift => "drift",
            Self::Requested => "requested",
            Self::Closing => "closing",
        }
    }
}

/// Why an attempt came to nothing. The next one starts from the top.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    #[error(transparent)]
    Ledger(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] StockError),
    #[error(transparent)]
    Topic(#[from] MetadataError),
    #[error("the log has {found} partitions, and had {known}: what the others hold can't be read")]
    PartitionsGone { found: u32, known: u32 },
    #[error("append fence {epoch} to partition {partition}: {source}")]
    Fence {
        epoch: Epoch,
        partition: i32,
        source: AppendError,
    },
    #[error("the fence was not appended to every partition in time")]
    FenceLate,
    #[error("the ledger did not read up to fence {0} in time")]
    ReadLate(Epoch),
    #[error("somebody else's turn: {0}")]
    Overtaken(&'static str),
    #[error("the gate was not written: {0:?}")]
    Gate(GateWrite),
}

/// What an attempt works with.
#[derive(Debug, Clone)]
pub(super) struct Recovery {
    pub(super) store: Store,
    pub(super) stock: SaleStock,
    pub(super) producer: Producer,
    /// This process, for the lease.
    pub(super) owner: String,
}

impl Recovery {
    /// One attempt. `gate` is the one that stands, whatever it is.
    pub(super) async fn attempt(
        &self,
        sale: &SaleRow,
        gate: Option<&Gate>,
        cause: Cause,
    ) -> Result<Epoch, RecoveryError> {
        let uid = sale.uid();
        let above = gate.map_or(Epoch(0), |gate| gate.epoch);
        let partitions = self.partitions(sale, cause).await?;
        let begun = self
            .store
            .begin_recovery(uid, sale.epoch, above, &self.owner, LEASE)
            .await?;
        let RecoveryBegin::Won(epoch) = begun else {
            return Err(RecoveryError::Overtaken("the epoch was taken by another"));
        };
        tracing::info!(sale = sale.definition.name, %epoch, cause = cause.as_str(), "recovery begins");
        // No gate was ever written for a sale in epoch 0, so no request can have passed one. Whether its log is empty
        // is known once it is fenced, which costs nothing when it is.
        let opened_before = sale.epoch > Epoch(0) || gate.is_some();
        if opened_before && !planted("no-fence") {
            self.shut_out(uid, epoch).await?;
        }
        if !planted("no-fence") {
            self.fence(sale, epoch, partitions).await?;
            self.read_up_to_fence(uid, epoch, partitions).await?;
        }
        if cause == Cause::Closing {
            if !self.store.set_drained(uid, epoch).await? {
                return Err(RecoveryError::Overtaken("a higher epoch was given out"));
            }
        } else {
            self.rebuild(uid, epoch, partitions).await?;
        }
        tracing::info!(sale = sale.definition.name, %epoch, cause = cause.as_str(), "recovery done");
        Ok(epoch)
    }

    /// How many partitions the log has. A closing sale's topic may be gone: then nothing of it can come any more. Of any
    /// other, fewer than there were would leave claims unread, and have a user's records part ways.
    async fn partitions(&self, sale: &SaleRow, cause: Cause) -> Result<u32, RecoveryError> {
        let topic = &sale.definition.topic;
        match self.producer.warm(topic, METADATA_TIMEOUT).await {
            Ok(found) if found < sale.partitions && cause != Cause::Closing => {
                Err(RecoveryError::PartitionsGone {
                    found,
                    known: sale.partitions,
                })
            }
            Ok(partitions) => Ok(partitions),
            Err(error) if cause == Cause::Closing && error.no_such_topic => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes the gate, and waits until no request that saw it open can still say yes (R8).
    ///
    /// A recovery that lost its turn may write its gate for a little longer if Redis lost this one's closed gate
    /// meanwhile, so that the gate is closed again once that time is over. Only then does the deadline count.
    async fn shut_out(&self, uid: SaleUid, epoch: Epoch) -> Result<(), RecoveryError> {
        self.close(uid, epoch).await?;
        sleep(GATE_WRITE_VALIDITY + MARGIN).await;
        self.close(uid, epoch).await?;
        if !planted("r8") {
            sleep(ACK_DEADLINE + MARGIN).await;
        }
        Ok(())
    }

    async fn close(&self, uid: SaleUid, epoch: Epoch) -> Result<(), RecoveryError> {
        match self.stock.close_gate(uid, epoch).await? {
            Closing::Closed | Closing::Missing => Ok(()),
            Closing::Newer(_) => Err(RecoveryError::Overtaken("a gate of a higher epoch stands")),
        }
    }

    /// What comes later in the log from lower epochs is dropped. Appending a fence twice does no harm, so that an
    /// unknown outcome is simply tried again.
    async fn fence(
        &self,
        sale: &SaleRow,
        epoch: Epoch,
        partitions: u32,
    ) -> Result<(), RecoveryError> {
        let record = Record {
            sale: sale.uid(),
            event: SaleEvent::Fence(epoch),
        };
        let all = futures::future::try_join_all((0..partitions).map(|partition| {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            self.fence_partition(&sale.definition.topic, epoch, partition, &record)
        }));
        timeout(FENCE_TIMEOUT, all)
            .await
            .map_err(|_| RecoveryError::FenceLate)??;
        Ok(())
    }

    async fn fence_partition(
        &self,
        topic: &str,
        epoch: Epoch,
        partition: i32,
        record: &Record,
    ) -> Result<(), RecoveryError> {
        const TRIES: u32 = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            match self
                .producer
                .append(topic, Partition(partition), record)
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) if tries < TRIES => {
                    tracing::debug!(topic, partition, %error, "fence is appended again");
                    sleep(READ_POLL).await;
                }
                Err(source) => {
                    return Err(RecoveryError::Fence {
                        epoch,
                        partition,
                        source,
                    });
                }
            }
        }
    }

    /// Waits until the ledger has read the fence in every partition (R9): what it holds then is all that counts.
    async fn read_up_to_fence(
        &self,
        uid: SaleUid,
        epoch: Epoch,
        partitions: u32,
    ) -> Result<(), RecoveryError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        while !planted("r9") && !self.store.fenced(uid, epoch, partitions).await? {
            if Instant::now() >= deadline {
                return Err(RecoveryError::ReadLate(epoch));
            }
            sleep(READ_POLL).await;
        }
        Ok(())
    }

    /// Carries the ledger's active claims to Redis and opens the gate over them.
    async fn rebuild(
        &self,
        uid: SaleUid,
        epoch: Epoch,
        partitions: u32,
    ) -> Result<(), RecoveryError> {
        let mut rebuild = self.stock.begin_rebuild(uid, epoch).await?;
        let mut after = None;
        loop {
            // A claim that ends between two pages, or before the gate is written, is released once it stands.
            let page = self.store.active_claims(uid, after, REBUILD_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.entry.user, last.entry.slot));
            self.stock.add_entries(&mut rebuild, &page).await?;
        }
        let read_at = self.stock.time().await?;
        let sale = self
            .store
            .sale(uid)
            .await?
            .filter(|sale| sale.epoch == epoch && !sale.closed)
            .ok_or(RecoveryError::Overtaken(
                "a higher epoch was given out, or the sale closed",
            ))?;
        let gate = NewGate {
            epoch,
            terms: sale.terms(),
            partitions,
            sequence: sale.last_sequence,
            read_at,
        };
        match self.stock.write_gate(rebuild, &gate).await? {
            GateWrite::Opened => {}
            other => return Err(RecoveryError::Gate(other)),
        }
        // If this fails, the steward finds an open gate of the highest epoch and notes it then.
        Ok(self.store.finish_recovery(uid, epoch).await?)
    }
}
