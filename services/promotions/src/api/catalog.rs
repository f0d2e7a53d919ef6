//! The sales that this process knows, in memory: read from the ledger's database every second. When that is away
//! the last reading holds, so that claims go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use chassis::health::Dependency;
use chassis::problem::Problem;
use chassis::serve::Shutdown;
use events::producer::Producer;
use sale_stock::books::{SaleDefinition, SaleKind};
use sale_stock::{SaleStock, SaleUid, Snapshot};
use tokio_util::sync::CancellationToken;

use super::metrics::ClaimCounters;
use super::problems;
use crate::claims::Gatherer;
use crate::store::{SaleRow, Store};

/// How often the sales are read.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How old a reading of a sale's stock may be that guests are shown.
const STOCK_AGE_MAX: Duration = Duration::from_millis(500);

/// A sale as this process knows it.
#[derive(Debug)]
pub(super) struct Sale {
    pub(super) definition: SaleDefinition,
    /// Closed for good.
    pub(super) closed: bool,
    /// Closed, and all that was claimed is in the ledger.
    pub(super) drained: bool,
    live: Arc<Live>,
}

/// What stays of a sale while its definition changes.
#[derive(Debug)]
struct Live {
    gatherer: Gatherer,
    counters: ClaimCounters,
    stock: Mutex<Option<(Instant, Snapshot)>>,
}

impl Sale {
    pub(super) fn uid(&self) -> SaleUid {
        self.definition.uid
    }

    pub(super) fn gatherer(&self) -> &Gatherer {
        &self.live.gatherer
    }

    pub(super) fn counters(&self) -> &ClaimCounters {
        &self.live.counters
    }
}

#[derive(Default)]
struct Sales {
    by_name: HashMap<String, Arc<Sale>>,
    /// In the order of their names.
    listed: Vec<Arc<Sale>>,
}

/// The sales. Clones share them.
#[derive(Clone)]
pub(super) struct Catalog {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` until the first reading.
    sales: ArcSwapOption<Sales>,
    store: Store,
    stock: SaleStock,
    producer: Producer,
    shutdown: Shutdown,
}

impl Catalog {
    pub(super) fn new(
        store: Store,
        stock: SaleStock,
        producer: Producer,
        shutdown: Shutdown,
    ) -> Self {
        let sales = ArcSwapOption::empty();
        Self {
            shared: Arc::new(Shared {
                sales,
                store,
                stock,
                producer,
                shutdown,
            }),
        }
    }

    /// The living sale of this kind and name.
    pub(super) fn find(&self, kind: SaleKind, name: &str) -> Result<Arc<Sale>, Problem> {
        let sales = self.shared.sales.load();
        let sale = sales.as_ref().ok_or_else(not_read)?.by_name.get(name);
        sale.filter(|sale| sale.definition.kind == kind)
            .cloned()
            .ok_or_else(problems::no_sale)
    }

    /// Some living sales of this kind in the order of their names, from after the given one.
    pub(super) fn list(
        &self,
        kind: SaleKind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Arc<Sale>>, Problem> {
        let sales = self.shared.sales.load();
        let listed = &sales.as_ref().ok_or_else(not_read)?.listed;
        let of_kind = listed.iter().filter(|sale| sale.definition.kind == kind);
        let rest =
            of_kind.filter(|sale| after.is_none_or(|after| sale.definition.name.as_str() > after));
        Ok(rest.take(limit).cloned().collect())
    }

    /// Every living sale.
    pub(super) fn all(&self) -> Result<Vec<Arc<Sale>>, Problem> {
        Ok(self
            .shared
            .sales
            .load()
            .as_ref()
            .ok_or_else(not_read)?
            .listed
            .clone())
    }

    /// Units left, at most half a second old; `None` while Redis doesn't say.
    pub(super) async fn stock_left(&self, sale: &Sale) -> Option<i64> {
        let cached = *sale
            .live
            .stock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let snapshot = match cached {
            Some((read_at, snapshot)) if read_at.elapsed() < STOCK_AGE_MAX => snapshot,
            _ => {
                let snapshot = self.shared.stock.snapshot(sale.uid()).await.ok()?;
                *sale
                    .live
                    .stock
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), snapshot));
                snapshot
            }
        };
        // A gate that is missing or another run's says nothing about what is left.
        let gate = snapshot.gate.filter(|gate| gate.own_run)?;
        Some(i64::from(gate.terms.stock.0) - i64::from(snapshot.claimed))
    }

    /// Reads the sales again and again, until told to stop.
    pub(super) async fn keep(self, dependency: Dependency, stop: CancellationToken) {
        loop {
            match self.shared.store.sales().await {
                Ok(rows) => {
                    self.replace(rows);
                    dependency.set_ready();
                }
                // Once read, the last reading holds.
                Err(error) if self.shared.sales.load().is_none() => dependency.set_unready(error),
                Err(error) => tracing::debug!(%error, "sales not read again"),
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn replace(&self, rows: Vec<SaleRow>) {
        let last = self.shared.sales.load_full().unwrap_or_default();
        let mut known: HashMap<SaleUid, &Arc<Sale>> =
            last.listed.iter().map(|sale| (sale.uid(), sale)).collect();
        // First what is gone: a sale made again under the same name has the same series.
        let is_gone = |uid: &SaleUid| rows.iter().all(|row| row.uid() != *uid);
        for (_, gone) in known.extract_if(|uid, _| is_gone(uid)) {
            gone.counters().remove();
        }
        let mut next = Sales::default();
        for row in rows {
            let SaleRow {
                definition,
                closed,
                drained,
                ..
            } = row;
            let sale = match known.remove(&definition.uid) {
                Some(sale)
                    if sale.definition == definition
                        && (sale.closed, sale.drained) == (closed, drained) =>
                {
                    Arc::clone(sale)
                }
                Some(sale) => Arc::new(Sale {
                    definition,
                    closed,
                    drained,
                    live: Arc::clone(&sale.live),
                }),
                None => Arc::new(Sale {
                    live: Arc::new(self.start(&definition)),
                    definition,
                    closed,
                    drained,
                }),
            };
            next.by_name
                .insert(sale.definition.name.clone(), Arc::clone(&sale));
            next.listed.push(sale);
        }
        next.listed
            .sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        self.shared.sales.store(Some(Arc::new(next)));
    }

    fn start(&self, definition: &SaleDefinition) -> Live {
        let Shared {
            stock,
            producer,
            shutdown,
            ..
        } = &*self.shared;
        Live {
            gatherer: Gatherer::start(
                definition.uid,
                definition.topic.clone(),
                definition.partitions,
                stock.clone(),
                producer.clone(),
                shutdown,
            ),
            counters: ClaimCounters::new(&definition.name, definition.kind),
            stock: Mutex::new(None),
        }
    }
}

fn not_read() -> Problem {
    Problem::unavailable("the sales are not known yet; ask again")
}
