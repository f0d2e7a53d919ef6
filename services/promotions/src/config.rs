//! Every setting of promotions, from environment variables.

use std::net::{Ipv4Addr, SocketAddr};

use chassis::config::{Env, Mistakes, Process};
use events::topics::{SAGA_PARTITIONS, SAGA_PARTITIONS_DEFAULT};
use secrecy::SecretString;
use url::Url;

/// The settings that both roles have.
#[derive(Debug, Clone)]
pub struct Common {
    /// Operations, logs, traces, shutdown.
    pub process: Process,
    /// `QUOKKA_DATABASE_URL`: the database `quokka_promotions`.
    pub database_url: SecretString,
    /// `QUOKKA_REDIS_URL`: where the stock is.
    pub redis_url: SecretString,
    /// `QUOKKA_KAFKA_BROKERS`: `host:port`, separated by commas.
    pub kafka_brokers: String,
}

impl Common {
    fn read(env: &mut Env) -> Self {
        Self {
            process: Process::read(env),
            database_url: env.secret_url("QUOKKA_DATABASE_URL", &["postgres", "postgresql"]),
            redis_url: env.secret_url("QUOKKA_REDIS_URL", &["redis", "rediss"]),
            kafka_brokers: env
                .required::<Vec<String>>("QUOKKA_KAFKA_BROKERS")
                .join(","),
        }
    }
}

/// The settings of `promotions api`.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// What both roles have.
    pub common: Common,
    /// `QUOKKA_HTTP_ADDR`: where the API is served. Default 0.0.0.0:8080.
    pub http_addr: SocketAddr,
    /// `QUOKKA_JWKS_URL`: the keys that access tokens are checked with.
    pub jwks_url: Url,
    /// `QUOKKA_JWT_ISSUER`: who must have issued a token. Default `quokka`.
    pub jwt_issuer: String,
    /// `QUOKKA_BENCH_NOOP`: serves `GET /v1/noop`, which does nothing, for benchmarks. Default false.
    pub bench_noop: bool,
}

impl ApiSettings {
    /// From the environment of the process; the error names every mistake.
    pub fn read() -> Result<Self, Mistakes> {
        Self::from_env(&mut Env::new("promotions api"))
    }

    fn from_env(env: &mut Env) -> Result<Self, Mistakes> {
        let settings = Self {
            common: Common::read(env),
            http_addr: env.or("QUOKKA_HTTP_ADDR", any(8080)),
            jwks_url: env.required("QUOKKA_JWKS_URL"),
            jwt_issuer: env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned()),
            bench_noop: env.or("QUOKKA_BENCH_NOOP", false),
        };
        env.finish().map(|()| settings)
    }
}

/// The settings of `promotions ledger`.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// What both roles have.
    pub common: Common,
    /// `QUOKKA_INTERNAL_ADDR`: where the operator finds the books, and `orders` what claims are worth. Default
    /// 0.0.0.0:8081.
    pub internal_addr: SocketAddr,
    /// `QUOKKA_SAGA_PARTITIONS`: partitions of the saga's topics where they are missing, 1 to 1000. Default 12.
    pub saga_partitions: u32,
}

impl LedgerSettings {
    /// From the environment of the process; the error names every mistake.
    pub fn read() -> Result<Self, Mistakes> {
        Self::from_env(&mut Env::new("promotions ledger"))
    }

    fn from_env(env: &mut Env) -> Result<Self, Mistakes> {
        let settings = Self {
            common: Common::read(env),
            internal_addr: env.or("QUOKKA_INTERNAL_ADDR", any(8081)),
            saga_partitions: env.or("QUOKKA_SAGA_PARTITIONS", SAGA_PARTITIONS_DEFAULT),
        };
        if !SAGA_PARTITIONS.contains(&settings.saga_partitions) {
            env.mistake(
                "QUOKKA_SAGA_PARTITIONS",
                "is not a whole number from 1 to 1000",
            );
        }
        env.finish().map(|()| settings)
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        (
            "QUOKKA_DATABASE_URL",
            "postgres://quokka@localhost/quokka_promotions",
        ),
        ("QUOKKA_REDIS_URL", "redis://localhost"),
        ("QUOKKA_KAFKA_BROKERS", "one:9092, two:9092"),
        (
            "QUOKKA_JWKS_URL",
            "http://quokka-users:8080/.well-known/jwks.json",
        ),
    ];

    #[test]
    fn the_required_settings_are_enough() {
        let settings = ApiSettings::from_env(&mut Env::from_pairs("test", GOOD));
        let brokers = settings.map(|settings| (settings.common.kafka_brokers, settings.bench_noop));
        assert_eq!(brokers, Ok(("one:9092,two:9092".to_owned(), false)));
    }

    #[test]
    fn every_missing_setting_is_named() {
        let nothing: [(&str, &str); 0] = [];
        let mistakes = ApiSettings::from_env(&mut Env::from_pairs("test", nothing)).err();
        let named: Vec<String> = mistakes
            .iter()
            .flat_map(|mistakes| mistakes.iter().map(|mistake| mistake.setting.clone()))
            .collect();
        let mut expected: Vec<String> = GOOD.iter().map(|(name, _)| (*name).to_owned()).collect();
        expected.sort();
        let mut sorted = named;
        sorted.sort();
        assert_eq!(sorted, expected);
    }
}
