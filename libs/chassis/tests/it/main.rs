//! The chassis as services use it, against real servers.

#![allow(clippy::unwrap_used)]

mod auth;
mod config;
mod health;
mod idempotency;
mod pages;
mod postgres;
mod problems;
mod serve;
mod tracing;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    response::Response,
};
use chassis::http::{HttpOptions, router};
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt as _;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an API answered.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// The JSON of the body, or its text as a string.
    body: Value,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Checks that this is a whole problem answer with a code, and answers its detail.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> &str {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["code"], code, "{self:?}");
        let slug = code.to_ascii_lowercase().replace('_', "-");
        assert_eq!(
            self.body["type"],
            format!("https://quokka.travel/problems/{slug}")
        );
        assert!(self.body["title"].is_string());
        assert_eq!(
            self.body["traceId"].as_str().map(str::len),
            Some(32),
            "{self:?}"
        );
        self.body["detail"].as_str().unwrap()
    }
}

/// A service's routes as they are served, with the usual limits.
fn served(routes: Router) -> Router {
    router(routes, HttpOptions::default())
}

async fn send(api: &Router, request: Request<Body>) -> Answer {
    Answer::of(api.clone().oneshot(request).await.unwrap()).await
}

async fn get(api: &Router, path: &str) -> Answer {
    send(api, Request::get(path).body(Body::empty()).unwrap()).await
}

/// A request with a JSON body, to be changed before it is sent.
fn json(method: Method, path: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

async fn post(api: &Router, path: &str, body: &str) -> Answer {
    send(api, json(Method::POST, path, body)).await
}
