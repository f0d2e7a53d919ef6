//! Both roles in this process, on real servers, with a namespace and a database of their own.

use std::net::SocketAddr;
use std::time::Duration;

use chassis::config::Process;
use jiff::{SignedDuration, Timestamp};
use promotions::config::{ApiSettings, Common, LedgerSettings};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use reqwest::{Method, StatusCode};
use sale_stock::books::{
    Books, CouponTerms, Discount, GateState, PercentDiscount, SaleDefinition, SaleKind, Target,
};
use sale_stock::{SaleUid, Stock};
use serde_json::Value;
use sqlx::PgPool;
use testkit::{Database, JwksServer, Kafka, Postgres, Redis, TokenIssuer, eventually, unique_name};
use uuid::Uuid;

/// Long enough for a busy machine: every wait ends as soon as its condition holds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Partitions of every topic.
pub const PARTITIONS: u32 = 3;

/// Where the stores of a platform are.
#[derive(Clone)]
pub struct Stores {
    pub redis_url: String,
    pub brokers: String,
    pub database: Database,
}

impl Stores {
    /// Those that all tests of this binary share, with a database of its own.
    pub async fn shared() -> Self {
        Self {
            redis_url: Redis::shared().await.url(),
            brokers: Kafka::shared().await.brokers(),
            database: Postgres::shared().await.create_database().await.unwrap(),
        }
    }
}

pub struct Platform {
    pub stores: Stores,
    pub namespace: String,
    pub issuer: TokenIssuer,
    pub jwks: JwksServer,
    pub api: SocketAddr,
    pub api_ops: SocketAddr,
    pub ledger: SocketAddr,
    pub client: reqwest::Client,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<String>,
    pub body: Value,
}

impl Answer {
    /// The problem's code; the claim's id where it is one.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn claim_id(&self) -> &str {
        self.body["claimId"].as_str().unwrap_or_default()
    }
}

pub fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn process(namespace: &str) -> Process {
    Process {
        ops_addr: local(),
        log_filter: "warn".to_owned(),
        otlp_endpoint: None,
        shutdown_grace: Duration::from_secs(20),
        namespace: namespace.to_owned(),
        instance: unique_name("pod"),
    }
}

impl Platform {
    pub async fn start() -> Self {
        Self::on(Stores::shared().await).await
    }

    /// Both roles on these stores, which may be away.
    pub async fn on(stores: Stores) -> Self {
        let namespace = unique_name("ns");
        let issuer = TokenIssuer::new();
        let jwks = JwksServer::start(issuer.jwks()).await.unwrap();
        let common = || Common {
            process: process(&namespace),
            database_url: stores.database.url.clone().into(),
            redis_url: stores.redis_url.clone().into(),
            kafka_brokers: stores.brokers.clone(),
        };
        let ledger = promotions::ledger::start(LedgerSettings {
            common: common(),
            internal_addr: local(),
            saga_partitions: 2,
        });
        let ledger = ledger.await.unwrap();
        let api = promotions::api::start(ApiSettings {
            common: common(),
            http_addr: local(),
            jwks_url: jwks.url().parse().unwrap(),
            jwt_issuer: "quokka".to_owned(),
            bench_noop: false,
        });
        let api = api.await.unwrap();
        let platform = Self {
            namespace,
            issuer,
            jwks,
            api: api.http_addr().unwrap(),
            api_ops: api.ops_addr(),
            ledger: ledger.internal_addr().unwrap(),
            client: reqwest::Client::new(),
            stores: stores.clone(),
        };
        tokio::spawn(ledger.run());
        tokio::spawn(api.run());
        platform
    }

    pub async fn pool(&self) -> PgPool {
        self.stores.database.pool().await.unwrap()
    }

    /// A campaign that is open for an hour.
    pub fn campaign(&self, stock: u32) -> SaleDefinition {
        let name = unique_name("sale");
        let now = Timestamp::now();
        SaleDefinition {
            uid: SaleUid(Uuid::new_v4()),
            topic: events::claims_topic(&self.namespace, &name),
            name,
            kind: SaleKind::CouponCampaign,
            generation: 1,
            display_name: "A campaign".to_owned(),
            starts: now - SignedDuration::from_secs(60),
            ends: now + SignedDuration::from_hours(1),
            stock: Stock(stock),
            per_user_limit: 1,
            claim_ttl_ms: None,
            paused: false,
            partitions: PARTITIONS,
            target: None,
            stay_dates: None,
            discount: Discount::Percent(PercentDiscount {
                percent: 10,
                max_amount: Some(20_000),
            }),
            coupon: Some(CouponTerms {
                valid_for_ms: 30 * 24 * 3_600_000,
                min_order_amount: Some(50_000),
                regions: vec!["jeju".to_owned()],
            }),
        }
    }

