//! What other services are asked by HTTP while a guest waits: `stays` for a quote, `promotions` for a claim.
//!
//! Each call has a time limit for all its tries together, and retries have a budget that all calls share, so that a
//! peer in trouble isn't asked twice as much as one that is well.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chassis::telemetry;
use http::StatusCode;
use rand::RngExt as _;
use reqwest::{Client, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use crate::pricing::{ClaimedDiscount, Quote};
use crate::stay::Wish;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Tries of one call.
const TRIES_MAX: u32 = 3;

/// The pause before a call is tried again, at least and at most.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 20..=120;

/// What a call adds to the budget, and what a retry takes: one retry for ten calls, and a few in quiet times.
const DEPOSIT: i64 = 1;
const RETRY_COST: i64 = 10;
const BUDGET_MAX: i64 = 100;

/// A larger answer is none of ours.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Why a peer's answer isn't there.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It can't be had now.
    #[error("ask {peer}: {reason}")]
    Away {
        /// Who.
        peer: &'static str,
        /// Why not.
        reason: String,
    },
    /// The peer says no.
    #[error("{peer} refused: {status} {code}")]
    Refused {
        /// Who.
        peer: &'static str,
        /// How.
        status: StatusCode,
        /// The problem's code.
        code: String,
        /// The problem's detail.
        detail: String,
    },
    /// An answer that can't be read.
    #[error("{peer} answered something else: {reason}")]
    Strange {
        /// Who.
        peer: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A problem as a peer answers it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct PeerProblem {
    code: String,
    detail: String,
}

/// The peers and how they are asked.
#[derive(Debug)]
pub struct Peers {
    client: Client,
    stays: Url,
    promotions: Url,
    timeout: Duration,
    budget: Budget,
}

impl Peers {
    /// Peers at these addresses; a call may take `timeout` in all. The error is the system's.
    pub fn new(stays: Url, promotions: Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(timeout)
                .pool_idle_timeout(Duration::from_secs(30))
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            stays,
            promotions,
            timeout,
            budget: Budget::default(),
        })
    }

    /// What the nights that are wished for are offered at.
    pub async fn quote(&self, wish: &Wish) -> Result<Quote, PeerError> {
        let mut url = self.stays.clone();
        url.set_path("/internal/v1/quotes");
        url.query_pairs_mut()
            .append_pair("roomTypeId", &wish.room_type_id.to_string())
            .append_pair("checkIn", &wish.dates.check_in.to_string())
            .append_pair("checkOut", &wish.dates.check_out.to_string())
            .append_pair("guests", &wish.guests.to_string());
        self.get("stays", url).await
    }

    /// What a guest's claim takes off; `None` if the guest has no such claim to use.
    pub async fn discount(
        &self,
        user_id: Uuid,
        claim_id: Uuid,
    ) -> Result<Option<ClaimedDiscount>, PeerError> {
        let mut url = self.promotions.clone();
        url.set_path(&format!("/internal/v1/discounts/{claim_id}"));
        url.query_pairs_mut()
            .append_pair("userId", &user_id.to_string());
        match self.get("promotions", url).await {
            Ok(discount) => Ok(Some(discount)),
            Err(PeerError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get<T: DeserializeOwned>(&self, peer: &'static str, url: Url) -> Result<T, PeerError> {
        let away = |reason| PeerError::Away { peer, reason };
        timeout(self.timeout, self.tries(peer, url))
            .await
            .unwrap_or_else(|_| Err(away("no answer in time".to_owned())))
    }

    async fn tries<T: DeserializeOwned>(
        &self,
        peer: &'static str,
        url: Url,
    ) -> Result<T, PeerError> {
        self.budget.deposit();
        let mut tries = 1;
        loop {
            match self.once(peer, url.clone()).await {
                Err(PeerError::Away { reason, .. }) if tries < TRIES_MAX && self.budget.take() => {
                    tracing::debug!(peer, reason, tries, "asked again");
                    tries += 1;
                    let pause = rand::rng().random_range(PAUSE_MS);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                end => return end,
            }
        }
    }

    async fn once<T: DeserializeOwned>(
        &self,
        peer: &'static str,
        url: Url,
    ) -> Result<T, PeerError> {
        let away = |reason: String| PeerError::Away { peer, reason };
        let strange = |reason: String| PeerError::Strange { peer, reason };
        let mut headers = http::HeaderMap::new();
        telemetry::inject_headers(&mut headers);
        let response = self
            .client
            .get(url)
            .headers(headers)
            .send()
            .await
            // The address has a user's id in it.
            .map_err(|error| away(error.without_url().to_string()))?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(away(format!("it answered {status}")));
        }
        let body = body_of(response).await.map_err(away)?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| strange(error.to_string()));
        }
        if !status.is_client_error() {
            return Err(strange(format!("status {status}")));
        }
        let problem: PeerProblem = serde_json::from_slice(&body).unwrap_or_default();
        Err(PeerError::Refused {
            peer,
            status,
            code: problem.code,
            detail: problem.detail,
        })
    }
}

async fn body_of(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| error.without_url().to_string())?
    {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too large".to_owned());
        }
    }
    Ok(body)
}

/// What retries may still cost.
#[derive(Debug)]
struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI64::new(BUDGET_MAX))
    }
}

impl Budget {
    fn deposit(&self) {
        let add = |left: i64| Some((left + DEPOSIT).min(BUDGET_MAX));
        // Never fails: it always answers a new value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn take(&self) -> bool {
        let take = |left: i64| (left >= RETRY_COST).then(|| left - RETRY_COST);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_calls() {
        let budget = Budget::default();
        let in_quiet_times = (0..1_000).filter(|_| budget.take()).count();
        assert_eq!(in_quiet_times, 10);
        let in_trouble = (0..1_000)
            .filter(|_| {
                budget.deposit();
                budget.take()
            })
            .count();
        assert_eq!(in_trouble, 100);
    }
}
