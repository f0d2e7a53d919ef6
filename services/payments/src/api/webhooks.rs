//! `POST /v1/payments/webhooks/toss`: somebody says that a payment has changed. Nobody is believed: at most, the
//! gateway is asked. The answer is 200 whoever it was, so that a forger learns nothing and the gateway stops.

use axum::body::Bytes;
use axum::extract::State;
use chassis::problem::{Problem, common};
use http::StatusCode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::metrics::WEBHOOKS;
use crate::store::WebhookSender;
use crate::work::Work;

/// Either form, as far as it matters. Unknown fields are ignored: the gateway adds some as it likes.
#[derive(Deserialize, ToSchema)]
#[schema(as = TossWebhook)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    #[serde(default, deserialize_with = "object")]
    data: Option<About>,
    #[serde(flatten)]
    deposit: About,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TossWebhookData)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(default)]
    payment_key: Option<String>,
    #[serde(default)]
    order_id: Option<String>,
    #[serde(default)]
    secret: Option<String>,
}

/// An object, or null: by itself serde takes a list of the fields' values as well.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<About>, D::Error> {
    let object: Option<serde_json::Map<String, Value>> = Deserialize::deserialize(deserializer)?;
    object
        .map(|object| About::deserialize(Value::Object(object)))
        .transpose()
        .map_err(D::Error::custom)
}

/// Hears that a payment has changed.
///
/// For the payment gateway. Nobody is believed: at most, the gateway is asked.
#[utoipa::path(post, path = "/v1/payments/webhooks/toss", operation_id = "tossWebhook", tag = "Payments",
    request_body = Webhook,
    responses((status = 200, description = "Heard, whoever it was.")))]
// 200 for whatever is JSON of the right form; 503 if it can't be looked up now, so that it is sent again.
pub(crate) async fn toss(State(work): State<Work>, body: Bytes) -> Result<StatusCode, Problem> {
    let webhook: Webhook = serde_json::from_slice(&body)
        .map_err(|_| common::VALIDATION.problem("not a webhook of the gateway"))?;
    let about = webhook.data.unwrap_or(webhook.deposit);
    // Our orders have UUIDs; about another shop's there is nothing to ask.
    let order_id: Option<Uuid> = about.order_id.as_deref().and_then(|id| id.parse().ok());
    let sender = match order_id {
        None => WebhookSender::Stranger,
        Some(order_id) => {
            work.store()
                .webhook(
                    order_id,
                    about.payment_key.as_deref(),
                    about.secret.as_deref(),
                )
                .await?
        }
    };
    let outcome = match sender {
        WebhookSender::Believable => "asked",
        WebhookSender::Forger => "forged",
        WebhookSender::Stranger => "unknown",
    };
    WEBHOOKS.with_label_values(&[outcome]).inc();
    if sender == WebhookSender::Forger {
        tracing::warn!(order = ?order_id, "a webhook without the payment's secret");
    }
    Ok(StatusCode::OK)
}
