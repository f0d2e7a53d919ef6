//! Ports for servers that must know theirs before they start, and keep it when they start again.

use std::{
    fs::{File, OpenOptions},
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::Mutex,
};

use rand::RngExt as _;

use crate::process::own_uid;

/// Below the ports that the kernel gives to outgoing connections, so that no client takes the port of a server which
/// is down for a moment; and below those of Kubernetes node ports.
const PORTS: Range<u16> = 15_000..29_000;

/// How many taken ports in a row mean that something else is wrong.
const ATTEMPTS: usize = 1_000;

/// Held until the process ends, so that other test processes choose other ports.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that nobody listens on, and that no other process of this test run will be given.
pub fn free_port() -> u16 {
    // A folder for each user, since nobody can lock another's files.
    let user = own_uid().unwrap_or_default();
    let locks = std::env::temp_dir().join(format!("quokka-testkit-ports-{user}"));
    std::fs::create_dir_all(&locks)
        .unwrap_or_else(|error| panic!("create {}: {error}", locks.display()));
    for _ in 0..ATTEMPTS {
        let port = rand::rng().random_range(PORTS);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(locks.join(port.to_string()));
        let Ok(lock) = lock else { continue };
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            HELD.lock()
                .expect("nothing panics while holding it")
                .push(lock);
            return port;
        }
    }
    panic!("no free port among {PORTS:?}")
}
