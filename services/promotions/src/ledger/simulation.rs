//! The core under everything that can happen to a log and its readers, by seeds: a sale of few units and users, an
//! honest Redis, appends that land late or never, effects that are lost, records delivered again, flushes and
//! recoveries. What guests were told is held against the ledger at the end.

use std::collections::{BTreeMap, BTreeSet};

use events::{ClaimTaken, Returned, SaleEvent, Voided, partition_of};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sale_stock::{ClaimId, EntryRef, Epoch, KeyHash, Sequence, Slot, UnixMillis, UserId};
use uuid::Uuid;

use super::core::{Applied, Effect, End, LogPosition, State, apply, end};

const PARTITIONS: u32 = 3;
const STOCK: u32 = 4;
const USERS: u128 = 7;
const STEPS: u32 = 400;
const SEEDS: u64 = 1_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Pending,
    Recorded,
    Voiding,
}

struct Simulation {
    rng: StdRng,
    fences: bool,
    /// Whether Redis stands open, in which epoch, and what it holds.
    open: bool,
    epoch: Epoch,
    entries: BTreeMap<UserId, (ClaimTaken, Mark)>,
    sequence: u64,
    logs: BTreeMap<i32, Vec<SaleEvent>>,
    /// Appends that may still land.
    late: Vec<(i32, SaleEvent)>,
    ledger: State,
    /// Where the reader is, which isn't always where the ledger is.
    reader: BTreeMap<i32, usize>,
    told: BTreeSet<ClaimId>,
    wrong: Vec<String>,
}

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number + 1))
}

