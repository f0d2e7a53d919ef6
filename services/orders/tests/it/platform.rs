//! A running service with a database of its own, and how tests talk to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::config::Process;
use events::saga::{
    BOOKING_COMMANDS, Envelope, ORDER_REPLIES, OrderId, OrderReply, PAYMENTS_COMMANDS,
    PROMOTIONS_COMMANDS,
};
use jiff::Timestamp;
use jiff::civil::Date;
use money::Krw;
use orders::config::{Settings, Times};
use orders::refunds::today_in_seoul;
use rdkafka::Message as _;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{JwksServer, Kafka, Postgres, TokenIssuer, eventually, unique_name};
use url::Url;
use uuid::Uuid;

use crate::peers::{self, Answers};

/// Long enough for a busy machine: every wait ends as soon as its condition holds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Times of an order that nothing ends while a test runs.
pub(crate) const LONG: Times = Times {
    payment_window: Duration::from_secs(900),
    settle_max: Duration::from_secs(900),
    remind_after: Duration::from_secs(600),
};

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16, code: &str) -> Self {
        let said = (self.status, self.body["code"].as_str().unwrap_or_default());
        assert_eq!(said, (status, code), "{:?}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        self.body
    }
}

/// Where a platform's stores are.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) database_url: String,
    pub(crate) brokers: String,
}

impl Stores {
    /// Those that the tests share, with a database of its own.
    pub(crate) async fn shared() -> Self {
        Self {
            database_url: Postgres::shared()
                .await
                .create_database()
                .await
                .unwrap()
                .url,
            brokers: Kafka::shared().await.brokers(),
        }
    }
}

/// Where one replica is.
#[derive(Clone, Copy)]
pub(crate) struct Replica {
    pub(crate) http: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) ops: SocketAddr,
}

pub(crate) struct Platform {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) pool: PgPool,
    pub(crate) peers: Arc<Answers>,
    pub(crate) client: reqwest::Client,
    issuer: TokenIssuer,
    commands: Commands,
    producer: FutureProducer,
    next: AtomicUsize,
    _jwks: JwksServer,
}

/// A guest with a token.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) user_id: Uuid,
    pub(crate) token: String,
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn settings(
    stores: &Stores,
    namespace: &str,
    jwks: &str,
    peers: &Url,
    times: Times,
) -> Settings {
    Settings {
        process: Process {
            ops_addr: local(),
            log_filter: "warn".to_owned(),
            otlp_endpoint: None,
            shutdown_grace: Duration::from_secs(20),
            namespace: namespace.to_owned(),
            instance: unique_name("pod"),
        },
        http_addr: local(),
        internal_addr: local(),
        database_url: stores.database_url.clone().into(),
        kafka_brokers: stores.brokers.clone(),
        saga_partitions: 12,
        stays_url: peers.clone(),
        promotions_url: peers.clone(),
        jwks_url: jwks.parse().unwrap(),
        jwt_issuer: "quokka".to_owned(),
        times,
        peer_timeout: Duration::from_secs(5),
    }
}

impl Platform {
    pub(crate) async fn start() -> Self {
        Self::with(LONG, 1).await
    }

    pub(crate) async fn with(times: Times, replicas: usize) -> Self {
        Self::on(&Stores::shared().await, times, replicas).await
    }

    /// Replicas on these stores, ready.
    pub(crate) async fn on(stores: &Stores, times: Times, replicas: usize) -> Self {
        let namespace = unique_name("ns");
        let issuer = TokenIssuer::new();
        let jwks = JwksServer::start(issuer.jwks()).await.unwrap();
        let (peers_url, answers) = peers::start().await;
        let mut started = Vec::new();
        for _ in 0..replicas {
            let settings = settings(stores, &namespace, jwks.url(), &peers_url, times);
            let server = orders::app::start(settings).await.unwrap();
            started.push(Replica {
                http: server.http_addr().unwrap(),
                internal: server.internal_addr().unwrap(),
                ops: server.ops_addr(),
            });
            tokio::spawn(server.run());
        }
        let client = ClientConfig::new()
            .set("bootstrap.servers", &stores.brokers)
            .set("message.timeout.ms", "30000")
            .clone();
        let platform = Self {
            replicas: started,
            pool: PgPool::connect_lazy(&stores.database_url).unwrap(),
            peers: answers,
            client: reqwest::Client::new(),
            issuer,
            commands: Commands::read(&stores.brokers),
            producer: client.create().unwrap(),
            next: AtomicUsize::new(0),
            _jwks: jwks,
        };
        platform.until_ready().await;
        platform
    }

