//! What `payments` asks before it takes money.

use std::sync::Arc;

use axum::extract::State;
use chassis::http::{Json, Path};
use chassis::problem::Problem;
use jiff::Timestamp;
use money::Krw;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::desk::Desk;
use crate::saga::PaymentKey;

/// The longest name of a payment that the gateway gives.
const PAYMENT_KEY_LENGTH_MAX: usize = 200;

/// `POST /internal/v1/orders/{orderId}/payment`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BeginBody {
    user_id: Uuid,
    payment_key: String,
    amount: Krw,
}

/// The payment may begin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BegunBody {
    order_id: Uuid,
    amount: Krw,
    payment_key: String,
    /// Until when the order may be paid: no deposit need be waited for any longer.
    expires_at: Timestamp,
}

/// `POST /internal/v1/orders/{orderId}/payment`: 200, and for the same payment again | 404 ORDER_NOT_FOUND |
/// 409 ORDER_EXPIRED, ORDER_NOT_PAYABLE | 422 AMOUNT_MISMATCH.
pub(super) async fn begin(
    State(desk): State<Arc<Desk>>,
    Path(order_id): Path<Uuid>,
    Json(body): Json<BeginBody>,
) -> Result<Json<BegunBody>, Problem> {
    let length = body.payment_key.len();
    if !(1..=PAYMENT_KEY_LENGTH_MAX).contains(&length) {
        let detail = format!("is not 1 to {PAYMENT_KEY_LENGTH_MAX} bytes long");
        return Err(Problem::field("/paymentKey", detail));
    }
    let key = PaymentKey::new(&body.payment_key);
    let order = desk.pay(body.user_id, order_id, &key, body.amount).await?;
    Ok(Json(BegunBody {
        order_id,
        amount: order.saga.total,
        payment_key: body.payment_key,
        expires_at: order.saga.expires_at,
    }))
}
