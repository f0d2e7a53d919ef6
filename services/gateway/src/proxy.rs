//! What happens to a request between its head and the end of its answer.
//!
//! It is on the path of every claim: nothing here waits for anything but the client and the service, and what is
//! decided is decided once, before the first byte leaves. Whoever is slow to send a request has no place and no
//! connection to a service yet.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use chassis::{
    auth::{AuthError, Verifier},
    http as measure,
    problem::{Problem, common},
    telemetry::{TRACEPARENT, TraceContext},
};
use http::{StatusCode, Version, header};
use pingora::{
    Error, ErrorSource, ErrorType,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session},
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Limits,
    forwarded::{self, TrustedProxies},
    metrics,
    policy::{self, Admission, Failure, Held, Ticket},
    reference::{Page, Reference},
    refusal,
    routes::{self, Access, Miss, Target},
    trace::Trace,
    upstreams::{InUse, Upstreams},
};

/// The largest body that is waited for: what the proxy library keeps to send it, and to send it once more.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bodies larger than that which are passed on at the same time: whoever sends one has a place while it comes.
pub(crate) const LARGE_BODIES_MAX: usize = 32;

/// How long a connection to an endpoint is kept for the next request.
const POOLED_IDLE: Duration = Duration::from_secs(60);

/// Connections made for a second attempt are kept apart from those in the pool, one of which has just failed.
const FRESH_CONNECTION: u64 = 1;

/// How much of a refused body is read before the connection is closed: a client that still sends when it is closed
/// may lose the answer.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// The status under which a request is counted whose client went away before the answer, as nginx does it.
const CLIENT_GONE: u16 = 499;

/// What requests are passed through.
pub(crate) struct Gateway {
    /// Where they go.
    pub(crate) upstreams: Arc<Upstreams>,
    /// What is told of them.
    pub(crate) reference: Reference,
    /// Who may send them.
    pub(crate) verifier: Verifier,
    /// How many at once.
    pub(crate) admission: Arc<Admission>,
    /// How many at once with a body that is passed on as it comes.
    pub(crate) large_bodies: Arc<Semaphore>,
    /// What is asked of them.
    pub(crate) limits: Limits,
    /// Whose word about clients is taken.
    pub(crate) trusted_proxies: TrustedProxies,
    /// Cancelled when the process is on its way out.
    pub(crate) draining: CancellationToken,
}

/// Who opened the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) SocketAddr);

/// One request and its answer.
pub(crate) struct Exchange {
    started: Instant,
    client: Option<IpAddr>,
    trace: Trace,
    route: &'static str,
    target: Option<Target>,
    ticket: Option<Ticket>,
    in_use: Option<InUse>,
    attempts: usize,
    avoid: Option<SocketAddr>,
    held: Option<Held>,
    /// The body is passed on as it comes.
    large: Option<OwnedSemaphorePermit>,
    /// The answer to give instead, decided while the request was being passed on.
    refusal: Option<Problem>,
}

impl Exchange {
    fn repeatable(&self, request: &RequestHeader) -> bool {
        self.target.is_some_and(|target| {
            target.repeatable || target.keyed && request.headers.contains_key("idempotency-key")
        })
    }
}

impl Gateway {
    fn time_left(&self, exchange: &Exchange) -> Duration {
        self.limits
            .request_timeout
            .saturating_sub(exchange.started.elapsed())
    }

    /// Whether a request may be passed on, as far as its head tells; the problem is what it is answered with otherwise.
    async fn check(&self, request: &RequestHeader, target: &Target) -> Result<(), Problem> {
        if self.admission.is_full() {
            return Err(refusal::overloaded());
        }
        let most = target
            .large_body_bytes_max
            .map_or(self.limits.body_bytes_max, |large| {
                large.max(self.limits.body_bytes_max)
            });
        if content_length(request).is_some_and(|length| length > most) {
            return Err(refusal::body_too_large(most));
        }
        self.authenticate(request, target.access).await
    }

