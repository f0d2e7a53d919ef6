//! What happens when things go wrong around the service: its settings, its database, its end.

use std::collections::BTreeMap;

use serde_json::json;
use testkit::Postgres;

use crate::process::command;
use crate::service::Service;

#[tokio::test]
async fn every_mistake_in_the_settings_is_named_and_the_process_ends_with_2() {
    let settings = BTreeMap::from([
        ("QUOKKA_DATABASE_URL", "redis://:s3cret@localhost"),
        ("QUOKKA_SIGNING_KEY_FILE", "/nowhere/key.pem"),
        ("QUOKKA_ARGON2_MEMORY_KIB", "lots"),
        ("QUOKKA_OPS_ADDR", "9090"),
    ]);
    let output = command(&settings).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for name in settings.keys() {
        assert_eq!(said.matches(name).count(), 1, "{name} in {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn help_and_version_need_no_settings() {
    for (argument, says) in [
        ("--help", "QUOKKA_SIGNING_KEY_FILE"),
        ("--version", env!("CARGO_PKG_VERSION")),
    ] {
        let output = command(&BTreeMap::new())
            .arg(argument)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(says));
    }
}

#[tokio::test]
async fn a_killed_database_is_503_and_the_service_comes_back_by_itself() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let service = Service::on(&database.url, &[]).await;
    service.sign_up("kim@example.com", "correct horse").await;
    let session = service.sign_in("kim@example.com", "correct horse").await;

    postgres.kill().await.unwrap();
    let lee = json!({"email": "lee@example.com", "password": "correct horse", "name": "Lee"});
    let gone = "accounts can't be read or written right now";
    for answer in [
        service.post("/v1/users", &lee).await,
        service.sign_in("kim@example.com", "correct horse").await,
        service.refresh(&session.text("refreshToken")).await,
        service.me(&session.text("accessToken")).await,
    ] {
        answer.is_problem(503, "UNAVAILABLE", "Unavailable for a moment", gone);
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let answer = service.post_with_key("/v1/users", "sign-up-1", &lee).await;
    assert_eq!(
        (answer.status, answer.headers.contains_key("retry-after")),
        (503, true)
    );
    service.until_readyz(503).await;
    assert_eq!(service.ops("/livez").await.0, 200);
    assert_eq!(
        service
            .send(service.request("GET", "/.well-known/jwks.json"))
            .await
            .status,
        200
    );

    postgres.resume().await.unwrap();
    service.until_ready().await;
    assert_eq!(
        service
            .post_with_key("/v1/users", "sign-up-1", &lee)
            .await
            .status,
        201
    );
    assert_eq!(
        service.refresh(&session.text("refreshToken")).await.status,
        201,
        "the refused refresh used nothing up"
    );
}

#[tokio::test]
async fn a_database_that_is_not_there_at_start_is_waited_for() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    postgres.stop().await.unwrap();
    let service = Service::unready_on(&database.url, &[]).await;
    service.until_readyz(503).await;
    assert_eq!(service.ops("/livez").await.0, 200);
    assert_eq!(
        service
            .sign_in("kim@example.com", "correct horse")
            .await
            .status,
        503
    );
    postgres.resume().await.unwrap();
    service.until_ready().await;
    service.sign_up("kim@example.com", "correct horse").await;
}

#[tokio::test]
async fn told_to_end_it_answers_what_is_in_flight_and_ends_with_0() {
    let mut service = Service::start_with(&[
        ("QUOKKA_ARGON2_MEMORY_KIB", "65536"),
        ("QUOKKA_HASHING_WORKERS", "1"),
    ])
    .await;
    let emails: Vec<String> = (0..8)
        .map(|guest| format!("guest{guest}@example.com"))
        .collect();
    let sign_ups = emails.iter().map(|email| {
        let service = &service;
        async move {
            service
                .post(
                    "/v1/users",
                    &json!({"email": email, "password": "correct horse", "name": "Guest"}),
                )
                .await
        }
    });
    let terminated_amid = async {
        testkit::eventually(crate::process::PATIENCE, async || {
            service.count("SELECT count(*) FROM users").await > 0
        })
        .await;
        service.process.terminate().await;
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(sign_ups), terminated_amid);
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let status = service.process.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(service.count("SELECT count(*) FROM users").await, 8);
}

#[tokio::test]
async fn nothing_personal_and_no_secret_is_logged() {
    let service = Service::start_with(&[("QUOKKA_LOG", "debug")]).await;
    let body = json!({"email": "personal@example.com", "password": "correct horse", "name": "Minji Personal"});
    service.post_with_key("/v1/users", "sign-up-1", &body).await;
    service.post("/v1/users", &body).await;
    service.sign_in("personal@example.com", "wrong horse").await;
    let session = service
        .sign_in("personal@example.com", "correct horse")
        .await;
    let next = service.refresh(&session.text("refreshToken")).await;
    service.refresh(&session.text("refreshToken")).await;
    service.me(&next.text("accessToken")).await;
    testkit::eventually(crate::process::PATIENCE, async || {
        service.process.logged().iter().any(|line| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.contains("used refresh token"))
        })
    })
    .await;
    let logged = format!("{:?}", service.process.logged());
    let secrets = [
        session.text("refreshToken"),
        session.text("accessToken"),
        next.text("refreshToken"),
        next.text("accessToken"),
    ];
    for secret in
        secrets
            .iter()
            .map(String::as_str)
            .chain(["personal@", "Personal", "horse", "$argon2id$v="])
    {
        assert!(!logged.contains(secret), "{secret}");
    }
}
