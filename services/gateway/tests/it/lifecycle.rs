//! How a gateway starts and ends.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    PATIENCE, Raw, Service, Setup, eventually, nobody, raw, raw_service, read_some, request,
};

#[tokio::test]
async fn every_mistake_in_the_settings_is_named_and_the_exit_code_is_2() {
    let setup = Setup::new()
        .await
        .without("QUOKKA_JWKS_URL")
        .env("QUOKKA_UPSTREAMS", "quokka-cats=127.0.0.1:1");
    let (status, said) = setup
        .env("QUOKKA_GATEWAY_THREADS", "none")
        .run_to_end()
        .await;
    assert_eq!(status.code(), Some(2));
    for name in [
        "QUOKKA_JWKS_URL",
        "QUOKKA_UPSTREAMS",
        "QUOKKA_GATEWAY_THREADS",
    ] {
        assert!(said.contains(name), "{name} is not in {said}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_ends_it_with_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let setup = Setup::new().await.upstreams(&[nobody().await], &[]);
    let (status, _) = setup.env("QUOKKA_HTTP_ADDR", taken).run_to_end().await;
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_then_the_exit_code_is_0() {
    let users = Service::start("users").await;
    let (mut gateway, _issuer) = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .start()
        .await;
    let mut idle = Raw::connect(&gateway).await;
    idle.send(request("GET", "/v1/users/x", &[], b"")).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut waiting = Raw::connect(&gateway).await;
    waiting
        .send(request(
            "POST",
            "/v1/users/x",
            &[("x-test-hold", "1")],
            b"{}",
        ))
        .await;
    users.holds(1).await;

    gateway.terminate();
    eventually(|| async {
        TcpStream::connect(gateway.http)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    assert!(
        idle.rest().await.is_empty(),
        "a connection without a request ends"
    );
    assert_eq!(gateway.readyz().await, Some(503));

    users.release();
    let answer = waiting.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.closes());
    assert!(gateway.ended().await.success());
}

/// Such as one whose client doesn't take the answer.
#[tokio::test]
async fn a_request_that_outlives_the_grace_period_is_cut_off_and_said() {
    let endless = raw_service(|mut stream| async move {
        read_some(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[b'a'; 65536]).await.is_ok() {}
    })
    .await;
    let setup = Setup::new()
        .await
        .upstreams(&[endless], &[])
        .env("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "1s");
    let (mut gateway, _issuer) = setup.env("QUOKKA_SHUTDOWN_GRACE", "1s").start().await;
    let mut waiting = Raw::connect(&gateway).await;
    waiting.send(request("GET", "/v1/users/x", &[], b"")).await;
    assert!(waiting.answer_begins().await.starts_with(b"HTTP/1.1 200"));
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(1));
    eventually(|| async {
        let said = gateway.log();
        said.iter()
            .any(|line| line.contains("not done within the grace period"))
    })
    .await;
}

#[tokio::test]
async fn half_a_head_does_not_hold_up_the_end() {
    let users = Service::start("users").await;
    let setup = Setup::new()
        .await
        .upstreams(&[users.address], &[])
        .env("QUOKKA_GATEWAY_CLIENT_TIMEOUT", "60s")
        .env("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "1s");
    let (mut gateway, _issuer) = setup.env("QUOKKA_SHUTDOWN_GRACE", "3s").start().await;
    let mut half = Raw::connect(&gateway).await;
    half.send(request("GET", "/v1/users/x", &[], b"")).await;
    assert_eq!(half.answer().await.status, 200);
    half.send("GET /v1/users/x HTTP/1.1\r\nho").await;
    gateway.terminate();
    assert!(half.rest().await.is_empty());
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_but_takes_what_still_comes() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (mut gateway, _issuer) = setup.env("QUOKKA_GATEWAY_DRAIN", "3s").start().await;
    let mut kept = Raw::connect(&gateway).await;
    kept.send(request("GET", "/v1/users/x", &[], b"")).await;
    assert!(!kept.answer().await.closes());

    gateway.terminate();
    eventually(|| async { gateway.readyz().await.filter(|status| *status == 503) }).await;
    kept.send(request("GET", "/v1/users/x", &[], b"")).await;
    let answer = kept.answer().await;
    assert_eq!((answer.status, answer.closes()), (200, true));
    let answer = raw(&gateway, request("GET", "/v1/users/x", &[], b"")).await;
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert!(gateway.ended().await.success());
}

/// Clients under load stop when the gateway says that it isn't ready, as whoever sends them there does. Until then and
/// after it, every request that was sent gets its answer.
#[tokio::test]
async fn the_end_under_load_loses_no_request() {
    const CLIENTS: usize = 50;
    let promotions = Service::start("promotions").await;
    let setup = Setup::new().await.upstreams(&[], &[promotions.address]);
    let (mut gateway, issuer) = setup.env("QUOKKA_GATEWAY_DRAIN", "2s").start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    let count = Arc::new(AtomicUsize::new(0));
    let url = gateway.url("/v1/time-sales/jeju/claims");

    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, answered, count) =
                (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&count));
            let (url, bearer) = (url.clone(), issuer.bearer());
            tokio::spawn(async move {
                let http = reqwest::Client::builder()
                    .timeout(PATIENCE)
                    .build()
                    .unwrap();
                let mut sent = 0;
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("{client}-{sent}");
                    sent += 1;
                    let request = http
                        .post(&url)
                        .header("authorization", &bearer)
                        .body(id.clone());
                    let answer = request
                        .send()
                        .await
                        .unwrap_or_else(|error| panic!("{id}: {error:?}"));
                    assert_eq!(answer.status(), 200, "{id}");
                    answer.bytes().await.unwrap();
                    answered.lock().unwrap().insert(id);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();

    let served = |more: usize| {
        let count = Arc::clone(&count);
        let wanted = count.load(Ordering::SeqCst) + more;
        async move {
            eventually(|| async { (count.load(Ordering::SeqCst) >= wanted).then_some(()) }).await;
        }
    };
    served(500).await;
    gateway.terminate();
    eventually(|| async { gateway.readyz().await.filter(|status| *status == 503) }).await;
    served(200).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(gateway.ended().await.success());
    let arrived: BTreeSet<_> = promotions
        .seen()
        .iter()
        .map(|seen| String::from_utf8(seen.body.to_vec()).unwrap())
        .collect();
    assert_eq!(arrived, *answered.lock().unwrap());
}
