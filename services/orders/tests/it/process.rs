//! The binary as a process: its settings and its end.

use std::process::Stdio;

use testkit::{JwksServer, TokenIssuer, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::platform::{PATIENCE, Stores};

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn every_mistake_in_the_settings_is_named_and_no_secret() {
    let output = binary()
        .env("QUOKKA_DATABASE_URL", "mysql://root:s3cret@host/orders")
        .env("QUOKKA_PAYMENT_WINDOW", "soon")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for name in [
        "QUOKKA_DATABASE_URL",
        "QUOKKA_PAYMENT_WINDOW",
        "QUOKKA_STAYS_URL",
        "QUOKKA_KAFKA_BROKERS",
    ] {
        assert!(said.contains(name), "{name} in {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn told_to_end_it_ends_with_0() {
    let stores = Stores::shared().await;
    let jwks = JwksServer::start(TokenIssuer::new().jwks()).await.unwrap();
    let mut child = binary()
        .envs([
            ("QUOKKA_DATABASE_URL", stores.database_url.as_str()),
            ("QUOKKA_KAFKA_BROKERS", &stores.brokers),
            ("QUOKKA_NAMESPACE", &testkit::unique_name("ns")),
            ("QUOKKA_JWKS_URL", jwks.url()),
            ("QUOKKA_STAYS_URL", "http://127.0.0.1:9"),
            ("QUOKKA_PROMOTIONS_URL", "http://127.0.0.1:9"),
            ("QUOKKA_HTTP_ADDR", "127.0.0.1:0"),
            ("QUOKKA_INTERNAL_ADDR", "127.0.0.1:0"),
            ("QUOKKA_OPS_ADDR", "127.0.0.1:0"),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ops = loop {
        let line = lines
            .next_line()
            .await
            .unwrap()
            .expect("it says where it serves");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "serving" {
            break line["ops"].as_str().unwrap().to_owned();
        }
    };
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    eventually(PATIENCE, async || {
        let answer = reqwest::get(format!("http://{ops}/readyz")).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let pid = child.id().unwrap().to_string();
    let told = Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert!(told.success());
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}
