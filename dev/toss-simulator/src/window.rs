//! The page that stands for the payment window: a person picks a means of payment, and pays or cancels.

use std::sync::Arc;

use axum::extract::{Form, Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use crate::Shared;
use crate::admin::{MeansName, SessionRequest};

/// The providers of easy payments.
const PROVIDERS: [&str; 8] = [
    "토스페이",
    "네이버페이",
    "카카오페이",
    "삼성페이",
    "애플페이",
    "엘페이",
    "페이코",
    "SSG페이",
];

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/window", get(window))
        .route("/window/pay", post(pay))
}

/// What the browser's SDK would be told.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    order_id: String,
    amount: i64,
    success_url: String,
    fail_url: String,
    #[serde(default)]
    order_name: String,
}

async fn window(Query(asked): Query<Asked>) -> Response {
    let (Some(_), Some(_)) = (address(&asked.success_url), address(&asked.fail_url)) else {
        return refuse("successUrl and failUrl are http or https addresses");
    };
    let mut hidden = String::new();
    let amount = asked.amount.to_string();
    for (name, value) in [
        ("orderId", &asked.order_id),
        ("amount", &amount),
        ("successUrl", &asked.success_url),
        ("failUrl", &asked.fail_url),
        ("orderName", &asked.order_name),
    ] {
        hidden.push_str(&format!(
            r#"<input type="hidden" name="{name}" value="{}">"#,
            escape(value)
        ));
    }
    let providers: String = PROVIDERS
        .iter()
        .map(|name| format!("<option>{name}</option>"))
        .collect();
    let page = format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>Payment window (simulator)</title>
<style>body{{font:16px system-ui;max-width:26rem;margin:3rem auto}}label{{display:block;margin:.6rem 0}}
button{{font:inherit;padding:.6rem 1.2rem;margin-right:.6rem}}</style>
<h1>{name}</h1><p>Order {order}: <strong>{amount} KRW</strong>. A simulator: no money moves.</p>
<form method="post" action="window/pay">{hidden}
<label><input type="radio" name="means" value="CARD" checked> Card</label>
<label><input type="radio" name="means" value="EASY_PAY"> Easy pay <select name="provider">{providers}</select></label>
<label><input type="radio" name="means" value="VIRTUAL_ACCOUNT"> Virtual account</label>
<label><input type="radio" name="means" value="TRANSFER"> Transfer</label>
<button name="decision" value="pay">Pay</button><button name="decision" value="cancel">Cancel</button></form></html>"#,
        name = escape(&asked.order_name),
        order = escape(&asked.order_id),
    );
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decided {
    #[serde(flatten)]
    asked: AskedText,
    means: MeansName,
    provider: String,
    decision: Decision,
}

/// As [`Asked`]; a flattened form holds only text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AskedText {
    order_id: String,
    amount: String,
    success_url: String,
    fail_url: String,
    order_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Pay,
    Cancel,
}

async fn pay(State(shared): State<Arc<Shared>>, Form(decided): Form<Decided>) -> Response {
    let asked = decided.asked;
    let (Some(mut success), Some(mut fail)) =
        (address(&asked.success_url), address(&asked.fail_url))
    else {
        return refuse("successUrl and failUrl are http or https addresses");
    };
    let failed = |fail: &mut reqwest::Url, code: &str| {
        fail.query_pairs_mut()
            .append_pair("code", code)
            .append_pair("message", "simulated")
            .append_pair("orderId", &asked.order_id);
        Redirect::to(fail.as_str()).into_response()
    };
    if matches!(decided.decision, Decision::Cancel) {
        return failed(&mut fail, "PAY_PROCESS_CANCELED");
    }
    let request = SessionRequest {
        order_id: asked.order_id.clone(),
        amount: asked.amount.parse().unwrap_or_default(),
        order_name: Some(asked.order_name.clone()),
        means: decided.means,
        provider: Some(decided.provider),
        discount: 0,
        by_card: false,
        refuse_code: None,
    };
    match shared.gateway().authenticate(request.into_session()) {
        Ok(payment) => {
            success
                .query_pairs_mut()
                .append_pair("paymentType", "NORMAL")
                .append_pair("paymentKey", &payment.payment_key)
                .append_pair("orderId", &payment.order_id)
                .append_pair("amount", &payment.total_amount.to_string());
            Redirect::to(success.as_str()).into_response()
        }
        Err(refusal) => failed(&mut fail, &refusal.code),
    }
}

fn address(text: &str) -> Option<reqwest::Url> {
    let url: reqwest::Url = text.parse().ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}

fn refuse(message: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "message": message }))).into_response()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
