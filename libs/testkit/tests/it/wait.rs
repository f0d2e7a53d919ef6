use std::{cell::Cell, time::Duration};

use testkit::eventually;

use super::PATIENCE;

#[tokio::test]
async fn it_answers_what_was_found() {
    let tries = Cell::new(0);
    let found = eventually(PATIENCE, || async {
        tries.set(tries.get() + 1);
        (tries.get() == 3).then_some("there")
    })
    .await;
    assert_eq!((found, tries.get()), ("there", 3));
}

#[tokio::test]
#[should_panic(expected = "wait.rs")]
async fn it_names_the_caller_that_waited_in_vain() {
    eventually(Duration::ZERO, || async { false }).await;
}

#[tokio::test]
#[should_panic(expected = "what was seen")]
async fn it_tells_what_was_seen_last() {
    eventually(Duration::ZERO, || async { Err::<(), _>("what was seen") }).await;
}

#[test]
fn two_ports_are_never_the_same() {
    let ports: std::collections::HashSet<u16> = (0..50).map(|_| testkit::free_port()).collect();
    assert_eq!(ports.len(), 50);
}
