//! Compares ledger and gateway, transaction by transaction: each movement of money has one journal, and the other way
//! round. It never posts anything: it has the gateway asked, and shows what stays different.

use std::collections::HashSet;
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::{DISCREPANCIES, RECONCILED_AT};
use crate::store::{Captured, Kind, Slice, Store, StoreError};
use crate::toss::{TRANSACTIONS_PAGE, Toss, Transaction, Unknown};

/// The longest time that is compared at once: what is in memory then is bounded by it.
const SLICE: Duration = Duration::from_secs(3_600);
/// Clocks and roundings: journals this near to an end of a slice are looked for beyond it.
const SLACK: SignedDuration = SignedDuration::from_secs(5);
/// How often another replica's turn is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a slice isn't compared.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Gateway(#[from] Unknown),
}

/// How often and how late.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    every: Duration,
    lag: Duration,
}

impl Pace {
    /// From the settings.
    pub fn of(config: &Config) -> Self {
        Self {
            every: config.reconcile_every,
            lag: config.reconcile_lag,
        }
    }
}

/// Compares until it is told to stop. Of several replicas one at a time does; all show what was found.
pub async fn run(store: Store, toss: Toss, pace: Pace, stop: CancellationToken) {
    let look_every = LOOK_EVERY.min(pace.every);
    loop {
        let turn = async {
            if let Err(error) = turn(&store, &toss, pace).await {
                tracing::warn!(%error, "ledger and gateway are compared later");
            }
            if let Err(error) = show(&store).await {
                tracing::warn!(%error, "differences can't be counted");
            }
            tokio::time::sleep(look_every).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = turn => {}
        }
    }
}

async fn turn(store: &Store, toss: &Toss, pace: Pace) -> Result<(), Failed> {
    let Some(slice) = store.take_slice(pace.every, pace.lag, SLICE).await? else {
        return Ok(());
    };
    if slice.start < slice.end {
        compare(store, toss, slice).await?;
        let length = slice.end.duration_since(slice.start);
        let full = length >= SignedDuration::try_from(SLICE).unwrap_or(SignedDuration::MAX);
        store.slice_done(slice, full).await?;
    }
    store.resolve_differences().await?;
    Ok(())
}

async fn compare(store: &Store, toss: &Toss, slice: Slice) -> Result<(), Failed> {
    // Wider than the slice, so that a journal dated at its edge finds its transaction.
    let start = slice.start.checked_sub(SLACK).unwrap_or(slice.start);
    let end = slice.end.checked_add(SLACK).unwrap_or(slice.end);
    let mut seen = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = toss.transactions(start, end, after.as_deref()).await?;
        after = page.last().map(|last| last.transaction_key.clone());
        let full = page.len() == TRANSACTIONS_PAGE;
        let moved: Vec<Transaction> = page.into_iter().filter(Transaction::moved).collect();
        compare_page(store, &moved).await?;
        seen.extend(
            moved
                .into_iter()
                .map(|transaction| transaction.transaction_key),
        );
        if !full {
            break;
        }
    }
    let posted = store.journals_between(slice).await?;
    let unknown: Vec<String> = posted
        .into_iter()
        .filter(|key| !seen.contains(key))
        .collect();
    if !unknown.is_empty() {
        tracing::error!(
            count = unknown.len(),
            "the ledger has journals of no transaction of the gateway"
        );
        store
            .note_differences(Kind::NoTransaction, &unknown, &[])
            .await?;
    }
    Ok(())
}

async fn compare_page(store: &Store, page: &[Transaction]) -> Result<(), Failed> {
    let keys: Vec<String> = page
        .iter()
        .map(|transaction| transaction.transaction_key.clone())
        .collect();
    let journals = store.journals_of(&keys).await?;
    let mut missing: Vec<&Transaction> = page
        .iter()
        .filter(|transaction| !journals.contains_key(&transaction.transaction_key))
        .collect();
    if !missing.is_empty() {
        let payments: Vec<String> = missing
            .iter()
            .map(|transaction| transaction.payment_key.clone())
            .collect();
        let captured = store.captured_of(&payments).await?;
        missing.retain(|transaction| {
            needs_journal(transaction, captured.get(&transaction.payment_key).copied())
        });
    }
    let wrong: Vec<&Transaction> = page
        .iter()
        .filter(|transaction| {
            journals
                .get(&transaction.transaction_key)
                // The sign of a cancel isn't documented.
                .is_some_and(|amount| *amount != transaction.amount.abs())
        })
        .collect();
    for (kind, found) in [(Kind::NoJournal, missing), (Kind::Amount, wrong)] {
        if found.is_empty() {
            continue;
        }
        tracing::error!(
            count = found.len(),
            kind = kind.as_str(),
            "ledger and gateway differ"
        );
        let keys: Vec<String> = found
            .iter()
            .map(|transaction| transaction.transaction_key.clone())
            .collect();
        let payments: Vec<String> = found
            .iter()
            .map(|transaction| transaction.payment_key.clone())
            .collect();
        store.note_differences(kind, &keys, &payments).await?;
    }
    Ok(())
}

/// Whether the ledger ought to have a journal of a transaction, by what it has captured of the payment.
fn needs_journal(transaction: &Transaction, captured: Option<Captured>) -> bool {
    match captured {
        // Closing an account that nobody paid into is listed as a cancel, and moved nothing. If a capture was missed
        // instead, that is missing by itself.
        None => transaction.is_capture(),
        // A deposit that the bank took back and that came again: the journal of the first one stands for it.
        Some(Captured::ByDeposit(amount)) if transaction.is_capture() => {
            amount != transaction.amount
        }
        Some(_) => true,
    }
}

async fn show(store: &Store) -> Result<(), StoreError> {
    let (counts, until) = store.differences().await?;
    for kind in Kind::ALL {
        let count = counts.get(kind.as_str()).copied().unwrap_or(0);
        DISCREPANCIES
            .with_label_values(&[kind.as_str().to_ascii_lowercase().as_str()])
            .set(count);
    }
    if let Some(until) = until {
        RECONCILED_AT.set(until.as_second());
    }
    Ok(())
}
