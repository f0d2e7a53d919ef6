//! The living sales as this process knows them: a second old at most, at once after a change through this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sale_stock::SaleUid;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::metrics;
use crate::store::{SaleRow, Store};

/// How often the sales are read.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// The living sales of one reading.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Living {
    sales: BTreeMap<SaleUid, Arc<SaleRow>>,
    topics: HashMap<String, SaleUid>,
}

impl Living {
    fn new(rows: Vec<SaleRow>) -> Self {
        let topics = rows
            .iter()
            .map(|row| (row.definition.topic.clone(), row.uid()))
            .collect();
        let sales = rows
            .into_iter()
            .map(|row| (row.uid(), Arc::new(row)))
            .collect();
        Self { sales, topics }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<SaleRow>> {
        self.sales.values()
    }

    pub(super) fn get(&self, uid: SaleUid) -> Option<&Arc<SaleRow>> {
        self.sales.get(&uid)
    }

    pub(super) fn of_topic(&self, topic: &str) -> Option<&Arc<SaleRow>> {
        self.sales.get(self.topics.get(topic)?)
    }

    /// The topics to be read: of a drained sale nothing is to come any more.
    pub(super) fn topics(&self) -> Vec<&str> {
        self.all()
            .filter(|sale| !sale.drained)
            .map(|sale| sale.definition.topic.as_str())
            .collect()
    }
}

/// Shared by the tasks of the process.
#[derive(Debug, Clone)]
pub(super) struct Sales {
    living: Arc<watch::Sender<Arc<Living>>>,
    wanted: Arc<Notify>,
}

impl Sales {
    pub(super) fn new() -> Self {
        Self {
            living: Arc::new(watch::Sender::new(Arc::default())),
            wanted: Arc::new(Notify::new()),
        }
    }

    pub(super) fn now(&self) -> Arc<Living> {
        Arc::clone(&self.living.borrow())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Living>> {
        self.living.subscribe()
    }

    /// Something was changed: don't wait for the next reading.
    pub(super) fn changed(&self) {
        self.wanted.notify_one();
    }

    /// Reads the sales until the end of the process. While the database is gone, the last reading holds.
    pub(super) async fn keep(self, store: Store, stop: CancellationToken) {
        loop {
            match store.sales().await {
                Ok(rows) => self.publish(Living::new(rows)),
                Err(error) => tracing::debug!(%error, "sales not read"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
        }
    }

    fn publish(&self, living: Living) {
        self.living.send_if_modified(|held| {
            for sale in held.all().filter(|sale| living.get(sale.uid()).is_none()) {
                metrics::end(&sale.definition.name, &sale.definition.topic);
            }
            for sale in living.all().filter(|sale| held.get(sale.uid()).is_none()) {
                metrics::begin(&sale.definition.name);
            }
            let modified = **held != living;
            if modified {
                *held = Arc::new(living);
            }
            modified
        });
    }
}
