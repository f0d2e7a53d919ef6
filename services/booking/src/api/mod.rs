//! What guests are told.

mod bookings;
mod problems;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use chassis::auth::Verifier;
use sqlx::PgPool;

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

pub(crate) fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/bookings", get(bookings::list))
        .route("/v1/bookings/{bookingId}", get(bookings::get))
        .with_state(api)
}
