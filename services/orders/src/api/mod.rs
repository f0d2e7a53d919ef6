//! The routes of the service.

mod body;
mod orders;
mod payments;
mod problems;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use chassis::auth::Verifier;
use chassis::idempotency::Idempotency;

use crate::desk::Desk;

pub use problems::ALL as PROBLEM_CODES;

/// What the handlers share.
#[derive(Clone, FromRef)]
pub(crate) struct Api {
    pub(crate) desk: Arc<Desk>,
    pub(crate) verifier: Verifier,
}

/// What guests ask, by path.
pub(crate) fn routes(api: Api, idempotency: Idempotency) -> Router {
    let create = post(orders::create).route_layer(idempotency);
    Router::new()
        .route("/v1/orders", create.merge(get(orders::list)))
        .route("/v1/orders/{orderId}", get(orders::get))
        .route("/v1/orders/{orderId}/cancel", post(orders::cancel))
        .with_state(api)
}

/// What other services ask, on a port of its own.
pub(crate) fn internal_routes(api: Api) -> Router {
    Router::new()
        .route(
            "/internal/v1/orders/{orderId}/payment",
            post(payments::begin),
        )
        .with_state(api)
}
