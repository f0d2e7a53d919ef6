//! Sends prepared calls as fast as answers come, or at a given rate, and measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use super::latencies::Latencies;
use crate::http::{Call, Connection};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What a run of calls came to.
pub(crate) struct Measured {
    pub(crate) took: Duration,
    /// From when a call was due (at a given rate) or sent to its answer; of all but the first calls, where those are
    /// left out.
    pub(crate) latencies: Latencies,
    /// Answers by HTTP status; 0 for none.
    pub(crate) answers: BTreeMap<u16, usize>,
}

impl Measured {
    /// Calls answered in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.answers.values().sum::<usize>() as f64 / self.took.as_secs_f64()
    }

    /// Fails unless every call was answered with `status`: a rate of refusals is not a rate of claims.
    pub(crate) fn all(self, status: u16) -> anyhow::Result<Self> {
        let wrong: Vec<_> = self
            .answers
            .iter()
            .filter(|(seen, _)| **seen != status)
            .collect();
        ensure!(
            wrong.is_empty(),
            "calls that should have been answered {status} were answered {wrong:?}"
        );
        Ok(self)
    }
}

/// How fast calls are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as answers come.
    Flat,
    /// At a rate, without waiting for answers.
    Steady {
        /// Calls a second.
        per_second: f64,
        /// The first calls, which open the connections all at once; their latencies are left out.
        unmeasured: usize,
    },
}

/// Sends every one of `calls` once over `connections` connections.
pub(crate) async fn drive(
    address: SocketAddr,
    calls: Arc<Vec<Call>>,
    connections: usize,
    pace: Pace,
) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let workers = (0..connections).map(|_| {
        tokio::spawn(work(
            address,
            Arc::clone(&calls),
            Arc::clone(&next),
            began,
            pace,
        ))
    });
    let workers = futures::future::join_all(workers).await;
    let took = began.elapsed();
    let mut latencies = Latencies::new()?;
    let mut answers = BTreeMap::new();
    for worker in workers {
        let (theirs, statuses) = worker??;
        latencies.add(&theirs)?;
        for (status, count) in statuses {
            *answers.entry(status).or_default() += count;
        }
    }
    Ok(Measured {
        took,
        latencies,
        answers,
    })
}

type Tally = (Latencies, BTreeMap<u16, usize>);

async fn work(
    address: SocketAddr,
    calls: Arc<Vec<Call>>,
    next: Arc<AtomicUsize>,
    began: Instant,
    pace: Pace,
) -> anyhow::Result<Tally> {
    let mut connection = Connection::new(address);
    let mut latencies = Latencies::new()?;
    let mut answers = BTreeMap::new();
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let Some(call) = calls.get(turn) else {
            return Ok((latencies, answers));
        };
        // A call that is sent late because its connection was busy still counts from when it was due.
        let (due, measured) = match pace {
            Pace::Steady {
                per_second,
                unmeasured,
            } => {
                let due = began + Duration::from_secs_f64(turn as f64 / per_second);
                tokio::time::sleep_until(due).await;
                (due, turn >= unmeasured)
            }
            Pace::Flat => (Instant::now(), true),
        };
        let status = connection
            .send(call, ANSWER_TIMEOUT)
            .await
            .map(|answer| answer.status.as_u16())
            .unwrap_or(0);
        if measured {
            latencies.record(due.elapsed())?;
        }
        *answers.entry(status).or_default() += 1;
    }
}
