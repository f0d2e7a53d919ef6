//! Starts the real servers that tests need, and tears them down.
//!
//! ```no_run
//! # async fn test() -> Result<(), testkit::Error> {
//! let redis = testkit::Redis::shared().await; // one for the whole test binary: isolate by names
//! let own = testkit::Redis::start().await?; // one of this test's own, to be killed and flushed at will
//! own.kill().await?;
//! own.resume().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Every server listens on 127.0.0.1 at a free port, keeps its data in a temporary folder (in memory where there is
//! room), and dies with the process that started it, also when that one is killed: the kernel sends the signal.
//!
//! Redis, etcd and PostgreSQL come from the system's packages; Kafka and kube-apiserver are looked for in
//! `${QUOKKA_CACHE:-~/.cache/quokka}`, where `make tools` puts them.

pub mod collector;
mod error;
mod kafka;
mod kube_api;
mod ports;
mod postgres;
mod process;
mod redis;
pub mod spans;
mod storage;
mod tokens;
mod tools;
mod wait;

pub use error::Error;
pub use kafka::Kafka;
pub use kube_api::KubeApi;
pub use ports::free_port;
pub use postgres::{Database, Postgres};
pub use redis::Redis;
pub use storage::{keep_data_on_disk, set_up_for_load};
pub use tokens::{JwksServer, TokenIssuer};
pub use wait::{Outcome, eventually};

/// A name that no other test of this run uses: `prefix` and eight random letters, fit for a DNS label, a database,
/// a topic or a Redis key.
pub fn unique_name(prefix: &str) -> String {
    use rand::RngExt as _;
    let mut rng = rand::rng();
    let suffix: String = (0..8)
        .map(|_| char::from(rng.random_range(b'a'..=b'z')))
        .collect();
    format!("{prefix}-{suffix}")
}
