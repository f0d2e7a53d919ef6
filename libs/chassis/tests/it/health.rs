use chassis::{health::Readiness, serve::ops_router};

use super::get;

#[tokio::test]
async fn readyz_names_what_is_missing() {
    let readiness = Readiness::new();
    let (redis, kafka) = (readiness.dependency("redis"), readiness.dependency("kafka"));
    let ops = ops_router(readiness.clone());
    redis.set_ready();
    kafka.set_unready("connection refused");

    let answer = get(&ops, "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body["missing"][0]["name"], "kafka");
    assert_eq!(answer.body["missing"][0]["reason"], "connection refused");
    assert_eq!(answer.body["ready"][0], "redis");

    kafka.set_ready();
    assert_eq!(get(&ops, "/readyz").await.status, 200);
    redis.set_unready("gone");
    assert_eq!(get(&ops, "/readyz").await.status, 503);
}

#[tokio::test]
async fn a_process_that_shuts_down_is_alive_and_never_ready_again() {
    let readiness = Readiness::new();
    let redis = readiness.dependency("redis");
    redis.set_ready();
    readiness.shutting_down();
    redis.set_ready();
    let ops = ops_router(readiness);
    let answer = get(&ops, "/readyz").await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.body["shuttingDown"].as_bool()
        ),
        (503, Some(true))
    );
    assert_eq!(get(&ops, "/livez").await.status, 200);
}

#[tokio::test]
async fn metrics_show_dependencies_and_the_process() {
    let readiness = Readiness::new();
    readiness.dependency("metrics-test-ready").set_ready();
    let _gone = readiness.dependency("metrics-test-gone");
    let answer = get(&ops_router(readiness), "/metrics").await;
    let text = answer.body.as_str().unwrap();
    assert!(
        text.contains(r#"quokka_dependency_ready{dependency="metrics-test-ready"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"quokka_dependency_ready{dependency="metrics-test-gone"} 0"#),
        "{text}"
    );
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
}
