//! Problem answers: RFC 9457 `application/problem+json`, with a stable code and the trace id.
//!
//! A code is declared once, beside its status and title, and answered with a detail:
//!
//! ```
//! use chassis::problem::{Code, Problem};
//! use http::StatusCode;
//!
//! /// Every unit of the sale is claimed.
//! pub const SOLD_OUT: Code = Code::new("SOLD_OUT", StatusCode::CONFLICT, "Sold out");
//!
//! fn refuse() -> Problem {
//!     SOLD_OUT.problem("every unit of jeju-weekend is claimed")
//! }
//! # assert_eq!(refuse().status(), StatusCode::CONFLICT);
//! ```

use std::{borrow::Cow, fmt};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::{self, TraceContext};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What the `type` of every problem starts with; the rest is its code in lower case with hyphens.
pub const TYPE_BASE: &str = "https://quokka.travel/problems/";

/// A kind of problem: what clients decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
}

impl Code {
    /// Declares a code: upper snake case and stable for ever, the status it is answered with, and a title that
    /// doesn't change from one occurrence to the next.
    pub const fn new(code: &'static str, status: StatusCode, title: &'static str) -> Self {
        Self {
            code,
            status,
            title,
        }
    }

    /// The code, such as `SOLD_OUT`.
    pub const fn as_str(&self) -> &'static str {
        self.code
    }

    /// The status it is answered with.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What kind of problem it is, in words.
    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// The problem's `type`, such as `https://quokka.travel/problems/sold-out`.
    pub fn type_uri(&self) -> String {
        let mut uri = String::with_capacity(TYPE_BASE.len() + self.code.len());
        uri.push_str(TYPE_BASE);
        uri.extend(self.code.chars().map(|c| {
            if c == '_' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        }));
        uri
    }

    /// A problem of this kind. `detail` is for the person who reads the answer: what was wrong this time.
    pub fn problem(self, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem {
            code: self,
            detail: detail.into(),
            retry_after: None,
            more: None,
        }
    }
}

/// Codes that any service may answer.
pub mod common {
    use super::{Code, StatusCode};

