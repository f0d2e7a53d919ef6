//! A topic's records of one order, as the order's partition has them: in their order, and at least once.

use super::Random;

/// How often, of a hundred, each thing goes wrong.
const SENT_TWICE: u64 = 4;
const LOST: u64 = 2;
const DIES_BEFORE_COMMIT: u64 = 6;
const DIES_AFTER_COMMIT: u64 = 6;
const REPLAYED: u64 = 5;

/// What was sent, and how far its reader is.
#[derive(Debug)]
pub(super) struct Channel<M> {
    log: Vec<(usize, M)>,
    sent: usize,
    cursor: usize,
    /// The reader's inbox: which messages had their effect.
    inbox: Vec<bool>,
}

impl<M> Default for Channel<M> {
    fn default() -> Self {
        Self {
            log: Vec::new(),
            sent: 0,
            cursor: 0,
            inbox: Vec::new(),
        }
    }
}

/// What a reader got.
pub(super) enum Delivery<M> {
    /// Nothing is there, or the reader died before it did anything.
    Nothing,
    /// A message that had its effect.
    Known(M),
    /// A message to handle. `commits` is false when the reader dies before it commits.
    New { message: M, commits: bool },
}

impl<M: Clone> Channel<M> {
    pub(super) fn clear(&mut self) {
        self.log.clear();
        self.inbox.clear();
        (self.sent, self.cursor) = (0, 0);
    }

    /// Appends a message: now and then twice, since an acknowledgement was lost; now and then never, if somebody would
    /// ask for it again.
    pub(super) fn send(&mut self, message: M, asked_again: bool, faults: Option<&mut Random>) {
        let id = self.sent;
        self.sent += 1;
        self.inbox.push(false);
        if let Some(random) = faults {
            if asked_again && random.percent(LOST) {
                return;
            }
            if random.percent(SENT_TWICE) {
                self.log.push((id, message.clone()));
            }
        }
        self.log.push((id, message));
    }

    pub(super) fn is_drained(&self) -> bool {
        self.cursor == self.log.len()
    }

    /// Reads one message. Without faults it is read once and for all.
    pub(super) fn deliver(&mut self, faults: Option<&mut Random>) -> Delivery<M> {
        let mut commits = true;
        let mut moves_on = true;
        if let Some(random) = faults {
            if self.cursor > 0 && random.percent(REPLAYED) {
                self.cursor -= 1 + random.below(self.cursor.min(4) as u64) as usize;
            }
            commits = !random.percent(DIES_BEFORE_COMMIT);
            moves_on = commits && !random.percent(DIES_AFTER_COMMIT);
        }
        let Some((id, message)) = self.log.get(self.cursor).cloned() else {
            return Delivery::Nothing;
        };
        if moves_on {
            self.cursor += 1;
        }
        if self.inbox[id] {
            return Delivery::Known(message);
        }
        self.inbox[id] = commits;
        Delivery::New { message, commits }
    }
}
