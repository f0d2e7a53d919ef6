//! The simulator as its clients see it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use toss_simulator::{Faults, Settings, Simulator, Status};

const KEY: &str = "test_sk";

struct World {
    simulator: Simulator,
    client: reqwest::Client,
}

impl World {
    async fn start() -> Self {
        let settings = Settings {
            webhook_unit: Duration::from_millis(20),
            ..Settings::new(KEY)
        };
        Self {
            simulator: Simulator::start(settings).await.unwrap(),
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.simulator.url())
    }

    async fn session(&self, more: Value) -> Value {
        let mut body = json!({"orderId": "order-000001", "amount": 1_100});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let request = self
            .client
            .post(self.url("/simulator/sessions"))
            .json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 201);
        response.json().await.unwrap()
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let mut request = self
            .client
            .post(self.url(path))
            .basic_auth(KEY, Some(""))
            .json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(self.url(path)).basic_auth(KEY, Some(""));
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn confirm(&self, session: &Value) -> (u16, Value) {
        self.post("/v1/payments/confirm", &[], session).await
    }
}

#[tokio::test]
async fn a_payment_is_confirmed_queried_and_cancelled_in_part_and_whole() {
    let world = World::start().await;
    let session = world.session(json!({})).await;
    let (status, payment) = world.confirm(&session).await;
    assert_eq!((status, &payment["status"]), (200, &json!("DONE")));
    assert_eq!(payment["method"], "카드");
    assert_eq!(payment["card"]["amount"], 1_100);
    let again = world.confirm(&session).await;
    assert_eq!(
        (again.0, &again.1["code"]),
        (400, &json!("ALREADY_PROCESSED_PAYMENT"))
    );

    let key = session["paymentKey"].as_str().unwrap();
    let cancel = format!("/v1/payments/{key}/cancel");
    let part = world
        .post(
            &cancel,
            &[],
            &json!({"cancelReason": "a", "cancelAmount": 100}),
        )
        .await;
    assert_eq!(
        (&part.1["status"], &part.1["balanceAmount"]),
        (&json!("PARTIAL_CANCELED"), &json!(1_000))
    );
    let too_much = world
        .post(
            &cancel,
            &[],
            &json!({"cancelReason": "a", "cancelAmount": 1_001}),
        )
        .await;
    assert_eq!(
        (too_much.0, &too_much.1["code"]),
        (403, &json!("NOT_CANCELABLE_AMOUNT"))
    );
    let no_reason = world.post(&cancel, &[], &json!({})).await;
    assert_eq!(no_reason.0, 400);
    let rest = world
        .post(&cancel, &[], &json!({"cancelReason": "b"}))
        .await;
    assert_eq!(
        (&rest.1["status"], &rest.1["balanceAmount"]),
        (&json!("PARTIAL_CANCELED"), &json!(0))
    );
    let none_left = world
        .post(&cancel, &[], &json!({"cancelReason": "c"}))
        .await;
    assert_eq!(none_left.1["code"], "ALREADY_CANCELED_PAYMENT");

    let by_order = world.get("/v1/payments/orders/order-000001").await.1;
    assert_eq!(by_order, world.get(&format!("/v1/payments/{key}")).await.1);
    assert_eq!(by_order["cancels"].as_array().unwrap().len(), 2);
    let (status, all) = world
        .get("/v1/transactions?startDate=2020-01-01T00:00:00&endDate=2099-01-01T00:00:00")
        .await;
    let all = all.as_array().unwrap();
    assert_eq!((status, all.len()), (200, 3));
    let after = all[0]["transactionKey"].as_str().unwrap();
    let path = format!(
        "/v1/transactions?startDate=2020-01-01T00:00:00&endDate=2099-01-01T00:00:00&startingAfter={after}&limit=1"
    );
    assert_eq!(world.get(&path).await.1, json!([all[1]]));
}

/// Korea's date, so many days ago.
fn days_ago(days: i64) -> String {
    let korea = jiff::tz::TimeZone::fixed(jiff::tz::offset(9));
    let today = jiff::Timestamp::now().to_zoned(korea).date();
    today
        .saturating_sub(jiff::SignedDuration::from_hours(24 * days))
        .to_string()
}

impl World {
    /// A captured payment of so many days ago, with its key.
    async fn captured(&self, days: u64, more: Value) -> String {
        let session = self.session(more).await;
        self.confirm(&session).await;
        let key = session["paymentKey"].as_str().unwrap().to_owned();
        let by = Duration::from_secs(days * 86_400);
        if self.simulator.payment(&key).unwrap().status == Status::WaitingForDeposit {
            self.simulator.deposit(&key).unwrap();
        }
        self.simulator.age(&key, by).unwrap();
        key
    }

