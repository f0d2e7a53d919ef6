//! A running `users` with a database of its own, and how tests talk to it.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::postgres::PgPool;

use crate::process::{PATIENCE, Process, file};

/// The cheapest hash that the settings allow.
pub(crate) const CHEAP: [(&str, &str); 2] = [
    ("QUOKKA_ARGON2_MEMORY_KIB", "1024"),
    ("QUOKKA_ARGON2_ITERATIONS", "1"),
];

/// The service, its database, and a client of both.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) database_url: String,
    pub(crate) pool: PgPool,
    client: reqwest::Client,
}

/// What a request was answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The whole answer is this problem.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str, title: &str, detail: &str) {
        let mut expected = problem(status, code, title, self);
        expected["detail"] = json!(detail);
        assert_eq!((self.status, &self.body), (status, &expected));
        assert_eq!(self.headers["content-type"], "application/problem+json");
    }

    /// A field that is text.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field} in {self:?}"))
            .to_owned()
    }
}

/// What every problem has; the trace id is the answer's own, and is checked for its form.
#[track_caller]
pub(crate) fn problem(status: u16, code: &str, title: &str, answer: &Answer) -> Value {
    let trace_id = answer.text("traceId");
    assert!(
        trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{trace_id}"
    );
    json!({
        "type": format!("https://quokka.travel/problems/{}", code.to_lowercase().replace('_', "-")),
        "title": title, "status": status, "code": code, "traceId": trace_id,
    })
}

impl Service {
    /// With a database of its own and cheap hashes, ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more settings, which win.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let database = testkit::Postgres::shared()
            .await
            .create_database()
            .await
            .unwrap();
        Self::on(&database.url, settings).await
    }

    /// On a database that is there already, ready.
    pub(crate) async fn on(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let service = Self::unready_on(database_url, settings).await;
        service.until_ready().await;
        service
    }

    /// On a database that may not be there.
    pub(crate) async fn unready_on(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let key = file(testkit::TokenIssuer::new().private_pem());
        let mut all: BTreeMap<&str, &str> = CHEAP.into_iter().collect();
        all.extend([
            ("QUOKKA_DATABASE_URL", database_url),
            ("QUOKKA_SIGNING_KEY_FILE", key.path().to_str().unwrap()),
        ]);
        all.extend(settings.iter().copied());
        let process = Process::start(&all).await;
        let pool = PgPool::connect_lazy(database_url).unwrap();
        // The process has read the key by now.
        drop(key);
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        Self {
            process,
            pool,
            database_url: database_url.to_owned(),
            client,
        }
    }

    /// Waits until /readyz says so.
    pub(crate) async fn until_ready(&self) {
        self.until_readyz(200).await;
    }

    /// Waits for an answer of /readyz.
    pub(crate) async fn until_readyz(&self, status: u16) {
        testkit::eventually(PATIENCE, async || {
            self.readyz().await.is_some_and(|answer| answer == status)
        })
        .await;
    }

    async fn readyz(&self) -> Option<u16> {
        Some(
            self.client
                .get(self.process.ops("/readyz"))
                .send()
                .await
                .ok()?
                .status()
                .as_u16(),
        )
    }

    pub(crate) async fn ops(&self, path: &str) -> (u16, String) {
        let response = self
            .client
            .get(self.process.ops(path))
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(
            Method::from_bytes(method.as_bytes()).unwrap(),
            self.process.http(path),
        )
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        };
        Answer {
            status,
            headers,
            body,
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).json(body)).await
    }

    pub(crate) async fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.send(
            self.request("POST", path)
                .header("idempotency-key", key)
                .json(body),
        )
        .await
    }

    pub(crate) async fn post_raw(&self, path: &str, content_type: &str, body: String) -> Answer {
        self.send(
            self.request("POST", path)
                .header("content-type", content_type)
                .body(body),
        )
        .await
    }

    /// A new account; its user id.
    pub(crate) async fn sign_up(&self, email: &str, password: &str) -> String {
        let answer = self
            .post(
                "/v1/users",
                &json!({"email": email, "password": password, "name": "Guest"}),
            )
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text("userId")
    }

    /// A new account with the password `correct horse`; an access token of it.
    pub(crate) async fn sign_up_and_in(&self, email: &str) -> String {
        self.sign_up(email, "correct horse").await;
        self.sign_in(email, "correct horse")
            .await
            .text("accessToken")
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Answer {
        self.post(
            "/v1/sessions",
            &json!({"email": email, "password": password}),
        )
        .await
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answer {
        self.post(
            "/v1/sessions/refresh",
            &json!({"refreshToken": refresh_token}),
        )
        .await
    }

    pub(crate) async fn me(&self, access_token: &str) -> Answer {
        self.send(
            self.request("GET", "/v1/users/me")
                .bearer_auth(access_token),
        )
        .await
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Every row of every table, as text.
    pub(crate) async fn dump(&self) -> String {
        let mut dump = String::new();
        for table in ["users", "sessions", "idempotency_keys"] {
            let sql = format!("SELECT '({table})' || t::text FROM {table} t");
            let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_all(&self.pool)
                .await
                .unwrap();
            dump.extend(rows);
        }
        dump
    }
}
