//! Asks `orders` whether an order may be paid now: the one arbiter of "paid in time or expired".

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;
use uuid::Uuid;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What `orders` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The order waits for this payment, and for no other.
    Pay {
        /// Until when it may be paid.
        by: Option<Timestamp>,
    },
    /// It doesn't.
    Refused(Refusal),
}

/// Why an order can't be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such order of this guest.
    NotFound,
    /// Its time is over.
    Expired,
    /// It is paid, cancelled, not ready, or being paid otherwise.
    NotPayable,
    /// It costs something else.
    AmountMismatch,
}

/// `orders` didn't answer, or not in a way that says anything.
#[derive(Debug, thiserror::Error)]
#[error("ask orders about {order_id}: {reason}")]
pub struct Unavailable {
    order_id: Uuid,
    reason: String,
}

/// The internal API of `orders`. Clones share the connections.
#[derive(Clone)]
pub struct Orders {
    http: reqwest::Client,
    url: Url,
}

#[derive(Deserialize)]
struct ProblemBody {
    code: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BegunBody {
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

impl Orders {
    /// Each question may take as long as `timeout`.
    pub fn new(url: Url, timeout: Duration) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, url })
    }

    /// Sets the order aside for this payment. Asking again for the same payment gets the same answer.
    pub async fn begin_payment(
        &self,
        order_id: Uuid,
        user_id: Uuid,
        payment_key: &str,
        amount: i64,
    ) -> Result<Answer, Unavailable> {
        let failed = |reason: String| Unavailable { order_id, reason };
        let mut url = self.url.clone();
        let id = order_id.to_string();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(["internal", "v1", "orders", &id, "payment"]);
        }
        let mut headers = http::HeaderMap::new();
        chassis::telemetry::inject_headers(&mut headers);
        let response = self
            .http
            .post(url)
            .headers(headers)
            .json(&json!({ "userId": user_id, "paymentKey": payment_key, "amount": amount }))
            .send()
            .await
            .map_err(|error| failed(error.without_url().to_string()))?;
        let status = response.status();
        if status == StatusCode::OK {
            let body: Option<BegunBody> = read(response).await;
            let by = body.and_then(|body| body.expires_at);
            return Ok(Answer::Pay { by });
        }
        let problem: Option<ProblemBody> = read(response).await;
        let code = problem.map(|problem| problem.code);
        let refusal = match (status.as_u16(), code.as_deref()) {
            // A route that isn't there is 404 too, and says nothing about the order.
            (404, Some("ORDER_NOT_FOUND")) => Refusal::NotFound,
            (409, Some("ORDER_EXPIRED")) => Refusal::Expired,
            (409, Some(_)) => Refusal::NotPayable,
            (422, Some("AMOUNT_MISMATCH")) => Refusal::AmountMismatch,
            _ => return Err(failed(format!("status {}", status.as_u16()))),
        };
        Ok(Answer::Refused(refusal))
    }
}

async fn read<T: DeserializeOwned>(mut response: reqwest::Response) -> Option<T> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).ok()
}