    pub(crate) async fn until_ready(&self) {
        for replica in &self.replicas {
            let url = format!("http://{}/readyz", replica.ops);
            eventually(PATIENCE, async || {
                self.client
                    .get(&url)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status() == 200)
            })
            .await;
        }
    }

    /// One replica after the other.
    fn replica(&self) -> Replica {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.replicas[next % self.replicas.len()]
    }

    pub(crate) fn guest(&self) -> Guest {
        let user_id = Uuid::now_v7();
        Guest {
            user_id,
            token: self.issuer.token(user_id),
        }
    }

    pub(crate) fn request(&self, guest: &Guest, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.replica().http);
        self.client.request(method, url).bearer_auth(&guest.token)
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned());
        let text = response.text().await.unwrap();
        Answer {
            status,
            retry_after,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    pub(crate) async fn order_with_key(&self, guest: &Guest, key: &str, body: &Value) -> Answer {
        let request = self.request(guest, Method::POST, "/v1/orders");
        self.send(request.header("idempotency-key", key).json(body))
            .await
    }

    pub(crate) async fn order(&self, guest: &Guest, body: &Value) -> Answer {
        self.order_with_key(guest, &Uuid::new_v4().to_string(), body)
            .await
    }

    /// An order of two nights; its id.
    pub(crate) async fn placed(&self, guest: &Guest) -> Uuid {
        id_of(&self.order(guest, &wish(Uuid::from_u128(1))).await.ok(201))
    }

    /// An order whose nights are held.
    pub(crate) async fn held(&self, guest: &Guest) -> Uuid {
        let order = self.placed(guest).await;
        self.reply(OrderReply::Held {
            order_id: OrderId(order),
        })
        .await;
        self.until(guest, order, "AWAITING_PAYMENT").await;
        order
    }

    /// An order that is paid for and confirmed.
    pub(crate) async fn confirmed(&self, guest: &Guest, key: &str) -> Uuid {
        let order = self.held(guest).await;
        self.pay(guest, order, key, total()).await.ok(200);
        self.captured(order, key).await;
        self.command(order, "confirm").await;
        self.reply(OrderReply::BookingConfirmed {
            order_id: OrderId(order),
            booking_id: Uuid::now_v7(),
        })
        .await;
        self.until(guest, order, "CONFIRMED").await;
        order
    }

    pub(crate) async fn captured(&self, order: Uuid, key: &str) {
        self.reply(OrderReply::PaymentCaptured {
            order_id: OrderId(order),
            payment_key: key.to_owned(),
            amount: krw(total()),
        })
        .await;
    }

    pub(crate) async fn show(&self, guest: &Guest, order: Uuid) -> Value {
        let path = format!("/v1/orders/{order}");
        self.send(self.request(guest, Method::GET, &path))
            .await
            .ok(200)
    }

    pub(crate) async fn cancel(&self, guest: &Guest, order: Uuid) -> Answer {
        let path = format!("/v1/orders/{order}/cancel");
        self.send(self.request(guest, Method::POST, &path)).await
    }

    /// Waits for an order's status; the order.
    pub(crate) async fn until(&self, guest: &Guest, order: Uuid, status: &str) -> Value {
        self.until_it(guest, order, |shown| shown["status"] == status)
            .await
    }

    /// Waits for the last phase of an order's history, which engineers read.
    pub(crate) async fn until_phase(&self, guest: &Guest, order: Uuid, phase: &str) -> Value {
        self.until_it(guest, order, |shown| {
            phases(shown).last().is_some_and(|last| last == phase)
        })
        .await
    }

    /// Waits until an order is as it should be; the order.
    pub(crate) async fn until_it(
        &self,
        guest: &Guest,
        order: Uuid,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(PATIENCE, async || {
            let shown = self.show(guest, order).await;
            if holds(&shown) { Ok(shown) } else { Err(shown) }
        })
        .await
    }

    /// Lets the time of every order be over so much from now.
    pub(crate) async fn end_window(&self, after: Duration) {
        sqlx::query(
            "UPDATE orders SET expires_at = now() + $1::interval, due_at = now() + $1::interval,
             settled_by = CASE WHEN settled_by IS NOT NULL THEN now() + $1::interval END",
        )
        .bind(sqlx::postgres::types::PgInterval::try_from(after).unwrap())
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// What `payments` asks.
    pub(crate) async fn pay(&self, guest: &Guest, order: Uuid, key: &str, amount: i64) -> Answer {
        let url = format!(
            "http://{}/internal/v1/orders/{order}/payment",
            self.replica().internal
        );
        let body = json!({"userId": guest.user_id, "paymentKey": key, "amount": amount});
        self.send(self.client.post(url).json(&body)).await
    }

    /// What another service says: twice, as a message that was delivered again, and once more as another message.
    pub(crate) async fn reply(&self, reply: OrderReply) {
        let envelope = |id| Envelope {
            id,
            body: reply.clone(),
        };
        let id = Uuid::now_v7();
        for message in [envelope(id), envelope(id), envelope(Uuid::now_v7())] {
            self.send_raw(&serde_json::to_vec(&message).unwrap(), &key_of(&reply))
                .await;
        }
    }

    pub(crate) async fn send_raw(&self, payload: &[u8], key: &str) {
        let record = FutureRecord::to(ORDER_REPLIES).key(key).payload(payload);
        self.producer.send(record, PATIENCE).await.unwrap();
    }

    /// Waits until an order's command of a type was sent; the command.
    pub(crate) async fn command(&self, order: Uuid, kind: &str) -> Value {
        eventually(PATIENCE, async || {
            let sent = self.commands.of(order);
            sent.into_iter()
                .find(|(_, command)| command["type"] == kind)
        })
        .await
        .1
    }

    /// The commands of an order so far, as `topic/type`.
    pub(crate) fn sent(&self, order: Uuid) -> Vec<String> {
        self.commands
            .of(order)
            .into_iter()
            .map(|(topic, command)| {
                let service = topic.split('.').nth(1).unwrap().to_owned();
                format!("{service}/{}", command["type"].as_str().unwrap())
            })
            .collect()
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.replicas[0].ops);
        self.client
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }
}