    /// Sees to it that the body can be passed on: waits for it, unless the route takes large ones and this is one.
    async fn take_body(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        target: &Target,
    ) -> pingora::Result<Result<(), Problem>> {
        let length = content_length(session.req_header()).unwrap_or(0);
        if target.large_body_bytes_max.is_none() || length <= self.limits.body_bytes_max {
            return self.receive(session, exchange).await.map(Ok);
        }
        let Ok(place) = Arc::clone(&self.large_bodies).try_acquire_owned() else {
            return Ok(Err(refusal::overloaded()));
        };
        exchange.large = Some(place);
        if wants_to_be_told(session.req_header()) {
            let told = session.write_continue_response().await;
            told.map_err(Error::into_down)?;
        }
        Ok(Ok(()))
    }

    /// Waits for the whole body. Until it is here the request has no place: a client that sends slowly keeps nobody
    /// waiting but itself.
    async fn receive(&self, session: &mut Session, exchange: &mut Exchange) -> pingora::Result<()> {
        if session.is_body_done() {
            return Ok(());
        }
        if wants_to_be_told(session.req_header()) {
            let told = session.write_continue_response().await;
            told.map_err(Error::into_down)?;
        }
        session.as_mut().enable_retry_buffering();
        let time = self.limits.client_timeout.min(self.time_left(exchange));
        let held = exchange.held.insert(Held::new(&self.admission));
        let received = timeout(time, self.hold_body(session, held)).await;
        let Err(problem) = received.unwrap_or_else(|_| Ok(Err(refusal::too_slow())))? else {
            return Ok(());
        };
        exchange.refusal = Some(problem);
        Error::e_explain(ErrorType::ReadError, "the body was not taken")
    }

    async fn hold_body(
        &self,
        session: &mut Session,
        held: &mut Held,
    ) -> pingora::Result<Result<(), Problem>> {
        loop {
            let read = session.read_request_body().await;
            let Some(bytes) = read.map_err(Error::into_down)? else {
                return Ok(Ok(()));
            };
            if !held.grow(bytes.len()) {
                return Ok(Err(refusal::overloaded()));
            }
            if held.bytes() > self.limits.body_bytes_max {
                return Ok(Err(refusal::body_too_large(self.limits.body_bytes_max)));
            }
        }
    }

    /// Gives a request that is here whole its place, and the endpoint that it goes to.
    fn admit(&self, exchange: &mut Exchange, target: &Target) -> Result<(), Problem> {
        exchange.ticket = Some(self.admission.enter().ok_or_else(refusal::overloaded)?);
        exchange.in_use = Some(
            self.upstreams
                .of(target.service)
                .choose(None)
                .ok_or_else(refusal::unavailable)?,
        );
        Ok(())
    }

