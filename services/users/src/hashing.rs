//! Password hashing, which is slow and large on purpose, kept from starving the server.
//!
//! At most `workers` passwords are hashed at a time, each on a blocking thread with its own memory; at most `queue` more
//! requests wait for their turn; whoever comes then is told so at once and never waits.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::Password;

/// What hashing costs, and how much of it may go on at once.
#[derive(Debug, Clone)]
pub(crate) struct HashingConfig {
    /// Memory and passes of argon2id; one lane.
    pub(crate) params: Params,
    /// Passwords hashed at the same time.
    pub(crate) workers: usize,
    /// Requests that may wait for a worker.
    pub(crate) queue: usize,
}

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashingError {
    #[error("too many passwords are waiting to be hashed")]
    Overloaded,
    #[error("hash a password: {0}")]
    Failed(String),
}

/// Hashes and checks passwords, a bounded number at a time.
#[derive(Clone)]
pub(crate) struct Hashing {
    argon2: Argon2<'static>,
    /// Everybody who waits or works.
    admitted: Arc<Semaphore>,
    /// Everybody who works.
    workers: Arc<Semaphore>,
    /// Checked in the place of an account that does not exist, so that its absence can't be told from the time it takes.
    nobody: Arc<str>,
}

/// A turn on a worker. Given back when it is dropped, or when the hashing that it was given to has ended, even if the
/// request that asked for it is gone.
pub(crate) struct Turn {
    argon2: Argon2<'static>,
    _admitted: OwnedSemaphorePermit,
    _worker: OwnedSemaphorePermit,
}

/// What checking a password showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Wrong, or no such account.
    Wrong,
    /// Right, and hashed as new passwords are.
    Right,
    /// Right, but hashed with other parameters than new passwords are.
    RightButDated,
}

impl Hashing {
    /// Hashes one password to begin with: a parameter that argon2 can't work with is an error now and not later.
    pub(crate) fn new(config: &HashingConfig) -> Result<Self, HashingError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, config.params.clone());
        let nobody = hash(&argon2, b"nobody has this password")?;
        Ok(Self {
            argon2,
            admitted: Arc::new(Semaphore::new(config.workers + config.queue)),
            workers: Arc::new(Semaphore::new(config.workers)),
            nobody: nobody.into(),
        })
    }

    /// Waits for a worker, unless too many wait already.
    pub(crate) async fn turn(&self) -> Result<Turn, HashingError> {
        let admitted = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| HashingError::Overloaded)?;
        let worker = Arc::clone(&self.workers)
            .acquire_owned()
            .await
            .map_err(|_| HashingError::Overloaded)?;
        Ok(Turn {
            argon2: self.argon2.clone(),
            _admitted: admitted,
            _worker: worker,
        })
    }

    /// The hash to check a password against when there is no account.
    pub(crate) fn nobody(&self) -> &str {
        &self.nobody
    }
}

impl Turn {
    /// Hashes a new password.
    pub(crate) async fn hash(self, password: &Password) -> Result<(Self, String), HashingError> {
        let password = password.clone();
        self.on_worker(move |argon2| hash(argon2, password.expose()))
            .await
    }

    /// Checks a password against a stored hash, with the work that the hash's own parameters ask for; if it is wrong, with
    /// as much as a new hash costs.
    pub(crate) async fn check(
        self,
        password: &Password,
        stored: &str,
    ) -> Result<(Self, Check), HashingError> {
        let (password, stored) = (password.clone(), stored.to_owned());
        self.on_worker(move |argon2| check(argon2, password.expose(), &stored))
            .await
    }

