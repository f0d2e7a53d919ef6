//! The gateway's API, with the faults that are on.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Shared;
use crate::cut::Scissors;
use crate::faults::{Hit, Operation};
use crate::gateway::CancelRequest;
use crate::model::{Payment, SEOUL, Status};
use crate::refusal::Refusal;
use crate::replay::{Answer, Known, Replay};
use crate::settlements::Dates;
use crate::webhooks;

/// The most transactions of one answer, and how many without a limit.
const TRANSACTIONS_MAX: usize = 5_000;
const TRANSACTIONS_DEFAULT: usize = 100;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/payments/confirm", post(confirm))
        .route("/v1/payments/{payment_key}", get(by_key))
        .route("/v1/payments/orders/{order_id}", get(by_order))
        .route("/v1/payments/{payment_key}/cancel", post(cancel))
        .route("/v1/transactions", get(transactions))
        .route("/v1/settlements", get(settlements))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Confirm {
    payment_key: String,
    order_id: String,
    amount: i64,
}

async fn confirm(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = Call {
        operation: Operation::Confirm,
        path: "/v1/payments/confirm",
        headers: &headers,
    };
    let work = |hit: &Hit| {
        let request: Confirm = read(&body)?;
        let confirmed = shared.gateway().confirm(
            &request.payment_key,
            &request.order_id,
            request.amount,
            hit.refuse.as_deref(),
        );
        let now = shared.gateway().by_key(&request.payment_key);
        if let Ok(payment) = now
            && (confirmed.is_ok() || payment.status == Status::Aborted)
        {
            webhooks::status_changed(&shared, &payment);
        }
        confirmed
    };
    call.answer(&shared, &scissors, work).await
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path(payment_key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = format!("/v1/payments/{payment_key}/cancel");
    let call = Call {
        operation: Operation::Cancel,
        path: &path,
        headers: &headers,
    };
    let work = |hit: &Hit| {
        if let Some(code) = &hit.refuse {
            return Err(Refusal::new(code));
        }
        let request: CancelRequest = read(&body)?;
        let payment = shared.gateway().cancel(&payment_key, &request)?;
        webhooks::status_changed(&shared, &payment);
        Ok(payment)
    };
    call.answer(&shared, &scissors, work).await
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|_| Refusal::new("INVALID_REQUEST"))
}

/// A POST, with what surrounds its work.
struct Call<'a> {
    operation: Operation,
    path: &'a str,
    headers: &'a HeaderMap,
}

impl Call<'_> {
    async fn answer(
        &self,
        shared: &Arc<Shared>,
        scissors: &Scissors,
        work: impl FnOnce(&Hit) -> Result<Payment, Refusal>,
    ) -> Response {
        if let Err(refusal) = authorize(shared, self.headers) {
            return refusal.into_response();
        }
        let key = match key_of(self.headers) {
            Ok(key) => key,
            Err(refusal) => return refusal.into_response(),
        };
        let hit = shared.dice().call(self.operation);
        if hit.conflict {
            return Refusal::new("IDEMPOTENT_REQUEST_PROCESSING").into_response();
        }
        if hit.error_before {
            return Refusal::new("FAILED_INTERNAL_SYSTEM_PROCESSING").into_response();
        }
        match key.map(|key| shared.replay().begin(key, self.path)) {
            Some(Known::Processing) => {
                return Refusal::new("IDEMPOTENT_REQUEST_PROCESSING").into_response();
            }
            Some(Known::Answered(answer)) => {
                return (answer.status, Json(answer.body)).into_response();
            }
            Some(Known::New) | None => {}
        }
        let done = forced(self.headers).map_or_else(|| work(&hit), Err);
        let mut answer = match done {
            Ok(payment) => Answer {
                status: StatusCode::OK,
                body: serde_json::json!(payment),
            },
            Err(refusal) => Answer {
                status: refusal.status,
                body: refusal.body(),
            },
        };
        if hit.error_after {
            let refusal = Refusal::new("FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING");
            answer = Answer {
                status: refusal.status,
                body: refusal.body(),
            };
        }
        // Before the delay: the caller may give up on a slow answer, and this future with it.
        if let Some(key) = key {
            shared.replay().end(key, self.path, &answer);
        }
        if let Some(delay) = hit.delay {
            tokio::time::sleep(delay).await;
        }
        if hit.drop_answer {
            scissors.cut();
        }
        (answer.status, Json(answer.body)).into_response()
    }
}

