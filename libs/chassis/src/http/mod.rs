//! HTTP as every Quokka API speaks it: extractors whose rejections are problems, pages, and what surrounds a router.

mod extract;
mod measure;
mod page;
mod surround;

use std::time::Duration;

use axum::Router;

pub(crate) use extract::body_problem;
pub use extract::{Json, Mistakes, Path, Query};
pub use measure::{method_name, observe};
pub use page::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Page, PageQuery, decode_cursor, encode_cursor};

/// The limits of an API.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    /// The largest body that is taken; a larger one is 413.
    pub body_limit_bytes: usize,
    /// How long a request may take; a longer one is 503 TIMED_OUT.
    pub request_timeout: Duration,
}

impl Default for HttpOptions {
    /// 64 KiB and 10 s: enough for every JSON request of the contract, and for the slowest claim.
    fn default() -> Self {
        Self {
            body_limit_bytes: 64 * 1024,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// Surrounds a service's routes with what all have in common: trace context and spans, the metric
/// `http_server_request_duration_seconds`, limits of size and time, and problems for panics, unknown paths and
/// wrong methods. To be called last, on the whole router.
pub fn router(routes: Router, options: HttpOptions) -> Router {
    surround::router(routes, options)
}
