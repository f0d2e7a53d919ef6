//! Slows down the guessing of passwords, per account and per source.
//!
//! Each wrong password adds to a debt that shrinks with time (a leaky bucket, kept as the one instant at which the debt
//! is paid). While the debt is full, sign-in is refused before any password is looked at, the right one included.
//! It is kept in memory, in each replica for itself: N replicas allow N times as much, and a restart forgets. That
//! needs no write to PostgreSQL for a wrong guess, and what it takes is bounded: two caches of `KEYS_MAX` entries of some
//! 50 bytes. An address that has no account is slowed down like one that has.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::unsync::Cache;
use sha2::{Digest as _, Sha256};

use crate::account::Email;

/// Entries in each cache. To push one out, an attacker has to hash about as many other wrong guesses.
const KEYS_MAX: usize = 100_000;

/// Ten wrong passwords in a row, then one more each 30 seconds: some 2,900 guesses a day.
const ACCOUNT: Rate = Rate {
    burst: 10,
    each: Duration::from_secs(30),
};

/// Many guests share an address behind a carrier's translation, so a source gets more: 200 wrong ones, then two a second.
const SOURCE: Rate = Rate {
    burst: 200,
    each: Duration::from_millis(500),
};

/// How much may go wrong at once, and how fast that is forgiven.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    each: Duration,
}

impl Rate {
    /// How long to wait before another try, given when the debt so far is paid.
    fn wait(self, paid_at: Option<Instant>, now: Instant) -> Option<Duration> {
        let debt = paid_at?.saturating_duration_since(now);
        let allowed = self.each * (self.burst - 1);
        debt.checked_sub(allowed).filter(|wait| !wait.is_zero())
    }

    /// When the debt is paid after one more wrong password.
    fn charge(self, paid_at: Option<Instant>, now: Instant) -> Instant {
        let full = now + self.each * self.burst;
        (paid_at.map_or(now, |at| at.max(now)) + self.each).min(full)
    }
}

/// 128 bits of a hash: short, and no address or person is kept.
type Key = [u8; 16];

/// The wrong passwords of late.
pub(crate) struct Guesses {
    accounts: Mutex<Cache<Key, Instant>>,
    sources: Mutex<Cache<Key, Instant>>,
}

/// Whose guesses to count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guesser {
    account: Key,
    source: Option<Key>,
}

impl Guesser {
    /// A source is an IPv4 address or an IPv6 network of 64 bits, which is what one guest has.
    pub(crate) fn new(email: &Email, source: Option<IpAddr>) -> Self {
        let source = source.map(|address| match address.to_canonical() {
            IpAddr::V4(v4) => key(b"4", &v4.octets()),
            IpAddr::V6(v6) => key(b"6", &v6.octets()[..8]),
        });
        Self {
            account: key(b"@", email.as_str().as_bytes()),
            source,
        }
    }
}

fn key(kind: &[u8], value: &[u8]) -> Key {
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update(value)
        .finalize();
    let mut key = Key::default();
    key.copy_from_slice(&digest[..16]);
    key
}

impl Guesses {
    pub(crate) fn new() -> Self {
        Self {
            accounts: Mutex::new(Cache::new(KEYS_MAX)),
            sources: Mutex::new(Cache::new(KEYS_MAX)),
        }
    }

    /// How long this guesser has to wait; `None` if a password may be tried.
    pub(crate) fn wait(&self, guesser: &Guesser, now: Instant) -> Option<Duration> {
        let account = ACCOUNT.wait(locked(&self.accounts).get(&guesser.account).copied(), now);
        let source = guesser
            .source
            .and_then(|key| SOURCE.wait(locked(&self.sources).get(&key).copied(), now));
        account.max(source)
    }

    /// A wrong password.
    pub(crate) fn wrong(&self, guesser: &Guesser, now: Instant) {
        charge(&mut locked(&self.accounts), guesser.account, ACCOUNT, now);
        if let Some(source) = guesser.source {
            charge(&mut locked(&self.sources), source, SOURCE, now);
        }
    }

    /// The right password: the account's debt is forgiven, the source's is not, or an attacker with an account of
    /// their own could wash it off.
    pub(crate) fn right(&self, guesser: &Guesser) {
        locked(&self.accounts).remove(&guesser.account);
    }
}

fn charge(cache: &mut Cache<Key, Instant>, key: Key, rate: Rate, now: Instant) {
    let paid_at = rate.charge(cache.get(&key).copied(), now);
    cache.insert(key, paid_at);
}

/// Nothing panics while it holds the lock, and a debt is right by itself: a poisoned lock is as good as another.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guesser(email: &str, source: &str) -> Guesser {
        Guesser::new(
            &Email::try_from(email.to_owned()).unwrap(),
            Some(source.parse().unwrap()),
        )
    }

    #[test]
    fn the_eleventh_wrong_password_has_to_wait_and_the_wait_ends() {
        let (guesses, kim, now) = (
            Guesses::new(),
            guesser("kim@example.com", "192.0.2.1"),
            Instant::now(),
        );
        for _ in 0..10 {
            assert_eq!(guesses.wait(&kim, now), None);
            guesses.wrong(&kim, now);
        }
        assert_eq!(guesses.wait(&kim, now), Some(Duration::from_secs(30)));
        assert_eq!(
            guesses.wait(&kim, now + Duration::from_secs(29)),
            Some(Duration::from_secs(1))
        );
        assert_eq!(guesses.wait(&kim, now + Duration::from_secs(30)), None);
        assert_eq!(
            guesses.wait(&guesser("lee@example.com", "192.0.2.1"), now),
            None,
            "another account is not slowed down"
        );
    }

    #[test]
    fn the_right_password_forgives_the_account_but_not_the_source() {
        let (guesses, now) = (Guesses::new(), Instant::now());
        for n in 0..200 {
            guesses.wrong(&guesser(&format!("guest{n}@example.com"), "192.0.2.1"), now);
        }
        let kim = guesser("kim@example.com", "192.0.2.1");
        guesses.right(&kim);
        assert!(guesses.wait(&kim, now).is_some());
        assert_eq!(
            guesses.wait(&guesser("kim@example.com", "192.0.2.2"), now),
            None
        );
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_a_mapped_ipv4_address_is_ipv4() {
        assert_eq!(
            guesser("a@b.kr", "2001:db8::1").source,
            guesser("a@b.kr", "2001:db8::ffff").source
        );
        assert_ne!(
            guesser("a@b.kr", "2001:db8::1").source,
            guesser("a@b.kr", "2001:db8:0:1::1").source
        );
        assert_eq!(
            guesser("a@b.kr", "::ffff:192.0.2.1").source,
            guesser("a@b.kr", "192.0.2.1").source
        );
    }

    proptest! {
        /// Whatever the times, never more than the burst and what was forgiven meanwhile.
        #[test]
        fn tries_are_bounded_by_burst_and_rate(steps in prop::collection::vec(0_u64..60, 1..200)) {
            let rate = Rate { burst: 10, each: Duration::from_secs(30) };
            let start = Instant::now();
            let (mut now, mut paid_at, mut tries) = (start, None, 0_u64);
            for step in steps {
                now += Duration::from_secs(step);
                if rate.wait(paid_at, now).is_none() {
                    paid_at = Some(rate.charge(paid_at, now));
                    tries += 1;
                }
                prop_assert!(tries <= 10 + (now - start).as_secs() / 30);
            }
        }
    }
}
