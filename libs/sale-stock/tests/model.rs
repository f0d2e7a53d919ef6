//! An exhaustive model of the claim protocol: guests who may repeat and give back, one unit, appends that arrive late,
//! never or unheard, a Redis that is flushed or fails over to a stale copy, recoverers that pause anywhere. With every
//! rule in force no run loses a yes, and none tells a yes for a claim that was given back before; without any one of
//! them some run does.
//!
//! Time is modelled by what it permits. A request is *live* while it is within the deadline and may still say yes.
//! Whoever waits the deadline out goes on only when no such request is left; an entry is stale only when none that
//! touched it is. A recovery's reading of the clock is *fresh* while it may still write its gate.
#![allow(clippy::unwrap_used, missing_docs)]

use stateright::{Checker as _, Model, Property};

const USERS: usize = 2;
const STOCK: usize = 1;
const REQUESTS_MAX: usize = 3;

/// The bit of the return among those who have touched an entry.
const RETURNING: u8 = 1 << REQUESTS_MAX;

const RECOVERIES_MAX: usize = 2;

/// A claim is named by the request that took it.
type Claim = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Pending,
    Recorded,
    Ending,
    Voiding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    claim: Claim,
    mark: Mark,
    /// The requests that have touched it in this copy, one bit each.
    touched: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gate {
    epoch: u8,
    run: u8,
    open: bool,
}

/// What a Redis holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Data {
    gate: Option<Gate>,
    entries: [Option<Entry>; USERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Idle,
    /// The script has answered; the record isn't sent.
    Holding(Held),
    /// The record is sent and nothing is heard of it yet.
    Sent(Held),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    claim: Claim,
    epoch: u8,
    /// This request took the unit.
    fresh: bool,
    live: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Record {
    Claim { user: u8, claim: Claim, epoch: u8 },
    Void { user: u8, claim: Claim },
    Return { user: u8, claim: Claim },
    Fence(u8),
}

/// A guest's return of the claim that he was told yes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Return {
    Idle,
    /// The entry is marked; the record isn't sent.
    Marked {
        user: u8,
        claim: Claim,
        live: bool,
    },
    /// The record is sent and nothing is heard of it yet.
    Sent {
        user: u8,
        claim: Claim,
        live: bool,
    },
    Done,
}

