//! Accounts: sign-up, and what an owner sees and changes.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::Json;
use chassis::idempotency::Key;
use chassis::problem::Problem;
use chassis::refusals;
use http::{StatusCode, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::account::{Email, Name, NewPassword, Profile};
use crate::api::problems::{EMAIL_TAKEN, OVERLOADED};
use crate::api::source::Source;
use crate::identity::{Identity, SignUp};

/// Who wants an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    email: Email,
    password: NewPassword,
    name: Name,
}

refusals! { CreateRefusals: EMAIL_TAKEN, OVERLOADED }

/// Signs up.
///
/// The address is kept in lower case: two spellings that differ in case only are one address.
#[utoipa::path(post, path = "/v1/users", operation_id = "signUp", tag = "Users",
    request_body = NewUser,
    responses((status = 201, description = "The account is there.", body = Profile,
        headers(("Location" = String, description = "Where its owner reads it."))), CreateRefusals))]
pub(crate) async fn create(
    State(identity): State<Arc<Identity>>,
    Source(source): Source,
    key: Option<Extension<Key>>,
    Json(NewUser {
        email,
        password,
        name,
    }): Json<NewUser>,
) -> Result<impl IntoResponse, Problem> {
    let key = key.map(|Extension(Key(key))| Sha256::digest(key).into());
    let profile = identity
        .sign_up(&SignUp {
            email,
            name,
            password,
            key,
            source,
        })
        .await?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, "/v1/users/me")],
        Json(profile),
    ))
}

/// Reads the caller's account.
#[utoipa::path(get, path = "/v1/users/me", operation_id = "readMe", tag = "Users",
    security(("accessToken" = [])),
    responses((status = 200, description = "The caller's account.", body = Profile)))]
pub(crate) async fn me(
    State(identity): State<Arc<Identity>>,
    caller: Caller,
) -> Result<Json<Profile>, Problem> {
    Ok(Json(identity.profile(caller.user_id).await?))
}

/// What an owner may change.
#[derive(Deserialize, ToSchema)]
#[schema(as = ProfileChanges)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    name: Name,
}

/// Changes the caller's account.
#[utoipa::path(patch, path = "/v1/users/me", operation_id = "changeMe", tag = "Users",
    security(("accessToken" = [])),
    request_body = Changes,
    responses((status = 200, description = "The account as it is now.", body = Profile)))]
pub(crate) async fn change_me(
    State(identity): State<Arc<Identity>>,
    caller: Caller,
    Json(changes): Json<Changes>,
) -> Result<Json<Profile>, Problem> {
    Ok(Json(identity.rename(caller.user_id, &changes.name).await?))
}