    macro_rules! codes {
        ($($(#[$doc:meta])* $name:ident = ($code:literal, $status:ident, $title:literal);)+) => {
            $($(#[$doc])* pub const $name: Code = Code::new($code, StatusCode::$status, $title);)+

            /// All of them, for the API's reference.
            pub const ALL: &[Code] = &[$($name),+];
        };
    }

    codes! {
        /// A body, path, query or header that can't be taken.
        VALIDATION = ("INVALID_REQUEST", BAD_REQUEST, "The request is not valid");
        /// No token, or one that isn't good.
        UNAUTHENTICATED = ("UNAUTHENTICATED", UNAUTHORIZED, "A valid access token is needed");
        /// A good token of somebody who may not.
        FORBIDDEN = ("FORBIDDEN", FORBIDDEN, "Not allowed");
        /// Nothing is at this path.
        NOT_FOUND = ("NOT_FOUND", NOT_FOUND, "Not found");
        /// Something is at this path, but not for this method; `Allow` tells which.
        METHOD_NOT_ALLOWED = ("METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "Method not allowed");
        /// A body larger than the service takes.
        PAYLOAD_TOO_LARGE = ("PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE, "The body is too large");
        /// A body of a type that the service doesn't read.
        UNSUPPORTED_MEDIA_TYPE = ("UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type");
        /// More requests than the caller may make now.
        TOO_MANY_REQUESTS = ("TOO_MANY_REQUESTS", TOO_MANY_REQUESTS, "Too many requests");
        /// Something that the service needs isn't there now.
        UNAVAILABLE = ("UNAVAILABLE", SERVICE_UNAVAILABLE, "Unavailable for a moment");
        /// The service gave up on the request; whether it took effect is unknown.
        TIMED_OUT = ("TIMED_OUT", SERVICE_UNAVAILABLE, "The request took too long");
        /// A mistake of the service's own.
        INTERNAL = ("INTERNAL", INTERNAL_SERVER_ERROR, "Internal error");
        /// The route needs an `Idempotency-Key`.
        IDEMPOTENCY_KEY_MISSING = ("IDEMPOTENCY_KEY_MISSING", BAD_REQUEST, "An Idempotency-Key is needed");
        /// An `Idempotency-Key` that isn't 1 to 255 visible characters, or more than one.
        IDEMPOTENCY_KEY_INVALID = ("IDEMPOTENCY_KEY_INVALID", BAD_REQUEST, "The Idempotency-Key is not valid");
        /// A request with the same key is being worked on.
        IDEMPOTENCY_IN_FLIGHT = ("IDEMPOTENCY_IN_FLIGHT", CONFLICT, "A request with this Idempotency-Key is under way");
        /// The key was used for another request.
        IDEMPOTENCY_KEY_REUSED = ("IDEMPOTENCY_KEY_REUSED", UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another request");
    }
}

/// An answer that says what went wrong, in a form that programs can act on.
///
/// It is the error type of handlers: `async fn claim(..) -> Result<Json<Claim>, Problem>`.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    retry_after: Option<u32>,
    more: Option<Box<More>>,
}

/// What few problems have, kept aside so that a `Result<_, Problem>` stays small.
#[derive(Debug, Clone, Default)]
struct More {
    errors: Vec<FieldError>,
    headers: HeaderMap,
}

/// Something wrong at one place of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// What is wrong there.
    pub detail: String,
    /// Where: a JSON pointer into the body as a URI fragment, such as `#/guests/0/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// Where: the name of a path or query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
}

impl Problem {
    /// The answer to a mistake of our own: 500 that says nothing of it. What happened is logged here, so that it isn't
    /// anywhere else.
    pub fn internal(error: impl fmt::Display) -> Self {
        tracing::error!(error = %error, "internal error");
        common::INTERNAL.problem("a mistake of the service's own: its log tells it by the traceId")
    }

    /// 503 with `Retry-After`: something that the service needs isn't there.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        common::UNAVAILABLE.problem(detail).retry_after(1)
    }

    /// 400: one field of the body, by its JSON pointer such as `/email`, can't be taken; the whole body, by an empty one.
    pub fn field(pointer: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let what = if pointer.is_empty() {
            "the body"
        } else {
            pointer
        };
        common::VALIDATION
            .problem(format!("{what}: {detail}"))
            .with_error(FieldError {
                detail,
                pointer: Some(format!("#{pointer}")),
                parameter: None,
            })
    }

    /// 400: one parameter of the path or query can't be taken.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        common::VALIDATION
            .problem(format!("{name}: {detail}"))
            .with_error(FieldError {
                detail,
                pointer: None,
                parameter: Some(name.to_owned()),
            })
    }

    /// Adds one of several mistakes of a request.
    pub fn with_error(mut self, error: FieldError) -> Self {
        self.more().errors.push(error);
        self
    }

    /// Adds `Retry-After`, in seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more().headers.append(name, value);
        self
    }

    /// What kind of problem it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.code.status
    }

    /// What was wrong this time.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer's headers and JSON, for servers that aren't axum. `traceId` is the current trace's.
    pub fn into_parts(self) -> (StatusCode, HeaderMap, Vec<u8>) {
        self.into_parts_in(telemetry::current())
    }

    /// As [`Problem::into_parts`], for a server that keeps the trace of a request itself.
    pub fn into_parts_in(self, trace: Option<TraceContext>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let trace_id = trace.map(TraceContext::trace_id_hex);
        let More {
            errors,
            mut headers,
        } = self.more.map(|more| *more).unwrap_or_default();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let body = Body {
            type_uri: self.code.type_uri(),
            title: self.code.title,
            status: self.code.status.as_u16(),
            detail: &self.detail,
            code: self.code.code,
            trace_id: trace_id.as_ref().map(|hex| hex.as_str()),
            errors: &errors,
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers always serialize");
        (self.code.status, headers, body)
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }
}

/// What went wrong, as RFC 9457 has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body<'a> {
    /// What kind of problem it is, as a URI made from its code.
    #[serde(rename = "type")]
    #[schema(format = "uri")]
    type_uri: String,
    /// The kind in words, the same each time.
    title: &'static str,
    /// The answer's status.
    status: u16,
    /// What was wrong this time, for a person to read.
    detail: &'a str,
    /// What programs decide by: stable, in upper snake case.
    code: &'static str,
    /// The trace under which the services' logs tell more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, pattern = "^[0-9a-f]{32}$")]
    trace_id: Option<&'a str>,
    /// Each place of the request that is wrong, where there are any.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Code { code, status, .. } = self.code;
        write!(f, "{} {code}: {}", status.as_u16(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into_parts().into_response()
    }
}
