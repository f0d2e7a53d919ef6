//! The API's document and the page to read it: from the gateway alone, with no service behind it.

use serde_json::Value;

use crate::support::{Gateway, Issuer, Setup, nobody, raw, request};

async fn gateway() -> (Gateway, Issuer) {
    let away = nobody().await;
    Setup::new().await.upstreams(&[away], &[]).start().await
}

#[tokio::test]
async fn the_document_is_of_the_whole_api() {
    let (gateway, _issuer) = gateway().await;
    let answer = raw(&gateway, request("GET", "/openapi.json", &[], b"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for path in [
        "/v1/users",
        "/v1/time-sales/{id}/claims",
        "/v1/stays",
        "/v1/bookings",
        "/v1/orders",
        "/v1/payments/confirm",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let inside =
        |path: &&String| path.starts_with("/internal/") || path.starts_with("/.well-known/");
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.keys().find(inside), None);
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(target) if name == "$ref" => found.push(target),
                other => references(other, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let (gateway, _issuer) = gateway().await;
    let document = raw(&gateway, request("GET", "/openapi.json", &[], b""))
        .await
        .json();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 30);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[tokio::test]
async fn the_page_loads_only_what_lies_beside_it() {
    let (gateway, _issuer) = gateway().await;
    let page = raw(&gateway, request("GET", "/docs", &[], b"")).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = &page.headers["content-security-policy"];
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    let text = String::from_utf8(page.body).unwrap();
    assert!(!text.contains("://"), "{text}");
    for (file, media_type) in [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ] {
        assert!(text.contains(&format!("\"docs/{file}\"")), "{file}");
        let answer = raw(&gateway, request("GET", &format!("/docs/{file}"), &[], b"")).await;
        assert_eq!(
            (answer.status, &*answer.headers["content-type"]),
            (200, media_type)
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(!answer.body.is_empty());
    }
}

#[tokio::test]
async fn the_reference_is_only_read() {
    let (gateway, _issuer) = gateway().await;
    let refused = raw(&gateway, request("POST", "/docs", &[], b"{}")).await;
    refused.assert_problem(405, "METHOD_NOT_ALLOWED");
    assert_eq!(refused.headers["allow"], "GET, HEAD");
    for path in ["/docs/", "/docs/else.js", "/docs/../metrics"] {
        raw(&gateway, request("GET", path, &[], b""))
            .await
            .assert_problem(404, "NOT_FOUND");
    }
    let client = reqwest::Client::new();
    let head = client
        .head(gateway.url("/openapi.json"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 200);
    assert!(
        head.headers()["content-length"]
            .to_str()
            .unwrap()
            .parse::<usize>()
            .unwrap()
            > 0
    );
    assert_eq!(head.bytes().await.unwrap().len(), 0);
}

#[tokio::test]
async fn reading_it_is_counted_under_its_template() {
    let (gateway, _issuer) = gateway().await;
    raw(&gateway, request("GET", "/docs/start.js", &[], b"")).await;
    let series = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",http_route="/docs/{file}"}"#;
    let counted = || async { (gateway.metric(series).await >= 1.0).then_some(()) };
    crate::support::eventually(counted).await;
}