    async fn settlements(&self, query: &str) -> Vec<Value> {
        let (status, body) = self.get(&format!("/v1/settlements?{query}")).await;
        assert_eq!(status, 200, "{body}");
        body.as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn what_moved_is_settled_from_the_day_after() {
    let world = World::start().await;
    let key = world.captured(3, json!({"amount": 100_000})).await;
    world.captured(0, json!({"orderId": "order-today"})).await;
    let body = json!({"cancelReason": "a", "cancelAmount": 40_000});
    let path = format!("/v1/payments/{key}/cancel");
    world.post(&path, &[], &body).await;
    // The cancel is two days old, the capture five.
    world
        .simulator
        .age(&key, Duration::from_secs(2 * 86_400))
        .unwrap();

    let (from, to) = (days_ago(10), days_ago(0));
    let all = world
        .settlements(&format!("startDate={from}&endDate={to}"))
        .await;
    let amounts: Vec<&Value> = all.iter().map(|record| &record["amount"]).collect();
    assert_eq!(amounts, [&json!(100_000), &json!(-40_000)], "not today's");
    let [captured, back] = [&all[0], &all[1]];
    assert_eq!(captured["soldDate"], json!(days_ago(5)));
    assert_eq!(captured["cancel"], Value::Null);
    assert_eq!(captured["fees"], json!([{"type": "BASE", "fee": 3_300}]));
    assert_eq!(captured["supplyAmount"], 3_000);
    assert_eq!(captured["vat"], 300);
    assert_eq!(captured["payOutAmount"], 96_700);
    assert_eq!(back["soldDate"], json!(days_ago(2)));
    assert_eq!(back["payOutAmount"], -38_680);
    assert_eq!(back["approvedAt"], captured["approvedAt"]);
    assert_eq!(back["cancel"]["transactionKey"], back["transactionKey"]);
    let payment = world.get(&format!("/v1/payments/{key}")).await.1;
    assert_eq!(payment["approvedAt"], captured["approvedAt"]);
    assert_eq!(payment["cancels"][0], back["cancel"]);
}

#[tokio::test]
async fn the_fee_of_a_deposit_stays_when_the_money_goes_back() {
    let world = World::start().await;
    let key = world
        .captured(0, json!({"means": "VIRTUAL_ACCOUNT", "amount": 50_000}))
        .await;
    let account = json!({"bank": "20", "accountNumber": "1", "holderName": "h"});
    let body = json!({"cancelReason": "a", "refundReceiveAccount": account});
    let path = format!("/v1/payments/{key}/cancel");
    world.post(&path, &[], &body).await;
    world
        .simulator
        .age(&key, Duration::from_secs(86_400))
        .unwrap();
    let yesterday = days_ago(1);
    let all = world
        .settlements(&format!("startDate={yesterday}&endDate={yesterday}"))
        .await;
    let paid_out: Vec<&Value> = all.iter().map(|record| &record["payOutAmount"]).collect();
    assert_eq!(paid_out, [&json!(49_670), &json!(-50_000)]);
}

#[tokio::test]
async fn the_cancel_of_an_account_that_nobody_paid_into_is_listed_and_not_settled() {
    let world = World::start().await;
    let session = world
        .session(json!({"means": "VIRTUAL_ACCOUNT", "amount": 50_000}))
        .await;
    world.confirm(&session).await;
    let key = session["paymentKey"].as_str().unwrap();
    let path = format!("/v1/payments/{key}/cancel");
    let (status, closed) = world.post(&path, &[], &json!({"cancelReason": "a"})).await;
    assert_eq!((status, &closed["status"]), (200, &json!("CANCELED")));
    assert_eq!(closed["approvedAt"], Value::Null);
    let cancel = &closed["cancels"][0];
    assert_eq!(cancel["cancelAmount"], 50_000);
    let (_, listed) = world
        .get("/v1/transactions?startDate=2020-01-01T00:00:00&endDate=2099-01-01T00:00:00")
        .await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed:?}");
    assert_eq!(listed[0]["status"], "CANCELED");
    assert_eq!(listed[0]["transactionKey"], cancel["transactionKey"]);
    world
        .simulator
        .age(key, Duration::from_secs(86_400))
        .unwrap();
    let yesterday = days_ago(1);
    let settled = world
        .settlements(&format!("startDate={yesterday}&endDate={yesterday}"))
        .await;
    assert!(settled.is_empty(), "{settled:?}");
}

#[tokio::test]
async fn settlements_are_looked_for_by_either_date_and_come_in_pages() {
    let world = World::start().await;
    for n in 0..5 {
        let order = format!("order-page-{n}");
        world.captured(20, json!({"orderId": order})).await;
    }
    let sold = days_ago(20);
    let all = world
        .settlements(&format!("startDate={sold}&endDate={sold}"))
        .await;
    assert_eq!(all.len(), 5);
    let paid_out = all[0]["paidOutDate"].as_str().unwrap();
    assert_ne!(paid_out, sold);
    let by_payout = |size: usize, page: usize| {
        format!(
            "startDate={paid_out}&endDate={paid_out}&dateType=paidOutDate&size={size}&page={page}"
        )
    };
    assert_eq!(world.settlements(&by_payout(2, 1)).await, all[..2]);
    assert_eq!(world.settlements(&by_payout(2, 3)).await, all[4..]);
    assert!(world.settlements(&by_payout(2, 4)).await.is_empty());
    assert!(
        world
            .settlements(&format!("startDate={paid_out}&endDate={paid_out}"))
            .await
            .is_empty()
    );
    for wrong in [
        "startDate=2026-12-02&endDate=2026-12-01",
        "startDate=yesterday&endDate=2026-12-01",
        "startDate=2026-12-01&endDate=2026-12-01&dateType=other",
        "startDate=2026-12-01&endDate=2026-12-01&page=0",
        "startDate=2026-12-01&endDate=2026-12-01&size=5001",
    ] {
        let (status, body) = world.get(&format!("/v1/settlements?{wrong}")).await;
        let refused = (status, &body["code"]);
        assert_eq!(refused, (400, &json!("INVALID_REQUEST")), "{wrong}");
    }
}

#[tokio::test]
async fn nobody_gets_in_without_the_key() {
    let world = World::start().await;
    let request = world.client.get(world.url("/v1/payments/k"));
    let response = request.basic_auth("other", Some("")).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "UNAUTHORIZED_KEY");
}

