//! The parts of the platform that a sale lives in, looked at and set up: Kafka, the ledger and Redis.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use quokka_crds::SaleStatus;
use sale_stock::{SaleStock, books::Books};

use crate::{
    ledger::{Ledger, LedgerError},
    observed::{LedgerState, Observed, TopicState},
    reasons,
    replicas::Replicas,
    sale::{Sale, SaleResource},
    sale_clock::SaleClock,
    story::Happening,
    topics::{TopicError, Topics},
};

/// How soon a definition that the ledger refused is declared again: what stood in its way may have gone.
const DECLARE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What every sale's platform is reached through.
#[derive(Clone)]
pub struct Platform {
    /// The topics.
    pub topics: Topics,
    /// The ledger.
    pub ledger: Ledger,
    /// The stock in Redis.
    pub stock: SaleStock,
    /// How Redis guards against two primaries.
    pub replicas: Replicas,
    /// The clock that windows open by.
    pub clock: SaleClock,
}

/// A definition that the ledger refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    generation: i64,
    at: Instant,
    reason: &'static str,
    message: String,
}

/// What was found of a sale, and what happened while it was set up.
pub(crate) struct Visit {
    pub(crate) observed: Observed,
    pub(crate) happenings: Vec<Happening>,
    pub(crate) now: Timestamp,
}

impl Platform {
    /// Sets up what is missing of a sale and looks at all of it. Whoever doesn't answer is found silent; only the
    /// Kubernetes API, asked about a sale of the other kind, makes it fail.
    pub(crate) async fn visit<Other: SaleResource>(
        &self,
        sale: &Sale,
        status: &SaleStatus,
        refusal: &mut Option<Refusal>,
        others: &Api<Other>,
    ) -> Result<Visit, kube::Error> {
        let mut happenings = Vec::new();
        let books = self.ledger.books(sale.uid()).await;
        let known = books.as_ref().ok().and_then(Option::as_ref);
        let topic = match self.topic(sale, status, known, &mut happenings).await {
            Ok(topic) => topic,
            Err(TopicError::Refused { doing, why }) => {
                TopicState::Refused(format!("{doing}: {why}"))
            }
            Err(TopicError::Unreachable { doing, why }) => {
                TopicState::Unreachable(format!("{doing}: {why}"))
            }
        };
        let (topic, ledger) = match books {
            Err(error) => (topic, LedgerState::Unreachable(error.to_string())),
            Ok(books) => {
                match taken_by_other(sale, status, books.as_ref(), &topic, others).await? {
                    Some(message) => {
                        let reason = reasons::NAME_TAKEN;
                        (
                            TopicState::OtherSales(message.clone()),
                            LedgerState::Refused {
                                books: None,
                                reason,
                                message,
                            },
                        )
                    }
                    None => {
                        let ledger = self.declare(sale, books, &topic, refusal).await;
                        (topic, ledger)
                    }
                }
            }
        };
        let redis = self
            .stock
            .snapshot(sale.uid())
            .await
            .map_err(|error| error.to_string());
        if let Ok(snapshot) = &redis {
            self.clock.set(snapshot.now);
        }
        Ok(Visit {
            observed: Observed {
                topic,
                ledger,
                redis,
                guard: self.replicas.guard().await,
            },
            happenings,
            now: self.clock.now(),
        })
    }

    /// Makes the topic, or lets it grow; a topic that may be somebody else's is left alone.
    async fn topic(
        &self,
        sale: &Sale,
        status: &SaleStatus,
        books: Option<&Books>,
        happenings: &mut Vec<Happening>,
    ) -> Result<TopicState, TopicError> {
        let (name, wanted) = (&sale.definition.topic, sale.definition.partitions);
        let ours = books.is_some() || status.topic.is_some();
        let occasion = format!("{wanted}");
        match self.topics.partitions(name).await? {
            None => {
                let lost =
                    books.is_some_and(|books| books.positions.iter().any(|at| at.next_offset > 0));
                if self.topics.create(name, wanted).await? {
                    happenings.push(made(name, wanted, lost, self.clock.now()));
                }
                Ok(TopicState::Exists { partitions: wanted })
            }
            Some(there) if !ours => {
                if !self.topics.is_empty(name, there).await? {
                    return Ok(TopicState::Foreign);
                }
                self.topics.adopt(name).await?;
                Ok(TopicState::Exists { partitions: there })
            }
            Some(there) if there < wanted => {
                self.topics.grow(name, wanted).await?;
                let note = format!("{name} has {wanted} partitions, after {there}");
                happenings.push(Happening::new(
                    reasons::event::TOPIC_GROWN,
                    "GrowTopic",
                    occasion,
                    note,
                ));
                Ok(TopicState::Exists { partitions: wanted })
            }
            Some(partitions) => Ok(TopicState::Exists { partitions }),
        }
    }

