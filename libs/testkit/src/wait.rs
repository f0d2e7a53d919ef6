//! Waiting for a condition, never for a time.

use std::{fmt::Debug, panic::Location, time::Duration};

use tokio::time::{Instant, sleep};

/// How soon a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `check` holds, and answers what it found. Panics, naming the caller and what was last seen, when it
/// doesn't within `timeout`: give plenty, since the wait ends as soon as the condition holds.
///
/// `check` may answer a `bool`, an `Option` or a `Result`.
#[track_caller]
pub fn eventually<O, F, Check>(
    timeout: Duration,
    mut check: Check,
) -> impl Future<Output = O::Found>
where
    O: Outcome,
    F: Future<Output = O>,
    Check: FnMut() -> F,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + timeout;
        loop {
            match check().await.outcome() {
                Ok(found) => return found,
                Err(seen) if Instant::now() >= deadline => {
                    panic!("{caller}: not within {timeout:?}: {seen}")
                }
                Err(_) => sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// What a condition may answer.
pub trait Outcome {
    /// What is found when it holds.
    type Found;

    /// What was found, or what was seen instead.
    fn outcome(self) -> Result<Self::Found, String>;
}

impl Outcome for bool {
    type Found = ();

    fn outcome(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("the condition does not hold".to_owned())
        }
    }
}

impl<T> Outcome for Option<T> {
    type Found = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing is there".to_owned())
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    type Found = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}