#[tokio::test]
async fn the_same_idempotency_key_gets_the_same_answer() {
    let world = World::start().await;
    let session = world.session(json!({})).await;
    let key = [("idempotency-key", "one")];
    let first = world.post("/v1/payments/confirm", &key, &session).await;
    assert_eq!(first.0, 200);
    // Matched on the key and the address, not on the body.
    assert_eq!(
        world.post("/v1/payments/confirm", &key, &json!({})).await,
        first
    );
    let long = "k".repeat(301);
    let refused = world
        .post(
            "/v1/payments/confirm",
            &[("idempotency-key", &long)],
            &session,
        )
        .await;
    assert_eq!(
        (refused.0, &refused.1["code"]),
        (400, &json!("INVALID_IDEMPOTENCY_KEY"))
    );
}

#[tokio::test]
async fn a_test_code_forces_its_error() {
    let world = World::start().await;
    let session = world.session(json!({})).await;
    let header = [("tosspayments-test-code", "FDS_ERROR")];
    let (status, body) = world.post("/v1/payments/confirm", &header, &session).await;
    assert_eq!((status, &body["code"]), (403, &json!("FDS_ERROR")));
    assert_eq!(world.confirm(&session).await.0, 200);
}

#[tokio::test]
async fn a_session_is_forgotten_after_its_time() {
    let world = World::start().await;
    let session = world.session(json!({})).await;
    let key = session["paymentKey"].as_str().unwrap();
    world
        .post(
            &format!("/simulator/payments/{key}/age"),
            &[],
            &json!({"seconds": 601}),
        )
        .await;
    let (status, body) = world.confirm(&session).await;
    assert_eq!(
        (status, &body["code"]),
        (404, &json!("NOT_FOUND_PAYMENT_SESSION"))
    );
    assert_eq!(
        world.get(&format!("/v1/payments/{key}")).await.1["status"],
        "EXPIRED"
    );
}

#[tokio::test]
async fn the_parts_of_an_easy_payment_add_up() {
    let world = World::start().await;
    for by_card in [true, false] {
        let more = json!({"means": "EASY_PAY", "provider": "네이버페이", "discount": 100, "byCard": by_card});
        let session = world.session(more).await;
        let payment = world.confirm(&session).await.1;
        assert_eq!(payment["easyPay"]["provider"], "네이버페이");
        let parts = [
            &payment["card"]["amount"],
            &payment["easyPay"]["amount"],
            &payment["easyPay"]["discountAmount"],
        ];
        let sum: i64 = parts.iter().filter_map(|part| part.as_i64()).sum();
        assert_eq!(payment["totalAmount"], sum);
    }
}

