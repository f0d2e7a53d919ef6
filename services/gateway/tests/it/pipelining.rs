//! Clients that don't wait for an answer before they send the next request.

use crate::support::{Raw, Service, Setup, raw, request};

const CHUNKED: &str = "3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nx-trailer: 1\r\n\r\n";

#[tokio::test]
async fn requests_that_come_together_are_answered_one_after_the_other() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.start().await;
    let chunked = [("transfer-encoding", "chunked")];
    let mut together = request("GET", "/v1/users/1", &[], b"");
    together.extend(request("POST", "/v1/users/2", &[], b"0123456789"));
    together.extend(request("POST", "/v1/users/3", &chunked, b""));
    together.extend(CHUNKED.bytes());
    together.extend(request("POST", "/nowhere/4", &[], b"0123456789"));
    together.extend(request("GET", "/v1/users/5", &[], b""));

    for cut in (0..together.len()).step_by(7) {
        let mut connection = Raw::connect(&gateway).await;
        connection.send(&together[..cut]).await;
        tokio::task::yield_now().await;
        connection.send(&together[cut..]).await;
        for index in 1..=5 {
            let answer = connection.answer().await;
            if index == 4 {
                answer.assert_problem(404, "NOT_FOUND");
            } else {
                assert_eq!(answer.json()["target"], format!("/v1/users/{index}"));
            }
        }
    }
    for seen in users.seen() {
        let body = match seen.target.as_str() {
            "/v1/users/2" => "0123456789",
            "/v1/users/3" => "abcdefg",
            _ => "",
        };
        assert_eq!(seen.body, body, "{}", seen.target);
    }
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_worked_on_waits() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.start().await;
    let mut connection = Raw::connect(&gateway).await;
    let held = request("POST", "/v1/users/1", &[("x-test-hold", "1")], b"{}");
    connection.send(held).await;
    users.holds(1).await;
    connection
        .send(request("POST", "/v1/users/2", &[], b"0123456789"))
        .await;
    // Whatever the gateway does about it is done by the time that others have been served.
    for _ in 0..10 {
        raw(&gateway, request("GET", "/v1/users/x", &[], b"")).await;
    }

    users.release();
    assert_eq!(connection.answer().await.json()["target"], "/v1/users/1");
    assert_eq!(connection.answer().await.json()["target"], "/v1/users/2");
    assert_eq!(users.seen().last().unwrap().body, "0123456789");
}

#[tokio::test]
async fn every_head_is_checked_not_only_the_first() {
    let users = Service::start("users").await;
    let setup = Setup::new().await.upstreams(&[users.address], &[]);
    let (gateway, _issuer) = setup.start().await;
    let first = request("POST", "/v1/users/1", &[], b"{}");
    for second in [
        "GET /v1/users/2 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "POST /v1/users/2 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
        "and something else",
    ] {
        let mut connection = Raw::connect(&gateway).await;
        connection.send([&first, second.as_bytes()].concat()).await;
        assert_eq!(connection.answer().await.status, 200);
        connection
            .answer()
            .await
            .assert_problem(400, "MALFORMED_REQUEST");
        connection.assert_ends_in_order().await;
    }
    assert_eq!(users.seen().len(), 3);
}
