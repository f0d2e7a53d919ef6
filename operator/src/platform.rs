//! The parts of the platform that a sale lives in, looked at and set up: Kafka, the ledger and Redis.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt as _;
use quokka_crds::{SaleStatus, TimeSale};
use sale_stock::{SaleStock, SaleUid, Snapshot, StockError, books::Books, discounts::Discounts};
use tracing::{debug, warn};

use crate::{
    discounts::Telling,
    ledger::{Ledger, LedgerError},
    neighbours::Neighbours,
    observed::{LedgerState, Observed, TopicState},
    reasons,
    replicas::Replicas,
    sale::{self, Sale, SaleResource},
    sale_clock::SaleClock,
    silence::Silence,
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
    /// What time sales take off, in Redis.
    pub discounts: Discounts,
    /// How Redis last failed to answer about the stock or a discount.
    pub(crate) redis_silence: Silence<String>,
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
        others: &Neighbours<Other>,
    ) -> Result<Visit, kube::Error> {
        let mut happenings = Vec::new();
        let redis_before = self.snapshot(sale.uid()).await.ok();
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
            Err(error) => {
                let topic = match topic {
                    // The ledger alone can say that it is this sale's.
                    TopicState::Foreign => TopicState::Unclear,
                    topic => topic,
                };
                (topic, LedgerState::Unreachable(error.to_string()))
            }
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
        let redis = self.snapshot(sale.uid()).await;
        if let Ok(snapshot) = &redis {
            self.clock.set(snapshot.now);
        }
        Ok(Visit {
            observed: Observed {
                topic,
                ledger,
                redis_before,
                redis,
                guard: self.replicas.guard().await,
            },
            happenings,
            now: self.clock.now(),
        })
    }

    /// One look at the stock.
    async fn snapshot(&self, sale: SaleUid) -> Result<Snapshot, String> {
        self.ask_redis(self.stock.snapshot(sale)).await
    }

    /// Tells those who show prices what the sale takes off.
    pub(crate) async fn tell_discount(&self, sale: &Sale, telling: &Telling) {
        let name = &sale.definition.name;
        let told = self.ask_redis(telling.tell(&self.discounts, name)).await;
        if let Err(error) = told {
            // That Redis is silent is in the conditions.
            debug!(sale = name, error, "the discount isn't told now");
        }
    }

    /// Removes what a time sale takes off from the prices that are shown.
    pub(crate) async fn forget_discount<K: SaleResource>(&self, sale: &K) -> Result<(), String> {
        if K::KIND != TimeSale::KIND {
            return Ok(());
        }
        self.ask_redis(self.discounts.remove(&sale.name_any()))
            .await
    }

    /// Asks Redis something. Not at once after it was silent, about whichever sale.
    async fn ask_redis<T>(
        &self,
        question: impl Future<Output = Result<T, StockError>>,
    ) -> Result<T, String> {
        if let Some(why) = self.redis_silence.recent() {
            return Err(why);
        }
        let answer = question.await;
        let silence = answer.as_ref().err().filter(|error| is_silence(error));
        self.redis_silence.heard(silence.map(ToString::to_string));
        answer.map_err(|error| error.to_string())
    }

    /// Makes the topic, or lets it grow; a topic that may be somebody else's is left alone.
    async fn topic(
        &self,
        sale: &Sale,
        status: &SaleStatus,
        books: Option<&Books>,
        happenings: &mut Vec<Happening>,
    ) -> Result<TopicState, TopicError> {
        let name = &sale.definition.topic;
        // Claims of the epoch that is open are written to as many as there were.
        let wanted = sale.definition.partitions.max(read_partitions(books));
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
                let note = format!(
                    "{name} has {}, after {there}",
                    sale::counted_partitions(wanted)
                );
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
        let Some(partitions) = partitions_to_tell(topic, books.as_ref()) else {
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
                warn!(sale = definition.name, %error, "the definition isn't taken yet");
                LedgerState::NotTold(books)
            }
        }
    }
}

