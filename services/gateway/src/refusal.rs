//! The problems that the gateway itself answers, and how they are put on the wire.

use bytes::Bytes;
use chassis::{
    problem::{Code, Problem, common},
    telemetry::TraceContext,
};
use http::{HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;

use crate::{head::Fault, metrics, routes::Miss};

/// A request that can't be read, or that can be read in two ways.
pub(crate) const MALFORMED_REQUEST: Code = Code::new(
    "MALFORMED_REQUEST",
    StatusCode::BAD_REQUEST,
    "The request can't be read",
);
/// A client that takes too long to send its request.
pub(crate) const REQUEST_TIMEOUT: Code = Code::new(
    "REQUEST_TIMEOUT",
    StatusCode::REQUEST_TIMEOUT,
    "The request came too slowly",
);
/// A head that is too large or has too many fields.
pub(crate) const HEADER_TOO_LARGE: Code = Code::new(
    "HEADER_TOO_LARGE",
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The request's header is too large",
);
/// As many requests or connections as the gateway takes are there already.
pub(crate) const OVERLOADED: Code = Code::new(
    "OVERLOADED",
    StatusCode::SERVICE_UNAVAILABLE,
    "Too many requests at the moment",
);
/// No process of the service can be reached.
pub(crate) const UPSTREAM_UNAVAILABLE: Code = Code::new(
    "UPSTREAM_UNAVAILABLE",
    StatusCode::SERVICE_UNAVAILABLE,
    "The service is not available for a moment",
);
/// The service's connection ended without an answer that makes sense; what it did is unknown.
pub(crate) const UPSTREAM_FAILED: Code = Code::new(
    "UPSTREAM_FAILED",
    StatusCode::BAD_GATEWAY,
    "The service gave no answer",
);
/// The service didn't answer in time; what it did is unknown.
pub(crate) const GATEWAY_TIMEOUT: Code = Code::new(
    "GATEWAY_TIMEOUT",
    StatusCode::GATEWAY_TIMEOUT,
    "The service didn't answer in time",
);

/// Seconds after which a request that found no endpoint, or no room, is worth sending again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// 503: the gateway is full.
pub(crate) fn overloaded() -> Problem {
    OVERLOADED
        .problem("send the request again in a moment")
        .retry_after(RETRY_AFTER_SECONDS)
}

/// 503: nothing was sent to any process of the service.
pub(crate) fn unavailable() -> Problem {
    UPSTREAM_UNAVAILABLE
        .problem("nothing was done; send the request again in a moment")
        .retry_after(RETRY_AFTER_SECONDS)
}

/// 413.
pub(crate) fn body_too_large(bytes_max: usize) -> Problem {
    common::PAYLOAD_TOO_LARGE.problem(format!("a body has at most {bytes_max} bytes here"))
}

/// 408.
pub(crate) fn too_slow() -> Problem {
    REQUEST_TIMEOUT.problem("the request didn't come in time")
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(detail) => MALFORMED_REQUEST.problem(detail),
            Fault::TooLarge => {
                HEADER_TOO_LARGE.problem("the request line and header fields have too many bytes")
            }
            Fault::TooManyFields => HEADER_TOO_LARGE.problem("there are too many header fields"),
            Fault::Method => method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE"),
        }
    }
}

impl From<Miss> for Problem {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Path => common::NOT_FOUND.problem("nothing is at this path"),
            Miss::Method { allow, .. } => method_not_allowed(allow),
        }
    }
}

fn method_not_allowed(allow: &'static str) -> Problem {
    common::METHOD_NOT_ALLOWED
        .problem("this path takes only the methods named in Allow")
        .header(header::ALLOW, HeaderValue::from_static(allow))
}

/// The answer as the proxy library sends it. Counted here, once for each answer.
pub(crate) fn answer(
    problem: Problem,
    trace: TraceContext,
) -> pingora::Result<(Box<ResponseHeader>, Bytes)> {
    metrics::refused(problem.code());
    let (status, fields, body) = problem.into_parts_in(Some(trace));
    let mut header = ResponseHeader::build(status, Some(fields.len() + 4))?;
    for (name, value) in &fields {
        header.append_header(name.clone(), value.clone())?;
    }
    header.insert_header(header::CONTENT_LENGTH, body.len())?;
    header.insert_header(header::CACHE_CONTROL, "no-store")?;
    Ok((Box::new(header), body.into()))
}

/// The answer as bytes, for a connection on which no request could be read and that is closed after it.
pub(crate) fn last_words(problem: Problem, trace: TraceContext) -> Vec<u8> {
    metrics::refused(problem.code());
    let (status, fields, body) = problem.into_parts_in(Some(trace));
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in &fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}
