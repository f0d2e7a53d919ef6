//! The scripts against a small pure model, on random runs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sale_stock::{
    ClaimId, ClaimRequest, Ending, EntryRef, GiveBack, KeyHash, Mark, Outcome, RedisSettings,
    SaleStock, Sequence, Slot, UnixMillis, UserId,
};
use testkit::Redis;
use uuid::Uuid;

use crate::{claim_all, open, terms};

#[derive(Debug, Clone)]
enum Step {
    /// Requests of one batch: user and key.
    Claim(Vec<(u8, u64)>),
    /// Of the claims taken so far, which.
    GiveBack(usize),
    Record(usize),
    Remove(usize),
    BeginEnding(usize),
    GiveUpAll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec((0..6_u8, 0..3_u64), 1..8).prop_map(Step::Claim),
        1 => (0..64_usize).prop_map(Step::GiveBack),
        2 => (0..64_usize).prop_map(Step::Record),
        2 => (0..64_usize).prop_map(Step::Remove),
        1 => (0..64_usize).prop_map(Step::BeginEnding),
        1 => Just(Step::GiveUpAll),
    ];
    prop::collection::vec(step, 1..30)
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    claim: ClaimId,
    mark: Mark,
    sequence: u64,
    key: u64,
    touched: bool,
}

struct Pure {
    stock: usize,
    limit: u8,
    sequence: u64,
    held: BTreeMap<(u8, u8), Held>,
}

impl Pure {
    fn claim(&mut self, user: u8, key: u64, claim: ClaimId) -> Result<(u8, u64), Option<Held>> {
        let mine: Vec<(u8, Held)> = (0..self.limit)
            .filter_map(|slot| Some((slot, *self.held.get(&(user, slot))?)))
            .collect();
        let of_key = mine
            .iter()
            .find(|(_, held)| self.limit == 1 || held.key == key);
        let free = (0..self.limit).find(|slot| !self.held.contains_key(&(user, *slot)));
        let latest = mine.iter().max_by_key(|(_, held)| held.sequence);
        let repeat = of_key.or(if free.is_none() { latest } else { None });
        if let Some((slot, _)) = repeat {
            let held = self.held.get_mut(&(user, *slot)).unwrap();
            held.touched |= held.mark == Mark::Pending;
            return Err(Some(*held));
        }
        if self.held.len() >= self.stock {
            return Err(None);
        }
        self.sequence += 1;
        let slot = free.unwrap();
        let held = Held {
            claim,
            mark: Mark::Pending,
            sequence: self.sequence,
            key,
            touched: false,
        };
        self.held.insert((user, slot), held);
        Ok((slot, self.sequence))
    }

    fn of(&mut self, user: u8, taken: &Taken) -> Option<&mut Held> {
        self.held
            .get_mut(&(user, taken.back.entry.slot.0))
            .filter(|held| held.claim == taken.back.entry.claim)
    }
}

struct Taken {
    user: u8,
    back: GiveBack,
}

fn user_id(user: u8) -> UserId {
    UserId(Uuid::from_u128(u128::from(user) + 1))
}

