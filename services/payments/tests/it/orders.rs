//! The internal endpoint of `orders`, as far as payments asks it: a compare-and-set for each order.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

struct Order {
    user: Uuid,
    amount: i64,
    paying: Option<String>,
    expired: bool,
    expires_at: Timestamp,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<HashMap<Uuid, Order>>,
    down: Mutex<bool>,
}

/// A running fixture.
pub struct OrdersFixture {
    pub url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for OrdersFixture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl OrdersFixture {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/internal/v1/orders/{order_id}/payment", post(begin))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            url,
            shared,
            server,
        }
    }

    /// A new order that waits for its payment.
    pub fn order(&self, user: Uuid, amount: i64) -> Uuid {
        let id = Uuid::now_v7();
        let order = Order {
            user,
            amount,
            paying: None,
            expired: false,
            expires_at: Timestamp::now() + SignedDuration::from_mins(15),
        };
        self.shared.orders.lock().unwrap().insert(id, order);
        id
    }

    pub fn expire(&self, order: Uuid) {
        self.shared
            .orders
            .lock()
            .unwrap()
            .get_mut(&order)
            .unwrap()
            .expired = true;
    }

    /// Lets the order be payable for so long from now.
    pub fn payable_for(&self, order: Uuid, time: SignedDuration) {
        let mut orders = self.shared.orders.lock().unwrap();
        orders.get_mut(&order).unwrap().expires_at = Timestamp::now() + time;
    }

    /// Until when the order may be paid.
    pub fn expires_at(&self, order: Uuid) -> Timestamp {
        self.shared.orders.lock().unwrap()[&order].expires_at
    }

    /// As a refused payment's reply does.
    pub fn wait_again(&self, order: Uuid) {
        self.shared
            .orders
            .lock()
            .unwrap()
            .get_mut(&order)
            .unwrap()
            .paying = None;
    }

    /// The payment that the order is set aside for.
    pub fn paying(&self, order: Uuid) -> Option<String> {
        self.shared.orders.lock().unwrap()[&order].paying.clone()
    }

    pub fn set_down(&self, down: bool) {
        *self.shared.down.lock().unwrap() = down;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begin {
    user_id: Uuid,
    payment_key: String,
    amount: i64,
}

async fn begin(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<Uuid>,
    Json(begin): Json<Begin>,
) -> Response {
    if *shared.down.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut orders = shared.orders.lock().unwrap();
    let problem = |status: u16, code: &str| {
        (
            StatusCode::from_u16(status).unwrap(),
            Json(json!({"code": code})),
        )
            .into_response()
    };
    let Some(order) = orders
        .get_mut(&id)
        .filter(|order| order.user == begin.user_id)
    else {
        return problem(404, "ORDER_NOT_FOUND");
    };
    if order.amount != begin.amount {
        return problem(422, "AMOUNT_MISMATCH");
    }
    match &order.paying {
        Some(key) if *key != begin.payment_key => return problem(409, "ORDER_NOT_PAYABLE"),
        None if order.expired => return problem(409, "ORDER_EXPIRED"),
        _ => order.paying = Some(begin.payment_key.clone()),
    }
    let body = json!({
        "orderId": id,
        "amount": order.amount,
        "paymentKey": begin.payment_key,
        "expiresAt": order.expires_at,
    });
    Json(body).into_response()
}