/// Whether Redis itself was silent, rather than having something against this one look.
fn is_silence(error: &StockError) -> bool {
    let StockError::Redis { source, .. } = error else {
        return false;
    };
    source.is_timeout() || source.is_connection_refusal() || source.is_connection_dropped()
}

/// The partitions that the ledger has read from.
fn read_partitions(books: Option<&Books>) -> u32 {
    let positions = books.map_or(&[][..], |books| &books.positions);
    positions
        .iter()
        .filter_map(|at| u32::try_from(at.partition.checked_add(1)?).ok())
        .max()
        .unwrap_or_default()
}

/// The partitions to tell the ledger: the topic's; or, while Kafka says nothing or refuses to change the topic, those
/// that the ledger has read from, since a pause must get through whatever Kafka does. The ledger never takes fewer than
/// it has. `None` while there is no topic to tell of.
fn partitions_to_tell(topic: &TopicState, books: Option<&Books>) -> Option<u32> {
    match topic {
        TopicState::Exists { partitions } => Some(*partitions),
        TopicState::Unreachable(_) | TopicState::Refused(_) => {
            Some(read_partitions(books)).filter(|read| *read > 0)
        }
        TopicState::Foreign | TopicState::Unclear | TopicState::OtherSales(_) => None,
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
    let note = format!("made {topic} with {}", sale::counted_partitions(partitions));
    Happening::new(reasons::event::TOPIC_CREATED, ACTION, partitions, note)
}

/// What to say if a sale of the other kind has the name already: two kinds share the names of a namespace, and so the topics.
async fn taken_by_other<Other: SaleResource>(
    sale: &Sale,
    status: &SaleStatus,
    books: Option<&Books>,
    topic: &TopicState,
    others: &Neighbours<Other>,
) -> Result<Option<String>, kube::Error> {
    if books.is_some() || status.topic.is_some() || matches!(topic, TopicState::Unreachable(_)) {
        return Ok(None);
    }
    let name = &sale.definition.name;
    let taken = others.has_topic(name).await?;
    Ok(taken.then(|| format!("the {} {name} has this name", Other::KIND)))
}

#[cfg(test)]
mod tests {
    use sale_stock::{Epoch, books::PartitionPosition};

    use super::*;
    use crate::testing::books;

    fn read_from(partitions: i32) -> Books {
        let at = |partition| PartitionPosition {
            partition,
            next_offset: 7,
            epoch: Epoch(1),
        };
        Books {
            positions: (0..partitions).map(at).collect(),
            ..books(7)
        }
    }

    #[test]
    fn a_definition_is_told_whatever_kafka_does_once_the_ledger_has_read_the_topic() {
        let exists = TopicState::Exists { partitions: 5 };
        let silent = TopicState::Unreachable("gone".to_owned());
        let refused = TopicState::Refused("no more partitions".to_owned());
        let books = read_from(3);
        assert_eq!(partitions_to_tell(&exists, Some(&books)), Some(5));
        assert_eq!(partitions_to_tell(&silent, Some(&books)), Some(3));
        assert_eq!(partitions_to_tell(&refused, Some(&books)), Some(3));
        for nobodys in [
            silent,
            refused,
            TopicState::Foreign,
            TopicState::Unclear,
            TopicState::OtherSales("taken".to_owned()),
        ] {
            assert_eq!(partitions_to_tell(&nobodys, None), None);
            assert_eq!(partitions_to_tell(&nobodys, Some(&read_from(0))), None);
        }
    }

    #[test]
    fn what_was_read_from_counts_however_many_partitions_the_spec_asks_for() {
        assert_eq!(read_partitions(Some(&read_from(5))), 5);
        assert_eq!(read_partitions(Some(&read_from(0))), 0);
        assert_eq!(read_partitions(None), 0);
    }
}
