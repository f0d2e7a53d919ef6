//! What is done before a deleted resource may go: its books are closed and drained, its topic and keys removed.
//!
//! Each step can be repeated, and the next one is begun only when it is done. What can't be done is said; nothing is
//! skipped unless somebody asks for it with the annotation [`RELEASE`].

use kube::{ResourceExt as _, api::ObjectMeta};
use quokka_crds::SaleStatus;
use sale_stock::{SaleUid, books::GateState};

use crate::{neighbours::Neighbours, platform::Platform, sale::SaleResource};

/// Set to `true` on a resource that is being deleted, lets go of it at once, whatever is left behind.
pub const RELEASE: &str = "quokka.travel/release";

/// What a deletion waits for.
#[derive(Debug, thiserror::Error)]
#[error("waiting for {what}")]
pub(crate) struct Unfinished {
    pub(crate) what: String,
    /// Somebody doesn't answer, rather than being at work.
    pub(crate) failed: bool,
    /// The gate is shut for good: nobody claims any more.
    pub(crate) closed: bool,
}

impl Unfinished {
    fn at_work(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            failed: false,
            closed: false,
        }
    }

    fn failed(what: &str, why: impl std::fmt::Display) -> Self {
        Self {
            what: format!("{what}: {why}"),
            failed: true,
            closed: false,
        }
    }

    fn closed(self, closed: bool) -> Self {
        Self { closed, ..self }
    }
}

/// Whether somebody asked to let go of the resource.
pub(crate) fn released(meta: &ObjectMeta) -> bool {
    let asked = meta.annotations.as_ref().and_then(|all| all.get(RELEASE));
    asked.is_some_and(|value| value == "true")
}

impl Platform {
    /// Does the next steps of removing a sale, as far as they go now.
    pub(crate) async fn remove<K: SaleResource>(
        &self,
        resource: &K,
        uid: SaleUid,
        status: &SaleStatus,
        others: &Neighbours<K::Other>,
    ) -> Result<(), Unfinished> {
        let ledger = |error: crate::ledger::LedgerError| Unfinished::failed("the ledger", error);
        let books = self.ledger.books(uid).await.map_err(ledger)?;
        if let Some(books) = &books
            && !books.closed
        {
            self.ledger.close(uid).await.map_err(ledger)?;
        }
        // Prices forget it at once; a Redis that is away holds up only the step that needs it anyway.
        let untold = self.forget_discount(resource).await;
        if let Some(books) = &books
            && !books.drained
        {
            let drains = "the ledger to drain: claims are still being settled";
            let shut = books.closed && books.gate != GateState::Open;
            return Err(Unfinished::at_work(drains).closed(shut));
        }
        let shut = books.is_some();
        let owned = shut || status.topic.is_some();
        let rest = async {
            if shut {
                self.ledger.remove(uid).await.map_err(ledger)?;
            }
            self.remove_topic(resource, owned, others).await?;
            untold.map_err(|error| Unfinished::failed("Redis", error))?;
            let removed = self.stock.remove_all(uid).await;
            removed.map_err(|error| Unfinished::failed("Redis", error))
        };
        rest.await.map_err(|unfinished| unfinished.closed(shut))
    }

    /// Does what can be done at once for a sale that is let go of, and says what may be left behind.
    pub(crate) async fn abandon<K: SaleResource>(
        &self,
        resource: &K,
        uid: Option<SaleUid>,
    ) -> String {
        let closed = match uid {
            // Nothing can be owned under a uid that isn't one.
            None => "the ledger knows no such sale".to_owned(),
            Some(uid) => match self.ledger.close(uid).await {
                Ok(()) => "the ledger was told to close the sale".to_owned(),
                Err(error) => {
                    format!("it may sell on, since the ledger wasn't told to close it ({error})")
                }
            },
        };
        let topic = events::claims_topic(
            &resource.namespace().unwrap_or_default(),
            &resource.name_any(),
        );
        let keys = uid.map_or_else(String::new, |uid| {
            format!(" and its keys in Redis, quokka:{{{uid}}}:*")
        });
        let price = match self.forget_discount(resource).await {
            Ok(()) => String::new(),
            Err(error) => format!("; its discount is shown until its end ({error})"),
        };
        format!(
            "let go of as asked by the annotation {RELEASE}: {closed}; its books, its topic {topic}{keys} may be left{price}"
        )
    }

    /// Removes the topic if it is the sale's. A sale that the ledger never knew may have made one, or may have met
    /// another's: it goes only when it is empty and no other sale has the name.
    async fn remove_topic<K: SaleResource>(
        &self,
        resource: &K,
        owned: bool,
        others: &Neighbours<K::Other>,
    ) -> Result<(), Unfinished> {
        let kafka = |error: crate::topics::TopicError| Unfinished::failed("Kafka", error);
        let name = resource.name_any();
        let topic = events::claims_topic(&resource.namespace().unwrap_or_default(), &name);
        let Some(partitions) = self.topics.partitions(&topic).await.map_err(kafka)? else {
            return Ok(());
        };
        if !owned {
            let other = others.api.get_opt(&name).await;
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
