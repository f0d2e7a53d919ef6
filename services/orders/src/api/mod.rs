//! The routes of the service.

mod body;
mod orders;
mod payments;
mod problems;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::post;
use chassis::auth::Verifier;
use chassis::idempotency::Idempotency;
use chassis::openapi::{Document, Routes};
use utoipa_axum::routes;

use crate::desk::Desk;

pub use problems::ALL as PROBLEM_CODES;

/// What the handlers share.
#[derive(Clone, FromRef)]
pub(crate) struct Api {
    pub(crate) desk: Arc<Desk>,
    pub(crate) verifier: Verifier,
}

/// What guests ask, by path; without the layer, for the document alone.
pub(crate) fn routes(idempotency: Option<Idempotency>) -> Routes<Api> {
    Routes::new()
        .serve_only_keyed(routes!(orders::create), idempotency)
        .serve(routes!(orders::list))
        .serve(routes!(orders::get))
        .serve(routes!(orders::cancel))
}

/// What is served through the gateway, in words.
pub fn document() -> Document {
    routes(None).into_document("Quokka orders")
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

#[cfg(test)]
mod tests {
    use chassis::problem::Code;

    use super::problems::{AMOUNT_MISMATCH, ORDER_EXPIRED, ORDER_NOT_PAYABLE};
    use super::*;

    /// Told to `payments` alone, which has its own for guests.
    const INSIDE: [Code; 3] = [ORDER_EXPIRED, ORDER_NOT_PAYABLE, AMOUNT_MISMATCH];

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
