//! What only the simulator has: faults, sessions without a browser, deposits, the books.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::Shared;
use crate::faults::{Dice, Faults};
use crate::gateway::NewSession;
use crate::model::{Means, RefundAccount};
use crate::refusal::Refusal;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/simulator/faults", put(set_faults).get(faults))
        .route("/simulator/sessions", post(create_session))
        .route("/simulator/payments/{payment_key}", get(payment))
        .route("/simulator/payments/{payment_key}/deposit", post(deposit))
        .route(
            "/simulator/payments/{payment_key}/reverse-deposit",
            post(reverse_deposit),
        )
        .route("/simulator/payments/{payment_key}/age", post(age))
        .route("/simulator/webhooks", put(set_webhooks))
        .route("/simulator/state", get(state))
}

/// `PUT /simulator/faults`: what is left out is off.
async fn set_faults(State(shared): State<Arc<Shared>>, Json(faults): Json<Faults>) -> Response {
    if let Some(name) = faults.mistake() {
        let detail = format!("{name} is not a probability from 0 to 1");
        return (StatusCode::BAD_REQUEST, Json(json!({ "message": detail }))).into_response();
    }
    *shared.dice() = Dice::new(faults.clone());
    Json(faults).into_response()
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Faults> {
    Json(shared.dice().faults())
}

/// A session as `POST /simulator/sessions` and the window make it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionRequest {
    pub(crate) order_id: String,
    pub(crate) amount: i64,
    #[serde(default)]
    pub(crate) order_name: Option<String>,
    #[serde(default)]
    pub(crate) means: MeansName,
    /// For an easy payment.
    #[serde(default)]
    pub(crate) provider: Option<String>,
    /// For an easy payment: how much of it is points.
    #[serde(default)]
    pub(crate) discount: i64,
    /// For an easy payment: by a card of the wallet.
    #[serde(default)]
    pub(crate) by_card: bool,
    /// The code with which its confirm is refused.
    #[serde(default)]
    pub(crate) refuse_code: Option<String>,
}

/// The name of a means of payment.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum MeansName {
    #[default]
    Card,
    EasyPay,
    VirtualAccount,
    Transfer,
}

impl SessionRequest {
    pub(crate) fn into_session(self) -> NewSession {
        let means = match self.means {
            MeansName::Card => Means::Card,
            MeansName::EasyPay => Means::EasyPay {
                provider: self.provider.unwrap_or_else(|| "토스페이".to_owned()),
                discount: self.discount,
                by_card: self.by_card,
            },
            MeansName::VirtualAccount => Means::VirtualAccount,
            MeansName::Transfer => Means::Transfer,
        };
        let refund_account = (means == Means::VirtualAccount).then(|| RefundAccount {
            bank_code: "20".to_owned(),
            account_number: "00000000000000".to_owned(),
            holder_name: "시뮬레이터".to_owned(),
        });
        NewSession {
            order_id: self.order_id,
            order_name: self.order_name.unwrap_or_else(|| "Order".to_owned()),
            amount: self.amount,
            means,
            refund_account,
            refuse: self.refuse_code,
        }
    }
}

/// `POST /simulator/sessions`: 201 with what the window would add to the success address.
async fn create_session(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<SessionRequest>,
) -> Result<Response, Refusal> {
    let payment = shared.gateway().authenticate(request.into_session())?;
    let body = json!({
        "paymentKey": payment.payment_key,
        "orderId": payment.order_id,
        "amount": payment.total_amount,
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// A payment without the secret key.
async fn payment(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
) -> Result<Response, Refusal> {
    let payment = shared.gateway().by_key(&payment_key)?;
    Ok(Json(payment).into_response())
}

async fn deposit(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
) -> Result<Response, Refusal> {
    let payment = crate::api::deposit(&shared, &payment_key)?;
    Ok(Json(payment).into_response())
}

async fn reverse_deposit(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
) -> Result<Response, Refusal> {
    let payment = crate::api::reverse_deposit(&shared, &payment_key)?;
    Ok(Json(payment).into_response())
}

#[derive(Deserialize)]
struct Age {
    seconds: u64,
}

/// Sets everything of the payment back by some seconds: authentication, deposit's end, transactions.
async fn age(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    Json(age): Json<Age>,
) -> Result<Response, Refusal> {
    let by = Duration::from_secs(age.seconds);
    let payment = shared.gateway().age(&payment_key, by)?;
    Ok(Json(payment).into_response())
}

#[derive(Deserialize)]
struct WebhookUrl {
    url: Option<String>,
}

async fn set_webhooks(State(shared): State<Arc<Shared>>, Json(to): Json<WebhookUrl>) -> StatusCode {
    shared.set_webhook_url(to.url);
    StatusCode::NO_CONTENT
}

/// `GET /simulator/state`: how much there is.
async fn state(State(shared): State<Arc<Shared>>) -> Json<serde_json::Value> {
    let counts = &shared.webhook_counts;
    Json(json!({
        "payments": shared.gateway().payments(),
        "webhooksDelivered": counts.delivered.load(Ordering::Relaxed),
        "webhooksDropped": counts.dropped.load(Ordering::Relaxed),
    }))
}
