//! The servers of a benchmark, and our programs as they run on them: outside Kubernetes, so that nothing but them is
//! measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use testkit::{JwksServer, Kafka, Postgres, Redis, TokenIssuer};

use super::kafka::warm_up;
use super::process::Program;
use crate::guests::TokenSigner;

/// The platform's name.
pub(crate) const NAMESPACE: &str = "bench";

/// Redis, Kafka, PostgreSQL and who signs tokens; they end when this is dropped.
pub(crate) struct Servers {
    pub(crate) redis: Redis,
    pub(crate) kafka: Kafka,
    pub(crate) postgres: Postgres,
    pub(crate) signer: TokenSigner,
    keys: JwksServer,
    binaries: PathBuf,
}

impl Servers {
    /// Starts them as in production, with their data on the disk unless `in_memory`.
    pub(crate) async fn start(binaries: &Path, in_memory: bool) -> anyhow::Result<Self> {
        println!("starting Redis, Kafka, PostgreSQL and the release binaries");
        testkit::set_up_for_load();
        if in_memory {
            println!("  data in memory where there is room, PostgreSQL without fsync");
        } else {
            testkit::keep_data_on_disk();
            println!(
                "  data on the disk, in {}, PostgreSQL with fsync",
                std::env::temp_dir().display()
            );
        }
        let (redis, kafka, postgres) =
            tokio::try_join!(Redis::start(), Kafka::start(), Postgres::start())?;
        warm_up(&kafka.brokers()).await?;
        let issuer = TokenIssuer::new();
        let keys = JwksServer::start(issuer.jwks()).await?;
        let signer = TokenSigner::new(issuer.private_pem().as_bytes(), issuer.kid(), "quokka")?;
        Ok(Self {
            redis,
            kafka,
            postgres,
            signer,
            keys,
            binaries: binaries.to_owned(),
        })
    }

    /// Starts a program with what all of them are told and `more`, and waits until it is ready.
    pub(crate) async fn program(
        &self,
        name: &str,
        arguments: &[&str],
        more: &[(&'static str, String)],
    ) -> anyhow::Result<Program> {
        let shared = [
            ("QUOKKA_NAMESPACE", NAMESPACE.to_owned()),
            ("QUOKKA_LOG", "warn".to_owned()),
            ("QUOKKA_JWKS_URL", self.keys.url().to_owned()),
            ("QUOKKA_REDIS_URL", self.redis.url()),
            ("QUOKKA_KAFKA_BROKERS", self.kafka.brokers()),
        ];
        Program::start(
            &self.binaries,
            name,
            arguments,
            &[&shared[..], more].concat(),
            testkit::free_port(),
        )
        .await
    }
}

/// Addresses of this machine that nobody listens at.
pub(crate) fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, testkit::free_port())))
}
