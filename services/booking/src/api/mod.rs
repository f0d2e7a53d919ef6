//! What guests are told.

mod bookings;
mod problems;

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use chassis::auth::Verifier;
use chassis::openapi::{Document, Routes};
use sqlx::PgPool;
use utoipa_axum::routes;

pub use self::problems::ALL as PROBLEM_CODES;

/// What every handler works with.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Parts>);

/// What an [`Api`] shares.
pub(crate) struct Parts {
    pub(crate) pool: PgPool,
    pub(crate) verifier: Verifier,
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<Api> for Verifier {
    fn from_ref(api: &Api) -> Self {
        api.verifier.clone()
    }
}

/// Every route, by path.
pub(crate) fn routes() -> Routes<Api> {
    Routes::new()
        .serve(routes!(bookings::list))
        .serve(routes!(bookings::get))
}

/// What is served through the gateway, in words.
pub fn document() -> Document {
    routes().into_document("Quokka booking")
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
        for code in PROBLEM_CODES {
            assert!(document.has_code(*code), "{}", code.as_str());
        }
    }
}
