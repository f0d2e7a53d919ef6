//! Whether a failover of Redis is safe: where it has replicas, a primary that lost them must stop taking claims, and
//! soon, or it would go on selling what the next primary sells again.
//!
//! One look serves all sales: it is about the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use sale_stock::GATE_WRITE_VALIDITY;
use tokio::sync::Mutex;

/// How old the shared look may be.
const LOOK_MAX_AGE: Duration = Duration::from_secs(10);

/// How long Redis may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How Redis guards against two primaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It never had replicas while the operator ran, so there is nobody to fail over to.
    Alone,
    /// A primary that lost its replicas stops in time.
    Guarded,
    /// It goes on for too long; what should be set is said.
    Unguarded(String),
    /// It doesn't say, or doesn't let itself be asked.
    Unknown(String),
}

/// The shared look at Redis's replication. Clones share it.
#[derive(Clone)]
pub struct Replicas {
    connection: ConnectionManager,
    look: Arc<Mutex<Option<(Guard, Instant)>>>,
    seen: Arc<Seen>,
}

/// Whether replicas were ever seen. A primary that has just lost them is in the very state that it has to be guarded
/// against: it must not be taken for one that never had any.
#[derive(Debug, Default)]
struct Seen(AtomicBool);

impl Seen {
    /// Whether the settings matter, given what Redis says of its replication now.
    fn has_replicas(&self, info: &str) -> bool {
        let now = field(info, "connected_slaves").is_some_and(|replicas| replicas > 0);
        self.0.fetch_or(now, Ordering::Relaxed) || now
    }
}

impl Replicas {
    /// The server at `url`, not contacted yet.
    ///
    /// # Errors
    ///
    /// The address can't be used.
    pub fn connect_lazy(url: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self {
            connection,
            look: Arc::default(),
            seen: Arc::default(),
        })
    }

    /// How Redis is guarded, as seen a few seconds ago at most. A silence changes nothing of what was seen before.
    pub async fn guard(&self) -> Guard {
        let mut look = self.look.lock().await;
        if let Some((guard, taken)) = &*look
            && taken.elapsed() < LOOK_MAX_AGE
        {
            return guard.clone();
        }
        let guard = match (self.ask().await, look.as_ref()) {
            (Ok(guard), _) => guard,
            (Err(_), Some((seen, _))) => seen.clone(),
            (Err(error), None) => Guard::Unknown(error.to_string()),
        };
        look.insert((guard, Instant::now())).0.clone()
    }

    async fn ask(&self) -> Result<Guard, RedisError> {
        let mut connection = self.connection.clone();
        let info: String = redis::cmd("INFO")
            .arg("replication")
            .query_async(&mut connection)
            .await?;
        if !self.seen.has_replicas(&info) {
            return Ok(Guard::Alone);
        }
        let mut setting = async |name: &str| -> Result<u64, RedisError> {
            let found: Vec<String> = redis::cmd("CONFIG")
                .arg("GET")
                .arg(name)
                .query_async(&mut connection)
                .await?;
            Ok(found
                .get(1)
                .and_then(|value| value.parse().ok())
                .unwrap_or_default())
        };
        match (
            setting("min-replicas-to-write").await,
            setting("min-replicas-max-lag").await,
        ) {
            (Ok(replicas), Ok(lag)) => Ok(judge(replicas, lag)),
            // Services that run Redis for others often keep CONFIG to themselves.
            (Err(error), _) | (_, Err(error)) => Ok(Guard::Unknown(error.to_string())),
        }
    }
}

/// A recovery counts the deadline of guests' answers from this long after it closed the gate.
fn judge(min_replicas: u64, max_lag_seconds: u64) -> Guard {
    let bound = GATE_WRITE_VALIDITY.as_secs();
    if min_replicas >= 1 && (1..=bound).contains(&max_lag_seconds) {
        return Guard::Guarded;
    }
    Guard::Unguarded(format!(
        "Redis has or had replicas, and a primary without them goes on selling: set min-replicas-to-write to 1 or more \
         (it is {min_replicas}) and min-replicas-max-lag to {bound} (it is {max_lag_seconds})"
    ))
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(':')?
            .trim()
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_that_stops_in_time_is_guarded() {
        assert_eq!(judge(1, 1), Guard::Guarded);
        for (replicas, lag) in [(0, 1), (1, 0), (1, 10), (2, 2)] {
            assert!(
                matches!(judge(replicas, lag), Guard::Unguarded(_)),
                "{replicas} {lag}"
            );
        }
    }

    #[test]
    fn a_primary_that_lost_its_replicas_is_not_taken_for_one_that_never_had_any() {
        let (with, without) = ("connected_slaves:1\r\n", "connected_slaves:0\r\n");
        let seen = Seen::default();
        let found = [without, with, without, without].map(|info| seen.has_replicas(info));
        assert_eq!(found, [false, true, true, true]);
    }

    #[test]
    fn replicas_are_counted() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=10.0.0.1\r\n";
        assert_eq!(field(info, "connected_slaves"), Some(2));
        assert_eq!(field(info, "absent"), None);
    }
}
