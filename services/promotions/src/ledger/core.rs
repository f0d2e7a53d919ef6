//! What a record of the log does to the ledger: a pure function of the state before it. No I/O and no clock, so that
//! the same records always come to the same ledger, however often and in whatever batches they are delivered.
//!
//! [`State`] holds what the rules look at. The consumer loads only the part that a batch names; the simulation in the
//! tests holds a whole ledger in it.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::{ClaimTaken, SaleEvent};
use sale_stock::{ClaimId, EntryRef, Epoch, PER_USER_LIMIT_MAX, Slot, UserId};

use crate::planted::planted;

/// Where in a sale's log a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Partition of the sale's topic.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// How far a partition has been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The next offset to be applied.
    pub next_offset: i64,
    /// The highest fence met: claims of lower epochs are dropped from here on (R5).
    pub epoch: Epoch,
}

/// How a claim came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Given back by its user.
    Returned,
    /// Not used in time.
    Expired,
}

/// What the ledger knows of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Which entry of Redis is its.
    pub entry: EntryRef,
    /// Whether a Return still ends it: neither used nor ended before.
    pub returnable: bool,
    /// Ended: its unit is not the user's any more.
    pub ended: bool,
}

/// The books of one sale, as far as the records at hand need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What the ledger admits at most.
    pub stock: u32,
    /// Active claims.
    pub claimed: u32,
    /// The highest per-user limit there ever was.
    pub slots: u8,
    /// Whether a user may give a claim back: time sales only.
    pub returnable: bool,
    /// By partition; absent means that nothing of it was applied.
    pub positions: BTreeMap<i32, Progress>,
    /// Claims in the ledger.
    pub known: HashMap<ClaimId, Known>,
    /// Which claim is active for a user's slot.
    pub active: HashMap<(UserId, Slot), ClaimId>,
    /// Claims that may never be recorded.
    pub voided: HashSet<ClaimId>,
}

impl State {
    /// A sale of which nothing has been applied.
    pub fn new(stock: u32, slots: u8, returnable: bool) -> Self {
        Self {
            stock,
            claimed: 0,
            slots: slots.min(PER_USER_LIMIT_MAX),
            returnable,
            positions: BTreeMap::new(),
            known: HashMap::new(),
            active: HashMap::new(),
            voided: HashSet::new(),
        }
    }

    /// Makes a claim known that was recorded before.
    pub fn remember(&mut self, known: Known) {
        if !known.ended {
            self.active
                .insert((known.entry.user, known.entry.slot), known.entry.claim);
        }
        self.known.insert(known.entry.claim, known);
    }
}

/// Why a claim of the log is not in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dropped {
    /// It belongs to an epoch that a fence has ended (R5): nobody was told yes for it.
    Epoch,
    /// The settling has voided it (R7): nobody was told yes for it.
    Void,
    /// The user's slot is held by another claim, or is none.
    Limit,
    /// The stock is reached. Never happens to an acknowledged claim: it is alerted on.
    Stock,
}

impl Dropped {
    /// Every reason, for metrics that are to exist from the start.
    pub const ALL: [Self; 4] = [Self::Epoch, Self::Void, Self::Limit, Self::Stock];

    /// As in metrics labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Void => "void",
            Self::Limit => "limit",
            Self::Stock => "stock",
        }
    }
}

/// What one record changes, in the ledger and, after the commit, in Redis.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A new active claim.
    Record {
        /// As the log has it.
        claim: ClaimTaken,
        /// Where the log has it.
        at: LogPosition,
    },
    /// An active claim ends.
    End {
        /// Which.
        entry: EntryRef,
        /// How.
        end: End,
    },
    /// A claim that isn't in the ledger never will be.
    Void {
        /// Which.
        claim: ClaimId,
        /// The epoch it was taken in.
        epoch: Epoch,
    },
    /// A claim is left out.
    Drop {
        /// Which.
        claim: ClaimId,
        /// Whose.
        user: UserId,
        /// Why.
        reason: Dropped,
        /// Where the log has it.
        at: LogPosition,
    },
    /// Redis is to mark the entry recorded.
    Mark(EntryRef),
    /// Redis is to give the unit back: the claim has ended, or never was.
    Release(EntryRef),
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// It is applied now.
    Now(Vec<Effect>),
    /// It was applied before: nothing to do.
    Before,
    /// Records before it are missing; nothing was done. The reader has to go back to this offset.
    Gap {
        /// The next offset to be applied.
        expected: i64,
    },
}

