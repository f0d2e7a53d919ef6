//! Servers die with the process that started them, however it ends. The process here is this test binary again, told
//! by its environment to start servers and wait to be killed.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use testkit::{Postgres, Redis, eventually};

use super::{PATIENCE, is_alive};

/// Set for the process that is to be killed.
const VICTIM: &str = "TESTKIT_VICTIM";

/// Not a test of its own: what the victim runs.
#[tokio::test]
async fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let (redis, postgres) = (Redis::shared().await, Postgres::start().await.unwrap());
    for pid in [redis.pid().unwrap(), postgres.pid().unwrap()] {
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        println!("victim {pid} {}", folder.display());
    }
    std::future::pending::<()>().await;
}

fn start_victim() -> (Child, Vec<(u32, PathBuf)>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "death::victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let servers = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            let mut words = line.split_once("victim ")?.1.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.into()))
        })
        .take(2)
        .collect();
    (child, servers)
}

#[tokio::test]
async fn they_die_and_leave_nothing_when_their_process_is_killed() {
    let (mut child, servers) = tokio::task::spawn_blocking(start_victim).await.unwrap();
    assert_eq!(servers.len(), 2);
    for (pid, folder) in &servers {
        assert!(is_alive(*pid));
        assert!(folder.exists(), "{}", folder.display());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for (pid, folder) in &servers {
        eventually(PATIENCE, || async { !is_alive(*pid) }).await;
        eventually(PATIENCE, || async { !folder.exists() }).await;
    }
}
