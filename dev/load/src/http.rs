//! One keep-alive HTTP/1.1 connection that a simulated guest speaks through.
//!
//! It tells apart what a checker has to tell apart: an answer, a request that certainly never left, and
//! a request whose effect nobody knows.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// A request that can be sent any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// HTTP method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: Uri,
    /// `Authorization` header, if any.
    pub(crate) authorization: Option<HeaderValue>,
    /// JSON body; empty for none.
    pub(crate) body: Bytes,
    /// `Idempotency-Key`, if any.
    pub(crate) key: Option<HeaderValue>,
}

impl Call {
    /// A GET by nobody in particular.
    pub(crate) fn get(path: Uri) -> Self {
        Self {
            method: Method::GET,
            ..Self::post(path, None)
        }
    }

    /// A POST without a body.
    pub(crate) fn post(path: Uri, authorization: Option<HeaderValue>) -> Self {
        Self {
            method: Method::POST,
            path,
            authorization,
            body: Bytes::new(),
            key: None,
        }
    }
}

/// What the server said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
struct ProblemCode {
    code: String,
}

impl Answer {
    /// The stable code of a problem answer; empty when the answer is not a problem.
    pub(crate) fn code(&self) -> String {
        serde_json::from_slice::<ProblemCode>(&self.body)
            .map(|problem| problem.code)
            .unwrap_or_default()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The connection could not be opened: the request never left.
    NotSent,
    /// The request may have been carried out: the connection broke or the time ran out.
    Unknown,
}

/// A connection that is opened when needed and again after it broke.
pub(crate) struct Connection {
    address: SocketAddr,
    host: HeaderValue,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection to `address`, not yet opened.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let host = HeaderValue::from_str(&address.to_string())
            .unwrap_or(HeaderValue::from_static("localhost"));
        Self {
            address,
            host,
            sender: None,
        }
    }

    /// Sends `call` and waits at most `timeout` for the whole answer.
    pub(crate) async fn send(
        &mut self,
        call: &Call,
        timeout: Duration,
    ) -> Result<Answer, NoAnswer> {
        let sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => tokio::time::timeout(timeout, open(self.address))
                .await
                .ok()
                .flatten()
                .ok_or(NoAnswer::NotSent)?,
        };
        match tokio::time::timeout(timeout, exchange(sender, self.request(call))).await {
            Ok(Some((answer, sender))) => {
                self.sender = sender;
                Ok(answer)
            }
            Ok(None) | Err(_) => Err(NoAnswer::Unknown),
        }
    }

    fn request(&self, call: &Call) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        if let Some(authorization) = &call.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(key) = &call.key {
            headers.insert("idempotency-key", key.clone());
        }
        if call.body.is_empty() {
            if call.method == Method::POST {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request
    }
}

async fn open(address: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, driver) = handshake(TokioIo::new(stream)).await.ok()?;
    // Ends by itself when the sender is dropped or the server closes.
    tokio::spawn(driver);
    Some(sender)
}

type Exchanged = (Answer, Option<SendRequest<Full<Bytes>>>);

async fn exchange(
    mut sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Option<Exchanged> {
    sender.ready().await.ok()?;
    let response = sender.send_request(request).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    let sender = (!sender.is_closed()).then_some(sender);
    Some((Answer { status, body }, sender))
}
