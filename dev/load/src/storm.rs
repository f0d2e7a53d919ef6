//! Many guests claiming at once, over a fixed number of connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode, Uri};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::guests::Guest;
use crate::history::{ClaimCall, Outcome, outcome_of};
use crate::http::{Call, Connection};

/// Longer than the platform's own answer can take, its append deadline included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What to send, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Storm {
    /// Where the API is.
    pub(crate) address: SocketAddr,
    /// The path that every call posts to.
    pub(crate) path: Uri,
    /// Connections kept busy at once.
    pub(crate) connections: usize,
    /// Calls a second over all connections; `None` sends as fast as the answers come.
    pub(crate) calls_per_second: Option<f64>,
    /// One in so many of those who are told yes gives the claim back at once.
    pub(crate) give_back_every: Option<usize>,
}

/// The calls of a storm that is under way can be counted through this.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    claimed: Arc<AtomicUsize>,
}

impl Progress {
    /// Calls answered with a yes so far.
    pub(crate) fn claimed(&self) -> usize {
        self.claimed.load(Ordering::Relaxed)
    }
}

/// Sends one call for each entry of `schedule` (indexes into `guests`) and returns all calls with their outcomes.
pub(crate) async fn run(
    storm: &Storm,
    guests: &Arc<Vec<Guest>>,
    schedule: Vec<usize>,
    progress: &Progress,
) -> Vec<ClaimCall> {
    let schedule = Arc::new(schedule);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let connections = (0..storm.connections).map(|_| {
        let (storm, guests, schedule) = (storm.clone(), Arc::clone(guests), Arc::clone(&schedule));
        let (next, progress) = (Arc::clone(&next), progress.clone());
        tokio::spawn(async move {
            let mut connection = Connection::new(storm.address);
            let mut calls = Vec::with_capacity(schedule.len() / storm.connections + 1);
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                let Some(&guest) = schedule.get(turn) else {
                    break;
                };
                if let Some(rate) = storm.calls_per_second {
                    tokio::time::sleep_until(began + Duration::from_secs_f64(turn as f64 / rate))
                        .await;
                }
                let guest = &guests[guest];
                let call = claim(&mut connection, &storm.path, guest, &progress).await;
                let gives_back = storm.give_back_every.is_some_and(|every| turn % every == 0);
                let returned = match call.outcome {
                    Outcome::Claimed(claim) if gives_back => {
                        give_back(&mut connection, &storm.path, guest, claim).await
                    }
                    _ => None,
                };
                calls.push(call);
                calls.extend(returned);
            }
            calls
        })
    });
    let mut calls = Vec::with_capacity(schedule.len());
    for connection in futures::future::join_all(connections).await {
        match connection {
            Ok(more) => calls.extend(more),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    calls
}

async fn claim(
    connection: &mut Connection,
    path: &Uri,
    guest: &Guest,
    progress: &Progress,
) -> ClaimCall {
    let call = Call::post(path.clone(), Some(guest.authorization.clone()));
    let sent = Timestamp::now();
    let outcome = outcome_of(connection.send(&call, ANSWER_TIMEOUT).await);
    if matches!(outcome, Outcome::Claimed(_)) {
        progress.claimed.fetch_add(1, Ordering::Relaxed);
    }
    ClaimCall {
        user: guest.user,
        sent,
        answered: Timestamp::now(),
        outcome,
    }
}

/// Gives a claim back; `None` when the platform hasn't confirmed it.
async fn give_back(
    connection: &mut Connection,
    path: &Uri,
    guest: &Guest,
    claim: Uuid,
) -> Option<ClaimCall> {
    let call = Call {
        method: Method::DELETE,
        ..Call::post(
            format!("{path}/{claim}").parse().ok()?,
            Some(guest.authorization.clone()),
        )
    };
    let sent = Timestamp::now();
    let answer = connection.send(&call, ANSWER_TIMEOUT).await.ok()?;
    (answer.status == StatusCode::NO_CONTENT).then(|| ClaimCall {
        user: guest.user,
        sent,
        answered: Timestamp::now(),
        outcome: Outcome::GivenBack(claim),
    })
}
