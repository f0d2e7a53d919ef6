//! What is done before a deleted resource may go: its books are closed and drained, its topic and keys removed.
//!
//! Each step can be repeated, and the next one is begun only when it is done. What can't be done is said; nothing is
//! skipped unless somebody asks for it with the annotation [`RELEASE`].

use kube::{Api, ResourceExt as _};
use quokka_crds::SaleStatus;
use sale_stock::SaleUid;

use crate::{platform::Platform, sale::SaleResource};

/// Set to `true` on a resource that is being deleted, lets go of it at once, whatever is left behind.
pub const RELEASE: &str = "quokka.travel/release";

/// What a deletion waits for.
#[derive(Debug, thiserror::Error)]
#[error("waiting for {what}")]
pub(crate) struct Unfinished {
    pub(crate) what: String,
    /// Somebody doesn't answer, rather than being at work.
    pub(crate) failed: bool,
}

impl Unfinished {
    fn at_work(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            failed: false,
        }
    }

    fn failed(what: &str, why: impl std::fmt::Display) -> Self {
        Self {
            what: format!("{what}: {why}"),
            failed: true,
        }
    }
}

/// Whether somebody asked to let go of the resource.
pub(crate) fn released<K: SaleResource>(resource: &K) -> bool {
    resource
        .annotations()
        .get(RELEASE)
        .is_some_and(|value| value == "true")
}

impl Platform {
    /// Does the next steps of removing a sale, as far as they go now.
    pub(crate) async fn remove<K: SaleResource>(
        &self,
        resource: &K,
        uid: SaleUid,
        status: &SaleStatus,
        others: &Api<K::Other>,
    ) -> Result<(), Unfinished> {
        let ledger = |error: crate::ledger::LedgerError| Unfinished::failed("the ledger", error);
        let books = self.ledger.books(uid).await.map_err(ledger)?;
        if let Some(books) = &books {
            if !books.closed {
                self.ledger.close(uid).await.map_err(ledger)?;
            }
            if !books.drained {
                return Err(Unfinished::at_work(
                    "the ledger to drain: claims are still being settled",
                ));
            }
        }
        if books.is_some() {
            self.ledger.remove(uid).await.map_err(ledger)?;
        }
        let owned = books.is_some() || status.topic.is_some();
        self.remove_topic(resource, owned, others).await?;
        self.stock
            .remove_all(uid)
            .await
            .map_err(|error| Unfinished::failed("Redis", error))
    }

    /// Removes the topic if it is the sale's. A sale that the ledger never knew may have made one, or may have met
    /// another's: it goes only when it is empty and no other sale has the name.
    async fn remove_topic<K: SaleResource>(
        &self,
        resource: &K,
        owned: bool,
        others: &Api<K::Other>,
    ) -> Result<(), Unfinished> {
        let kafka = |error: crate::topics::TopicError| Unfinished::failed("Kafka", error);
        let name = resource.name_any();
        let topic = events::claims_topic(&resource.namespace().unwrap_or_default(), &name);
        let Some(partitions) = self.topics.partitions(&topic).await.map_err(kafka)? else {
            return Ok(());
        };
        if !owned {
            let other = others.get_opt(&name).await;
            let other = other.map_err(|error| Unfinished::failed("the Kubernetes API", error))?;
            if other.is_some()
                || !self
                    .topics
                    .is_empty(&topic, partitions)
                    .await
                    .map_err(kafka)?
            {
                return Ok(());
            }
        }
        self.topics.delete(&topic).await.map_err(kafka)
    }
}
