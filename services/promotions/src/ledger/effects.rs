//! What Redis is told after a commit, never before. All of it may be lost: an entry that wasn't marked is settled by
//! the steward, and a unit that wasn't released is released by it.

use std::time::Duration;

use sale_stock::{ClaimId, EntryRef, SaleStock, SaleUid, StockError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::metrics;
use crate::store::{BatchOutcome, Store, StoreError};

/// Batches that wait for Redis; with Redis away the rest is left to the steward rather than kept in memory.
const WAITING_MAX: usize = 64;

/// How long what is waiting at the end of the process may take.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);

/// What one commit came to.
#[derive(Debug)]
struct Settlement {
    sale: SaleUid,
    marks: Vec<EntryRef>,
    releases: Vec<EntryRef>,
    ended: Vec<ClaimId>,
}

/// Where the consumer leaves what it committed.
#[derive(Debug, Clone)]
pub(super) struct Effects(mpsc::Sender<Settlement>);

/// What the task takes from.
#[derive(Debug)]
pub(super) struct Pending(mpsc::Receiver<Settlement>);

pub(super) fn channel() -> (Effects, Pending) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Effects(sender), Pending(receiver))
}

impl Effects {
    /// Never waits: what finds no room is left to the steward.
    pub(super) fn settle(&self, sale: SaleUid, outcome: &mut BatchOutcome) {
        let settlement = Settlement {
            sale,
            marks: std::mem::take(&mut outcome.marks),
            releases: std::mem::take(&mut outcome.releases),
            ended: outcome.ended.iter().map(|entry| entry.claim).collect(),
        };
        if settlement.marks.is_empty() && settlement.releases.is_empty() {
            return;
        }
        if self.0.try_send(settlement).is_err() {
            metrics::EFFECTS_LOST.inc();
        }
    }
}

/// Tells Redis until the process ends and nothing waits any more.
pub(super) async fn run(
    mut pending: Pending,
    stock: SaleStock,
    store: Store,
    stop: CancellationToken,
) {
    let mut away = false;
    loop {
        let settlement = tokio::select! {
            settlement = pending.0.recv() => settlement,
            () = stop.cancelled() => break,
        };
        let Some(settlement) = settlement else { break };
        match settle(&settlement, &stock, &store).await {
            Ok(()) => away = false,
            Err(error) => {
                metrics::EFFECTS_LOST.inc();
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "commits are not told to Redis; the steward will make up for it");
                }
            }
        }
    }
    let rest = async {
        while let Ok(settlement) = pending.0.try_recv() {
            if let Err(error) = settle(&settlement, &stock, &store).await {
                tracing::debug!(%error, "left to the next steward");
            }
        }
    };
    // What isn't done in time is the next steward's.
    let _ = tokio::time::timeout(LAST_TIMEOUT, rest).await;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SettleError {
    #[error(transparent)]
    Redis(#[from] StockError),
    #[error(transparent)]
    Ledger(#[from] StoreError),
}

async fn settle(
    settlement: &Settlement,
    stock: &SaleStock,
    store: &Store,
) -> Result<(), SettleError> {
    let settled = stock
        .settle(settlement.sale, &settlement.marks, &settlement.releases)
        .await?;
    note(store, settled.open, &settlement.ended).await
}

/// Removes the entries of ended claims, so that their units are for sale again, and notes it in the ledger.
pub(super) async fn release(
    sale: SaleUid,
    entries: &[EntryRef],
    stock: &SaleStock,
    store: &Store,
) -> Result<(), SettleError> {
    if entries.is_empty() {
        return Ok(());
    }
    let settled = stock.remove_entries(sale, entries).await?;
    let claims: Vec<ClaimId> = entries.iter().map(|entry| entry.claim).collect();
    note(store, settled.open, &claims).await
}

/// While a recovery rebuilds, it may put back an entry that it read as active before the claim ended: only what an
/// open gate has let go of is gone for good.
async fn note(store: &Store, open: bool, claims: &[ClaimId]) -> Result<(), SettleError> {
    if open && !claims.is_empty() {
        store.set_released(claims).await?;
    }
    Ok(())
}
