//! The gateway's API as a client sees it, and what its answers mean.
//!
//! A call ends in one of three ways, decided by the code in the answer: it took effect, it was refused, or nobody
//! knows. The last must be asked about; it is never taken for a refusal. The secret key is never logged.

mod model;
mod wire;

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use self::wire::{CallError, Http};
use crate::metrics::GATEWAY_REQUESTS;

pub use model::{
    Cancel, GatewayPayment, RefundAccount, Standing, Transaction, VIRTUAL_ACCOUNT, means_of,
};

/// Where the gateway's clock is, in times that it writes without an offset. There is no summer time.
pub const KOREA: Offset = jiff::tz::offset(9);

/// Transactions of one page.
pub const TRANSACTIONS_PAGE: usize = 1_000;

/// What a call came to.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It took effect.
    Done(T),
    /// The gateway says that it did not.
    Refused(Refusal),
    /// Nobody knows.
    Unknown(Unknown),
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gateway's code.
    pub code: String,
    /// The gateway doesn't accept us, rather than the payment.
    pub ours: bool,
}

/// Why nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the gateway's answer is not known: {reason}")]
pub struct Unknown {
    /// In words, without anything secret or personal.
    pub reason: String,
    /// The gateway did answer, so that this call isn't under way any more.
    pub answered: bool,
    /// It answered that a call under the same key is under way: the key is to be kept.
    pub keep_key: bool,
}

/// Where the gateway is and who we are to it. Clones share the connections.
#[derive(Clone)]
pub struct Toss {
    http: Http,
    url: Url,
    secret_key: SecretString,
}

impl Toss {
    /// Each call may take as long as `timeout`. The call is TLS if the address is https.
    pub fn new(url: Url, secret_key: SecretString, timeout: Duration) -> io::Result<Self> {
        let http = Http::new(url.scheme() == "https", timeout)?;
        Ok(Self {
            http,
            url,
            secret_key,
        })
    }

    /// Captures an authenticated payment, or issues its virtual account. The same attempt is the same call.
    pub async fn confirm(
        &self,
        payment_key: &str,
        order_id: Uuid,
        amount: i64,
        attempt: i32,
    ) -> Outcome<GatewayPayment> {
        let body = json!({ "paymentKey": payment_key, "orderId": order_id, "amount": amount });
        let key = format!("confirm/{order_id}/{payment_key}/{attempt}");
        self.post(&["v1", "payments", "confirm"], key, &body).await
    }

    /// Gives money back. The refund's id is part of the reason, by which it is found again.
    pub async fn cancel(
        &self,
        payment_key: &str,
        refund: &RefundCall<'_>,
    ) -> Outcome<GatewayPayment> {
        let mut body = json!({
            "cancelReason": reason_with(refund.reason, refund.refund_id),
            "cancelAmount": refund.amount,
        });
        if let Some(account) = refund.account {
            body["refundReceiveAccount"] = json!({
                "bank": account.bank_code,
                "accountNumber": account.account_number,
                "holderName": account.holder_name,
            });
        }
        let key = format!("refund/{}/{}", refund.refund_id, refund.attempt);
        self.post(&["v1", "payments", payment_key, "cancel"], key, &body)
            .await
    }

    /// Closes a virtual account that nobody has paid into. No account is named to which money would go back, so that
    /// a deposit that has come meanwhile has the call refused.
    pub async fn close(
        &self,
        payment_key: &str,
        payment_id: Uuid,
        attempt: i32,
    ) -> Outcome<GatewayPayment> {
        let body = json!({ "cancelReason": "the order can no longer be paid" });
        let key = format!("close/{payment_id}/{attempt}");
        self.post(&["v1", "payments", payment_key, "cancel"], key, &body)
            .await
    }

