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
use chassis::refusals;
use http::{StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::{Email, Password};
use crate::api::problems::{
    INVALID_CREDENTIALS, INVALID_REFRESH_TOKEN, OVERLOADED, TOO_MANY_WRONG_PASSWORDS,
};
use crate::api::source::Source;
use crate::identity::{Identity, TokenPair};

/// Who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    email: Email,
    password: Password,
}

/// A session to go on with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Refresh {
    refresh_token: String,
}

/// What a guest keeps.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Session {
    /// A JWT, for `Authorization: Bearer`.
    access_token: String,
    /// Good for one refresh.
    refresh_token: String,
    /// How long the access token is good for, in seconds.
    expires_in: u64,
}

refusals! {
    CreateRefusals: INVALID_CREDENTIALS, TOO_MANY_WRONG_PASSWORDS, OVERLOADED;
    RefreshRefusals: INVALID_REFRESH_TOKEN;
}

/// Signs in.
#[utoipa::path(post, path = "/v1/sessions", operation_id = "signIn", tag = "Sessions",
    request_body = SignIn,
    responses((status = 201, description = "A session is open.", body = Session), CreateRefusals))]
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

/// Goes on with a session.
///
/// A refresh token that comes again after it was used ends its session: sign in again then.
#[utoipa::path(post, path = "/v1/sessions/refresh", operation_id = "refreshSession", tag = "Sessions",
    request_body = Refresh,
    responses((status = 201, description = "The next tokens.", body = Session), RefreshRefusals))]
pub(crate) async fn refresh(
    State(identity): State<Arc<Identity>>,
    Json(body): Json<Refresh>,
) -> Result<impl IntoResponse, Problem> {
    Ok(created(identity.refresh(&body.refresh_token).await?))
}

/// Signs out everywhere.
#[utoipa::path(delete, path = "/v1/sessions", operation_id = "signOut", tag = "Sessions",
    security(("accessToken" = [])),
    responses((status = 204, description = "All sessions of the caller are over.")))]
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
