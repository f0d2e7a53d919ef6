//! The API's reference: the document of all services, and a page to read and try it, both from the binary itself.
//!
//! Each service's part is generated from its routes and lies in its folder; here they become one, with what the gateway
//! itself may answer.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use chassis::{
    openapi::{Document, DocumentError},
    problem::{Code, common},
};
use http::{Method, header};
use pingora::http::ResponseHeader;

use crate::{
    refusal,
    routes::{self, Access, Miss},
};

/// What each service wrote of itself.
const PARTS: &[&str] = &[
    include_str!("../../users/openapi.json"),
    include_str!("../../promotions/openapi.json"),
    include_str!("../../stays/openapi.json"),
    include_str!("../../booking/openapi.json"),
    include_str!("../../orders/openapi.json"),
    include_str!("../../payments/openapi.json"),
];

const DESCRIPTION: &str = "\
Stays, time sales, coupons, orders and payments.

- Errors are `application/problem+json` (RFC 9457): decide by `code`, which is stable; `traceId` finds the request again.
- An operation that takes an `Idempotency-Key` answers the same key and request the same for a day.
- Lists are paged: `pageSize` and `pageToken`, answered with `items` and `nextPageToken`, which the last page lacks.
- Money is in whole won, times are RFC 3339 in UTC, and dates of stays are those of Asia/Seoul.
- 429 and 503 say in `Retry-After` when to ask again.";

/// What any request may be answered before a service has it, or when the service gives no answer.
const OF_ANY: &[Code] = &[
    refusal::MALFORMED_REQUEST,
    refusal::REQUEST_TIMEOUT,
    refusal::HEADER_TOO_LARGE,
    refusal::OVERLOADED,
    refusal::UPSTREAM_UNAVAILABLE,
    refusal::UPSTREAM_FAILED,
    refusal::GATEWAY_TIMEOUT,
];

/// The page loads what lies beside it, and nothing from anywhere else. Its library sets styles from its script.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long what is shown may be kept: it changes with the gateway's version alone.
const KEPT: &str = "public, max-age=300";

/// The whole API's document.
pub(crate) fn document() -> Result<Document, DocumentError> {
    let (first, others) = PARTS.split_first().ok_or(DocumentError::Missing("part"))?;
    let mut whole = Document::parse(first)?;
    for other in others {
        whole.merge(Document::parse(other)?)?;
    }
    whole.describe("Quokka", DESCRIPTION);
    for mut operation in whole.operations() {
        operation.refused_with(OF_ANY);
        let access = routes::find(&operation.method, operation.path).map(|target| target.access);
        if access.is_ok_and(|access| access != Access::NotChecked) {
            operation.refused_with(&[common::UNAUTHENTICATED]);
        }
    }
    Ok(whole)
}

/// What is shown.
pub(crate) struct Reference {
    document: Bytes,
}

/// Something to show, and the template of its path.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// `http.route`.
    pub(crate) template: &'static str,
    content_type: &'static str,
    /// The body.
    pub(crate) body: Bytes,
}

impl Reference {
    /// With the document that this binary was built with.
    pub(crate) fn new() -> Result<Self, DocumentError> {
        Ok(Self {
            document: document()?.to_json().into(),
        })
    }

    /// What is at a path of the reference; `None` for paths that are not of it.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<Result<Page, Miss>> {
        let page = self.page(path)?;
        Some(if [Method::GET, Method::HEAD].contains(method) {
            Ok(page)
        } else {
            Err(Miss::Method {
                template: page.template,
                allow: "GET, HEAD",
            })
        })
    }

    fn page(&self, path: &str) -> Option<Page> {
        let of_library = |content_type, name| {
            Some(Page {
                template: "/docs/{file}",
                content_type,
                body: library(name)?,
            })
        };
        let own = |template, content_type, text: &'static str| {
            Some(Page {
                template,
                content_type,
                body: Bytes::from_static(text.as_bytes()),
            })
        };
        match path {
            "/openapi.json" => Some(Page {
                template: "/openapi.json",
                content_type: "application/json",
                body: self.document.clone(),
            }),
            "/docs" => own(
                "/docs",
                "text/html; charset=utf-8",
                include_str!("../assets/docs.html"),
            ),
            "/docs/start.js" => own(
                "/docs/{file}",
                "text/javascript",
                include_str!("../assets/start.js"),
            ),
            "/docs/swagger-ui-bundle.js" => of_library("text/javascript", "swagger-ui-bundle.js"),
            "/docs/swagger-ui.css" => of_library("text/css", "swagger-ui.css"),
            "/docs/favicon-32x32.png" => of_library("image/png", "favicon-32x32.png"),
            _ => None,
        }
    }
}

/// A file of the page's library, which is part of the binary.
fn library(name: &str) -> Option<Bytes> {
    let file = utoipa_swagger_ui::serve(name, Arc::default()).ok()??;
    Some(match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    })
}

impl Page {
    /// The header that its body goes with.
    pub(crate) fn header(&self) -> pingora::Result<Box<ResponseHeader>> {
        let mut answer = ResponseHeader::build(200, Some(5))?;
        answer.insert_header(header::CONTENT_TYPE, self.content_type)?;
        answer.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        answer.insert_header(header::CACHE_CONTROL, KEPT)?;
        answer.insert_header(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)?;
        answer.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
        Ok(Box::new(answer))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_fresh() {
        let written = include_str!("../../../docs/openapi.json");
        assert!(
            document().unwrap().to_json() == written,
            "stale: run `make generate`"
        );
    }

    #[test]
    fn everything_that_the_page_loads_is_there() {
        let reference = Reference::new().unwrap();
        let page = String::from_utf8(reference.page("/docs").unwrap().body.to_vec()).unwrap();
        let loaded: Vec<&str> = page
            .split(['"'])
            .filter(|text| text.starts_with("docs/"))
            .collect();
        assert_eq!(loaded.len(), 4);
        for file in loaded {
            assert!(!reference.page(&format!("/{file}")).unwrap().body.is_empty());
        }
    }

    #[test]
    fn nothing_else_is_of_the_reference() {
        let reference = Reference::new().unwrap();
        for path in [
            "/",
            "/docs/",
            "/docs/index.html",
            "/docs/../openapi.json",
            "/openapi.jso",
        ] {
            assert!(reference.find(&Method::GET, path).is_none(), "{path}");
        }
        assert!(matches!(
            reference.find(&Method::POST, "/docs"),
            Some(Err(Miss::Method {
                allow: "GET, HEAD",
                ..
            }))
        ));
    }
}
