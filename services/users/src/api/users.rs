//! Accounts: sign-up, and what an owner sees and changes.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::Json;
use chassis::idempotency::Key;
use chassis::problem::Problem;
use http::{StatusCode, header};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::account::{Email, Name, NewPassword, Profile};
use crate::api::source::Source;
use crate::identity::{Identity, SignUp};

/// `POST /v1/users`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    email: Email,
    password: NewPassword,
    name: Name,
}

/// `POST /v1/users`: 201 with the profile | 409 EMAIL_TAKEN.
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

/// `GET /v1/users/me`: 200.
pub(crate) async fn me(
    State(identity): State<Arc<Identity>>,
    caller: Caller,
) -> Result<Json<Profile>, Problem> {
    Ok(Json(identity.profile(caller.user_id).await?))
}

/// `PATCH /v1/users/me`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    name: Name,
}

/// `PATCH /v1/users/me`: 200 with the profile.
pub(crate) async fn change_me(
    State(identity): State<Arc<Identity>>,
    caller: Caller,
    Json(changes): Json<Changes>,
) -> Result<Json<Profile>, Problem> {
    Ok(Json(identity.rename(caller.user_id, &changes.name).await?))
}