/// `TossPayments-Test-Code`: the error that a test asks for.
fn forced(headers: &HeaderMap) -> Option<Refusal> {
    let code = headers.get("tosspayments-test-code")?.to_str().ok()?;
    Some(Refusal::new(code))
}

fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| Replay::is_key(key));
    key.map(Some)
        .ok_or_else(|| Refusal::new("INVALID_IDEMPOTENCY_KEY"))
}

fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let expected = format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{}:", shared.settings.secret_key))
    );
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if given == Some(&expected) {
        Ok(())
    } else {
        Err(Refusal::new("UNAUTHORIZED_KEY"))
    }
}

/// What a query is surrounded with.
async fn queried(shared: &Shared, scissors: &Scissors, headers: &HeaderMap) -> Result<(), Refusal> {
    authorize(shared, headers)?;
    if let Some(refusal) = forced(headers) {
        return Err(refusal);
    }
    let hit = shared.dice().call(Operation::Query);
    if let Some(delay) = hit.delay {
        tokio::time::sleep(delay).await;
    }
    if hit.drop_answer {
        scissors.cut();
    }
    if hit.conflict || hit.error_before || hit.error_after {
        return Err(Refusal::new("FAILED_INTERNAL_SYSTEM_PROCESSING"));
    }
    Ok(())
}

async fn by_key(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path(payment_key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    queried(&shared, &scissors, &headers).await?;
    let payment = shared.gateway().by_key(&payment_key)?;
    Ok(Json(payment).into_response())
}

async fn by_order(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Path(order_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    queried(&shared, &scissors, &headers).await?;
    let payment = shared.gateway().by_order(&order_id)?;
    Ok(Json(payment).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Between {
    start_date: String,
    end_date: String,
    starting_after: Option<String>,
    limit: Option<usize>,
}

async fn transactions(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Query(between): Query<Between>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    queried(&shared, &scissors, &headers).await?;
    let limit = between.limit.unwrap_or(TRANSACTIONS_DEFAULT);
    let (start, end) = (moment(&between.start_date), moment(&between.end_date));
    let (Some(start), Some(end), 1..=TRANSACTIONS_MAX) = (start, end, limit) else {
        return Err(Refusal::new("INVALID_REQUEST"));
    };
    let found = shared
        .gateway()
        .transactions(start, end, between.starting_after.as_deref(), limit);
    Ok(Json(found).into_response())
}

async fn settlements(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    Query(dates): Query<Dates>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    queried(&shared, &scissors, &headers).await?;
    let asked = dates.asked()?;
    let found = shared.gateway().settlements(&asked);
    Ok(Json(found).into_response())
}

/// `2026-12-01T00:00:00`, in Korean time.
fn moment(text: &str) -> Option<Timestamp> {
    let local: DateTime = text.parse().ok()?;
    Some(local.to_zoned(TimeZone::fixed(SEOUL)).ok()?.timestamp())
}

/// The bank takes a deposit back, and the webhook tells of it.
pub(crate) fn reverse_deposit(shared: &Shared, payment_key: &str) -> Result<Payment, Refusal> {
    let payment = shared.gateway().reverse_deposit(payment_key)?;
    webhooks::status_changed(shared, &payment);
    Ok(payment)
}

/// Money arrives at a virtual account, and both kinds of webhook tell of it.
pub(crate) fn deposit(shared: &Shared, payment_key: &str) -> Result<Payment, Refusal> {
    let payment = shared.gateway().deposit(payment_key)?;
    debug_assert_eq!(payment.status, Status::Done);
    webhooks::deposited(shared, &payment);
    webhooks::status_changed(shared, &payment);
    Ok(payment)
}
