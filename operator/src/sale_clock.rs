//! The clock that windows open and close by: Redis's. Phases follow it, so that the status says what guests meet even
//! where the operator's own clock is off.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use sale_stock::UnixMillis;

/// Redis's clock, as far as it is known. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SaleClock {
    /// How far it is ahead of this machine's.
    ahead_ms: Arc<AtomicI64>,
}

impl SaleClock {
    /// Redis showed `redis` just now.
    pub fn set(&self, redis: UnixMillis) {
        self.ahead_ms.store(
            redis.0 - Timestamp::now().as_millisecond(),
            Ordering::Relaxed,
        );
    }

    /// The time by Redis; by this machine while Redis was never heard of.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let here = Timestamp::now();
        let ahead = SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        here.checked_add(ahead).unwrap_or(here)
    }
}
