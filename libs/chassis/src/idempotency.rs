//! `Idempotency-Key` for POSTs that create something, as one layer around their routes.
//!
//! The first request with a key is noted in PostgreSQL before its handler runs, and its answer after. The same
//! request again gets the same answer, whether it comes a second or a day later; while the first is under way, it
//! gets 409 IDEMPOTENCY_IN_FLIGHT. A key's scope is caller, method and route; the same key with another path, query
//! or body is 422.
//!
//! Only answers below 400 are kept: a refusal had no effect, and may not be one next time. A handler that runs under
//! a key runs to its end even when its caller goes away, so that the caller's second attempt finds an answer. It
//! holds a lease that it keeps extending; when the process dies, the lease ends, and the next attempt runs the handler
//! again. So what a handler creates needs a unique business key of its own: this layer gives back answers, it doesn't
//! make effects atomic.
//!
//! ```no_run
//! # use axum::{Router, routing::post};
//! # use chassis::{auth::Verifier, idempotency::Idempotency, serve::Shutdown};
//! # fn routes(pool: sqlx::PgPool, verifier: Verifier, shutdown: &Shutdown) -> Router {
//! let idempotency = Idempotency::new(pool, shutdown).scoped_to_caller(verifier);
//! Router::new().route("/v1/reviews", post(async || "created")).route_layer(idempotency)
//! # }
//! ```
//!
//! The table comes with [`crate::postgres::Schema::with`]`(`[`MIGRATION`]`)`.

mod key;
mod store;

use std::{
    any::Any,
    borrow::Cow,
    convert::Infallible,
    panic::{AssertUnwindSafe, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{FromRequest as _, MatchedPath, Request},
    response::{IntoResponse as _, Response},
    routing::Route,
};
use bytes::Bytes;
use futures::FutureExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Method, request::Parts};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use tokio::sync::oneshot;
use tower::{Layer, Service};
use tracing::warn;

use self::store::{Answer, Begin, Lease, Scope, Store};
use crate::{
    auth::Verifier,
    http::body_problem,
    problem::{Problem, common},
    serve::Shutdown,
    telemetry,
};

pub use key::{KEY_HEADER, key_of};
pub use store::{MIGRATION, RETENTION};

/// The answer header, `true` on an answer that was given before.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key that a request came with, bare, for a handler under the layer: an extension of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub String);

/// A larger answer isn't kept, and the request isn't protected: what creates something answers with little.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// How soon to ask again about a request that is under way, in seconds.
const IN_FLIGHT_RETRY_AFTER: u32 = 1;

/// How often old keys are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// The layer. Clones share the store.
#[derive(Clone)]
pub struct Idempotency {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    store: Store,
    verifier: Option<Verifier>,
    required: bool,
    fingerprint_key: Option<[u8; 32]>,
    shutdown: Shutdown,
}

impl Idempotency {
    /// Keys that are optional and shared by everybody, kept in the table of [`MIGRATION`]. A task of `shutdown`
    /// forgets them after [`RETENTION`].
    pub fn new(pool: PgPool, shutdown: &Shutdown) -> Self {
        let store = Store::new(pool);
        let (sweeper, stop) = (store.clone(), shutdown.token());
        shutdown.task("idempotency-sweep", async move {
            while stop
                .run_until_cancelled(tokio::time::sleep(SWEEP_EVERY))
                .await
                .is_some()
            {
                if let Err(error) = sweeper.sweep().await {
                    warn!(%error, "old idempotency keys not forgotten");
                }
            }
        });
        Self {
            inner: Arc::new(Inner {
                store,
                verifier: None,
                required: false,
                fingerprint_key: None,
                shutdown: shutdown.clone(),
            }),
        }
    }

    /// Each caller's keys are the caller's own. A request without a good token goes to the handler as it is, to be
    /// refused there.
    pub fn scoped_to_caller(self, verifier: Verifier) -> Self {
        Self {
            inner: Arc::new(Inner {
                verifier: Some(verifier),
                ..(*self.inner).clone()
            }),
        }
    }

    /// For routes whose bodies hold a password: what tells one body from another is kept as an HMAC with this secret,
    /// since whoever reads the table could try passwords against a plain hash as fast as hashes go. The secret must not
    /// be in the same database. When it changes, the keys of the last day are taken for other requests' (422).
    pub fn with_fingerprint_key(self, key: [u8; 32]) -> Self {
        Self {
            inner: Arc::new(Inner {
                fingerprint_key: Some(key),
                ..(*self.inner).clone()
            }),
        }
    }

    /// A POST without a key is 400 IDEMPOTENCY_KEY_MISSING.
    pub fn required(self) -> Self {
        Self {
            inner: Arc::new(Inner {
                required: true,
                ..(*self.inner).clone()
            }),
        }
    }
}

impl Layer<Route> for Idempotency {
    type Service = Idempotent;

