//! Every setting of the service, with its unit and default.

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
  QUOKKA_STAYS_URL           where `stays` answers quotes, its internal address; required
  QUOKKA_PROMOTIONS_URL      where `promotions` answers for claims, its internal address; required
  QUOKKA_JWKS_URL            the keys that access tokens are checked with; required
  QUOKKA_JWT_ISSUER          `iss` of the access tokens [quokka]
  QUOKKA_PAYMENT_WINDOW      how long an order may be paid [15m]
  QUOKKA_PAYMENT_SETTLE_MAX  how long the outcome of a payment is waited for, at least 1s; the gateway forgets an
                             unconfirmed payment after 10 minutes [15m]
  QUOKKA_REMIND_AFTER        when an unanswered command is sent again, the first time [30s]
  QUOKKA_PEER_TIMEOUT        how long a quote or a claim may take, all tries together [3s]
  QUOKKA_SAGA_PARTITIONS     partitions of the saga's topics where they are missing, 1 to 1000 [12]
  QUOKKA_HTTP_ADDR           where the API is served [0.0.0.0:8080]
  QUOKKA_INTERNAL_ADDR       where other services ask [0.0.0.0:8081]
  QUOKKA_OPS_ADDR            where /livez, /readyz and /metrics are served [0.0.0.0:9090]
  QUOKKA_LOG                 a tracing filter [info]
  QUOKKA_OTLP_ENDPOINT       where traces go, by gRPC [nowhere]
  QUOKKA_SHUTDOWN_GRACE      how long a shutdown may take [20s]
  QUOKKA_NAMESPACE           the platform's namespace [quokka]
  POD_NAME                   which replica this is [the host's name]";

/// The times that an order goes by.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long an order may be paid.
    pub payment_window: Duration,
    /// How long the outcome of a payment under way is waited for.
    pub settle_max: Duration,
    /// When an unanswered command is sent again, the first time.
    pub remind_after: Duration,
}

/// The settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Operations, logs, traces, shutdown.
    pub process: Process,
    /// `QUOKKA_HTTP_ADDR`.
    pub http_addr: SocketAddr,
    /// `QUOKKA_INTERNAL_ADDR`.
    pub internal_addr: SocketAddr,
    /// `QUOKKA_DATABASE_URL`.
    pub database_url: SecretString,
    /// `QUOKKA_KAFKA_BROKERS`.
    pub kafka_brokers: String,
    /// `QUOKKA_SAGA_PARTITIONS`.
    pub saga_partitions: u32,
    /// `QUOKKA_STAYS_URL`.
    pub stays_url: Url,
    /// `QUOKKA_PROMOTIONS_URL`.
    pub promotions_url: Url,
    /// `QUOKKA_JWKS_URL`.
    pub jwks_url: Url,
    /// `QUOKKA_JWT_ISSUER`.
    pub jwt_issuer: String,
    /// `QUOKKA_PAYMENT_WINDOW`, `QUOKKA_PAYMENT_SETTLE_MAX`, `QUOKKA_REMIND_AFTER`.
    pub times: Times,
    /// `QUOKKA_PEER_TIMEOUT`.
    pub peer_timeout: Duration,
}

impl Settings {
    /// From the environment of the process; the error names every mistake.
    pub fn read() -> Result<Self, Mistakes> {
        Self::from_env(&mut Env::new("orders"))
    }

    fn from_env(env: &mut Env) -> Result<Self, Mistakes> {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let settings = Self {
            process: Process::read(env),
            http_addr: env.or("QUOKKA_HTTP_ADDR", any(8080)),
            internal_addr: env.or("QUOKKA_INTERNAL_ADDR", any(8081)),
            database_url: env.secret_url("QUOKKA_DATABASE_URL", &["postgres", "postgresql"]),
            kafka_brokers: env
                .required::<Vec<String>>("QUOKKA_KAFKA_BROKERS")
                .join(","),
            saga_partitions: env.or("QUOKKA_SAGA_PARTITIONS", SAGA_PARTITIONS_DEFAULT),
            stays_url: env.required("QUOKKA_STAYS_URL"),
            promotions_url: env.required("QUOKKA_PROMOTIONS_URL"),
            jwks_url: env.required("QUOKKA_JWKS_URL"),
            jwt_issuer: env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned()),
            times: Times {
                payment_window: duration(env, "QUOKKA_PAYMENT_WINDOW", 15 * 60),
                settle_max: duration(env, "QUOKKA_PAYMENT_SETTLE_MAX", 15 * 60),
                remind_after: duration(env, "QUOKKA_REMIND_AFTER", 30),
            },
            peer_timeout: duration(env, "QUOKKA_PEER_TIMEOUT", 3),
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

/// A time that is neither nothing nor for ever.
fn duration(env: &mut Env, name: &str, default_secs: u64) -> Duration {
    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(86_400);
    let given = env.or(name, Duration::from_secs(default_secs));
    if !(MIN..=MAX).contains(&given) {
        env.mistake(name, "is not from 100ms to 24h");
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        (
            "QUOKKA_DATABASE_URL",
            "postgres://quokka@localhost/quokka_orders",
        ),
        ("QUOKKA_JWKS_URL", "http://users:8080/.well-known/jwks.json"),
        ("QUOKKA_KAFKA_BROKERS", "one:9092, two:9092"),
        ("QUOKKA_PROMOTIONS_URL", "http://promotions:8081"),
        ("QUOKKA_STAYS_URL", "http://stays:8081"),
    ];

    fn named(pairs: &[(&str, &str)]) -> Vec<String> {
        let mistakes =
            Settings::from_env(&mut Env::from_pairs("test", pairs.iter().copied())).err();
        let mut named: Vec<String> = mistakes
            .iter()
            .flat_map(|mistakes| mistakes.iter().map(|mistake| mistake.setting.clone()))
            .collect();
        named.sort();
        named
    }

    #[test]
    fn the_required_settings_are_enough() {
        assert_eq!(named(&GOOD), [""; 0]);
    }

    #[test]
    fn every_missing_setting_is_named() {
        assert_eq!(named(&[]), GOOD.map(|(name, _)| name));
    }

    #[test]
    fn a_time_of_nothing_is_a_mistake() {
        let mut pairs = GOOD.to_vec();
        pairs.push(("QUOKKA_PAYMENT_WINDOW", "0"));
        assert_eq!(named(&pairs), ["QUOKKA_PAYMENT_WINDOW"]);
    }

    #[test]
    fn help_names_every_setting_that_is_read() {
        let mut env = Env::from_pairs("test", GOOD);
        assert!(Settings::from_env(&mut env).is_ok());
        for name in env.names() {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