#[tokio::test]
async fn a_charge_can_be_made_and_its_answer_dropped() {
    let world = World::start().await;
    let session = world.session(json!({})).await;
    let faults = json!({"chargeAndDropAnswer": 1.0, "times": 1});
    let request = world
        .client
        .put(world.url("/simulator/faults"))
        .json(&faults);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let request = world.client.post(world.url("/v1/payments/confirm"));
    let dropped = request
        .basic_auth(KEY, Some(""))
        .json(&session)
        .send()
        .await;
    assert!(dropped.is_err());
    let key = session["paymentKey"].as_str().unwrap();
    assert_eq!(world.simulator.payment(key).unwrap().status, Status::Done);
    assert_eq!(world.confirm(&session).await.0, 400, "the fault is over");
}

#[tokio::test]
async fn faults_with_a_seed_come_in_the_same_sequence() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::start().await;
        world.simulator.set_faults(Faults {
            seed: 5,
            conflict: 0.5,
            refuse: 0.5,
            ..Faults::default()
        });
        let mut statuses = Vec::new();
        for _ in 0..12 {
            let session = world.session(json!({})).await;
            statuses.push(world.confirm(&session).await.0);
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    for status in [200, 403, 409] {
        assert!(runs[0].contains(&status), "{:?}", runs[0]);
    }
}

#[tokio::test]
async fn a_fault_that_is_none_is_refused() {
    let world = World::start().await;
    for faults in [json!({"conflict": 1.5}), json!({"unheardOf": 1})] {
        let request = world
            .client
            .put(world.url("/simulator/faults"))
            .json(&faults);
        assert!(
            request.send().await.unwrap().status().is_client_error(),
            "{faults}"
        );
    }
}

/// What a receiver of webhooks got: how often each was sent before, and its body.
struct Received(mpsc::Receiver<(String, Value)>);

