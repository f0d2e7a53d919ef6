use testkit::{Kafka, eventually};

use super::{PATIENCE, is_listening, talk};

/// A CreateTopics request, version 2, as Kafka's protocol guide has it.
fn create_topic(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(19_i16.to_be_bytes()); // CreateTopics
    body.extend(2_i16.to_be_bytes());
    body.extend(7_i32.to_be_bytes()); // correlation
    body.extend((-1_i16).to_be_bytes()); // no client id
    body.extend(1_i32.to_be_bytes()); // one topic
    body.extend((name.len() as i16).to_be_bytes());
    body.extend(name.as_bytes());
    body.extend(1_i32.to_be_bytes()); // partitions
    body.extend(1_i16.to_be_bytes()); // replicas
    body.extend(0_i32.to_be_bytes()); // assignments
    body.extend(0_i32.to_be_bytes()); // configuration
    body.extend(30_000_i32.to_be_bytes()); // timeout
    body.push(0); // not only validated
    [(body.len() as i32).to_be_bytes().to_vec(), body].concat()
}

/// The error code that the answer to [`create_topic`] has for its one topic.
async fn created(kafka: &Kafka, name: &str) -> i16 {
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, kafka.port()))
        .await
        .unwrap();
    stream.write_all(&create_topic(name)).await.unwrap();
    let length = stream.read_i32().await.unwrap();
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.unwrap();
    let error_at = 4 + 4 + 4 + 2 + name.len(); // correlation, throttle, count, name
    i16::from_be_bytes([answer[error_at], answer[error_at + 1]])
}

const NONE: i16 = 0;
const TOPIC_ALREADY_EXISTS: i16 = 36;

#[tokio::test]
async fn it_serves_at_once() {
    let kafka = Kafka::shared().await;
    assert_eq!(created(kafka, &testkit::unique_name("topic")).await, NONE);
}

#[tokio::test]
async fn it_survives_a_kill_with_its_data_on_the_same_port() {
    let kafka = Kafka::start().await.unwrap();
    let (brokers, topic) = (kafka.brokers(), testkit::unique_name("topic"));
    assert_eq!(created(&kafka, &topic).await, NONE);

    kafka.kill().await.unwrap();
    assert!(!is_listening(kafka.port()).await);
    kafka.resume().await.unwrap();
    assert_eq!(kafka.brokers(), brokers);
    eventually(PATIENCE, || async {
        created(&kafka, &topic).await == TOPIC_ALREADY_EXISTS
    })
    .await;

    kafka.stop().await.unwrap();
    assert!(talk(kafka.port(), b"").await.is_err());
}