    /// Tells the ledger a definition that it doesn't have, once the topic is there.
    async fn declare(
        &self,
        sale: &Sale,
        books: Option<Books>,
        topic: &TopicState,
        refusal: &mut Option<Refusal>,
    ) -> LedgerState {
        let generation = sale.definition.generation;
        let books = match books {
            Some(books) if books.generation >= generation => {
                *refusal = None;
                return LedgerState::Applied(books);
            }
            books => books,
        };
        let Some(partitions) = topic.partitions() else {
            return LedgerState::NotTold(books);
        };
        if let Some(Refusal {
            generation: refused,
            at,
            reason,
            message,
        }) = refusal
            && *refused == generation
            && at.elapsed() < DECLARE_AGAIN_AFTER
        {
            return LedgerState::Refused {
                books,
                reason,
                message: message.clone(),
            };
        }
        let mut definition = sale.definition.clone();
        definition.partitions = partitions;
        match self.ledger.declare(&definition).await {
            Ok(books) => {
                *refusal = None;
                LedgerState::Applied(books)
            }
            Err(LedgerError::Refused { code, detail, .. }) => {
                let reason = match code.as_str() {
                    "NAME_TAKEN" => reasons::NAME_TAKEN,
                    "STOCK_BELOW_CLAIMED" => reasons::STOCK_BELOW_CLAIMED,
                    _ => reasons::DEFINITION_REFUSED,
                };
                let message = format!("{code}: {detail}");
                *refusal = Some(Refusal {
                    generation,
                    at: Instant::now(),
                    reason,
                    message: message.clone(),
                });
                LedgerState::Refused {
                    books,
                    reason,
                    message,
                }
            }
            // It was there just now: it can't take this definition yet, and is asked again.
            Err(error @ LedgerError::Unreachable { .. }) => {
                tracing::warn!(sale = definition.name, %error, "the definition isn't taken yet");
                LedgerState::NotTold(books)
            }
        }
    }
}

/// A topic was made: the sale's first, or one in the place of a topic that somebody removed.
fn made(topic: &str, partitions: u32, lost: bool, now: Timestamp) -> Happening {
    const ACTION: &str = "CreateTopic";
    if lost {
        let note = format!(
            "{topic} was gone and is made anew; claims that the ledger had not read are lost"
        );
        return Happening::new(reasons::event::TOPIC_LOST, ACTION, now.as_second(), note).warning();
    }
    let note = format!("made {topic} with {partitions} partitions");
    Happening::new(reasons::event::TOPIC_CREATED, ACTION, partitions, note)
}

/// What to say if a sale of the other kind has the name already: two kinds share the names of a namespace, and so the topics.
async fn taken_by_other<Other: SaleResource>(
    sale: &Sale,
    status: &SaleStatus,
    books: Option<&Books>,
    topic: &TopicState,
    others: &Api<Other>,
) -> Result<Option<String>, kube::Error> {
    if books.is_some() || status.topic.is_some() || matches!(topic, TopicState::Unreachable(_)) {
        return Ok(None);
    }
    let name = &sale.definition.name;
    let other = others.get_opt(name).await?;
    let owner = other.filter(|other| {
        other
            .sale_status()
            .is_some_and(|status| status.topic.is_some())
    });
    Ok(owner.map(|owner| format!("the {} {} has this name", Other::KIND, owner.name_any())))
}
