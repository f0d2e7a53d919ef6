use testkit::Redis;

use super::{is_listening, talk};

async fn run_id(redis: &Redis) -> String {
    let info = talk(redis.port(), b"INFO server\r\n").await.unwrap();
    info.lines()
        .find_map(|line| line.strip_prefix("run_id:"))
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn it_answers() {
    let redis = Redis::shared().await;
    assert_eq!(talk(redis.port(), b"PING\r\n").await.unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn a_flush_loses_the_data_and_keeps_the_run() {
    let redis = Redis::start().await.unwrap();
    let run = run_id(&redis).await;
    talk(redis.port(), b"SET key value\r\n").await.unwrap();
    redis.flush().await.unwrap();
    assert_eq!(
        talk(redis.port(), b"EXISTS key\r\n").await.unwrap(),
        ":0\r\n"
    );
    assert_eq!(run_id(&redis).await, run);
}

#[tokio::test]
async fn a_restart_is_empty_and_another_run_on_the_same_port() {
    let redis = Redis::start().await.unwrap();
    let (run, url) = (run_id(&redis).await, redis.url());
    talk(redis.port(), b"SET key value\r\n").await.unwrap();
    redis.restart_empty().await.unwrap();
    assert_eq!(
        talk(redis.port(), b"EXISTS key\r\n").await.unwrap(),
        ":0\r\n"
    );
    assert_ne!(run_id(&redis).await, run);
    assert_eq!(redis.url(), url);
}

#[tokio::test]
async fn stopped_it_is_gone_until_it_is_resumed() {
    let redis = Redis::start().await.unwrap();
    redis.stop().await.unwrap();
    assert!(!is_listening(redis.port()).await);
    redis.resume().await.unwrap();
    assert!(is_listening(redis.port()).await);
    redis.kill().await.unwrap();
    assert!(!is_listening(redis.port()).await);
}

#[tokio::test]
async fn frozen_it_takes_connections_and_answers_when_thawed() {
    use std::time::Duration;

    let redis = Redis::start().await.unwrap();
    redis.freeze().unwrap();
    let mut answer = Box::pin(talk(redis.port(), b"PING\r\n"));
    // Nothing can be waited for that must not happen: this only fails if the freeze does nothing.
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut answer)
            .await
            .is_err()
    );
    redis.thaw().unwrap();
    assert_eq!(answer.await.unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn dropped_it_dies() {
    let redis = Redis::start().await.unwrap();
    let (port, pid) = (redis.port(), redis.pid().unwrap());
    drop(redis);
    assert!(!super::is_alive(pid));
    assert!(!is_listening(port).await);
}