    async fn authenticate(&self, request: &RequestHeader, access: Access) -> Result<(), Problem> {
        if access == Access::NotChecked {
            return Ok(());
        }
        match self.verifier.verify_headers(&request.headers).await {
            Ok(_) => Ok(()),
            Err(AuthError::Missing) if access == Access::Anybody => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn answer(
        &self,
        session: &mut Session,
        exchange: &Exchange,
        problem: Problem,
    ) -> pingora::Result<()> {
        let (header, body) = refusal::answer(problem, exchange.trace.context())?;
        session.write_response_header(header, false).await?;
        session.write_response_body(Some(body), true).await
    }

    /// Answers with a page of the reference.
    async fn show(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        page: Page,
    ) -> pingora::Result<bool> {
        exchange.route = page.template;
        exchange.trace = Trace::begin(session.req_header(), page.template);
        if self.admission.is_full() {
            self.answer(session, exchange, refusal::overloaded())
                .await?;
        } else {
            let header = page.header()?;
            session.write_response_header(header, false).await?;
            session.write_response_body(Some(page.body), true).await?;
        }
        read_rest(session, UNREAD_BYTES_MAX).await;
        Ok(true)
    }

    /// What a failed request is answered with; `None` when nobody is there any more to be answered.
    fn problem_of(error: &Error) -> Option<Problem> {
        use ErrorType::{
            BindError, ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout,
            ConnectionClosed, ReadError, ReadTimedout, SocketError, WriteError, WriteTimedout,
        };
        match (error.esource(), error.etype()) {
            (ErrorSource::Downstream, ReadTimedout) => Some(refusal::too_slow()),
            (
                ErrorSource::Downstream,
                ReadError | WriteError | WriteTimedout | ConnectionClosed,
            ) => None,
            (ErrorSource::Downstream, _) => {
                Some(refusal::MALFORMED_REQUEST.problem("the body can't be read"))
            }
            (
                ErrorSource::Upstream,
                ConnectTimedout | ConnectRefused | ConnectNoRoute | ConnectError | BindError
                | SocketError,
            ) => Some(refusal::unavailable()),
            (ErrorSource::Upstream, ReadTimedout | WriteTimedout) => Some(timed_out()),
            (ErrorSource::Upstream, _) => {
                Some(refusal::UPSTREAM_FAILED.problem("whether the request took effect is unknown"))
            }
            (ErrorSource::Internal | ErrorSource::Unset, _) => {
                Some(common::INTERNAL.problem("the gateway made a mistake"))
            }
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange {
            started: Instant::now(),
            client: None,
            trace: Trace::none(),
            route: "",
            target: None,
            ticket: None,
            in_use: None,
            attempts: 0,
            avoid: None,
            held: None,
            large: None,
            refusal: None,
        }
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    fn on_connection_reuse(
        &self,
        _: &mut Session,
        exchange: &mut Exchange,
        connection: Box<dyn std::any::Any + Send + Sync>,
    ) {
        exchange.client = connection
            .downcast_ref::<Client>()
            .map(|client| client.0.ip());
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> pingora::Result<bool> {
        let request = session.req_header();
        let (method, path) = (&request.method, request.uri.path());
        let found = match self.reference.find(method, path) {
            Some(Ok(page)) => return self.show(session, exchange, page).await,
            Some(Err(miss)) => Err(miss),
            None => routes::find(method, path),
        };
        exchange.route = match &found {
            Ok(Target { template, .. }) | Err(Miss::Method { template, .. }) => template,
            Err(Miss::Path) => "",
        };
        exchange.target = found.ok();
        exchange.trace = Trace::begin(request, exchange.route);
        let decided = match found {
            Ok(target) => match self.check(request, &target).await {
                Ok(()) => self
                    .take_body(session, exchange, &target)
                    .await?
                    .and_then(|()| self.admit(exchange, &target)),
                refused => refused,
            },
            Err(miss) => Err(miss.into()),
        };
        let Err(problem) = decided else {
            return Ok(false);
        };
        let wait = !session.req_header().headers.contains_key(header::EXPECT);
        if wait && problem.status() != StatusCode::PAYLOAD_TOO_LARGE {
            // The connection is good for another request only when this one has been read to its end.
            read_rest(session, self.limits.body_bytes_max).await;
        }
        self.answer(session, exchange, problem).await?;
        read_rest(session, UNREAD_BYTES_MAX).await;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        exchange: &mut Exchange,
    ) -> pingora::Result<Box<HttpPeer>> {
        let again = exchange.attempts > 0;
        exchange.attempts += 1;
        if exchange.in_use.is_none() {
            let chosen = exchange
                .target
                .and_then(|target| self.upstreams.of(target.service).choose(exchange.avoid));
            exchange.in_use = chosen;
        }
        let Some(in_use) = &exchange.in_use else {
            exchange.refusal = Some(refusal::unavailable());
            return Error::e_explain(ErrorType::ConnectError, "no endpoint");
        };
        let left = self.time_left(exchange);
        let mut peer = HttpPeer::new(in_use.address(), false, String::new());
        peer.options.connection_timeout = Some(left.min(self.limits.connect_timeout));
        peer.options.read_timeout = Some(left);
        peer.options.write_timeout = Some(left);
        peer.options.idle_timeout = Some(POOLED_IDLE);
        // No route has use for a WebSocket: what asks for one is passed on as the plain request it also is.
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
        if again {
            peer.group_key = FRESH_CONNECTION;
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        if !request.raw_path().starts_with(b"/") {
            // Only the gateway needs to know the whole URL.
            let path = request.uri.clone();
            request.set_uri(path);
        }
        forwarded::rewrite(request, exchange.client, &self.trusted_proxies)?;
        // The body is here already: there is nothing for the service to agree to.
        request.remove_header(&header::EXPECT);
        if TraceContext::from_headers(&session.req_header().headers).is_none() {
            request.remove_header("tracestate");
        }
        request.insert_header(TRACEPARENT, exchange.trace.context().traceparent().as_str())
    }

    /// A body that is passed on as it comes has as much time as one that is waited for.
    async fn request_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<()> {
        let late = exchange.started.elapsed() > self.limits.client_timeout;
        if exchange.large.is_some() && !end_of_stream && late {
            exchange.refusal = Some(refusal::too_slow());
            return Error::e_explain(ErrorType::ReadTimedout, "the body came too slowly");
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _: &mut Exchange,
    ) -> pingora::Result<()> {
        response.remove_header("keep-alive");
        response.remove_header("proxy-connection");
        if self.draining.is_cancelled() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> pingora::Result<Option<Duration>> {
        if !end_of_stream && self.time_left(exchange).is_zero() {
            exchange.refusal = Some(timed_out());
            return Error::e_explain(ErrorType::HTTPStatus(504), "answer too slow");
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let failed = exchange.in_use.take().map(|in_use| in_use.address());
        let other = exchange
            .target
            .and_then(|target| self.upstreams.of(target.service).choose(failed));
        let there_is_another = other
            .as_ref()
            .is_some_and(|other| Some(other.address()) != failed);
        let again =
            there_is_another && policy::try_again(exchange.attempts, Failure::NotConnected, false);
        if again {
            exchange.in_use = other;
            sent_again(exchange);
        }
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Exchange,
        _: bool,
    ) -> Box<Error> {
        let lost = *error.esource() == ErrorSource::Upstream
            && matches!(
                error.etype(),
                ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
            );
        let again = lost
            && exchange.refusal.is_none()
            && answered(session).is_none()
            && !session.as_ref().retry_buffer_truncated()
            && policy::try_again(
                exchange.attempts,
                Failure::LostBeforeAnswer,
                exchange.repeatable(session.req_header()),
            );
        if again {
            exchange.avoid = exchange.in_use.take().map(|in_use| in_use.address());
            sent_again(exchange);
        }
        let mut error = error.more_context(format!("endpoint {}", peer._address));
        error.set_retry(again);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let problem = exchange.refusal.take().or_else(|| Self::problem_of(error));
        let begun = answered(session).is_some();
        let status = problem
            .as_ref()
            .map_or(CLIENT_GONE, |problem| problem.status().as_u16());
        if status >= 500 || begun {
            exchange.trace.warn(&format!("{error}"), status, begun);
        }
        if let (Some(problem), false) = (problem, begun) {
            session.set_keepalive(None);
            if let Err(error) = self.answer(session, exchange, problem).await {
                tracing::debug!(%error, "nobody took the answer");
            } else {
                read_rest(session, UNREAD_BYTES_MAX).await;
            }
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        let status = answered(session).map_or(CLIENT_GONE, |status| status.as_u16());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let method = measure::method_name(&session.req_header().method);
        measure::observe(method, exchange.route, status, exchange.started);
        exchange.trace.end(status);
    }

    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        // fail_to_proxy has said what there was to say.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Exchange,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        // Requests that are sent again are counted.
        true
    }
}

fn timed_out() -> Problem {
    refusal::GATEWAY_TIMEOUT.problem("whether the request took effect is unknown")
}

fn sent_again(exchange: &Exchange) {
    if let Some(target) = exchange.target {
        metrics::sent_again(target.service);
    }
}

/// The status of the answer, once it has begun.
fn answered(session: &Session) -> Option<StatusCode> {
    let status = session.response_written()?.status;
    (!status.is_informational()).then_some(status)
}

/// Whether the client waits for a word before it sends its body.
fn wants_to_be_told(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_11
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn content_length(request: &RequestHeader) -> Option<usize> {
    request
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads what the client still sends, up to a number of bytes and for a moment.
async fn read_rest(session: &mut Session, bytes_max: usize) {
    if session.is_body_done() {
        return;
    }
    let read = async {
        let mut bytes = 0;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            bytes += chunk.len();
            if bytes > bytes_max {
                break;
            }
        }
    };
    // What hasn't come by then is left.
    let _ = timeout(UNREAD_TIMEOUT, read).await;
}