/// Applies what stands at a position of the sale's log. `None` is a record that can't be read or is another sale's:
/// it is passed over, but counts as read.
pub fn apply(state: &mut State, at: LogPosition, event: Option<&SaleEvent>) -> Applied {
    let progress = state.positions.entry(at.partition).or_default();
    if at.offset < progress.next_offset {
        return Applied::Before;
    }
    if at.offset > progress.next_offset {
        return Applied::Gap {
            expected: progress.next_offset,
        };
    }
    progress.next_offset += 1;
    if let Some(SaleEvent::Fence(epoch)) = event {
        progress.epoch = progress.epoch.max(*epoch);
    }
    let fence = progress.epoch;
    let mut effects = Vec::new();
    match event {
        None | Some(SaleEvent::Fence(_)) => {}
        Some(SaleEvent::Claims { epoch, claims }) => {
            for claim in claims {
                apply_claim(state, fence, *epoch, claim, at, &mut effects);
            }
        }
        Some(SaleEvent::Voids { epoch, voids }) => {
            for void in voids {
                // Recorded first: the claim stands.
                if let Some(known) = state.known.get(&void.claim) {
                    effects.push(known.settled());
                    continue;
                }
                state.voided.insert(void.claim);
                effects.push(Effect::Void {
                    claim: void.claim,
                    epoch: *epoch,
                });
                effects.push(Effect::Release(EntryRef {
                    user: void.user,
                    slot: void.slot,
                    claim: void.claim,
                }));
            }
        }
        Some(SaleEvent::Returns(returns)) => {
            for returned in returns {
                apply_return(state, returned.user, returned.claim, &mut effects);
            }
        }
    }
    debug_assert!(state.claimed <= state.stock, "more claims than stock");
    Applied::Now(effects)
}

impl Known {
    /// What Redis is to be told of a claim that the ledger has.
    fn settled(&self) -> Effect {
        if self.ended {
            Effect::Release(self.entry)
        } else {
            Effect::Mark(self.entry)
        }
    }
}

fn apply_claim(
    state: &mut State,
    fence: Epoch,
    epoch: Epoch,
    claim: &ClaimTaken,
    at: LogPosition,
    effects: &mut Vec<Effect>,
) {
    if let Some(known) = state.known.get(&claim.claim) {
        // Appended again by a repeat (R3).
        effects.push(known.settled());
        return;
    }
    let reason = if epoch < fence && !planted("r5") {
        Some(Dropped::Epoch)
    } else if state.voided.contains(&claim.claim) {
        Some(Dropped::Void)
    } else if claim.slot.0 >= state.slots || state.active.contains_key(&(claim.user, claim.slot)) {
        Some(Dropped::Limit)
    } else if state.claimed >= state.stock {
        Some(Dropped::Stock)
    } else {
        None
    };
    let entry = EntryRef {
        user: claim.user,
        slot: claim.slot,
        claim: claim.claim,
    };
    if let Some(reason) = reason {
        effects.push(Effect::Drop {
            claim: claim.claim,
            user: claim.user,
            reason,
            at,
        });
        if reason == Dropped::Void {
            effects.push(Effect::Release(entry));
        }
        return;
    }
    state.claimed += 1;
    state.remember(Known {
        entry,
        returnable: state.returnable,
        ended: false,
    });
    effects.push(Effect::Record { claim: *claim, at });
    effects.push(Effect::Mark(entry));
}

/// Ends a claim that its user gives back. One that was used, or has ended already, stays as it is: the first to end a
/// claim is the only one.
fn apply_return(state: &mut State, user: UserId, claim: ClaimId, effects: &mut Vec<Effect>) {
    let Some(known) = state
        .known
        .get(&claim)
        .filter(|known| known.entry.user == user)
    else {
        return;
    };
    if known.ended {
        effects.push(Effect::Release(known.entry));
    } else if known.returnable {
        effects.extend(end(state, claim, End::Returned));
    }
}

/// Ends an active claim that was not used: the only place where a unit comes back.
pub fn end(state: &mut State, claim: ClaimId, end: End) -> Vec<Effect> {
    let Some(known) = state
        .known
        .get_mut(&claim)
        .filter(|known| known.returnable && !known.ended)
    else {
        return Vec::new();
    };
    known.returnable = false;
    known.ended = true;
    let entry = known.entry;
    state.active.remove(&(entry.user, entry.slot));
    state.claimed -= 1;
    vec![Effect::End { entry, end }, Effect::Release(entry)]
}
