//! The refusals of an operation: its problem codes, by status.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Response};

use crate::problem::{Code, MEDIA_TYPE};

/// Where a response has its media types.
const CONTENT: &str = "/content";
/// Where a problem's content has its codes.
const CODES: &str = "/schema/allOf/1/properties/code/enum";

/// Names what an operation answers when it refuses, by the codes' constants, for its `responses(...)`. Not those that
/// follow from how every Quokka API works.
#[macro_export]
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($code:expr),+ $(,)?);+ $(;)?) => {
        $(
            $(#[$doc])*
            enum $name {}

            impl ::utoipa::IntoResponses for $name {
                fn responses() -> ::std::collections::BTreeMap<
                    ::std::string::String,
                    ::utoipa::openapi::RefOr<::utoipa::openapi::Response>,
                > {
                    $crate::openapi::responses(&[$($code),+])
                }
            }
        )+
    };
}

/// What an operation answers for each of the codes: what [`refusals!`](crate::refusals) makes.
pub fn responses(codes: &[Code]) -> BTreeMap<String, RefOr<Response>> {
    let mut responses = Map::new();
    add(&mut responses, codes);
    responses
        .into_iter()
        .map(|(status, response)| {
            let response: Response =
                serde_json::from_value(response).expect("it is made just below");
            (status, RefOr::T(response))
        })
        .collect()
}

/// Adds codes to the responses of an operation, each once.
pub(super) fn add(responses: &mut Map<String, Value>, codes: &[Code]) {
    for code in codes {
        let response = responses
            .entry(code.status().as_str())
            .or_insert_with(|| empty(code.status()));
        let Some(Value::Array(known)) = response
            .pointer_mut(CONTENT)
            .and_then(|content| content.get_mut(MEDIA_TYPE))
            .and_then(|content| content.pointer_mut(CODES))
        else {
            panic!("{}: the response has no codes", code.as_str());
        };
        if known.contains(&json!(code.as_str())) {
            continue;
        }
        known.push(json!(code.as_str()));
        known.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        let line = format!("`{}`: {}.", code.as_str(), code.title());
        if let Some(Value::String(description)) = response.get_mut("description") {
            let mut lines: Vec<&str> = description.split("\n\n").collect();
            lines.retain(|line| !line.is_empty());
            lines.push(&line);
            lines.sort_unstable();
            *description = lines.join("\n\n");
        }
    }
}

/// The codes of a response.
pub(super) fn codes(response: &Value) -> Option<&Vec<Value>> {
    let content = response.pointer(CONTENT)?.get(MEDIA_TYPE)?;
    content.pointer(CODES)?.as_array()
}

/// A response of this status that has no code yet.
fn empty(status: StatusCode) -> Value {
    let mut response = json!({
        "description": "",
        "content": { MEDIA_TYPE: { "schema": { "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "type": "object", "properties": { "code": { "type": "string", "enum": [] } } },
        ]}}},
    });
    let header = match status {
        StatusCode::UNAUTHORIZED => Some((
            "WWW-Authenticate",
            json!({"description": "How to authenticate.", "schema": {"type": "string"}}),
        )),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((
            "Retry-After",
            json!({
                "description": "Seconds after which to ask again.",
                "schema": {"type": "integer", "minimum": 0},
            }),
        )),
        _ => None,
    };
    if let Some((name, header)) = header {
        response["headers"] = json!({ name: header });
    }
    response
}
