//! The routes of the service.

mod jwks;
mod problems;
mod sessions;
mod source;
mod users;

use std::sync::Arc;

use axum::extract::FromRef;
use axum::routing::get;
use chassis::auth::Verifier;
use chassis::idempotency::Idempotency;
use chassis::openapi::{Document, Routes};
use utoipa_axum::routes;

use crate::identity::Identity;

pub(crate) use source::ForwardedHops;

/// What the handlers share.
#[derive(Clone, FromRef)]
pub(crate) struct ApiState {
    pub(crate) identity: Arc<Identity>,
    pub(crate) verifier: Verifier,
    pub(crate) forwarded_hops: ForwardedHops,
}

/// Every route, by path; without the layer, for the document alone.
pub(crate) fn routes(idempotency: Option<Idempotency>) -> Routes<ApiState> {
    Routes::new()
        .serve_keyed(routes!(users::create), idempotency)
        .serve(routes!(users::me, users::change_me))
        .serve(routes!(sessions::create, sessions::delete))
        .serve(routes!(sessions::refresh))
        .serve_inside("/.well-known/jwks.json", get(jwks::show))
}

/// What is served through the gateway, in words.
pub(crate) fn document() -> Document {
    routes(None).into_document("Quokka users")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for code in problems::ALL {
            assert!(document.has_code(*code), "{}", code.as_str());
        }
    }
}
