//! A running service with a database and a namespace of its own, and how tests talk to it.

use std::net::SocketAddr;
use std::time::Duration;

use chassis::config::Process;
use reqwest::{Method, RequestBuilder};
use sale_stock::RedisSettings;
use sale_stock::discounts::Discounts;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::PgPool;
use stays::app;
use stays::calendar::Day;
use stays::config::{Config, SearchBy};
use testkit::{JwksServer, Kafka, Postgres, Redis, TokenIssuer, eventually, unique_name};
use uuid::Uuid;

/// Long enough for a busy machine: every wait ends as soon as its condition holds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The service and what it uses.
pub(crate) struct World {
    pub(crate) database_url: SecretString,
    pub(crate) pool: PgPool,
    pub(crate) discounts: Discounts,
    pub(crate) brokers: String,
    http: SocketAddr,
    internal: SocketAddr,
    ops: SocketAddr,
    issuer: TokenIssuer,
    client: reqwest::Client,
    _jwks: JwksServer,
}

/// What a request was answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    /// It is this problem.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        let is = (self.status, self.body["code"].as_str().unwrap_or_default());
        assert_eq!(is, (status, code), "{self:?}");
    }

    /// It has this status; its body.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.body
    }

    /// A field that is an id.
    #[track_caller]
    pub(crate) fn id(&self) -> Uuid {
        let id = self.body["id"].as_str();
        id.unwrap_or_else(|| panic!("{self:?}")).parse().unwrap()
    }

    /// The ids of a page's items.
    pub(crate) fn ids(&self) -> Vec<Uuid> {
        let items = self.body["items"].as_array();
        let items = items.unwrap_or_else(|| panic!("{self:?}"));
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().parse().unwrap())
            .collect()
    }
}

fn local() -> SocketAddr {
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

/// The date so many days from today, as it is written.
pub(crate) fn date(days: i32) -> String {
    Day::today().plus(days).to_string()
}

impl World {
    /// With an empty database, ready.
    pub(crate) async fn new() -> Self {
        Self::with(SearchBy::Index).await
    }

    /// The same, with searches answered by one or the other.
    pub(crate) async fn with(search_by: SearchBy) -> Self {
        let database = Postgres::shared().await.create_database().await.unwrap();
        let brokers = Kafka::shared().await.brokers();
        let redis_url = Redis::shared().await.url();
        let namespace = unique_name("stays");
        let issuer = TokenIssuer::new();
        let jwks = JwksServer::start(issuer.jwks()).await.unwrap();
        let database_url = SecretString::from(database.url.clone());
        let config = Config {
            process: process(&namespace),
            database_url: database_url.clone(),
            redis_url: redis_url.clone().into(),
            kafka_brokers: brokers.clone(),
            jwks_url: jwks.url().parse().unwrap(),
            jwt_issuer: "quokka".to_owned(),
            search_by,
            saga_partitions: 6,
            discounts_every: Duration::from_millis(50),
            http_addr: local(),
            internal_addr: local(),
        };
        let server = app::start(config).await.unwrap();
        let world = Self {
            pool: database.pool().await.unwrap(),
            database_url,
            discounts: Discounts::connect_lazy(&RedisSettings::new(redis_url), &namespace).unwrap(),
            brokers,
            http: server.http_addr().unwrap(),
            internal: server.internal_addr().unwrap(),
            ops: server.ops_addr(),
            issuer,
            client: reqwest::Client::new(),
            _jwks: jwks,
        };
        tokio::spawn(server.run());
        eventually(PATIENCE, async || world.ready().await).await;
        world
    }

    async fn ready(&self) -> Result<(), String> {
        let url = format!("http://{}/readyz", self.ops);
        let answer = self.client.get(url).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let ready = answer.status().is_success();
        let said = answer.text().await.unwrap_or_default();
        if ready { Ok(()) } else { Err(said) }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.http))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            body: response.json().await.unwrap_or_default(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn internal(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.internal);
        self.send(self.client.get(url)).await
    }

    pub(crate) fn host_token(&self, host: Uuid) -> String {
        self.issuer.token_with_roles(host, &["guest", "host"])
    }

    /// A request of somebody with roles.
    pub(crate) async fn call(
        &self,
        (user, roles): (Uuid, &[&str]),
        method: Method,
        path: &str,
        body: &Value,
    ) -> Answer {
        let token = self.issuer.token_with_roles(user, roles);
        self.send(self.request(method, path).bearer_auth(token).json(body))
            .await
    }

    pub(crate) async fn as_host(
        &self,
        host: Uuid,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Answer {
        self.call((host, &["guest", "host"]), method, path, body)
            .await
    }

    /// A stay of a host in Jeju; its id.
    pub(crate) async fn stay(&self, host: Uuid, name: &str) -> Uuid {
        let body = stay_body(name);
        let answer = self.as_host(host, Method::POST, "/v1/stays", &body).await;
        let id = answer.id();
        answer.ok(201);
        id
    }

    /// A room type for two; its id.
    pub(crate) async fn room_type(&self, host: Uuid, stay: Uuid) -> Uuid {
        let path = format!("/v1/stays/{stay}/room-types");
        let body = json!({"name": "스탠다드", "nameEn": "Standard", "capacity": 2});
        let answer = self.as_host(host, Method::POST, &path, &body).await;
        let id = answer.id();
        answer.ok(201);
        id
    }

    /// Nights from so many days on, all at one price and with so many rooms.
    pub(crate) async fn offer(
        &self,
        host: Uuid,
        room_type: Uuid,
        days: std::ops::Range<i32>,
        (price, rooms): (i64, u32),
    ) {
        let nights: Vec<Value> = days
            .map(|day| json!({"date": date(day), "price": price, "allotment": rooms}))
            .collect();
        let path = format!("/v1/room-types/{room_type}/calendar");
        self.as_host(host, Method::PUT, &path, &json!({"nights": nights}))
            .await
            .ok(200);
    }

    /// Searches until the ids found are these, in this order.
    pub(crate) async fn until_found(&self, path: &str, ids: &[Uuid]) -> Answer {
        eventually(PATIENCE, async || {
            let answer = self.get(path).await;
            if answer.ids() == ids {
                Ok(answer)
            } else {
                Err(answer)
            }
        })
        .await
    }
}

pub(crate) fn stay_body(name: &str) -> Value {
    json!({
        "name": name, "nameEn": "Aewol Ocean Pension", "description": "바다 앞", "region": "jeju",
        "address": "제주시 애월읍", "lat": 33.462, "lng": 126.309, "amenities": ["wifi", "ocean-view"],
        "cancellation": "FLEXIBLE",
    })
}