fn key_of(reply: &OrderReply) -> String {
    serde_json::to_value(reply).unwrap()["orderId"]
        .as_str()
        .unwrap()
        .to_owned()
}

pub(crate) fn phases(shown: &Value) -> Vec<String> {
    let history = shown["history"].as_array().unwrap();
    history
        .iter()
        .map(|entry| entry["to"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn id_of(order: &Value) -> Uuid {
    order["orderId"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn krw(won: i64) -> Krw {
    Krw::new(won).unwrap()
}

/// A day that is so many days from today in Seoul.
pub(crate) fn day(from_today: i64) -> Date {
    today_in_seoul(Timestamp::now())
        .checked_add(jiff::Span::new().days(from_today))
        .unwrap()
}

/// Two nights in a month.
pub(crate) fn wish(room_type: Uuid) -> Value {
    json!({"roomTypeId": room_type, "checkIn": day(30), "checkOut": day(32), "guests": 2})
}

/// What [`wish`] costs without a discount.
pub(crate) fn total() -> i64 {
    2 * peers::NIGHT
}

/// Everything that is sent to the other services, by anybody.
struct Commands {
    read: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Commands {
    fn read(brokers: &str) -> Self {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", unique_name("test"))
            .set("auto.offset.reset", "earliest")
            .set("topic.metadata.refresh.interval.ms", "500")
            .create()
            .unwrap();
        // Never dropped: its end asks the brokers, and waits for them where a test has taken its own away.
        let consumer: &'static StreamConsumer = Box::leak(Box::new(consumer));
        let topics = [BOOKING_COMMANDS, PROMOTIONS_COMMANDS, PAYMENTS_COMMANDS];
        consumer.subscribe(&topics).unwrap();
        let read = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&read);
        tokio::spawn(async move {
            loop {
                // Topics that aren't there yet are errors, and come.
                if let Ok(message) = consumer.recv().await {
                    let mut envelope: Value =
                        serde_json::from_slice(message.payload().unwrap()).unwrap();
                    let body = envelope["body"].take();
                    sink.lock()
                        .unwrap()
                        .push((message.topic().to_owned(), body));
                }
            }
        });
        Self { read }
    }

    fn of(&self, order: Uuid) -> Vec<(String, Value)> {
        let order = order.to_string();
        let read = self.read.lock().unwrap();
        read.iter()
            .filter(|(_, command)| command["orderId"] == *order)
            .cloned()
            .collect()
    }
}
