//! A running `payments` with a database of its own, the simulated gateway, the fixture of `orders`, and what tests do
//! with them.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use chassis::config::Env;
use chassis::serve::Shutdown;
use events::consumer::{BatchConsumer, ConsumerSettings};
use events::saga::{Envelope, ORDER_REPLIES, OrderReply, PAYMENTS_COMMANDS, PaymentCommand};
use payments::config::Config;
use payments::store::Store;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{Database, JwksServer, Kafka, TokenIssuer, eventually, unique_name};
use tokio::runtime::Runtime;
use toss_simulator::{Means, NewSession, Settings, Simulator};
use uuid::Uuid;

use crate::orders::OrdersFixture;

/// A condition that does not come true is a failure after this long.
pub const PATIENCE: Duration = Duration::from_secs(90);
const SECRET_KEY: &str = "test_sk_of_tests";
/// Remembers what the service said. The tests share their topics, so that the services of other tests, which know
/// nothing of an order, answer what it is asked for as well.
const REMEMBER: &str = "
CREATE TABLE IF NOT EXISTS said (id uuid NOT NULL);
CREATE OR REPLACE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO said VALUES ((NEW.payload::jsonb ->> 'id')::uuid);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER remember AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION remember();
";

/// A running service. It dies like a killed process: nothing of it runs on.
pub struct Service {
    runtime: Option<Runtime>,
    pub http: SocketAddr,
    pub ops: SocketAddr,
    shutdown: Shutdown,
}

impl Service {
    /// As `kill -9`: no task of it is polled any more.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Everything of one test.
pub struct World {
    pub database: Database,
    pub pool: PgPool,
    pub gateway: Simulator,
    pub orders: OrdersFixture,
    pub service: Option<Service>,
    pub guest: Uuid,
    issuer: TokenIssuer,
    jwks: JwksServer,
    group: String,
    producer: FutureProducer,
    replies: BatchConsumer,
    seen: Mutex<Vec<Envelope<OrderReply>>>,
    pub client: reqwest::Client,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
    }

