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
use axum::routing::get;
use chassis::auth::Verifier;
use chassis::idempotency::Idempotency;
use chassis::openapi::{Document, Routes};
use utoipa_axum::routes;

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

/// Every route that the gateway knows, by path; without the layer, for the document alone.
pub(crate) fn routes(idempotency: Option<Idempotency>) -> Routes<ApiState> {
    Routes::new()
        .serve(routes!(search::search))
        .serve_keyed(routes!(stays::create), idempotency.clone())
        .serve(routes!(stays::show))
        .serve(routes!(availability::show))
        .serve_keyed(routes!(room_types::create), idempotency)
        .serve(routes!(calendar::put))
}

/// What is served through the gateway, in words.
pub fn document() -> Document {
    routes(None).into_document("Quokka stays")
}

/// What other services are answered, on a port of its own.
pub(crate) fn internal_routes(state: ApiState) -> Router {
    Router::new()
        .route("/internal/v1/quotes", get(quotes::quote))
        .with_state(state)
}

#[cfg(test)]
mod tests {
    use chassis::problem::Code;

    use super::problems::{TOO_MANY_GUESTS, UNAVAILABLE};
    use super::*;

    /// Told to `orders` alone, which has its own for guests.
    const INSIDE: [Code; 2] = [UNAVAILABLE, TOO_MANY_GUESTS];

    #[test]
    fn the_document_is_fresh() {
        let written = include_str!("../../openapi.json");
        assert!(
            document().to_json() == written,
            "stale: run `make generate`"
        );
    }

    #[test]
    fn every_problem_code_is_in_the_document() {
        let mut document = document();
        for code in PROBLEM_CODES {
            assert!(
                INSIDE.contains(code) || document.has_code(*code),
                "{}",
                code.as_str()
            );
        }
    }
}