    /// The payment as the gateway has it; `None` if it has none. It is asked by order, as the gateway advises, and by
    /// the payment's own key if the order's newest payment is another one.
    pub async fn payment(
        &self,
        order_id: Uuid,
        payment_key: &str,
    ) -> Result<Option<GatewayPayment>, Unknown> {
        let order = order_id.to_string();
        let by_order: Option<GatewayPayment> =
            self.query(&["v1", "payments", "orders", &order]).await?;
        if by_order
            .as_ref()
            .is_some_and(|payment| payment.payment_key == payment_key)
        {
            return Ok(by_order);
        }
        let by_key: Option<GatewayPayment> = self.query(&["v1", "payments", payment_key]).await?;
        // Somebody else's payment is no payment of this order.
        Ok(by_key.filter(|payment| payment.order_id == order))
    }

    /// One page of transactions, from `start` up to, but not at, `end`, both cut to seconds.
    pub async fn transactions(
        &self,
        start: Timestamp,
        end: Timestamp,
        after: Option<&str>,
    ) -> Result<Vec<Transaction>, Unknown> {
        let limit = TRANSACTIONS_PAGE.to_string();
        let (start, end) = (local(start), local(end));
        let mut query = vec![
            ("startDate", start.as_str()),
            ("endDate", end.as_str()),
            ("limit", limit.as_str()),
        ];
        query.extend(after.map(|key| ("startingAfter", key)));
        let url = self.at(&["v1", "transactions"], &query);
        match self.send(Call::get(url)).await {
            Outcome::Done(transactions) => Ok(transactions),
            Outcome::Refused(refusal) => Err(answered(&refusal.code)),
            Outcome::Unknown(unknown) => Err(unknown),
        }
    }

    async fn query<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Option<T>, Unknown> {
        match self.send(Call::get(self.at(path, &[]))).await {
            Outcome::Done(found) => Ok(Some(found)),
            Outcome::Refused(refusal) if refusal.code == "NOT_FOUND_PAYMENT" => Ok(None),
            Outcome::Refused(refusal) => Err(answered(&refusal.code)),
            Outcome::Unknown(unknown) => Err(unknown),
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        key: String,
        body: &Value,
    ) -> Outcome<T> {
        self.send(Call {
            method: Method::POST,
            url: self.at(path, &[]),
            key: Some(bounded_key(key)),
            body: body.to_string().into(),
        })
        .await
    }

    fn at(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn send<T: DeserializeOwned>(&self, call: Call) -> Outcome<T> {
        let answer = match call.into_request(&self.secret_key) {
            Ok(request) => self.http.call(request).await,
            Err(error) => Err(CallError::NoAnswer(format!("no request: {error}"))),
        };
        let outcome = match answer {
            Ok((status, body)) => read(status, &body),
            Err(CallError::TooLarge) => Outcome::Unknown(answered("an answer that is too large")),
            Err(CallError::NoAnswer(reason)) => Outcome::Unknown(Unknown {
                reason,
                answered: false,
                keep_key: true,
            }),
        };
        let label = match &outcome {
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        GATEWAY_REQUESTS.with_label_values(&[label]).inc();
        outcome
    }
}

/// A refund as it is called for.
#[derive(Clone, Copy)]
pub struct RefundCall<'a> {
    /// Which refund.
    pub refund_id: Uuid,
    /// In won.
    pub amount: i64,
    /// In the guest's sight.
    pub reason: &'a str,
    /// The same attempt is the same call.
    pub attempt: i32,
    /// Where a deposit goes back to.
    pub account: Option<&'a RefundAccount>,
}

/// What the gateway is asked.
struct Call {
    method: Method,
    url: Url,
    /// The same key is the same call.
    key: Option<String>,
    /// JSON, or nothing.
    body: Bytes,
}

impl Call {
    fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            key: None,
            body: Bytes::new(),
        }
    }

