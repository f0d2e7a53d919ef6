//! The binary as a process: started with settings, found by what it logs, ended by signals.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use testkit::{JwksServer, TokenIssuer, eventually, unique_name};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::world::PATIENCE;

/// Who issues tokens, and where its keys are.
pub(crate) struct Issuer {
    pub(crate) tokens: TokenIssuer,
    pub(crate) jwks: JwksServer,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let tokens = TokenIssuer::new();
        let jwks = JwksServer::start(tokens.jwks()).await.unwrap();
        Self { tokens, jwks }
    }
}

/// A running service; killed when dropped.
pub(crate) struct Process {
    child: Child,
    http: String,
    ops: String,
}

impl Process {
    /// Starts it on ports of its own choice and waits until it is ready.
    pub(crate) async fn start(database_url: &str, brokers: &str, issuer: &Issuer) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_booking"))
            .env_clear()
            .envs([
                ("QUOKKA_DATABASE_URL", database_url),
                ("QUOKKA_KAFKA_BROKERS", brokers),
                ("QUOKKA_JWKS_URL", issuer.jwks.url()),
                ("QUOKKA_HTTP_ADDR", "127.0.0.1:0"),
                ("QUOKKA_OPS_ADDR", "127.0.0.1:0"),
                ("QUOKKA_SAGA_PARTITIONS", "2"),
                ("QUOKKA_HOLD_EXPIRY_EVERY", "50ms"),
                ("POD_NAME", &unique_name("booking")),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let serving = Arc::new(Mutex::new(None::<Value>));
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = Arc::clone(&serving);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["message"] == "serving" {
                    *found.lock().unwrap() = Some(line);
                }
            }
        });
        let line = eventually(PATIENCE, async || serving.lock().unwrap().clone()).await;
        let address = |name: &str| {
            let text = line[name].as_str().unwrap();
            text.trim_start_matches("Some(")
                .trim_end_matches(')')
                .to_owned()
        };
        let process = Self {
            child,
            http: address("http"),
            ops: address("ops"),
        };
        let ready = format!("http://{}/readyz", process.ops);
        eventually(PATIENCE, async || {
            reqwest::get(&ready)
                .await
                .is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        process
    }

    /// Asks for a path of the API with this token; answers status and body.
    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let mut request = reqwest::Client::new()
            .get(format!("http://{}{path}", self.http))
            .timeout(PATIENCE);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.ops))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end, as Kubernetes does, and waits for its end.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the process ends")
            .unwrap()
    }
}
