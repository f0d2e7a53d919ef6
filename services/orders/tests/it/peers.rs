//! `stays` and `promotions` as far as `orders` asks them by HTTP.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::civil::Date;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;
use uuid::Uuid;

/// What a night costs.
pub(crate) const NIGHT: i64 = 100_001;

/// What both are asked and answer.
#[derive(Default)]
pub(crate) struct Answers {
    /// What a room type is answered instead of a quote.
    pub(crate) refusals: Mutex<HashMap<Uuid, (u16, Value)>>,
    /// Claims and whose they are.
    pub(crate) claims: Mutex<HashMap<Uuid, (Uuid, Value)>>,
    /// How many of the next questions are answered 503.
    pub(crate) failures: AtomicU32,
    /// How often they were asked.
    pub(crate) asked: AtomicU32,
}

impl Answers {
    pub(crate) fn refuse(&self, room_type: Uuid, status: u16, code: &str) {
        let problem = json!({"code": code, "status": status, "detail": "as the test wants it"});
        let mut refusals = self.refusals.lock().unwrap();
        refusals.insert(room_type, (status, problem));
    }

    /// A claim of a guest's, with more of its terms; its id.
    pub(crate) fn claim(&self, user: Uuid, kind: &str, more: Value) -> Uuid {
        let claim_id = Uuid::now_v7();
        let mut claim = json!({
            "claimId": claim_id, "kind": kind, "saleId": "jeju-weekend", "discount": {"percent": 10},
            "expiresAt": "2099-01-01T00:00:00Z",
        });
        for (name, value) in more.as_object().unwrap() {
            claim[name] = value.clone();
        }
        self.claims.lock().unwrap().insert(claim_id, (user, claim));
        claim_id
    }

    fn fails(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

/// Both, on one port.
pub(crate) async fn start() -> (Url, Arc<Answers>) {
    let answers = Arc::new(Answers::default());
    let router = Router::new()
        .route("/internal/v1/quotes", get(quote))
        .route("/internal/v1/discounts/{claim}", get(discount))
        .with_state(Arc::clone(&answers));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url.parse().unwrap(), answers)
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(body.clone())).into_response()
}

async fn quote(
    State(answers): State<Arc<Answers>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    if answers.fails() {
        return answer(503, &json!({"code": "UNAVAILABLE"}));
    }
    let room_type: Uuid = asked["roomTypeId"].parse().unwrap();
    if let Some((status, problem)) = answers.refusals.lock().unwrap().get(&room_type) {
        return answer(*status, problem);
    }
    let from: Date = asked["checkIn"].parse().unwrap();
    let to: Date = asked["checkOut"].parse().unwrap();
    let nights: Vec<Value> = from
        .series(jiff::Span::new().days(1))
        .take_while(|date| *date < to)
        .map(|date| json!({"date": date, "price": NIGHT, "ownDiscount": null}))
        .collect();
    let quote = json!({
        "roomTypeId": room_type, "stayId": Uuid::from_u128(2), "hostId": Uuid::from_u128(3), "region": "jeju",
        "name": "Sea view", "capacity": 2, "cancellation": "MODERATE", "nights": nights,
    });
    answer(200, &quote)
}

async fn discount(
    State(answers): State<Arc<Answers>>,
    Path(claim): Path<Uuid>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    if answers.fails() {
        return answer(503, &json!({"code": "UNAVAILABLE"}));
    }
    let user: Uuid = asked["userId"].parse().unwrap();
    match answers.claims.lock().unwrap().get(&claim) {
        Some((owner, claim)) if *owner == user => answer(200, claim),
        _ => answer(404, &json!({"code": "CLAIM_NOT_FOUND"})),
    }
}