    /// A time sale that is open for an hour.
    pub fn time_sale(&self, stock: u32) -> SaleDefinition {
        SaleDefinition {
            kind: SaleKind::TimeSale,
            claim_ttl_ms: Some(600_000),
            coupon: None,
            target: Some(Target {
                regions: vec!["jeju".to_owned()],
                ..Target::default()
            }),
            ..self.campaign(stock)
        }
    }

    pub async fn create_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.stores.brokers)
            .create()
            .unwrap();
        let partitions = i32::try_from(PARTITIONS).unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let created = admin
            .create_topics([&new], &AdminOptions::new())
            .await
            .unwrap();
        created[0].as_ref().unwrap();
    }

    /// Declares a sale as the operator does, and waits until it is open and the API knows it.
    pub async fn open(&self, definition: &SaleDefinition) {
        self.create_topic(&definition.topic).await;
        self.put(definition).await;
        self.wait_open(definition).await;
        let path = self.path_of(definition);
        eventually(PATIENCE, async || {
            self.get(&path, Uuid::new_v4()).await.status == StatusCode::OK
        })
        .await;
    }

    pub async fn put(&self, definition: &SaleDefinition) {
        let url = self.books_url(definition.uid);
        eventually(PATIENCE, async || {
            let answer = self
                .client
                .put(&url)
                .json(definition)
                .send()
                .await
                .map_err(|error| error.to_string())?;
            match answer.status() {
                StatusCode::OK => Ok(()),
                status => Err(format!("{status}: {:?}", answer.text().await)),
            }
        })
        .await;
    }

    pub async fn wait_open(&self, definition: &SaleDefinition) {
        eventually(PATIENCE, async || {
            let books = self.books(definition.uid).await;
            match books {
                Ok(books) if books.gate == GateState::Open && !books.recovering => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    pub async fn books(&self, uid: SaleUid) -> Result<Books, String> {
        let answer = self
            .client
            .get(self.books_url(uid))
            .send()
            .await
            .map_err(|error| error.to_string())?;
        answer.json().await.map_err(|error| error.to_string())
    }

    fn books_url(&self, uid: SaleUid) -> String {
        format!("http://{}/internal/v1/sales/{uid}", self.ledger)
    }

    pub fn path_of(&self, definition: &SaleDefinition) -> String {
        let kind = match definition.kind {
            SaleKind::CouponCampaign => "coupon-campaigns",
            SaleKind::TimeSale => "time-sales",
        };
        format!("/v1/{kind}/{}", definition.name)
    }

    pub async fn claim(&self, definition: &SaleDefinition, user: Uuid) -> Answer {
        self.call(
            Method::POST,
            &format!("{}/claims", self.path_of(definition)),
            user,
        )
        .await
    }

    pub async fn give_back(&self, definition: &SaleDefinition, claim: &str, user: Uuid) -> Answer {
        self.call(
            Method::DELETE,
            &format!("{}/claims/{claim}", self.path_of(definition)),
            user,
        )
        .await
    }

    pub async fn get(&self, path: &str, user: Uuid) -> Answer {
        self.call(Method::GET, path, user).await
    }

    pub async fn call(&self, method: Method, path: &str, user: Uuid) -> Answer {
        self.send(
            self.request(method, path)
                .bearer_auth(self.issuer.token(user)),
        )
        .await
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.api))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        };
        Answer {
            status,
            retry_after,
            body,
        }
    }

    /// The API's metrics.
    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.api_ops);
        let answer = self.client.get(url).send().await.unwrap();
        answer.text().await.unwrap()
    }

    pub async fn is_ready(&self) -> bool {
        let answer = self
            .client
            .get(format!("http://{}/readyz", self.api_ops))
            .send()
            .await
            .unwrap();
        answer.status() == StatusCode::OK
    }
}

/// How many rows the ledger has of a sale, of any status.
pub async fn rows_of(pool: &PgPool, sale: SaleUid) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM claims WHERE sale_uid = $1")
        .bind(sale.0)
        .fetch_one(pool)
        .await
        .unwrap()
}