impl Return {
    /// Within the deadline, counted from the marking.
    fn is_live(self) -> bool {
        matches!(
            self,
            Self::Marked { live: true, .. } | Self::Sent { live: true, .. }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Recovery {
    Idle,
    Won {
        epoch: u8,
    },
    /// The validity of older recoveries' readings is waited out, and the gate closed.
    Closed {
        epoch: u8,
    },
    Waited {
        epoch: u8,
    },
    Fenced {
        epoch: u8,
    },
    Read {
        epoch: u8,
    },
    /// The epoch is still its own, and this is what the ledger held.
    Checked {
        epoch: u8,
        claims: [Option<Claim>; USERS],
        fresh: bool,
    },
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    redis: Data,
    /// The server that runs now.
    run: u8,
    replica: Option<Data>,
    requests: [Request; REQUESTS_MAX],
    /// Records that may still arrive, by the request that sent them.
    in_flight: [Option<Record>; REQUESTS_MAX],
    log: Vec<Record>,
    consumed: u8,
    ledger_epoch: u8,
    recorded: [Option<Claim>; USERS],
    /// Claims that were recorded and have ended, one bit each.
    ended: u8,
    voided: u8,
    /// Entries that were found stale and whose Void isn't appended yet.
    giving_up: [Option<Claim>; USERS],
    /// `sales.epoch`.
    epoch: u8,
    recoveries: [Recovery; RECOVERIES_MAX],
    flushes_left: u8,
    failovers_left: u8,
    /// Claims that a guest was told yes for, one bit each.
    yes: u8,
    returning: Return,
    /// The return's record, while it may still arrive.
    return_in_flight: Option<Record>,
    /// The claim whose return the guest was told of.
    returned: Option<Claim>,
    /// A request that came after that was let through for the same claim.
    revived: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Ask(u8),
    Crash(u8),
    FailToEnqueue(u8),
    Send(u8),
    Arrive(u8),
    Acknowledge(u8),
    Expire(u8),
    BeginReturn(u8),
    SendReturn,
    ArriveReturn,
    AcknowledgeReturn,
    ExpireReturn,
    CrashReturn,
    Consume,
    FindStale(u8),
    AppendVoid(u8),
    Copy,
    FailOver,
    Flush,
    Win(u8),
    Close(u8),
    Wait(u8),
    Fence(u8),
    ReadFence(u8),
    Check(u8),
    Pause(u8),
    Write(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A gate sells only in the run of the server that it was written in.
    R1,
    /// The same for the settling.
    R1Settling,
    /// No yes after the deadline.
    R2,
    /// A repeat of a pending claim appends it again.
    R3,
    /// Nothing is given back whose append's outcome is unknown.
    R4,
    /// Nothing is given back that somebody else has touched.
    R4Touched,
    /// The ledger drops claims of older epochs.
    R5,
    /// No repeat revives what is being given up.
    R6,
    /// What is given up is removed only after its Void.
    R7,
    /// A recovery waits until no request that saw the old gate can say yes.
    R8,
    /// A recovery rebuilds only after the ledger has read its fence.
    R9,
    /// A recovery's gate is written only while its reading of the clock is fresh.
    Validity,
    /// The next recovery waits that out.
    ValidityWaited,
    /// And only then closes the gate, which an older one may have written meanwhile.
    ClosedAfterValidity,
    /// A return marks the entry before its record is sent.
    EndingMarked,
    /// Only in an open gate.
    EndingInOpenGate,
    /// What is ending is not marked recorded by the records before the return.
    EndingKept,
    /// No return is told after the deadline.
    ReturnInTime,
    /// Nothing is given up before the ledger has read what those who touched it have in the log.
    ReadFirst,
}

#[derive(Clone, Debug)]
struct Protocol {
    without: Option<Rule>,
    /// Who sends each request.
    users: Vec<u8>,
    recoveries: u8,
    flushes: u8,
    failovers: u8,
    /// Whether a guest may give his claim back.
    returns: bool,
}

impl Protocol {
    fn holds(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn ask(&self, state: &mut State, index: usize) {
        let user = usize::from(self.users[index]);
        let bit = 1 << index;
        let gate = state.redis.gate.filter(|gate| gate.open);
        let gate = gate.filter(|gate| gate.run == state.run || !self.holds(Rule::R1));
        let mut after = Request::Done;
        if let Some(gate) = gate {
            let held = |claim, fresh| {
                Request::Holding(Held {
                    claim,
                    epoch: gate.epoch,
                    fresh,
                    live: true,
                })
            };
            let taken = state.redis.entries.iter().flatten().count();
            let entry = state.redis.entries[user];
            state.revived |= entry.is_some_and(|entry| {
                matches!(entry.mark, Mark::Recorded | Mark::Pending)
                    && state.returned == Some(entry.claim)
            });
            match &mut state.redis.entries[user] {
                Some(entry) => match entry.mark {
                    Mark::Recorded => state.yes |= 1 << entry.claim,
                    Mark::Pending if !self.holds(Rule::R3) => state.yes |= 1 << entry.claim,
                    Mark::Pending => {
                        entry.touched |= bit;
                        after = held(entry.claim, false);
                    }
                    Mark::Ending | Mark::Voiding => {}
                },
                empty if taken < STOCK => {
                    *empty = Some(Entry {
                        claim: index as Claim,
                        mark: Mark::Pending,
                        touched: bit,
                    });
                    after = held(index as Claim, true);
                }
                _ => {}
            }
        }
        state.requests[index] = after;
    }

    fn consume(&self, state: &mut State) {
        let record = state.log[usize::from(state.consumed)];
        state.consumed += 1;
        match record {
            Record::Fence(epoch) => state.ledger_epoch = state.ledger_epoch.max(epoch),
            Record::Claim { user, claim, epoch } => {
                let user = usize::from(user);
                let late = self.holds(Rule::R5) && epoch < state.ledger_epoch;
                let full = state.recorded.iter().flatten().count() >= STOCK;
                if !late
                    && (state.voided | state.ended) & (1 << claim) == 0
                    && state.recorded[user].is_none()
                    && !full
                {
                    state.recorded[user] = Some(claim);
                }
                if state.recorded[user] == Some(claim) {
                    self.settle(state, user, claim, true);
                } else if state.ended & (1 << claim) != 0 {
                    self.settle(state, user, claim, false);
                }
            }
            Record::Void { user, claim } => {
                let user = usize::from(user);
                let recorded = state.recorded[user] == Some(claim);
                if !recorded && state.ended & (1 << claim) == 0 {
                    state.voided |= 1 << claim;
                }
                self.settle(state, user, claim, recorded);
            }
            Record::Return { user, claim } => {
                let user = usize::from(user);
                if state.recorded[user] == Some(claim) {
                    state.recorded[user] = None;
                    state.ended |= 1 << claim;
                }
                if state.ended & (1 << claim) != 0 {
                    self.settle(state, user, claim, false);
                }
            }
        }
    }

    /// What the consumer does to an entry after its commit.
    fn settle(&self, state: &mut State, user: usize, claim: Claim, recorded: bool) {
        let entry = &mut state.redis.entries[user];
        let Some(held) = entry.as_mut().filter(|held| held.claim == claim) else {
            return;
        };
        if !recorded {
            *entry = None;
        } else if held.mark != Mark::Ending || !self.holds(Rule::EndingKept) {
            (held.mark, held.touched) = (Mark::Recorded, 0);
        }
    }

    fn begin_return(&self, state: &mut State, user: u8) -> Option<()> {
        // Whoever was told a claim's id was told yes for it.
        let known = |claim: &Claim| state.yes & (1 << claim) != 0;
        let held = state.redis.entries[usize::from(user)].map(|entry| entry.claim);
        let claim = held
            .or(state.recorded[usize::from(user)])
            .filter(|claim| known(claim))?;
        let gate = state.redis.gate?;
        if gate.run != state.run || (!gate.open && self.holds(Rule::EndingInOpenGate)) {
            return None;
        }
        if self.holds(Rule::EndingMarked)
            && let Some(entry) = &mut state.redis.entries[usize::from(user)]
        {
            (entry.mark, entry.touched) = (Mark::Ending, entry.touched | RETURNING);
        }
        state.returning = Return::Marked {
            user,
            claim,
            live: true,
        };
        Some(())
    }

    fn give_back(&self, state: &mut State, action: Action) -> Option<()> {
        state.returning = match (action, state.returning) {
            (Action::SendReturn, Return::Marked { user, claim, live }) => {
                state.return_in_flight = Some(Record::Return { user, claim });
                Return::Sent { user, claim, live }
            }
            (Action::ArriveReturn, sent @ (Return::Sent { .. } | Return::Done)) => {
                state.log.push(state.return_in_flight.take()?);
                sent
            }
            (Action::AcknowledgeReturn, Return::Sent { claim, .. }) => {
                state.returned = Some(claim);
                Return::Done
            }
            (Action::ExpireReturn, Return::Sent { user, claim, .. })
                if !self.holds(Rule::ReturnInTime) =>
            {
                Return::Sent {
                    user,
                    claim,
                    live: false,
                }
            }
            (Action::ExpireReturn | Action::CrashReturn, _) => Return::Done,
            _ => return None,
        };
        Some(())
    }

    fn is_stale(&self, state: &State, user: usize) -> bool {
        let Some(gate) = state.redis.gate else {
            return false;
        };
        let Some(entry) = state.redis.entries[user] else {
            return false;
        };
        let own = gate.run == state.run || !self.holds(Rule::R1Settling);
        let asked = (0..REQUESTS_MAX)
            .any(|index| entry.touched & (1 << index) != 0 && is_live(state, index))
            || (entry.touched & RETURNING != 0 && state.returning.is_live());
        let unread = self.holds(Rule::ReadFirst)
            && state.log[usize::from(state.consumed)..]
                .iter()
                .any(|record| match *record {
                    Record::Claim { claim, .. } | Record::Return { claim, .. } => {
                        claim == entry.claim
                    }
                    Record::Void { .. } | Record::Fence(_) => false,
                });
        own && entry.mark != Mark::Recorded && !asked && !unread && state.giving_up[user].is_none()
    }

    fn recovery_actions(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let this = index as u8;
        match state.recoveries[index] {
            Recovery::Idle if index < usize::from(self.recoveries) => {
                actions.push(Action::Win(this))
            }
            Recovery::Won { epoch } => {
                let early =
                    !self.holds(Rule::ValidityWaited) || !self.holds(Rule::ClosedAfterValidity);
                if early || !older_is_fresh(state, epoch) {
                    actions.push(Action::Close(this));
                }
            }
            Recovery::Closed { epoch } => {
                let live = (0..REQUESTS_MAX).any(|index| match state.requests[index] {
                    Request::Holding(held) | Request::Sent(held) => held.live && held.epoch < epoch,
                    Request::Idle | Request::Done => false,
                });
                let live = live || state.returning.is_live();
                let waited = !self.holds(Rule::ValidityWaited) || !older_is_fresh(state, epoch);
                if (!live || !self.holds(Rule::R8)) && waited {
                    actions.push(Action::Wait(this));
                }
            }
            Recovery::Waited { .. } => actions.push(Action::Fence(this)),
            Recovery::Fenced { epoch } => {
                if state.ledger_epoch >= epoch || !self.holds(Rule::R9) {
                    actions.push(Action::ReadFence(this));
                }
            }
            Recovery::Read { .. } => actions.push(Action::Check(this)),
            Recovery::Checked { fresh, .. } => {
                if fresh && self.recoveries > 1 {
                    actions.push(Action::Pause(this));
                }
                if fresh || !self.holds(Rule::Validity) {
                    actions.push(Action::Write(this));
                }
            }
            Recovery::Idle | Recovery::Over => {}
        }
    }

    fn recover(&self, state: &mut State, action: Action) {
        let (Action::Win(index)
        | Action::Close(index)
        | Action::Wait(index)
        | Action::Fence(index)
        | Action::ReadFence(index)
        | Action::Check(index)
        | Action::Pause(index)
        | Action::Write(index)) = action
        else {
            unreachable!("a step of a recovery")
        };
        let index = usize::from(index);
        state.recoveries[index] = match (action, state.recoveries[index]) {
            (Action::Win(_), _) => {
                state.epoch += 1;
                Recovery::Won { epoch: state.epoch }
            }
            (Action::Close(_), Recovery::Won { epoch }) => match &mut state.redis.gate {
                Some(gate) if gate.epoch > epoch => Recovery::Over,
                Some(gate) => {
                    (gate.epoch, gate.open) = (epoch, false);
                    Recovery::Closed { epoch }
                }
                None => Recovery::Closed { epoch },
            },
            (Action::Wait(_), Recovery::Closed { epoch }) => Recovery::Waited { epoch },
            (Action::Fence(_), Recovery::Waited { epoch }) => {
                state.log.push(Record::Fence(epoch));
                Recovery::Fenced { epoch }
            }
            (Action::ReadFence(_), Recovery::Fenced { epoch }) => Recovery::Read { epoch },
            (Action::Check(_), Recovery::Read { epoch }) if state.epoch == epoch => {
                Recovery::Checked {
                    epoch,
                    claims: state.recorded,
                    fresh: true,
                }
            }
            (Action::Pause(_), Recovery::Checked { epoch, claims, .. })
                if !self.holds(Rule::Validity) =>
            {
                Recovery::Checked {
                    epoch,
                    claims,
                    fresh: false,
                }
            }
            (Action::Write(_), Recovery::Checked { epoch, claims, .. }) => {
                if state.redis.gate.is_none_or(|gate| gate.epoch <= epoch) {
                    state.redis.entries = claims.map(|claim| {
                        claim.map(|claim| Entry {
                            claim,
                            mark: Mark::Recorded,
                            touched: 0,
                        })
                    });
                    state.redis.gate = Some(Gate {
                        epoch,
                        run: state.run,
                        open: true,
                    });
                }
                Recovery::Over
            }
            _ => Recovery::Over,
        };
    }
}

/// Whether a recovery that has lost its turn may still write its gate.
fn older_is_fresh(state: &State, epoch: u8) -> bool {
    let older = |other: &Recovery| matches!(other, Recovery::Checked { epoch: older, fresh: true, .. } if *older < epoch);
    state.recoveries.iter().any(older)
}

fn is_live(state: &State, index: usize) -> bool {
    match state.requests[index] {
        Request::Holding(held) | Request::Sent(held) => held.live,
        Request::Idle | Request::Done => false,
    }
}

/// Whether a claim's record is recorded, or in the log where the ledger will read it.
fn is_durable(state: &State, claim: Claim) -> bool {
    let unread = &state.log[usize::from(state.consumed)..];
    state.ended & (1 << claim) != 0
        || state.recorded.contains(&Some(claim))
        || unread
            .iter()
            .any(|record| matches!(record, Record::Claim { claim: logged, .. } if *logged == claim))
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut requests = [Request::Done; REQUESTS_MAX];
        requests[..self.users.len()].fill(Request::Idle);
        vec![State {
            redis: Data {
                gate: Some(Gate {
                    epoch: 1,
                    run: 0,
                    open: true,
                }),
                entries: [None; USERS],
            },
            run: 0,
            replica: None,
            requests,
            in_flight: [None; REQUESTS_MAX],
            log: Vec::new(),
            consumed: 0,
            ledger_epoch: 1,
            recorded: [None; USERS],
            ended: 0,
            voided: 0,
            giving_up: [None; USERS],
            epoch: 1,
            recoveries: [Recovery::Idle; RECOVERIES_MAX],
            flushes_left: self.flushes,
            failovers_left: self.failovers,
            yes: 0,
            returning: Return::Idle,
            return_in_flight: None,
            returned: None,
            revived: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in 0..self.users.len() {
            let this = index as u8;
            match state.requests[index] {
                Request::Idle => actions.push(Action::Ask(this)),
                Request::Holding(held) => {
                    actions.push(Action::Send(this));
                    actions.push(Action::Crash(this));
                    if held.fresh {
                        actions.push(Action::FailToEnqueue(this));
                    }
                }
                Request::Sent(held) => {
                    let in_time = held.live || !self.holds(Rule::R2);
                    if state.in_flight[index].is_none() && in_time {
                        actions.push(Action::Acknowledge(this));
                    }
                    if held.live {
                        actions.push(Action::Expire(this));
                    }
                }
                Request::Done => {}
            }
            if state.in_flight[index].is_some() {
                actions.push(Action::Arrive(this));
            }
        }
        match state.returning {
            Return::Idle if self.returns => {
                actions.extend((0..USERS as u8).map(Action::BeginReturn));
            }
            Return::Marked { .. } => actions.extend([Action::SendReturn, Action::CrashReturn]),
            Return::Sent { live, .. } => {
                let in_time = live || !self.holds(Rule::ReturnInTime);
                if state.return_in_flight.is_none() && in_time {
                    actions.push(Action::AcknowledgeReturn);
                }
                if live {
                    actions.push(Action::ExpireReturn);
                }
            }
            Return::Idle | Return::Done => {}
        }
        if state.return_in_flight.is_some() {
            actions.push(Action::ArriveReturn);
        }
        if usize::from(state.consumed) < state.log.len() {
            actions.push(Action::Consume);
        }
        for user in 0..USERS {
            if self.is_stale(state, user) {
                actions.push(Action::FindStale(user as u8));
            }
            if state.giving_up[user].is_some() {
                actions.push(Action::AppendVoid(user as u8));
            }
        }
        if state.failovers_left > 0 {
            actions.push(if state.replica.is_some() {
                Action::FailOver
            } else {
                Action::Copy
            });
        }
        if state.flushes_left > 0 {
            actions.push(Action::Flush);
        }
        for index in 0..RECOVERIES_MAX {
            // Two that recover are alike: the second starts after the first.
            if index == 0 || state.recoveries[index - 1] != Recovery::Idle {
                self.recovery_actions(state, index, actions);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(index) => self.ask(&mut state, usize::from(index)),
            Action::Crash(index) => state.requests[usize::from(index)] = Request::Done,
            Action::FailToEnqueue(index) => {
                let index = usize::from(index);
                let entry = &mut state.redis.entries[usize::from(self.users[index])];
                let own = |held: &mut Entry| {
                    let untouched = held.touched == 1 << index || !self.holds(Rule::R4Touched);
                    held.claim == index as Claim && held.mark == Mark::Pending && untouched
                };
                if entry.as_mut().is_some_and(own) {
                    *entry = None;
                }
                state.requests[index] = Request::Done;
            }
            Action::Send(index) => {
                let index = usize::from(index);
                let Request::Holding(held) = state.requests[index] else {
                    return None;
                };
                let Held { claim, epoch, .. } = held;
                state.in_flight[index] = Some(Record::Claim {
                    user: self.users[index],
                    claim,
                    epoch,
                });
                state.requests[index] = Request::Sent(held);
            }
            Action::Arrive(index) => state.log.push(state.in_flight[usize::from(index)].take()?),
            Action::Acknowledge(index) => {
                let Request::Sent(held) = state.requests[usize::from(index)] else {
                    return None;
                };
                state.yes |= 1 << held.claim;
                state.requests[usize::from(index)] = Request::Done;
            }
            Action::Expire(index) => {
                let index = usize::from(index);
                let Request::Sent(held) = state.requests[index] else {
                    return None;
                };
                state.requests[index] = if self.holds(Rule::R2) {
                    Request::Done
                } else {
                    Request::Sent(Held {
                        live: false,
                        ..held
                    })
                };
                if !self.holds(Rule::R4) {
                    let user = usize::from(self.users[index]);
                    self.settle(&mut state, user, held.claim, false);
                }
            }
            Action::BeginReturn(user) => self.begin_return(&mut state, user)?,
            Action::SendReturn
            | Action::ArriveReturn
            | Action::AcknowledgeReturn
            | Action::ExpireReturn
            | Action::CrashReturn => self.give_back(&mut state, action)?,
            Action::Consume => self.consume(&mut state),
            Action::FindStale(user) => {
                let user = usize::from(user);
                let entry = state.redis.entries[user].as_mut()?;
                if !self.holds(Rule::R7) {
                    state.redis.entries[user] = None;
                    return Some(state);
                }
                state.giving_up[user] = Some(entry.claim);
                if self.holds(Rule::R6) {
                    entry.mark = Mark::Voiding;
                }
            }
            Action::AppendVoid(user) => {
                let claim = state.giving_up[usize::from(user)].take()?;
                let again = Record::Void { user, claim };
                if state.log.contains(&again) {
                    // Giving up twice changes nothing more.
                    return None;
                }
                state.log.push(again);
            }
            Action::Copy => state.replica = Some(state.redis),
            Action::FailOver => {
                state.redis = state.replica.take()?;
                state.run += 1;
                state.failovers_left -= 1;
            }
            Action::Flush => {
                state.redis = Data {
                    gate: None,
                    entries: [None; USERS],
                };
                state.flushes_left -= 1;
            }
            recovery => self.recover(&mut state, recovery),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "every yes is recorded or will be",
                |rules: &Self, state: &State| {
                    (0..REQUESTS_MAX as Claim)
                        .all(|claim| state.yes & (1 << claim) == 0 || is_durable(state, claim))
                        && loses_nothing(rules, state)
                },
            ),
            Property::always("what was given back is given back", |_, state: &State| {
                !state.revived
            }),
            // The model can do something at all.
            Property::sometimes("a guest is told yes", |_, state: &State| state.yes != 0),
        ]
    }
}

/// Whether the ledger, reading on from here with nothing else happening, records every yes.
fn loses_nothing(rules: &Protocol, state: &State) -> bool {
    if state.yes == 0 || usize::from(state.consumed) == state.log.len() {
        return true;
    }
    let mut ahead = state.clone();
    while usize::from(ahead.consumed) < ahead.log.len() {
        rules.consume(&mut ahead);
    }
    (0..REQUESTS_MAX as Claim)
        .all(|claim| ahead.yes & (1 << claim) == 0 || is_durable(&ahead, claim))
}

fn protocol(users: &[u8], recoveries: u8, flushes: u8, failovers: u8) -> Protocol {
    Protocol {
        without: None,
        users: users.to_vec(),
        recoveries,
        flushes,
        failovers,
        returns: false,
    }
}

/// One guest may give his claim back.
fn with_return(protocol: Protocol) -> Protocol {
    Protocol {
        returns: true,
        ..protocol
    }
}

fn states_when_it_holds(protocol: Protocol) -> usize {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

fn assert_needed(rule: Rule, property: &'static str, protocol: Protocol) {
    let protocol = Protocol {
        without: Some(rule),
        ..protocol
    };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_any_discovery(property);
}

#[test]
fn no_yes_is_lost_with_repeats_and_a_recovery_after_a_flush() {
    let states = states_when_it_holds(protocol(&[0, 0, 1], 1, 1, 0));
    println!("{states} states");
}

#[test]
fn no_yes_is_lost_with_a_failover_to_a_stale_copy() {
    let states = states_when_it_holds(protocol(&[0, 1], 1, 0, 1));
    println!("{states} states");
}

#[test]
fn no_yes_is_lost_with_two_recoveries_that_pause() {
    let states = states_when_it_holds(protocol(&[0, 1], 2, 1, 0));
    println!("{states} states");
}

#[test]
fn every_rule_is_needed() {
    for (rule, protocol) in [
        (Rule::R1, protocol(&[0, 1], 0, 0, 1)),
        (Rule::R1Settling, protocol(&[0, 0], 0, 0, 1)),
        (Rule::R2, protocol(&[0, 1], 1, 1, 0)),
        (Rule::R3, protocol(&[0, 0], 0, 0, 0)),
        (Rule::R4, protocol(&[0, 1], 0, 0, 0)),
        (Rule::R4Touched, protocol(&[0, 0, 1], 0, 0, 0)),
        (Rule::R5, protocol(&[0, 1], 1, 1, 0)),
        (Rule::R6, protocol(&[0, 0], 0, 0, 0)),
        (Rule::R7, protocol(&[0, 1], 0, 0, 0)),
        (Rule::R8, protocol(&[0, 1], 1, 1, 0)),
        (Rule::R9, protocol(&[0, 1], 1, 1, 0)),
        (Rule::Validity, protocol(&[0, 1], 2, 1, 0)),
        (Rule::ValidityWaited, protocol(&[0, 1], 2, 1, 0)),
        (Rule::ClosedAfterValidity, protocol(&[0, 1], 2, 1, 0)),
    ] {
        println!("without {rule:?}");
        assert_needed(rule, "every yes is recorded or will be", protocol);
    }
}

#[test]
fn nothing_comes_of_a_claim_that_was_given_back() {
    for (users, recoveries, flushes) in [(vec![0, 0, 1], 0, 0), (vec![0, 0], 1, 1)] {
        let protocol = with_return(protocol(&users, recoveries, flushes, 0));
        println!("{} states", states_when_it_holds(protocol));
    }
}

#[test]
fn every_rule_of_giving_back_is_needed() {
    for (rule, protocol) in [
        (Rule::EndingMarked, protocol(&[0, 0], 0, 0, 0)),
        (Rule::EndingInOpenGate, protocol(&[0, 0], 1, 0, 0)),
        (Rule::EndingKept, protocol(&[0, 0], 0, 0, 0)),
        (Rule::ReturnInTime, protocol(&[0, 0], 1, 0, 0)),
        (Rule::ReadFirst, protocol(&[0, 0], 0, 0, 0)),
    ] {
        println!("without {rule:?}");
        let protocol = with_return(protocol);
        assert_needed(rule, "what was given back is given back", protocol);
    }
}