    fn layer(&self, handler: Route) -> Idempotent {
        Idempotent {
            handler,
            layer: self.clone(),
        }
    }
}

/// A handler under [`Idempotency`].
#[derive(Clone)]
pub struct Idempotent {
    handler: Route,
    layer: Idempotency,
}

impl Service<Request> for Idempotent {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.handler, cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let handler = self.handler.clone();
        let layer = self.layer.clone();
        Box::pin(async move {
            if request.method() != Method::POST {
                return call(handler, request).await;
            }
            Ok(layer
                .answer(handler, request)
                .await
                .unwrap_or_else(|problem| problem.into_response()))
        })
    }
}

impl Idempotency {
    async fn answer(self, handler: Route, request: Request) -> Result<Response, Problem> {
        let caller = match &self.inner.verifier {
            None => String::new(),
            Some(verifier) => match verifier.verify_headers(request.headers()).await {
                Ok(caller) => caller.user_id.to_string(),
                Err(_) => return Ok(infallible(call(handler, request).await)),
            },
        };
        let Some(key) = key_of(request.headers())?.map(Cow::into_owned) else {
            if self.inner.required {
                return Err(common::IDEMPOTENCY_KEY_MISSING
                    .problem("send an Idempotency-Key, such as a random UUID"));
            }
            return Ok(infallible(call(handler, request).await));
        };
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(Key(key.clone()));
        let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &())
            .await
            .map_err(body_problem)?;
        let scope = Scope {
            caller,
            method: parts.method.to_string(),
            route: route_of(&parts),
            key,
        };

        match self
            .inner
            .store
            .begin(scope, self.fingerprint(&parts, &body))
            .await?
        {
            Begin::Ours(lease) => Ok(self
                .run_to_the_end(lease, handler, Request::from_parts(parts, Body::from(body)))
                .await),
            Begin::Answered(answer) => Ok(replay(answer)),
            Begin::InFlight => Err(common::IDEMPOTENCY_IN_FLIGHT
                .problem("a request with this key is under way: ask again")
                .retry_after(IN_FLIGHT_RETRY_AFTER)),
            Begin::OtherRequest => Err(common::IDEMPOTENCY_KEY_REUSED
                .problem("this key came with another path, query or body before")),
        }
    }

    /// What is kept to tell one request from another.
    fn fingerprint(&self, parts: &Parts, body: &[u8]) -> [u8; 32] {
        let digest = digest(parts, body);
        let Some(key) = &self.inner.fingerprint_key else {
            return digest;
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
        mac.update(&digest);
        mac.finalize().into_bytes().into()
    }

    /// Runs the handler in a task that outlives the caller's patience; the process awaits it before it ends.
    async fn run_to_the_end(&self, lease: Lease, handler: Route, request: Request) -> Response {
        let (answered, answer) = oneshot::channel();
        let store = self.inner.store.clone();
        self.inner.shutdown.job(
            "idempotent-request",
            telemetry::propagate(async move {
                // Nobody may be listening any more; the answer is kept all the same.
                let _ = answered.send(run(store, lease, handler, request).await);
            }),
        );
        match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Problem::unavailable("the process is ending").into_response(),
        }
    }
}

/// The handler's answer, kept or its lease given up; the panic of a handler that panicked.
async fn run(
    store: Store,
    lease: Lease,
    handler: Route,
    request: Request,
) -> Result<Response, Box<dyn Any + Send>> {
    let handled =
        AssertUnwindSafe(async { infallible(call(handler, request).await) }).catch_unwind();
    let response = tokio::select! {
        response = handled => response,
        never = store.keep_alive(&lease) => match never {},
    };
    let response = match response {
        Ok(response) => response,
        Err(panic) => {
            store.release(&lease).await;
            return Err(panic);
        }
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        store.release(&lease).await;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    match axum::body::to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => {
            let answer = Answer {
                status: parts.status,
                headers: parts.headers.clone(),
                body: body.clone(),
            };
            store.finish(&lease, &answer).await;
            Ok(Response::from_parts(parts, Body::from(body)))
        }
        Err(error) => {
            store.release(&lease).await;
            Ok(
                Problem::internal(format_args!("answer of an idempotent request: {error}"))
                    .into_response(),
            )
        }
    }
}

async fn call(mut handler: Route, request: Request) -> Result<Response, Infallible> {
    Service::<Request>::call(&mut handler, request).await
}

fn infallible(result: Result<Response, Infallible>) -> Response {
    match result {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn replay(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
        .headers_mut()
        .insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    response
}

/// The template of the route; a layer on a router without routes has none.
fn route_of(parts: &Parts) -> String {
    parts
        .extensions
        .get::<MatchedPath>()
        .map(|route| route.as_str().to_owned())
        .unwrap_or_default()
}

/// What makes a request the same: everything that a handler decides by, except who asks, which is in the scope.
fn digest(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    hash.update((target.len() as u64).to_be_bytes());
    hash.update(target);
    hash.update(body);
    hash.finalize().into()
}
