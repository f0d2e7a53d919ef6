//! Sends webhooks, and sends them again when they aren't answered 200 within ten seconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Shared;
use crate::model::{Payment, time_text};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// When it is sent again, in units of the settings' `webhook_unit` (a minute at the real gateway).
const RETRY_AFTER: [u32; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// Deliveries at the same time.
const SENDING_MAX: usize = 16;
/// Webhooks that wait; further ones are dropped and counted.
const WAITING_MAX: usize = 10_000;
/// How much longer than the next one a webhook is held back, in units.
const HELD_BACK: u32 = 1;

/// Counts of what became of webhooks.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

struct Job {
    due: Instant,
    order: u64,
    transmission: String,
    body: Value,
    retried: usize,
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// Where webhooks are handed over.
pub(crate) struct Queue {
    sender: mpsc::Sender<Job>,
    order: AtomicU64,
}

/// The other end of the queue.
pub(crate) struct Jobs(mpsc::Receiver<Job>);

pub(crate) fn queue() -> (Queue, Jobs) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let order = AtomicU64::new(0);
    (Queue { sender, order }, Jobs(receiver))
}

impl Queue {
    fn put(&self, shared: &Shared, body: Value) {
        let hit = shared.dice().webhook();
        if hit.lost {
            return;
        }
        let delay = if hit.held_back {
            shared.settings.webhook_unit * HELD_BACK
        } else {
            Duration::ZERO
        };
        for _ in 0..=usize::from(hit.repeated) {
            let job = Job {
                due: Instant::now() + delay,
                order: self.order.fetch_add(1, Ordering::Relaxed),
                transmission: Uuid::new_v4().to_string(),
                body: body.clone(),
                retried: 0,
            };
            if self.sender.try_send(job).is_err() {
                shared
                    .webhook_counts
                    .dropped
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// `PAYMENT_STATUS_CHANGED`.
pub(crate) fn status_changed(shared: &Shared, payment: &Payment) {
    let body = json!({
        "eventType": "PAYMENT_STATUS_CHANGED",
        "createdAt": time_text(Timestamp::now()),
        "data": payment,
    });
    shared.webhooks.put(shared, body);
}

/// The deposit's own form.
pub(crate) fn deposited(shared: &Shared, payment: &Payment) {
    let body = json!({
        "createdAt": time_text(Timestamp::now()),
        "secret": payment.secret,
        "status": payment.status,
        "transactionKey": payment.last_transaction_key,
        "orderId": payment.order_id,
    });
    shared.webhooks.put(shared, body);
}

/// Delivers until the simulator ends.
pub(crate) async fn run(shared: Arc<Shared>, Jobs(mut jobs): Jobs) {
    let mut waiting = BinaryHeap::<Reverse<Job>>::new();
    let mut sending = JoinSet::<Option<Job>>::new();
    loop {
        let due = waiting.peek().map(|Reverse(job)| job.due);
        let room = sending.len() < SENDING_MAX;
        tokio::select! {
            job = jobs.recv(), if waiting.len() < WAITING_MAX => match job {
                Some(job) => waiting.push(Reverse(job)),
                None => return,
            },
            Some(ended) = sending.join_next() => {
                // A delivery that panicked is lost, as a webhook may be.
                if let Ok(Some(again)) = ended {
                    waiting.push(Reverse(again));
                }
            }
            () = until(due), if room && due.is_some() => {
                if let Some(Reverse(job)) = waiting.pop() {
                    sending.spawn(deliver(Arc::clone(&shared), job));
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The job again if it is to be sent again.
async fn deliver(shared: Arc<Shared>, mut job: Job) -> Option<Job> {
    // Nobody listens: as lost as it can be.
    let url = shared.webhook_url()?;
    let sent = shared
        .http
        .post(url)
        .timeout(ANSWER_WITHIN)
        .header("tosspayments-webhook-transmission-id", &job.transmission)
        .header(
            "tosspayments-webhook-transmission-time",
            time_text(Timestamp::now()),
        )
        .header(
            "tosspayments-webhook-transmission-retried-count",
            job.retried,
        )
        .json(&job.body)
        .send()
        .await;
    if sent.is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK) {
        shared
            .webhook_counts
            .delivered
            .fetch_add(1, Ordering::Relaxed);
        return None;
    }
    let Some(units) = RETRY_AFTER.get(job.retried) else {
        shared
            .webhook_counts
            .dropped
            .fetch_add(1, Ordering::Relaxed);
        return None;
    };
    job.retried += 1;
    job.due = Instant::now() + shared.settings.webhook_unit * *units;
    Some(job)
}
