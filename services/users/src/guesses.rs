//! Slows down the guessing of passwords: per account and source, per source, and per account.
//!
//! Each wrong password adds to debts that shrink with time (leaky buckets, each kept as the one instant at which the debt
//! is paid). While one is full, sign-in is refused before any password is looked at, the right one included. So the tight
//! limit is for one account from one source: somebody elsewhere who guesses at an account doesn't keep its owner out. What
//! many sources may guess at one account together is limited too, but so far off that it takes dozens of them, all the time.
//! It is kept in memory, in each replica for itself: N replicas allow N times as much, and a restart forgets. That
//! needs no write to PostgreSQL for a wrong guess, and what it takes is bounded: three caches of `KEYS_MAX` entries of some
//! 50 bytes. An address that has no account is slowed down like one that has.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::unsync::Cache;
use sha2::{Digest as _, Sha256};

use crate::account::Email;

/// Entries in each cache. To push one out, an attacker has to hash about as many other wrong guesses.
const KEYS_MAX: usize = 100_000;

/// Ten wrong passwords in a row from one source, then one more each 30 seconds: some 2,900 guesses a day.
const PAIR: Rate = Rate {
    burst: 10,
    each: Duration::from_secs(30),
};

/// A thousand from all sources together, then one more a second. To fill this and keep an account's owner out, somebody
/// needs thirty sources for as long as that is to last.
const ACCOUNT: Rate = Rate {
    burst: 1_000,
    each: Duration::from_secs(1),
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
    pairs: Mutex<Cache<Key, Instant>>,
    accounts: Mutex<Cache<Key, Instant>>,
    sources: Mutex<Cache<Key, Instant>>,
}

/// Whose guesses to count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guesser {
    /// The account as seen from the source. All who have none, inside the platform, are one.
    pair: Key,
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
        let account = key(b"@", email.as_str().as_bytes());
        Self {
            pair: key(&account, source.as_ref().map_or(&[], Key::as_slice)),
            account,
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
            pairs: Mutex::new(Cache::new(KEYS_MAX)),
            accounts: Mutex::new(Cache::new(KEYS_MAX)),
            sources: Mutex::new(Cache::new(KEYS_MAX)),
        }
    }

    /// How long this guesser has to wait; `None` if a password may be tried.
    pub(crate) fn wait(&self, guesser: &Guesser, now: Instant) -> Option<Duration> {
        self.debts(guesser)
            .filter_map(|(cache, key, rate)| rate.wait(locked(cache).get(&key).copied(), now))
            .max()
    }

    /// A wrong password.
    pub(crate) fn wrong(&self, guesser: &Guesser, now: Instant) {
        for (cache, key, rate) in self.debts(guesser) {
            let mut cache = locked(cache);
            let paid_at = rate.charge(cache.get(&key).copied(), now);
            cache.insert(key, paid_at);
        }
    }

    /// The right password: what was wrong at this account from this source is forgiven. The account's debt is not, which
    /// others may have made, nor the source's, or an attacker with an account of their own could wash it off.
    pub(crate) fn right(&self, guesser: &Guesser) {
        locked(&self.pairs).remove(&guesser.pair);
    }

    /// Each debt that a wrong password of this guesser adds to.
    fn debts(
        &self,
        guesser: &Guesser,
    ) -> impl Iterator<Item = (&Mutex<Cache<Key, Instant>>, Key, Rate)> {
        [
            Some((&self.pairs, guesser.pair, PAIR)),
            Some((&self.accounts, guesser.account, ACCOUNT)),
            guesser.source.map(|key| (&self.sources, key, SOURCE)),
        ]
        .into_iter()
        .flatten()
    }
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
    fn guesses_from_elsewhere_do_not_keep_a_guest_out_of_the_account() {
        let (guesses, now) = (Guesses::new(), Instant::now());
        for n in 0..50 {
            let attacker = guesser("kim@example.com", &format!("192.0.2.{n}"));
            while guesses.wait(&attacker, now).is_none() {
                guesses.wrong(&attacker, now);
            }
        }
        let kim = guesser("kim@example.com", "198.51.100.7");
        assert_eq!(guesses.wait(&kim, now), None);
    }

    #[test]
    fn guesses_from_everywhere_at_one_account_are_bounded_too() {
        let (guesses, now) = (Guesses::new(), Instant::now());
        let tries = (0..10_000)
            .map(|n| guesser("kim@example.com", &format!("10.0.{}.{}", n / 250, n % 250)))
            .take_while(|attacker| {
                let may = guesses.wait(attacker, now).is_none();
                guesses.wrong(attacker, now);
                may
            })
            .count();
        assert_eq!(tries, 1_000);
        assert_eq!(
            guesses.wait(&guesser("lee@example.com", "10.0.0.1"), now),
            None
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
        let kim = guesser("kim@example.com", "192.0.2.2");
        (0..10).for_each(|_| guesses.wrong(&kim, now));
        assert!(guesses.wait(&kim, now).is_some());
        guesses.right(&kim);
        assert_eq!(guesses.wait(&kim, now), None);
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