    #[track_caller]
    pub fn is_captured(&self) {
        assert_eq!(
            (self.status, self.body["status"].as_str()),
            (200, Some("CAPTURED")),
            "{self:?}"
        );
    }
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more settings, which win.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let kafka = Kafka::shared().await;
        let database = testkit::Postgres::shared()
            .await
            .create_database()
            .await
            .unwrap();
        let brokers = kafka.brokers();
        events::topics::ensure(&brokers, &[(PAYMENTS_COMMANDS, 2), (ORDER_REPLIES, 2)])
            .await
            .unwrap();
        let issuer = TokenIssuer::new();
        let gateway = Simulator::start(Settings {
            webhook_unit: Duration::from_millis(50),
            ..Settings::new(SECRET_KEY)
        })
        .await
        .unwrap();
        let group = unique_name("payments");
        let consumer = ConsumerSettings::new(&brokers, unique_name("orders"), "test");
        let replies = BatchConsumer::new(&consumer).unwrap();
        replies.subscribe(&[ORDER_REPLIES]).unwrap();
        let mut world = Self {
            pool: database.pool().await.unwrap(),
            database,
            gateway,
            orders: OrdersFixture::start().await,
            service: None,
            guest: Uuid::new_v4(),
            jwks: JwksServer::start(issuer.jwks()).await.unwrap(),
            issuer,
            group,
            producer: ClientConfig::new()
                .set("bootstrap.servers", &brokers)
                .create()
                .unwrap(),
            replies,
            seen: Mutex::default(),
            client: reqwest::Client::new(),
        };
        world.start_service(settings).await;
        world
    }

    /// Another process on the same database.
    pub async fn start_service(&mut self, settings: &[(&str, &str)]) {
        let service = self.another(settings).await;
        sqlx::raw_sql(REMEMBER).execute(&self.pool).await.unwrap();
        let webhooks = format!("http://{}/v1/payments/webhooks/toss", service.http);
        self.gateway.send_webhooks_to(webhooks);
        self.service = Some(service);
    }

    /// A replica.
    pub async fn another(&self, settings: &[(&str, &str)]) -> Service {
        let brokers = Kafka::shared().await.brokers();
        let gateway = self.gateway.url();
        let mut pairs = vec![
            ("QUOKKA_DATABASE_URL", self.database.url.as_str()),
            ("QUOKKA_KAFKA_BROKERS", &brokers),
            ("QUOKKA_KAFKA_GROUP", &self.group),
            ("QUOKKA_JWKS_URL", self.jwks.url()),
            ("QUOKKA_ORDERS_URL", &self.orders.url),
            ("QUOKKA_TOSS_URL", &gateway),
            ("QUOKKA_TOSS_SECRET_KEY", SECRET_KEY),
            ("QUOKKA_TOSS_TIMEOUT", "5s"),
            ("QUOKKA_SETTLE_EVERY", "50ms"),
            ("QUOKKA_SETTLE_PAUSE_MAX", "1s"),
            ("QUOKKA_DEPOSIT_POLL", "1h"),
            ("QUOKKA_CONFIRM_WAIT", "60s"),
            ("QUOKKA_RECONCILE_EVERY", "500ms"),
            ("QUOKKA_RECONCILE_LAG", "1s"),
            ("QUOKKA_HTTP_ADDR", "127.0.0.1:0"),
            ("QUOKKA_OPS_ADDR", "127.0.0.1:0"),
        ];
        pairs.retain(|(name, _)| !settings.iter().any(|(given, _)| given == name));
        pairs.extend(settings);
        let config = Config::read(&mut Env::from_pairs("payments", pairs)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (server, shutdown) = runtime
            .spawn(payments::app::bind(config))
            .await
            .unwrap()
            .unwrap();
        let (http, ops) = (server.http_addr().unwrap(), server.ops_addr());
        runtime.spawn(server.run());
        let service = Service {
            runtime: Some(runtime),
            http,
            ops,
            shutdown,
        };
        let ready = format!("http://{ops}/readyz");
        eventually(PATIENCE, async || {
            let answer = self.client.get(&ready).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        service
    }

    pub fn kill(&mut self) {
        self.service.take().unwrap().kill();
    }

    /// An order of the guest, and a payment key of it as the window gives one.
    pub fn order(&self, amount: i64, means: Means) -> (Uuid, String) {
        let order = self.orders.order(self.guest, amount);
        (order, self.session(order, amount, means))
    }

    pub fn session(&self, order: Uuid, amount: i64, means: Means) -> String {
        let refund_account =
            (means == Means::VirtualAccount).then(|| toss_simulator::RefundAccount {
                bank_code: "20".to_owned(),
                account_number: "00000000000000".to_owned(),
                holder_name: "Guest".to_owned(),
            });
        let session = NewSession {
            order_id: order.to_string(),
            order_name: "Two nights".to_owned(),
            amount,
            means,
            refund_account,
            refuse: None,
        };
        self.gateway.authenticate(session).unwrap()
    }

    pub async fn confirm(&self, order: Uuid, key: &str, amount: i64) -> Answer {
        self.confirm_as(self.guest, order, key, amount).await
    }

    pub async fn confirm_as(&self, user: Uuid, order: Uuid, key: &str, amount: i64) -> Answer {
        let body = json!({"paymentKey": key, "orderId": order, "amount": amount});
        self.post("/v1/payments/confirm", Some(user), &body).await
    }

    pub async fn post(&self, path: &str, user: Option<Uuid>, body: &Value) -> Answer {
        let http = self.service.as_ref().unwrap().http;
        let mut request = self.client.post(format!("http://{http}{path}")).json(body);
        if let Some(user) = user {
            request = request.bearer_auth(self.issuer.token(user));
        }
        let response = request.send().await.unwrap();
        let retry_after = response
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        Answer {
            status,
            retry_after,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        }
    }

    /// `orders` asks for a refund.
    pub async fn refund(&self, order: Uuid, refund: Uuid, amount: i64) {
        let body = PaymentCommand::Refund {
            order_id: events::saga::OrderId(order),
            refund_id: refund,
            amount: money::Krw::new(amount).unwrap(),
            reason: "cancelled by the guest".to_owned(),
        };
        let envelope = Envelope {
            id: Uuid::now_v7(),
            body,
        };
        let payload = serde_json::to_vec(&envelope).unwrap();
        let key = order.to_string();
        let record = FutureRecord::to(PAYMENTS_COMMANDS)
            .key(&key)
            .payload(&payload);
        self.producer.send(record, PATIENCE).await.unwrap();
    }

    /// Somebody gives money back at the gateway itself.
    pub async fn give_back_by_hand(&self, key: &str, amount: i64) {
        let response = self
            .client
            .post(format!("{}/v1/payments/{key}/cancel", self.gateway.url()))
            .basic_auth(SECRET_KEY, Some(""))
            .json(&json!({"cancelReason": "by phone", "cancelAmount": amount}))
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success());
    }

    /// The service's replies about an order so far, in order.
    pub async fn replies(&self, order: Uuid) -> Vec<OrderReply> {
        let batches = self
            .replies
            .next_batch(1_000, 1 << 20, Duration::from_millis(50))
            .await
            .unwrap();
        let said: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM said")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let mut seen = self.seen.lock().unwrap();
        for record in batches.into_iter().flat_map(|batch| batch.records) {
            seen.push(serde_json::from_slice(&record.value).unwrap());
        }
        seen.iter()
            .filter(|reply| reply.body.order_id().0 == order && said.contains(&reply.id))
            .map(|reply| reply.body.clone())
            .collect()
    }

    /// Waits until there are this many replies about an order, and answers them.
    pub async fn until_replies(&self, order: Uuid, count: usize) -> Vec<OrderReply> {
        eventually(PATIENCE, async || {
            let replies = self.replies(order).await;
            (replies.len() >= count).then_some(replies)
        })
        .await
    }

    /// Waits until a payment is in a state.
    pub async fn until_state(&self, key: &str, state: &str) {
        let of = "SELECT state FROM payments WHERE payment_key = $1";
        self.until_is(of, key, state).await;
    }

    /// Waits until a refund is in a state.
    pub async fn until_refund(&self, refund: Uuid, state: &str) {
        let of = "SELECT state FROM refunds WHERE refund_id = $1::uuid";
        self.until_is(of, &refund.to_string(), state).await;
    }

    async fn until_is(&self, of: &'static str, name: &str, state: &str) {
        eventually(PATIENCE, async || {
            let now: Option<String> = sqlx::query_scalar(of)
                .bind(name)
                .fetch_optional(&self.pool)
                .await
                .unwrap();
            if now.as_deref() == Some(state) {
                Ok(())
            } else {
                Err(now)
            }
        })
        .await;
    }

    /// Waits until ledger and gateway were compared over everything that has happened by now.
    pub async fn until_compared(&self) {
        let now = self
            .number("SELECT ceil(extract(epoch FROM now()))::int8")
            .await;
        eventually(PATIENCE, async || {
            let until = self
                .number("SELECT extract(epoch FROM checked_until)::int8 FROM reconciliation")
                .await;
            until >= now
        })
        .await;
    }

    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until so many refused refunds of payments wait for a person. The tests share their topics: each service
    /// refuses what is asked for of the payments of the others.
    pub async fn until_refused(&self, count: i64) {
        let store = Store::new(self.pool.clone());
        eventually(PATIENCE, async || {
            let others = self
                .number(
                    "SELECT count(*) FROM refunds WHERE payment_id IS NULL AND resolved_at IS NULL",
                )
                .await;
            let refused = store.unsettled().await.unwrap().refused - others;
            if refused == count {
                Ok(())
            } else {
                Err(refused)
            }
        })
        .await;
    }

    /// What must always be true, with what the gateway has: each transaction one journal, each journal 0, the balance
    /// the same on both sides.
    pub async fn books_are_true(&self) {
        let unbalanced = self
            .number("SELECT count(*) FROM (SELECT FROM entries GROUP BY journal_id HAVING sum(amount) <> 0) j")
            .await;
        assert_eq!(unbalanced, 0);
        let captures = self
            .number(
                "SELECT coalesce(max(n), 0) FROM
                 (SELECT count(*) n FROM journals WHERE kind = 'CAPTURE' GROUP BY order_id) o",
            )
            .await;
        assert!(captures <= 1, "{captures} captures of one order");
        let balances: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT p.payment_key, coalesce(sum(CASE j.kind WHEN 'CAPTURE' THEN j.amount ELSE -j.amount END), 0)::int8,
                 count(j.journal_id)
             FROM payments p LEFT JOIN journals j USING (payment_id) GROUP BY p.payment_key",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        for (key, balance, journals) in balances {
            let Ok(payment) = self.gateway.payment(&key) else {
                assert_eq!(journals, 0);
                continue;
            };
            let moved = payment.approved_at.is_some();
            let cancels = payment.cancels.map_or(0, |cancels| cancels.len());
            // The cancel of what was never paid is listed, and moved nothing.
            let (expected, transactions) = if moved {
                (payment.balance_amount, 1 + cancels)
            } else {
                (0, 0)
            };
            assert_eq!(balance, expected, "{key}");
            assert_eq!(usize::try_from(journals).unwrap(), transactions, "{key}");
        }
    }

    /// Every payment and journal, as text, but for when it was asked about.
    pub async fn dump(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT (to_jsonb(p) - ARRAY[$$asks$$, $$last_asked_at$$])::text FROM payments p
             UNION ALL SELECT to_jsonb(j)::text FROM journals j ORDER BY 1",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// An access token of the guest.
    pub fn token(&self) -> String {
        self.issuer.token(self.guest)
    }

    pub async fn metrics(&self) -> String {
        let ops = self.service.as_ref().unwrap().ops;
        let response = self
            .client
            .get(format!("http://{ops}/metrics"))
            .send()
            .await
            .unwrap();
        response.text().await.unwrap()
    }
}
