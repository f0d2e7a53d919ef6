//! `Idempotency-Key`: the same key, method and address get the same answer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;

/// How long a key is kept.
const KEPT: Duration = Duration::from_secs(15 * 86_400);
/// How long a key may be.
const KEY_CHARS_MAX: usize = 300;

/// An answer as it was first given.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

/// What is known of a key.
pub(crate) enum Known {
    /// Nothing: it is now under way.
    New,
    /// Under way.
    Processing,
    /// Answered.
    Answered(Answer),
}

struct Entry {
    answer: Option<Answer>,
    since: Instant,
}

/// A key with where it was used; there is one method (POST) and one API key.
type Scope = (String, String);

/// The keys, the oldest forgotten when there are too many.
pub(crate) struct Replay {
    entries: HashMap<Scope, Entry>,
    oldest_first: VecDeque<Scope>,
    max: usize,
}

impl Replay {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            oldest_first: VecDeque::new(),
            max,
        }
    }

    pub(crate) fn is_key(key: &str) -> bool {
        !key.is_empty() && key.chars().count() <= KEY_CHARS_MAX
    }

    pub(crate) fn begin(&mut self, key: &str, path: &str) -> Known {
        let scope = (key.to_owned(), path.to_owned());
        match self.entries.get(&scope) {
            Some(entry) if entry.since.elapsed() < KEPT => {
                return entry
                    .answer
                    .clone()
                    .map_or(Known::Processing, Known::Answered);
            }
            _ => {}
        }
        while self.oldest_first.len() >= self.max {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.entries.remove(&oldest);
            }
        }
        let entry = Entry {
            answer: None,
            since: Instant::now(),
        };
        if self.entries.insert(scope.clone(), entry).is_none() {
            self.oldest_first.push_back(scope);
        }
        Known::New
    }

    /// A 5xx isn't kept: the same key then asks anew.
    pub(crate) fn end(&mut self, key: &str, path: &str, answer: &Answer) {
        let scope = (key.to_owned(), path.to_owned());
        if answer.status.is_server_error() {
            self.entries.remove(&scope);
            self.oldest_first.retain(|kept| *kept != scope);
        } else if let Some(entry) = self.entries.get_mut(&scope) {
            entry.answer = Some(answer.clone());
        }
    }
}
