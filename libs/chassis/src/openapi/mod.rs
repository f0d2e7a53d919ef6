//! The OpenAPI document of a service, made of the very routes that it serves.
//!
//! A handler says beside itself, with [`utoipa::path`], what it takes and what it answers. [`Routes`] gives it to axum
//! and to the document in one go, so that neither has a route that the other hasn't:
//!
//! ```
//! use axum::{Router, http::StatusCode};
//! use chassis::{http::Json, openapi::{Document, Routes}, problem::{Code, Problem}, refusals};
//! use serde::Serialize;
//! use utoipa::ToSchema;
//! use utoipa_axum::routes;
//!
//! /// There is no tea.
//! const NO_TEA: Code = Code::new("NO_TEA", StatusCode::CONFLICT, "No tea");
//!
//! #[derive(Serialize, ToSchema)]
//! struct Tea {
//!     cups: u32,
//! }
//!
//! refusals! { BrewRefusals: NO_TEA }
//!
//! /// Brews tea.
//! #[utoipa::path(post, path = "/v1/tea", operation_id = "brewTea", tag = "Tea",
//!     responses((status = 200, description = "The tea.", body = Tea), BrewRefusals))]
//! async fn brew() -> Result<Json<Tea>, Problem> {
//!     Err(NO_TEA.problem("the last leaf is gone"))
//! }
//!
//! fn routes() -> Routes<()> {
//!     Routes::new().serve(routes!(brew))
//! }
//!
//! let served: Router = routes().into_router(());
//! let document: Document = routes().into_document("Tea");
//! assert!(document.to_json().contains("NO_TEA"));
//! ```
//!
//! What follows from how every Quokka API works is not said by each handler: a body may be too large or not JSON, a
//! token may be missing, and anything may be unavailable. It is added here, from what the operation says of itself.

mod document;
mod refusals;

use axum::{Router, routing::MethodRouter};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};

pub use self::document::{Document, DocumentError, Operation};
pub use self::refusals::responses;
use crate::idempotency::Idempotency;

/// The security scheme of an operation for which a token is needed, as `security(("accessToken" = []))` names it.
pub const ACCESS_TOKEN: &str = "accessToken";

/// A service's routes, to be served and documented alike.
pub struct Routes<S> {
    inner: OpenApiRouter<S>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub fn new() -> Self {
        Self {
            inner: OpenApiRouter::new(),
        }
    }

    /// Adds handlers of one path, as [`utoipa_axum::routes!`] gathers them.
    pub fn serve(self, routes: UtoipaMethodRouter<S>) -> Self {
        Self {
            inner: self.inner.routes(routes),
        }
    }

    /// Adds a POST that looks at `Idempotency-Key`. The layer does that; the document alone can be had without one.
    pub fn serve_keyed(self, routes: UtoipaMethodRouter<S>, layer: Option<Idempotency>) -> Self {
        self.serve(keyed(routes, layer, false))
    }

    /// As [`Routes::serve_keyed`], for a POST that is refused without a key.
    pub fn serve_only_keyed(
        self,
        routes: UtoipaMethodRouter<S>,
        layer: Option<Idempotency>,
    ) -> Self {
        self.serve(keyed(routes, layer.map(Idempotency::required), true))
    }

    /// Adds a route that the document doesn't have, since the gateway doesn't pass anybody on to it.
    pub fn serve_inside(self, path: &str, route: MethodRouter<S>) -> Self {
        Self {
            inner: self.inner.route(path, route),
        }
    }

    /// What axum serves.
    pub fn into_router(self, state: S) -> Router {
        self.inner.split_for_parts().0.with_state(state)
    }

    /// What is served, in words.
    pub fn into_document(self, title: &str) -> Document {
        let mut document = Document::from_openapi(self.inner.into_openapi(), title);
        document.complete();
        document
    }
}

fn keyed<S: Clone + Send + Sync + 'static>(
    (schemas, mut paths, handlers): UtoipaMethodRouter<S>,
    layer: Option<Idempotency>,
    required: bool,
) -> UtoipaMethodRouter<S> {
    for post in paths
        .paths
        .values_mut()
        .filter_map(|path| path.post.as_mut())
    {
        let parameters = post.parameters.get_or_insert_default();
        parameters.push(document::key_parameter(required).into());
        let extensions = post.extensions.get_or_insert_default();
        extensions.insert(document::IDEMPOTENT.to_owned(), true.into());
    }
    let routes = (schemas, paths, handlers);
    match layer {
        Some(layer) => routes.map(|handlers| handlers.route_layer(layer)),
        None => routes,
    }
}