impl Simulation {
    fn new(seed: u64, fences: bool) -> Self {
        let partitions = 0..i32::try_from(PARTITIONS).unwrap_or_default();
        Self {
            rng: StdRng::seed_from_u64(seed),
            fences,
            open: true,
            epoch: Epoch(1),
            entries: BTreeMap::new(),
            sequence: 0,
            logs: partitions
                .clone()
                .map(|partition| (partition, Vec::new()))
                .collect(),
            late: Vec::new(),
            ledger: State::new(STOCK, 1, true),
            reader: partitions.map(|partition| (partition, 0)).collect(),
            told: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<String> {
        for _ in 0..STEPS {
            self.step();
            self.look();
            if !self.wrong.is_empty() {
                return self.wrong;
            }
        }
        self.come_to_rest();
        self.wrong
    }

    fn step(&mut self) {
        let user = user(self.rng.random_range(0..USERS));
        match self.rng.random_range(0..100) {
            0..30 => self.claim(user),
            30..36 => self.land(),
            36..44 => self.settle(user),
            44..52 => self.give_back(user),
            52..56 => self.expire(),
            56..84 => {
                let partition = self.some_partition();
                let records = self.rng.random_range(1..6);
                let lost = self.rng.random_bool(0.2);
                self.read(partition, records, lost);
            }
            84..92 => {
                // A reader that begins again from an old hint, or ahead of where the ledger is.
                let partition = self.some_partition();
                let end = self.logs[&partition].len();
                let from = self.rng.random_range(0..=end);
                self.reader.insert(partition, from);
            }
            92..96 => {
                self.open = false;
                self.entries.clear();
            }
            _ => self.recover(),
        }
    }

    fn some_partition(&mut self) -> i32 {
        self.rng.random_range(0..self.logs.len() as i32)
    }

    fn partition(user: UserId) -> i32 {
        partition_of(user, PARTITIONS).0
    }

    fn append(&mut self, partition: i32, event: SaleEvent) {
        self.logs.entry(partition).or_default().push(event);
    }

    fn claims(&self, claim: ClaimTaken) -> SaleEvent {
        SaleEvent::Claims {
            epoch: self.epoch,
            claims: vec![claim],
        }
    }

    /// A guest asks: R2, R3 and R4.
    fn claim(&mut self, user: UserId) {
        if !self.open {
            return;
        }
        let taken = match self.entries.get(&user) {
            Some((taken, Mark::Recorded)) => {
                self.told.insert(taken.claim);
                return;
            }
            Some((_, Mark::Voiding)) => return,
            Some((taken, Mark::Pending)) => *taken,
            None if self.entries.len() >= STOCK as usize => return,
            None => {
                self.sequence += 1;
                let claim = ClaimId(Uuid::from_u128(self.rng.random()));
                ClaimTaken {
                    user,
                    claim,
                    sequence: Sequence(self.sequence),
                    slot: Slot(0),
                    key: KeyHash::NONE,
                    at: UnixMillis(0),
                }
            }
        };
        self.entries.entry(user).or_insert((taken, Mark::Pending));
        let event = self.claims(taken);
        match self.rng.random_range(0..4) {
            0 | 1 => {
                self.append(Self::partition(user), event);
                self.told.insert(taken.claim);
            }
            2 => self.late.push((Self::partition(user), event)),
            // Never appended: the process died.
            _ => {}
        }
    }

    fn land(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.late.len());
        let (partition, event) = self.late.swap_remove(which);
        self.append(partition, event);
    }

    /// R6 and R7.
    fn settle(&mut self, user: UserId) {
        let Some((taken, mark)) = self
            .entries
            .get_mut(&user)
            .filter(|(_, mark)| *mark != Mark::Recorded)
        else {
            return;
        };
        *mark = Mark::Voiding;
        let void = Voided {
            user,
            slot: taken.slot,
            claim: taken.claim,
        };
        let event = SaleEvent::Voids {
            epoch: self.epoch,
            voids: vec![void],
        };
        if self.rng.random_bool(0.7) {
            self.append(Self::partition(user), event);
        } else {
            self.late.push((Self::partition(user), event));
        }
    }

    fn give_back(&mut self, user: UserId) {
        let held = self.ledger.active.get(&(user, Slot(0))).copied();
        let Some(claim) = held.filter(|claim| self.told.contains(claim)) else {
            return;
        };
        let event = SaleEvent::Returns(vec![Returned { user, claim }]);
        self.append(Self::partition(user), event);
    }

    fn expire(&mut self) {
        let active: Vec<ClaimId> = self.ledger.active.values().copied().collect();
        if active.is_empty() {
            return;
        }
        let claim = active[self.rng.random_range(0..active.len())];
        let effects = end(&mut self.ledger, claim, End::Expired);
        let lost = self.rng.random_bool(0.2);
        self.tell(effects, lost);
    }

    fn read(&mut self, partition: i32, records: usize, lost: bool) {
        for _ in 0..records {
            let offset = self.reader[&partition];
            let Some(event) = self.logs[&partition].get(offset).cloned() else {
                return;
            };
            self.reader.insert(partition, offset + 1);
            let at = LogPosition {
                partition,
                offset: offset as i64,
            };
            match apply(&mut self.ledger, at, Some(&event)) {
                Applied::Now(effects) => self.tell(effects, lost),
                Applied::Before => {}
                Applied::Gap { expected } => {
                    self.reader.insert(partition, expected as usize);
                }
            }
        }
    }

    /// Effects come to Redis after the commit, if they do.
    fn tell(&mut self, effects: Vec<Effect>, lost: bool) {
        for effect in effects {
            match effect {
                Effect::Drop { claim, reason, .. } if self.told.contains(&claim) => {
                    let what = format!("{claim} was told yes and dropped: {reason:?}");
                    self.wrong.push(what);
                }
                Effect::Mark(entry) if !lost => {
                    if let Some((taken, mark)) = self.entries.get_mut(&entry.user)
                        && taken.claim == entry.claim
                    {
                        *mark = Mark::Recorded;
                    }
                }
                Effect::Release(EntryRef { user, claim, .. }) if !lost => {
                    self.entries
                        .retain(|holder, (taken, _)| *holder != user || taken.claim != claim);
                }
                _ => {}
            }
        }
    }

    /// R8 is that nobody says yes between the closing and the rebuild; R5 and R9 are the fences.
    fn recover(&mut self) {
        self.epoch = self.epoch.next();
        if self.fences {
            let partitions: Vec<i32> = self.logs.keys().copied().collect();
            for partition in partitions {
                let fence = SaleEvent::Fence(self.epoch);
                self.append(partition, fence);
            }
            self.read_all();
        }
        self.entries = self
            .ledger
            .active
            .iter()
            .map(|((user, slot), claim)| {
                let taken = ClaimTaken {
                    user: *user,
                    claim: *claim,
                    sequence: Sequence(1),
                    slot: *slot,
                    key: KeyHash::NONE,
                    at: UnixMillis(0),
                };
                (*user, (taken, Mark::Recorded))
            })
            .collect();
        self.open = true;
    }

    fn read_all(&mut self) {
        let partitions: Vec<i32> = self.logs.keys().copied().collect();
        for partition in partitions {
            let next = self
                .ledger
                .positions
                .get(&partition)
                .map_or(0, |at| at.next_offset);
            self.reader.insert(partition, next as usize);
            self.read(partition, self.logs[&partition].len(), false);
        }
    }

    /// What must hold at every moment.
    fn look(&mut self) {
        if self.ledger.claimed > STOCK || self.ledger.claimed as usize != self.ledger.active.len() {
            let (claimed, active) = (self.ledger.claimed, self.ledger.active.len());
            self.wrong
                .push(format!("{claimed} claimed, {active} active, of {STOCK}"));
        }
    }

    /// Lets everything land and be read and settled, and compares.
    fn come_to_rest(&mut self) {
        if !self.open {
            self.recover();
        }
        while !self.late.is_empty() {
            self.land();
        }
        self.read_all();
        for number in 0..USERS {
            self.settle(user(number));
        }
        while !self.late.is_empty() {
            self.land();
        }
        self.read_all();
        // What was ended and not released is released by the steward.
        let ended: Vec<EntryRef> = self
            .ledger
            .known
            .values()
            .filter(|known| known.ended)
            .map(|known| known.entry)
            .collect();
        self.tell(ended.into_iter().map(Effect::Release).collect(), false);

        for claim in &self.told {
            if !self.ledger.known.contains_key(claim) {
                self.wrong
                    .push(format!("{claim} was told yes and isn't in the ledger"));
            }
        }
        let held: BTreeSet<(UserId, ClaimId)> = self
            .entries
            .iter()
            .map(|(user, (taken, _))| (*user, taken.claim))
            .collect();
        let active: BTreeSet<(UserId, ClaimId)> = self
            .ledger
            .active
            .iter()
            .map(|((user, _), claim)| (*user, *claim))
            .collect();
        if held != active {
            self.wrong.push(format!(
                "at rest Redis holds {held:?}, the ledger {active:?}"
            ));
        }
        self.replay();
    }

    /// The whole log once more, from the beginning: nothing may change.
    fn replay(&mut self) {
        let before = self.ledger.clone();
        for progress in self.ledger.positions.values_mut() {
            progress.next_offset = 0;
        }
        self.read_all();
        if self.ledger != before {
            self.wrong
                .push("reading the log again changed the ledger".to_owned());
        }
    }
}

#[test]
fn whatever_happens_a_yes_is_in_the_ledger_and_no_unit_is_sold_twice() {
    for seed in 0..SEEDS {
        let wrong = Simulation::new(seed, true).run();
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

#[test]
fn without_fences_the_simulation_finds_a_yes_that_is_lost() {
    let found = (0..SEEDS).find(|seed| !Simulation::new(*seed, false).run().is_empty());
    assert!(
        found.is_some(),
        "the simulation doesn't notice that the fences are missing"
    );
}

#[test]
fn a_gap_is_told_and_changes_nothing() {
    let mut state = State::new(STOCK, 1, true);
    let at = LogPosition {
        partition: 0,
        offset: 3,
    };
    let fence = SaleEvent::Fence(Epoch(2));
    assert_eq!(
        apply(&mut state, at, Some(&fence)),
        Applied::Gap { expected: 0 }
    );
    assert_eq!(state.positions[&0].epoch, Epoch(0));
}