    async fn on_worker<T: Send + 'static>(
        self,
        work: impl FnOnce(&Argon2<'static>) -> Result<T, HashingError> + Send + 'static,
    ) -> Result<(Self, T), HashingError> {
        tokio::task::spawn_blocking(move || {
            let done = work(&self.argon2)?;
            Ok((self, done))
        })
        .await
        .map_err(|error| HashingError::Failed(error.to_string()))?
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, HashingError> {
    let hash: PasswordHash = argon2
        .hash_password(password)
        .map_err(|error| HashingError::Failed(error.to_string()))?;
    Ok(hash.to_string())
}

fn check(argon2: &Argon2<'_>, password: &[u8], stored: &str) -> Result<Check, HashingError> {
    let stored =
        PasswordHash::new(stored).map_err(|error| HashingError::Failed(error.to_string()))?;
    let verified = argon2.verify_password(password, &stored);
    let costs = Params::try_from(&stored).ok();
    let costs = costs.as_ref();
    match verified {
        Ok(()) if costs.is_some_and(|costs| same_cost(costs, argon2.params())) => Ok(Check::Right),
        Ok(()) => Ok(Check::RightButDated),
        Err(argon2::password_hash::Error::PasswordInvalid) => {
            if let Some(params) = costs.and_then(|costs| shortfall(costs, argon2.params())) {
                let rest = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                hash(&rest, password)?;
            }
            Ok(Check::Wrong)
        }
        Err(error) => Err(HashingError::Failed(error.to_string())),
    }
}

/// The work that a hash of `dated` costs lacks to what `today` asks for; argon2's work is its memory times its passes.
///
/// An address without an account is checked with today's costs. Without this, one with an account whose owner hasn't come
/// since they were raised would be known by its quicker answer. (Where they were lowered, it is known by a slower one.)
fn shortfall(dated: &Params, today: &Params) -> Option<Params> {
    let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
    let lacking = work(today).checked_sub(work(dated))?;
    let memory_kib = u32::try_from(lacking / u64::from(today.t_cost())).ok()?;
    Params::new(memory_kib, today.t_cost(), 1, None).ok()
}

fn same_cost(one: &Params, other: &Params) -> bool {
    (one.m_cost(), one.t_cost(), one.p_cost()) == (other.m_cost(), other.t_cost(), other.p_cost())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(memory_kib: u32, workers: usize, queue: usize) -> HashingConfig {
        HashingConfig {
            params: Params::new(memory_kib, 1, 1, None).unwrap(),
            workers,
            queue,
        }
    }

    fn password(text: &str) -> Password {
        Password::try_from(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_hash_is_argon2id_with_the_configured_cost_and_checks_its_own_password_only() {
        let hashing = Hashing::new(&config(64, 1, 0)).unwrap();
        let (turn, stored) = hashing
            .turn()
            .await
            .unwrap()
            .hash(&password("correct horse"))
            .await
            .unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"),
            "{stored}"
        );
        let (turn, right) = turn
            .check(&password("correct horse"), &stored)
            .await
            .unwrap();
        let (turn, wrong) = turn
            .check(&password("correct hors"), &stored)
            .await
            .unwrap();
        let nobody = hashing.nobody().to_owned();
        let (_turn, absent) = turn
            .check(&password("correct horse"), &nobody)
            .await
            .unwrap();
        assert_eq!(
            (right, wrong, absent),
            (Check::Right, Check::Wrong, Check::Wrong)
        );
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let hashing = Hashing::new(&config(64, 1, 0)).unwrap();
        let (turn, one) = hashing
            .turn()
            .await
            .unwrap()
            .hash(&password("correct horse"))
            .await
            .unwrap();
        let (_turn, two) = turn.hash(&password("correct horse")).await.unwrap();
        assert_ne!(one, two);
    }

    #[tokio::test]
    async fn a_hash_of_other_parameters_is_right_but_dated() {
        let before = Hashing::new(&config(64, 1, 0)).unwrap();
        let (_turn, stored) = before
            .turn()
            .await
            .unwrap()
            .hash(&password("correct horse"))
            .await
            .unwrap();
        let after = Hashing::new(&config(128, 1, 0)).unwrap();
        let (_turn, check) = after
            .turn()
            .await
            .unwrap()
            .check(&password("correct horse"), &stored)
            .await
            .unwrap();
        assert_eq!(check, Check::RightButDated);
    }

    #[test]
    fn a_wrong_password_costs_as_much_whatever_its_hash_was_made_with() {
        let params = |memory_kib, passes| Params::new(memory_kib, passes, 1, None).unwrap();
        let work = |params: &Params| params.m_cost() * params.t_cost();
        let today = params(19_456, 3);
        for dated in [
            params(19_456, 2),
            params(9_216, 3),
            params(4_096, 1),
            params(46_080, 1),
        ] {
            let rest = shortfall(&dated, &today).unwrap();
            let lacking = work(&today) - work(&dated) - work(&rest);
            assert!(lacking < today.t_cost(), "{dated:?}: {rest:?}");
            assert!(rest.m_cost() <= today.m_cost());
        }
        for enough in [&today, &params(65_536, 2)] {
            assert!(shortfall(enough, &today).is_none(), "{enough:?}");
        }
    }

    #[tokio::test]
    async fn beyond_workers_and_queue_the_answer_is_overloaded_at_once() {
        let hashing = Hashing::new(&config(64, 1, 1)).unwrap();
        let working = hashing.turn().await.unwrap();
        let mut waiting = Box::pin(hashing.turn());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(matches!(
            hashing.turn().await,
            Err(HashingError::Overloaded)
        ));
        drop(working);
        let working = waiting.await.unwrap();
        drop(working);
        assert!(
            hashing.turn().await.is_ok(),
            "a turn that ended is free again"
        );
    }

    #[tokio::test]
    async fn a_request_that_goes_away_does_not_free_a_worker_that_still_hashes() {
        let hashing = Hashing::new(&config(64, 1, 0)).unwrap();
        let turn = hashing.turn().await.unwrap();
        let (started, begun) = tokio::sync::oneshot::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let mut work = Box::pin(turn.on_worker(move |_| {
            started.send(()).unwrap();
            finished.recv().unwrap();
            Ok(())
        }));
        assert!(futures::poll!(&mut work).is_pending());
        begun.await.unwrap();
        drop(work);
        assert!(matches!(
            hashing.turn().await,
            Err(HashingError::Overloaded)
        ));
        finish.send(()).unwrap();
        // The blocking thread gives its permits back on its own; acquiring them is the condition waited for.
        let _both = hashing.admitted.acquire().await.unwrap();
    }
}
