//! Extractors like axum's, whose rejections are problems that say where the request is wrong.

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use serde_path_to_error::Segment;

use crate::problem::{FieldError, Problem, common};

/// A JSON body, in a request or an answer.
///
/// A request must say `Content-Type: application/json` and have an object as its body. What can't be read is 400 with a
/// JSON pointer to the place; give `T` `#[serde(deny_unknown_fields)]`, so that a misspelt field is not silently ignored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(common::UNSUPPORTED_MEDIA_TYPE
                .problem("send the body as Content-Type: application/json"));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(body_problem)?;
        read_json(&body).map(Json)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

/// Reads JSON as [`Json`] does, from bytes that came some other way.
pub(crate) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde takes an array for a struct, its items for the fields in the order of their declaration.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::field("", "is an array: send an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = json_pointer(error.path().iter());
        Problem::field(&pointer, error.into_inner().to_string())
    })?;
    reader
        .end()
        .map_err(|error| Problem::field("", error.to_string()))?;
    Ok(value)
}

/// The parameters of the route's template, such as `{id}`.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        use axum::extract::{Path as AxumPath, path::ErrorKind, rejection::PathRejection};

        let rejection = match AxumPath::<T>::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => return Ok(Self(value)),
            Err(rejection) => rejection,
        };
        let PathRejection::FailedToDeserializePathParams(failed) = &rejection else {
            return Err(Problem::internal(rejection));
        };
        if failed.status() == StatusCode::INTERNAL_SERVER_ERROR {
            return Err(Problem::internal(rejection));
        }
        Err(match failed.kind() {
            ErrorKind::ParseErrorAtKey {
                key, expected_type, ..
            } => Problem::parameter(key, format!("is not of type {expected_type}")),
            ErrorKind::DeserializeError { key, message, .. } => {
                Problem::parameter(key, message.clone())
            }
            ErrorKind::InvalidUtf8InPathParam { key } => {
                Problem::parameter(key, "is not UTF-8 text")
            }
            kind => common::VALIDATION.problem(format!("path: {kind}")),
        })
    }
}

/// The parameters after the question mark. Give `T` `#[serde(deny_unknown_fields)]`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| {
                use std::error::Error as _;
                let reason = rejection
                    .source()
                    .map_or_else(|| rejection.body_text(), ToString::to_string);
                common::VALIDATION.problem(format!("query: {reason}"))
            })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let subtype = match essence.split_once('/') {
        Some((kind, subtype)) if kind.eq_ignore_ascii_case("application") => subtype,
        _ => return false,
    };
    subtype.eq_ignore_ascii_case("json") || subtype.to_ascii_lowercase().ends_with("+json")
}

/// A body that couldn't be read to its end.
pub(crate) fn body_problem(rejection: BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        too_large()
    } else {
        common::VALIDATION.problem("the body ended before it was whole")
    }
}

pub(crate) fn too_large() -> Problem {
    common::PAYLOAD_TOO_LARGE.problem("send a smaller body")
}

/// An RFC 6901 pointer to where a value is wrong.
fn json_pointer<'a>(path: impl Iterator<Item = &'a Segment>) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // The variant of an enum isn't a place in the document, and an unknown segment has no name.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// The mistakes of a body that its type can't express, gathered so that the caller learns all at once.
#[derive(Debug, Default)]
pub struct Mistakes {
    errors: Vec<FieldError>,
}

impl Mistakes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The field at `pointer`, such as `/email`, can't be taken.
    pub fn add(&mut self, pointer: &str, detail: impl Into<String>) -> &mut Self {
        self.errors.push(FieldError {
            detail: detail.into(),
            pointer: Some(format!("#{pointer}")),
            parameter: None,
        });
        self
    }

    /// Notes a mistake unless `holds`.
    pub fn require(&mut self, holds: bool, pointer: &str, detail: &'static str) -> &mut Self {
        if !holds {
            self.add(pointer, detail);
        }
        self
    }

    /// Ok when there were none; otherwise the 400 that names them all.
    pub fn finish(&mut self) -> Result<(), Problem> {
        let errors = std::mem::take(&mut self.errors);
        if errors.is_empty() {
            return Ok(());
        }
        let detail: Vec<String> = errors
            .iter()
            .map(|error| {
                let place = error
                    .pointer
                    .as_deref()
                    .unwrap_or_default()
                    .trim_start_matches('#');
                format!("{place}: {}", error.detail)
            })
            .collect();
        Err(errors.into_iter().fold(
            common::VALIDATION.problem(detail.join("; ")),
            Problem::with_error,
        ))
    }
}
