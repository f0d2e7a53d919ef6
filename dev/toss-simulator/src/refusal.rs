//! The gateway's errors: a code, and the status it is answered with.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// An error as the gateway answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code that clients decide by.
    pub code: String,
    /// The answer's status.
    pub status: StatusCode,
}

impl Refusal {
    /// With the status that the gateway documents for the code; 400 for a code that isn't known here.
    pub fn new(code: impl Into<String>) -> Self {
        let code = code.into();
        let status = status_of(&code);
        Self { code, status }
    }

    /// The answer's body.
    pub(crate) fn body(&self) -> serde_json::Value {
        json!({ "code": self.code, "message": format!("simulated: {}", self.code) })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

fn status_of(code: &str) -> StatusCode {
    match code {
        "UNAUTHORIZED_KEY" => StatusCode::UNAUTHORIZED,
        "REJECT_CARD_PAYMENT"
        | "REJECT_CARD_COMPANY"
        | "REJECT_ACCOUNT_PAYMENT"
        | "FORBIDDEN_REQUEST"
        | "FDS_ERROR"
        | "NOT_CANCELABLE_AMOUNT"
        | "NOT_CANCELABLE_PAYMENT" => StatusCode::FORBIDDEN,
        "NOT_FOUND_PAYMENT" | "NOT_FOUND_PAYMENT_SESSION" => StatusCode::NOT_FOUND,
        "IDEMPOTENT_REQUEST_PROCESSING" => StatusCode::CONFLICT,
        "FAILED_INTERNAL_SYSTEM_PROCESSING"
        | "FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING"
        | "UNKNOWN_PAYMENT_ERROR"
        | "FAILED_REFUND_PROCESS" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}
