//! Sessions: sign-in, refresh, sign-out.
//!
//! `Idempotency-Key` has no effect here. To give the same answer again, the tokens would have to be kept in clear. A sign-in
//! repeated opens one session more, which harms nobody. A refresh repeated ends the session (a used token came again, and
//! the thief and the owner can't be told apart): who loses the answer to a refresh signs in again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::Json;
use chassis::problem::Problem;
use http::{StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use crate::account::{Email, Password};
use crate::api::source::Source;
use crate::identity::{Identity, TokenPair};

/// `POST /v1/sessions`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    email: Email,
    password: Password,
}

/// `POST /v1/sessions/refresh`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Refresh {
    refresh_token: String,
}

/// What a guest keeps: `expiresIn` is how long the access token is good for, in seconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

/// `POST /v1/sessions`: 201 with the tokens | 401 INVALID_CREDENTIALS | 429 TOO_MANY_WRONG_PASSWORDS.
pub(crate) async fn create(
    State(identity): State<Arc<Identity>>,
    Source(source): Source,
    Json(body): Json<SignIn>,
) -> Result<impl IntoResponse, Problem> {
    Ok(created(
        identity
            .sign_in(&body.email, &body.password, source)
            .await?,
    ))
}

/// `POST /v1/sessions/refresh`: 201 with the next tokens | 401 INVALID_REFRESH_TOKEN.
pub(crate) async fn refresh(
    State(identity): State<Arc<Identity>>,
    Json(body): Json<Refresh>,
) -> Result<impl IntoResponse, Problem> {
    Ok(created(identity.refresh(&body.refresh_token).await?))
}

/// `DELETE /v1/sessions`: 204, all sessions of the caller are over.
pub(crate) async fn delete(
    State(identity): State<Arc<Identity>>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    identity.sign_out(caller.user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// RFC 6749, section 5.1: tokens are never cached.
fn created(tokens: TokenPair) -> impl IntoResponse {
    let session = Session {
        access_token: tokens.access.expose_secret().to_owned(),
        refresh_token: tokens.refresh.expose_secret().to_owned(),
        expires_in: tokens.ttl.as_secs(),
    };
    (
        StatusCode::CREATED,
        [(header::CACHE_CONTROL, "no-store")],
        Json(session),
    )
}
