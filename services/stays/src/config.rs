//! Every setting of the service, with its unit and default. Read whole at start; each mistake is named.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chassis::config::{Env, Mistakes, Process, Setting};
use events::topics::{SAGA_PARTITIONS, SAGA_PARTITIONS_DEFAULT};
use secrecy::SecretString;
use url::Url;

/// What `--help` says about the settings.
pub const HELP: &str = "\
Settings (environment variables):
  QUOKKA_DATABASE_URL       postgres:// address of the service's own database; required
  QUOKKA_REDIS_URL          redis:// address where the discounts of time sales are; required
  QUOKKA_KAFKA_BROKERS      brokers to begin with, host:port,host:port; required
  QUOKKA_JWKS_URL           the keys that access tokens are checked with; required
  QUOKKA_JWT_ISSUER         who must have issued a token [quokka]
  QUOKKA_SEARCH             `index`, in memory, or `postgres` alone [index]
  QUOKKA_SAGA_PARTITIONS    partitions of the saga's topics where they are missing, 1 to 1000 [12]
  QUOKKA_DISCOUNTS_EVERY    how often discounts are read from Redis, 10ms to 1m [500ms]
  QUOKKA_HTTP_ADDR          where the API is served [0.0.0.0:8080]
  QUOKKA_INTERNAL_ADDR      where quotes are served to other services [0.0.0.0:8081]
  QUOKKA_OPS_ADDR           where /livez, /readyz and /metrics are served [0.0.0.0:9090]
  QUOKKA_LOG                a tracing filter [info]
  QUOKKA_OTLP_ENDPOINT      where traces go, by gRPC [nowhere]
  QUOKKA_SHUTDOWN_GRACE     how long a shutdown may take [20s]
  QUOKKA_NAMESPACE          the platform's namespace [quokka]
  POD_NAME                  which replica this is [the host's name]
Seeding needs QUOKKA_DATABASE_URL alone.";

/// What answers searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchBy {
    /// The index in memory.
    Index,
    /// PostgreSQL alone.
    Postgres,
}

impl Setting for SearchBy {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "index" => Ok(Self::Index),
            "postgres" => Ok(Self::Postgres),
            _ => Err("is neither".to_owned()),
        }
    }

    fn placeholder() -> Self {
        Self::Index
    }

    fn describe() -> &'static str {
        "`index` or `postgres`"
    }
}

/// The settings of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Operations, logs, traces, shutdown.
    pub process: Process,
    /// `QUOKKA_DATABASE_URL`: the database `quokka_stays`.
    pub database_url: SecretString,
    /// `QUOKKA_REDIS_URL`: where the discounts of time sales are.
    pub redis_url: SecretString,
    /// `QUOKKA_KAFKA_BROKERS`: `host:port`, separated by commas.
    pub kafka_brokers: String,
    /// `QUOKKA_JWKS_URL`: the keys that access tokens are checked with.
    pub jwks_url: Url,
    /// `QUOKKA_JWT_ISSUER`: who must have issued a token. Default `quokka`.
    pub jwt_issuer: String,
    /// `QUOKKA_SEARCH`: what answers searches. Default the index.
    pub search_by: SearchBy,
    /// `QUOKKA_SAGA_PARTITIONS`: partitions of topics that are missing. Default 12.
    pub saga_partitions: u32,
    /// `QUOKKA_DISCOUNTS_EVERY`: the pause between two readings of the discounts. Default 500ms.
    pub discounts_every: Duration,
    /// `QUOKKA_HTTP_ADDR`: where the API is served. Default 0.0.0.0:8080.
    pub http_addr: SocketAddr,
    /// `QUOKKA_INTERNAL_ADDR`: where other services ask for quotes. Default 0.0.0.0:8081.
    pub internal_addr: SocketAddr,
}

impl Config {
    /// From the environment; the error names every mistake.
    pub fn read(env: &mut Env) -> Result<Self, Mistakes> {
        let config = Self {
            process: Process::read(env),
            database_url: database_url(env),
            redis_url: env.secret_url("QUOKKA_REDIS_URL", &["redis", "rediss"]),
            kafka_brokers: env
                .required::<Vec<String>>("QUOKKA_KAFKA_BROKERS")
                .join(","),
            jwks_url: env.required("QUOKKA_JWKS_URL"),
            jwt_issuer: env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned()),
            search_by: env.or("QUOKKA_SEARCH", SearchBy::Index),
            saga_partitions: env.or("QUOKKA_SAGA_PARTITIONS", SAGA_PARTITIONS_DEFAULT),
            discounts_every: env.or("QUOKKA_DISCOUNTS_EVERY", Duration::from_millis(500)),
            http_addr: env.or("QUOKKA_HTTP_ADDR", any(8080)),
            internal_addr: env.or("QUOKKA_INTERNAL_ADDR", any(8081)),
        };
        let pause = Duration::from_millis(10)..=Duration::from_secs(60);
        if !pause.contains(&config.discounts_every) {
            env.mistake("QUOKKA_DISCOUNTS_EVERY", "is not from 10ms to 1m");
        }
        if !SAGA_PARTITIONS.contains(&config.saga_partitions) {
            env.mistake(
                "QUOKKA_SAGA_PARTITIONS",
                "is not a whole number from 1 to 1000",
            );
        }
        env.finish().map(|()| config)
    }
}

/// The settings of `stays seed`.
#[derive(Debug, Clone)]
pub struct SeedConfig {
    /// Logs.
    pub process: Process,
    /// `QUOKKA_DATABASE_URL`.
    pub database_url: SecretString,
}

impl SeedConfig {
    /// From the environment; the error names every mistake.
    pub fn read(env: &mut Env) -> Result<Self, Mistakes> {
        let config = Self {
            process: Process::read(env),
            database_url: database_url(env),
        };
        env.finish().map(|()| config)
    }
}

fn database_url(env: &mut Env) -> SecretString {
    env.secret_url("QUOKKA_DATABASE_URL", &["postgres", "postgresql"])
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
            "postgres://quokka@localhost/quokka_stays",
        ),
        ("QUOKKA_REDIS_URL", "redis://localhost"),
        ("QUOKKA_KAFKA_BROKERS", "one:9092, two:9092"),
        (
            "QUOKKA_JWKS_URL",
            "http://quokka-users:8080/.well-known/jwks.json",
        ),
    ];

    fn named(mistakes: &Mistakes) -> Vec<&str> {
        mistakes
            .iter()
            .map(|mistake| mistake.setting.as_str())
            .collect()
    }

    #[test]
    fn the_required_settings_are_enough_and_every_missing_one_is_named() {
        let read = Config::read(&mut Env::from_pairs("test", GOOD));
        let read = read.map(|config| (config.kafka_brokers, config.search_by));
        assert_eq!(read, Ok(("one:9092,two:9092".to_owned(), SearchBy::Index)));
        let nothing: [(&str, &str); 0] = [];
        let mistakes = Config::read(&mut Env::from_pairs("test", nothing)).err();
        let missing: Vec<&str> = mistakes.iter().flat_map(named).collect();
        assert_eq!(missing, GOOD.map(|(name, _)| name));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let bad = [
            ("QUOKKA_SEARCH", "mongo"),
            ("QUOKKA_DISCOUNTS_EVERY", "1ms"),
        ];
        let env = GOOD.into_iter().chain(bad);
        let mistakes = Config::read(&mut Env::from_pairs("test", env)).err();
        let wrong: Vec<&str> = mistakes.iter().flat_map(named).collect();
        assert_eq!(wrong, ["QUOKKA_SEARCH", "QUOKKA_DISCOUNTS_EVERY"]);
    }
}