impl Received {
    async fn next(&mut self) -> (String, Value) {
        timeout(Duration::from_secs(60), self.0.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

type Answering = (mpsc::Sender<(String, Value)>, Arc<Mutex<VecDeque<u16>>>);

/// Somewhere to send webhooks to, which answers these statuses first and 200 after.
async fn receiver(answers: &[u16]) -> (String, Received) {
    let (sender, received) = mpsc::channel(100);
    let answers = Arc::new(Mutex::new(
        answers.iter().copied().collect::<VecDeque<u16>>(),
    ));
    let router = Router::new()
        .route("/", post(receive))
        .with_state((sender, answers));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, Received(received))
}

async fn receive(
    State((sender, answers)): State<Answering>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> StatusCode {
    let retried = headers["tosspayments-webhook-transmission-retried-count"]
        .to_str()
        .unwrap();
    sender.send((retried.to_owned(), body)).await.unwrap();
    let answer = answers.lock().unwrap().pop_front().unwrap_or(200);
    StatusCode::from_u16(answer).unwrap()
}

#[tokio::test]
async fn a_webhook_is_sent_again_until_it_is_answered_200() {
    let world = World::start().await;
    let (url, mut received) = receiver(&[500, 503]).await;
    world.simulator.send_webhooks_to(url);
    let session = world.session(json!({})).await;
    world.confirm(&session).await;
    let all = [
        received.next().await,
        received.next().await,
        received.next().await,
    ];
    let retried: Vec<&str> = all.iter().map(|(retried, _)| retried.as_str()).collect();
    assert_eq!(retried, ["0", "1", "2"]);
    assert_eq!(all[0].1, all[2].1);
    assert_eq!(all[0].1["eventType"], "PAYMENT_STATUS_CHANGED");
    assert_eq!(all[0].1["data"]["status"], "DONE");
}

#[tokio::test]
async fn a_deposit_is_told_in_both_forms() {
    let world = World::start().await;
    let session = world.session(json!({"means": "VIRTUAL_ACCOUNT"})).await;
    let (_, waiting) = world.confirm(&session).await;
    assert_eq!(waiting["status"], "WAITING_FOR_DEPOSIT");
    let (url, mut received) = receiver(&[]).await;
    world.simulator.send_webhooks_to(url);
    let key = session["paymentKey"].as_str().unwrap();
    world
        .post(
            &format!("/simulator/payments/{key}/deposit"),
            &[],
            &json!({}),
        )
        .await;
    let (mut by_deposit, mut by_status) = (None, None);
    while by_deposit.is_none() || by_status.is_none() {
        let (_, body) = received.next().await;
        if body["eventType"].is_null() {
            by_deposit = Some(body);
        } else if body["data"]["status"] == "DONE" {
            // What tells of the confirmation may have been sent here as well.
            by_status = Some(body);
        }
    }
    let deposit = by_deposit.unwrap();
    assert_eq!(
        (&deposit["status"], &deposit["secret"]),
        (&json!("DONE"), &waiting["secret"])
    );
    // The money of a virtual account goes back to an account that is named.
    let cancel = format!("/v1/payments/{key}/cancel");
    let nowhere = world
        .post(&cancel, &[], &json!({"cancelReason": "a"}))
        .await;
    assert_eq!(nowhere.0, 400);
    let account = json!({"bank": "20", "accountNumber": "1", "holderName": "h"});
    let somewhere = json!({"cancelReason": "a", "refundReceiveAccount": account});
    assert_eq!(
        world.post(&cancel, &[], &somewhere).await.1["status"],
        "CANCELED"
    );
}

#[tokio::test]
async fn webhooks_can_be_lost_and_repeated() {
    let world = World::start().await;
    let (url, mut received) = receiver(&[]).await;
    world.simulator.send_webhooks_to(url);
    world.simulator.set_faults(Faults {
        webhooks_lost: 1.0,
        ..Faults::default()
    });
    let lost = world.session(json!({"orderId": "order-lost"})).await;
    world.confirm(&lost).await;
    world.simulator.set_faults(Faults {
        webhooks_repeated: 1.0,
        ..Faults::default()
    });
    let repeated = world.session(json!({"orderId": "order-twice"})).await;
    world.confirm(&repeated).await;
    let all = [received.next().await, received.next().await];
    for (_, body) in all {
        assert_eq!(body["data"]["orderId"], "order-twice");
    }
}

#[tokio::test]
async fn the_window_leads_back_with_a_payment_or_with_a_failure() {
    let world = World::start().await;
    let page = world.url(
        "/window?orderId=order-000001&amount=1100&successUrl=http://shop.test/ok?a=1&failUrl=http://shop.test/no\
         &orderName=%3Cb%3E",
    );
    let text = world
        .client
        .get(page)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(text.contains("&lt;b&gt;") && !text.contains("<b>"));
    let script = world.url(
        "/window?orderId=o&amount=1&successUrl=javascript:alert(1)&failUrl=http://shop.test/no",
    );
    assert_eq!(world.client.get(script).send().await.unwrap().status(), 400);

    let decide = async |decision: &str| {
        let form = format!(
            "orderId=order-000001&amount=1100&successUrl=http%3A%2F%2Fshop.test%2Fok%3Fa%3D1\
             &failUrl=http%3A%2F%2Fshop.test%2Fno&orderName=x&means=CARD&provider=x&decision={decision}"
        );
        let request = world.client.post(world.url("/window/pay"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(form).send().await.unwrap();
        assert_eq!(response.status(), 303);
        response.headers()["location"].to_str().unwrap().to_owned()
    };
    let paid = decide("pay").await;
    assert!(
        paid.starts_with("http://shop.test/ok?a=1&paymentType=NORMAL&paymentKey=tsim_"),
        "{paid}"
    );
    assert!(
        paid.ends_with("&orderId=order-000001&amount=1100"),
        "{paid}"
    );
    let cancelled = decide("cancel").await;
    assert!(
        cancelled.starts_with("http://shop.test/no?code=PAY_PROCESS_CANCELED"),
        "{cancelled}"
    );
}

#[tokio::test]
async fn a_card_that_is_no_good_is_refused_and_another_is_taken() {
    let world = World::start().await;
    let bad = world
        .session(json!({"refuseCode": "REJECT_CARD_PAYMENT"}))
        .await;
    for code in ["REJECT_CARD_PAYMENT", "NOT_FOUND_PAYMENT_SESSION"] {
        let (_, refused) = world.confirm(&bad).await;
        assert_eq!(refused["code"], code);
    }
    let good = world.session(json!({})).await;
    assert_eq!(world.confirm(&good).await.0, 200);
}

#[tokio::test]
async fn the_oldest_payments_are_forgotten_when_there_are_too_many() {
    let settings = Settings {
        payments_max: 3,
        ..Settings::new(KEY)
    };
    let simulator = Simulator::start(settings).await.unwrap();
    let keys: Vec<String> = (0..5)
        .map(|n| {
            let session = toss_simulator::NewSession {
                order_id: format!("order-{n}"),
                order_name: "x".to_owned(),
                amount: 1,
                means: toss_simulator::Means::Card,
                refund_account: None,
                refuse: None,
            };
            simulator.authenticate(session).unwrap()
        })
        .collect();
    let there: Vec<bool> = keys
        .iter()
        .map(|key| simulator.payment(key).is_ok())
        .collect();
    assert_eq!(there, [false, false, true, true, true]);
}
