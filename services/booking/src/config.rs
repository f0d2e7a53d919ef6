//! Every setting of the service, with its unit and default. Read whole at start; each mistake is named.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chassis::config::{Env, Mistakes, Process};
use events::topics::{SAGA_PARTITIONS, SAGA_PARTITIONS_DEFAULT};
use secrecy::SecretString;
use url::Url;

/// What `--help` says about the settings.
pub const HELP: &str = "\
Settings (environment variables):
  QUOKKA_DATABASE_URL        postgres:// address of the service's own database; required
  QUOKKA_KAFKA_BROKERS       host:port of Kafka's brokers, separated by commas; required
  QUOKKA_JWKS_URL            where the keys are that access tokens are checked with; required
  QUOKKA_JWT_ISSUER          `iss` of the access tokens [quokka]
  QUOKKA_HTTP_ADDR           where the API is served [0.0.0.0:8080]
  QUOKKA_SAGA_PARTITIONS     partitions of the saga's topics where they are missing, 1 to 1000 [12]
  QUOKKA_HOLD_EXPIRY_EVERY   how often holds whose time is over are looked for, 10ms to 10m [1s]
  QUOKKA_OPS_ADDR            where /livez, /readyz and /metrics are served [0.0.0.0:9090]
  QUOKKA_LOG                 a tracing filter [info]
  QUOKKA_OTLP_ENDPOINT       where traces go, by gRPC [nowhere]
  QUOKKA_SHUTDOWN_GRACE      how long a shutdown may take [20s]
  QUOKKA_NAMESPACE           the platform's namespace [quokka]
  POD_NAME                   which replica this is [the host's name]";

/// The settings of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Operations, logs, traces, shutdown.
    pub process: Process,
    /// Where the API is served.
    pub http_addr: SocketAddr,
    /// The database `quokka_booking`.
    pub database_url: SecretString,
    /// `host:port`, separated by commas.
    pub kafka_brokers: String,
    /// The keys that access tokens are checked with.
    pub jwks_url: Url,
    /// Who must have issued a token.
    pub jwt_issuer: String,
    /// Partitions of topics that are missing.
    pub saga_partitions: u32,
    /// How often holds whose time is over are looked for.
    pub hold_expiry_every: Duration,
}

impl Config {
    /// Reads them; the error names every mistake.
    pub fn read(env: &mut Env) -> Result<Self, Mistakes> {
        let config = Self {
            process: Process::read(env),
            http_addr: env.or(
                "QUOKKA_HTTP_ADDR",
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            ),
            database_url: env.secret_url("QUOKKA_DATABASE_URL", &["postgres", "postgresql"]),
            kafka_brokers: env
                .required::<Vec<String>>("QUOKKA_KAFKA_BROKERS")
                .join(","),
            jwks_url: env.required("QUOKKA_JWKS_URL"),
            jwt_issuer: env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned()),
            saga_partitions: env.or("QUOKKA_SAGA_PARTITIONS", SAGA_PARTITIONS_DEFAULT),
            hold_expiry_every: env.or("QUOKKA_HOLD_EXPIRY_EVERY", Duration::from_secs(1)),
        };
        if !SAGA_PARTITIONS.contains(&config.saga_partitions) {
            env.mistake(
                "QUOKKA_SAGA_PARTITIONS",
                "is not a whole number from 1 to 1000",
            );
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(600))
            .contains(&config.hold_expiry_every)
        {
            env.mistake(
                "QUOKKA_HOLD_EXPIRY_EVERY",
                "is not a duration from 10ms to 10m",
            );
        }
        env.finish().map(|()| config)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 3] = [
        (
            "QUOKKA_DATABASE_URL",
            "postgres://quokka@localhost/quokka_booking",
        ),
        ("QUOKKA_KAFKA_BROKERS", "one:9092, two:9092"),
        (
            "QUOKKA_JWKS_URL",
            "http://quokka-users:8080/.well-known/jwks.json",
        ),
    ];

    fn mistakes(pairs: &[(&str, &str)]) -> Vec<String> {
        let mut env = Env::from_pairs("booking", pairs.iter().copied());
        let Err(mistakes) = Config::read(&mut env) else {
            return Vec::new();
        };
        mistakes
            .iter()
            .map(|mistake| mistake.setting.clone())
            .collect()
    }

    #[test]
    fn three_settings_are_enough() {
        let config = Config::read(&mut Env::from_pairs("booking", GOOD)).unwrap();
        assert_eq!(config.kafka_brokers, "one:9092,two:9092");
        assert_eq!(config.hold_expiry_every, Duration::from_secs(1));
    }

    #[test]
    fn every_mistake_is_named() {
        let mut missing = mistakes(&[]);
        missing.sort();
        assert_eq!(
            missing,
            [
                "QUOKKA_DATABASE_URL",
                "QUOKKA_JWKS_URL",
                "QUOKKA_KAFKA_BROKERS"
            ]
        );
        let bad = [
            GOOD[0],
            GOOD[1],
            GOOD[2],
            ("QUOKKA_SAGA_PARTITIONS", "0"),
            ("QUOKKA_HOLD_EXPIRY_EVERY", "0s"),
        ];
        assert_eq!(
            mistakes(&bad),
            ["QUOKKA_SAGA_PARTITIONS", "QUOKKA_HOLD_EXPIRY_EVERY"]
        );
    }

    #[test]
    fn help_names_every_setting_that_is_read() {
        let mut env = Env::from_pairs("booking", GOOD);
        Config::read(&mut env).unwrap();
        for name in env.names() {
            assert!(HELP.contains(&format!("  {name} ")), "{name}");
        }
    }
}