    fn into_request(self, secret_key: &SecretString) -> http::Result<Request<Full<Bytes>>> {
        let user = BASE64_STANDARD.encode(format!("{}:", secret_key.expose_secret()));
        let mut authorization = HeaderValue::try_from(format!("Basic {user}"))?;
        authorization.set_sensitive(true);
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.url.as_str())
            .header(header::AUTHORIZATION, authorization)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_LANGUAGE, "en-US");
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = self.key {
            request = request.header("idempotency-key", key);
        }
        request.body(Full::new(self.body))
    }
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Outcome<T> {
    if status.is_success() {
        return serde_json::from_slice(body).map_or_else(
            // The error may quote the answer, which has personal data: only its place is told.
            |error| {
                let place = format!("line {} column {}", error.line(), error.column());
                Outcome::Unknown(answered(&format!(
                    "an answer that can't be read at {place}"
                )))
            },
            Outcome::Done,
        );
    }
    let code = model::error_code(body).unwrap_or_else(|| format!("HTTP {}", status.as_u16()));
    if status.is_server_error() {
        return Outcome::Unknown(answered(&code));
    }
    match meaning_of(&code) {
        Meaning::Refused => Outcome::Refused(Refusal { code, ours: false }),
        Meaning::Ours => Outcome::Refused(Refusal { code, ours: true }),
        Meaning::Unknown => Outcome::Unknown(Unknown {
            answered: true,
            keep_key: code == "IDEMPOTENT_REQUEST_PROCESSING",
            reason: code,
        }),
    }
}

fn answered(reason: &str) -> Unknown {
    Unknown {
        reason: reason.to_owned(),
        answered: true,
        keep_key: false,
    }
}

/// What a code of a 4xx answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Refused,
    Ours,
    Unknown,
}

/// By the gateway's reference. A code that isn't listed is no proof of anything.
fn meaning_of(code: &str) -> Meaning {
    match code {
        "UNAUTHORIZED_KEY"
        | "INVALID_API_KEY"
        | "FORBIDDEN_REQUEST"
        | "INVALID_IDEMPOTENCY_KEY" => Meaning::Ours,
        "INVALID_REQUEST"
        | "CARD_PROCESSING_ERROR"
        | "BELOW_MINIMUM_AMOUNT"
        | "INVALID_STOPPED_CARD"
        | "INVALID_CARD_EXPIRATION"
        | "INVALID_REJECT_CARD"
        | "ALREADY_CANCELED_PAYMENT"
        | "REJECT_CARD_PAYMENT"
        | "REJECT_CARD_COMPANY"
        | "REJECT_ACCOUNT_PAYMENT"
        | "FDS_ERROR"
        | "NOT_CANCELABLE_AMOUNT"
        | "NOT_CANCELABLE_PAYMENT"
        | "NOT_FOUND_PAYMENT"
        | "NOT_FOUND_PAYMENT_SESSION" => Meaning::Refused,
        code if code.starts_with("EXCEED_MAX_") => Meaning::Refused,
        _ => Meaning::Unknown,
    }
}

/// The gateway takes 300 characters.
fn bounded_key(key: String) -> String {
    debug_assert!(key.len() <= 300, "payment keys have at most 200 characters");
    key
}

/// The gateway takes 200 characters of reason.
fn reason_with(reason: &str, refund_id: Uuid) -> String {
    const REASON_CHARS_MAX: usize = 150;
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    format!("{reason} [{refund_id}]")
}

/// As the gateway wants it: Korean time without an offset.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::fixed(KOREA))
        .strftime("%Y-%m-%dT%H:%M:%S")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_refusal_is_one() {
        for code in [
            "REJECT_CARD_PAYMENT",
            "EXCEED_MAX_DAILY_PAYMENT_COUNT",
            "NOT_FOUND_PAYMENT_SESSION",
        ] {
            assert_eq!(meaning_of(code), Meaning::Refused, "{code}");
        }
        for code in [
            "ALREADY_PROCESSED_PAYMENT",
            "PROVIDER_ERROR",
            "IDEMPOTENT_REQUEST_PROCESSING",
            "A_CODE_OF_TOMORROW",
            "HTTP 400",
        ] {
            assert_eq!(meaning_of(code), Meaning::Unknown, "{code}");
        }
        assert_eq!(meaning_of("UNAUTHORIZED_KEY"), Meaning::Ours);
    }

    #[test]
    fn a_refund_is_named_in_its_reason_within_the_gateways_limit() {
        let reason = reason_with(&"가".repeat(400), Uuid::nil());
        assert!(reason.chars().count() <= 200);
        assert!(reason.ends_with(&format!("[{}]", Uuid::nil())));
    }
}