async fn run(
    stock: &SaleStock,
    units: u32,
    limit: u8,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let sale = open(stock, terms(units, limit)).await;
    let mut pure = Pure {
        stock: units as usize,
        limit,
        sequence: 0,
        held: BTreeMap::new(),
    };
    let mut taken: Vec<Taken> = Vec::new();
    for step in steps {
        match step {
            Step::Claim(batch) => {
                let requests: Vec<ClaimRequest> = batch
                    .iter()
                    .map(|(user, key)| ClaimRequest {
                        user: user_id(*user),
                        claim: ClaimId::generate(),
                        key: KeyHash(*key),
                    })
                    .collect();
                let reply = claim_all(stock, sale, &requests).await;
                for (((user, key), request), outcome) in
                    batch.iter().zip(&requests).zip(reply.outcomes)
                {
                    match (pure.claim(*user, *key, request.claim), outcome) {
                        (Ok((slot, sequence)), outcome) => {
                            let expected = Outcome::Taken {
                                slot: Slot(slot),
                                sequence: Sequence(sequence),
                            };
                            prop_assert_eq!(outcome, expected);
                            let entry = EntryRef {
                                user: request.user,
                                slot: Slot(slot),
                                claim: request.claim,
                            };
                            taken.push(Taken {
                                user: *user,
                                back: GiveBack {
                                    entry,
                                    claimed_at: reply.now,
                                },
                            });
                        }
                        (Err(None), outcome) => prop_assert_eq!(outcome, Outcome::SoldOut),
                        (Err(Some(held)), Outcome::Repeat(entry)) => {
                            prop_assert_eq!((entry.claim, entry.mark), (held.claim, held.mark));
                            prop_assert_eq!(
                                (entry.sequence.0, entry.key.0),
                                (held.sequence, held.key)
                            );
                        }
                        (Err(Some(held)), other) => {
                            prop_assert!(false, "{:?} for {:?}", other, held)
                        }
                    }
                }
            }
            Step::GiveBack(index) if !taken.is_empty() => {
                let taken = &taken[index % taken.len()];
                let expected = pure
                    .of(taken.user, taken)
                    .is_some_and(|h| h.mark == Mark::Pending && !h.touched);
                if expected {
                    pure.held.remove(&(taken.user, taken.back.entry.slot.0));
                }
                let given = stock.give_back(sale, &[taken.back]).await.unwrap();
                prop_assert_eq!(given, u32::from(expected));
            }
            Step::Record(index) if !taken.is_empty() => {
                let taken = &taken[index % taken.len()];
                let held = pure
                    .of(taken.user, taken)
                    .filter(|held| matches!(held.mark, Mark::Pending | Mark::Voiding));
                let expected = held.is_some();
                if let Some(held) = held {
                    held.mark = Mark::Recorded;
                }
                let settled = stock
                    .mark_recorded(sale, &[taken.back.entry])
                    .await
                    .unwrap();
                prop_assert_eq!(settled.recorded, u32::from(expected));
            }
            Step::Remove(index) if !taken.is_empty() => {
                let taken = &taken[index % taken.len()];
                let expected = pure.of(taken.user, taken).is_some();
                if expected {
                    pure.held.remove(&(taken.user, taken.back.entry.slot.0));
                }
                let settled = stock
                    .remove_entries(sale, &[taken.back.entry])
                    .await
                    .unwrap();
                prop_assert_eq!(settled.removed, u32::from(expected));
            }
            Step::BeginEnding(index) if !taken.is_empty() => {
                let taken = &taken[index % taken.len()];
                let held = pure.of(taken.user, taken);
                let expected = Ending::Begun {
                    partitions: 3,
                    marked: held.is_some().into(),
                };
                if let Some(held) = held {
                    held.mark = Mark::Ending;
                }
                let ending = stock.begin_ending(sale, &[taken.back.entry]).await.unwrap();
                prop_assert_eq!(ending, expected);
            }
            Step::GiveUpAll => {
                let all = UnixMillis(i64::MAX / 1_000_000);
                let stale = stock
                    .take_stale_before(sale, all, 1_000)
                    .await
                    .unwrap()
                    .unwrap();
                let mut expected = 0;
                for held in pure
                    .held
                    .values_mut()
                    .filter(|held| held.mark != Mark::Recorded)
                {
                    held.mark = Mark::Voiding;
                    expected += 1;
                }
                prop_assert_eq!(stale.entries.len(), expected);
            }
            Step::GiveBack(_) | Step::Record(_) | Step::Remove(_) | Step::BeginEnding(_) => {}
        }
        let snapshot = stock.snapshot(sale).await.unwrap();
        let unsettled = pure
            .held
            .values()
            .filter(|held| held.mark != Mark::Recorded)
            .count();
        prop_assert_eq!(snapshot.claimed as usize, pure.held.len());
        prop_assert_eq!(snapshot.unsettled as usize, unsettled);
        prop_assert!(snapshot.claimed <= units);
    }
    stock.remove_all(sale).await.unwrap();
    Ok(())
}

#[test]
fn random_runs_agree_with_a_pure_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stock = runtime.block_on(async {
        SaleStock::connect_lazy(&RedisSettings::new(Redis::shared().await.url())).unwrap()
    });
    let config = Config {
        cases: 128,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&(1..12_u32, 1..4_u8, steps()), |(units, limit, steps)| {
            runtime.block_on(run(&stock, units, limit, steps))
        })
        .unwrap();
}
