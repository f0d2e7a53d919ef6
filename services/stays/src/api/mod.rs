//! The routes of the service.

mod availability;
mod calendar;
pub(crate) mod problems;
mod quotes;
mod room_types;
mod search;
mod stays;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post, put};
use chassis::auth::Verifier;
use chassis::idempotency::Idempotency;

pub use self::problems::ALL as PROBLEM_CODES;
use crate::discounts::ActiveSales;
use crate::search::Searcher;
use crate::store::Store;

/// What the handlers share.
#[derive(Clone, FromRef)]
pub(crate) struct ApiState {
    pub(crate) store: Store,
    pub(crate) searcher: Searcher,
    pub(crate) sales: ActiveSales,
    pub(crate) verifier: Verifier,
}

/// Every route that the gateway knows, by path.
pub(crate) fn routes(state: ApiState, idempotency: Idempotency) -> Router {
    Router::new()
        .route(
            "/v1/stays",
            post(stays::create)
                .route_layer(idempotency.clone())
                .get(search::search),
        )
        .route("/v1/stays/{id}", get(stays::show))
        .route("/v1/stays/{id}/availability", get(availability::show))
        .route(
            "/v1/stays/{id}/room-types",
            post(room_types::create).route_layer(idempotency),
        )
        .route("/v1/room-types/{id}/calendar", put(calendar::put))
        .with_state(state)
}

/// What other services are answered, on a port of its own.
pub(crate) fn internal_routes(state: ApiState) -> Router {
    Router::new()
        .route("/internal/v1/quotes", get(quotes::quote))
        .with_state(state)
}
