//! The routes of the service.

mod jwks;
mod problems;
mod sessions;
mod source;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use chassis::auth::Verifier;
use chassis::idempotency::Idempotency;

use crate::identity::Identity;

pub(crate) use source::ForwardedHops;

/// What the handlers share.
#[derive(Clone, FromRef)]
pub(crate) struct ApiState {
    pub(crate) identity: Arc<Identity>,
    pub(crate) verifier: Verifier,
    pub(crate) forwarded_hops: ForwardedHops,
}

/// Every route, by path.
pub(crate) fn routes(state: ApiState, idempotency: Idempotency) -> Router {
    Router::new()
        .route("/v1/users", post(users::create).route_layer(idempotency))
        .route("/v1/users/me", get(users::me).patch(users::change_me))
        .route(
            "/v1/sessions",
            post(sessions::create).delete(sessions::delete),
        )
        .route("/v1/sessions/refresh", post(sessions::refresh))
        .route("/.well-known/jwks.json", get(jwks::show))
        .with_state(state)
}
