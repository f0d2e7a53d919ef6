//! `http_server_request_duration_seconds`, found again without a lock for every request.

use std::{cell::RefCell, collections::HashMap, sync::LazyLock, time::Instant};

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramVec};

use crate::metrics;

static DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    metrics::histogram_vec(
        "http_server_request_duration_seconds",
        "How long requests took, by method, route template and status.",
        &[
            "http_request_method",
            "http_route",
            "http_response_status_code",
        ],
        metrics::LATENCY_BUCKETS_SECONDS,
    )
});

/// The histograms of one route, by method and status. A route has few of either, so a scan beats a hash.
type OfRoute = Vec<((&'static str, u16), Histogram)>;

/// Notes one answer. The route is its template, never the path, so there are as many series as routes have answers;
/// it is empty for a path that has none. [`super::router`] does this for its routes.
pub fn observe(method: &'static str, route: &str, status: StatusCode, started: Instant) {
    thread_local! {
        static KNOWN: RefCell<HashMap<Box<str>, OfRoute>> = RefCell::default();
    }
    let seconds = started.elapsed().as_secs_f64();
    let key = (method, status.as_u16());
    KNOWN.with_borrow_mut(|known| {
        let histograms = match known.get_mut(route) {
            Some(histograms) => histograms,
            None => known.entry(route.into()).or_default(),
        };
        if let Some((_, histogram)) = histograms.iter().find(|(of, _)| *of == key) {
            histogram.observe(seconds);
            return;
        }
        let histogram = DURATION.with_label_values(&[method, route, status.as_str()]);
        histogram.observe(seconds);
        histograms.push((key, histogram));
    });
}

/// The method as a label: anybody may invent one, so those that HTTP doesn't have are `_OTHER`.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}
