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
  QUOKKA_KAFKA_BROKERS       host:port, separated by commas; required
  QUOKKA_KAFKA_GROUP         the consumer group of its commands [payments]
  QUOKKA_SAGA_PARTITIONS     partitions of the saga's topics where they are missing, 1 to 1000 [12]
  QUOKKA_JWKS_URL            where the keys that access tokens are checked with are; required
  QUOKKA_JWT_ISSUER          `iss` of the access tokens [quokka]
  QUOKKA_ORDERS_URL          the internal address of orders, such as http://quokka-orders:8081; required
  QUOKKA_TOSS_URL            the gateway, https; or http, for one in the cluster that is no real one; required
  QUOKKA_TOSS_SECRET_KEY     the shop's secret key at the gateway; required
  QUOKKA_TOSS_TIMEOUT        how long the gateway may take to answer, 1s to 5m [60s]
  QUOKKA_TOSS_CALLS          calls of guests' payments at the same time, 1 to 10000 [256]
  QUOKKA_CONFIRM_WAIT        how long a guest waits for an outcome before it counts as unknown [8s]
  QUOKKA_ORDERS_TIMEOUT      how long orders may take to answer [3s]
  QUOKKA_SETTLE_EVERY        how often outcomes that aren't known, and refunds, are looked for [500ms]
  QUOKKA_SETTLE_PAUSE_MAX    the longest pause before the gateway is asked again about one payment [30s]
  QUOKKA_DEPOSIT_POLL        how often a virtual account is asked about when no webhook comes [5m]
  QUOKKA_RECONCILE_EVERY     how often ledger and gateway are compared [5m]
  QUOKKA_RECONCILE_LAG       how old a transaction must be to be compared [2m]
  QUOKKA_HTTP_ADDR           where the API is served [0.0.0.0:8080]
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
    /// `QUOKKA_HTTP_ADDR`: where the API is served.
    pub http_addr: SocketAddr,
    /// `QUOKKA_DATABASE_URL`: the database `quokka_payments`.
    pub database_url: SecretString,
    /// `QUOKKA_KAFKA_BROKERS`: `host:port`, separated by commas.
    pub kafka_brokers: String,
    /// `QUOKKA_KAFKA_GROUP`: whose replicas share the commands.
    pub kafka_group: String,
    /// `QUOKKA_SAGA_PARTITIONS`: of topics that are missing.
    pub saga_partitions: u32,
    /// `QUOKKA_JWKS_URL`: the keys that access tokens are checked with.
    pub jwks_url: Url,
    /// `QUOKKA_JWT_ISSUER`: who must have issued a token.
    pub jwt_issuer: String,
    /// `QUOKKA_ORDERS_URL`: the internal API of orders.
    pub orders_url: Url,
    /// `QUOKKA_ORDERS_TIMEOUT`: how long orders may take.
    pub orders_timeout: Duration,
    /// `QUOKKA_TOSS_URL`: the gateway.
    pub toss_url: Url,
    /// `QUOKKA_TOSS_SECRET_KEY`: never logged.
    pub toss_secret_key: SecretString,
    /// `QUOKKA_TOSS_TIMEOUT`: how long the gateway may take.
    pub toss_timeout: Duration,
    /// `QUOKKA_TOSS_CALLS`: guests' payments at the same time.
    pub toss_calls: usize,
    /// `QUOKKA_CONFIRM_WAIT`: how long a guest waits for an outcome.
    pub confirm_wait: Duration,
    /// `QUOKKA_SETTLE_EVERY`: the settler's pause when there is nothing to do.
    pub settle_every: Duration,
    /// `QUOKKA_SETTLE_PAUSE_MAX`: the longest pause between two questions about one payment.
    pub settle_pause_max: Duration,
    /// `QUOKKA_DEPOSIT_POLL`: how often a virtual account is asked about.
    pub deposit_poll: Duration,
    /// `QUOKKA_RECONCILE_EVERY`: how often ledger and gateway are compared.
    pub reconcile_every: Duration,
    /// `QUOKKA_RECONCILE_LAG`: how old a transaction must be to be compared.
    pub reconcile_lag: Duration,
}

impl Config {
    /// From `env`; the error names every mistake.
    pub fn read(env: &mut Env) -> Result<Self, Mistakes> {
        let toss_url: Url = env.required("QUOKKA_TOSS_URL");
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
            kafka_group: env.or("QUOKKA_KAFKA_GROUP", "payments".to_owned()),
            saga_partitions: env.or("QUOKKA_SAGA_PARTITIONS", SAGA_PARTITIONS_DEFAULT),
            jwks_url: env.required("QUOKKA_JWKS_URL"),
            jwt_issuer: env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned()),
            orders_url: env.required("QUOKKA_ORDERS_URL"),
            orders_timeout: seconds(env, "QUOKKA_ORDERS_TIMEOUT", 3, 60),
            toss_url,
            toss_secret_key: env.secret("QUOKKA_TOSS_SECRET_KEY"),
            toss_timeout: seconds(env, "QUOKKA_TOSS_TIMEOUT", 60, 300),
            toss_calls: env.or("QUOKKA_TOSS_CALLS", 256),
            confirm_wait: seconds(env, "QUOKKA_CONFIRM_WAIT", 8, 120),
            settle_every: env.or("QUOKKA_SETTLE_EVERY", Duration::from_millis(500)),
            settle_pause_max: seconds(env, "QUOKKA_SETTLE_PAUSE_MAX", 30, 3_600),
            deposit_poll: seconds(env, "QUOKKA_DEPOSIT_POLL", 300, 86_400),
            reconcile_every: seconds(env, "QUOKKA_RECONCILE_EVERY", 300, 86_400),
            reconcile_lag: seconds(env, "QUOKKA_RECONCILE_LAG", 120, 86_400),
        };
        if !matches!(config.toss_url.scheme(), "http" | "https") || !config.toss_url.has_host() {
            env.mistake(
                "QUOKKA_TOSS_URL",
                "is not a gateway's address: give https://, or http:// for one in the cluster",
            );
        }
        if !(1..=10_000).contains(&config.toss_calls) {
            env.mistake(
                "QUOKKA_TOSS_CALLS",
                "is out of range: give a whole number from 1 to 10000",
            );
        }
        if config.settle_every < Duration::from_millis(10)
            || config.settle_every > Duration::from_secs(60)
        {
            env.mistake(
                "QUOKKA_SETTLE_EVERY",
                "is out of range: give a duration from 10ms to 60s",
            );
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

/// A duration from a millisecond to `max` seconds.
fn seconds(env: &mut Env, name: &str, default: u64, max: u64) -> Duration {
    let value = env.or(name, Duration::from_secs(default));
    if value < Duration::from_millis(1) || value > Duration::from_secs(max) {
        env.mistake(
            name,
            format!("is out of range: give a duration from 1ms to {max}s"),
        );
    }
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 6] = [
        (
            "QUOKKA_DATABASE_URL",
            "postgres://quokka@localhost/quokka_payments",
        ),
        ("QUOKKA_KAFKA_BROKERS", "one:9092, two:9092"),
        (
            "QUOKKA_JWKS_URL",
            "http://quokka-users:8080/.well-known/jwks.json",
        ),
        ("QUOKKA_ORDERS_URL", "http://quokka-orders:8081"),
        ("QUOKKA_TOSS_SECRET_KEY", "s3cret"),
        ("QUOKKA_TOSS_URL", "https://api.tosspayments.com"),
    ];

    #[test]
    fn the_required_settings_are_enough() {
        let config = Config::read(&mut Env::from_pairs("test", GOOD)).unwrap();
        assert_eq!(config.kafka_brokers, "one:9092,two:9092");
        assert_eq!(config.toss_timeout, Duration::from_secs(60));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn every_mistake_is_named() {
        let wrong = [
            ("QUOKKA_DATABASE_URL", "mysql://u@h/d"),
            ("QUOKKA_TOSS_TIMEOUT", "1h"),
            ("QUOKKA_TOSS_URL", "ftp://api.tosspayments.com"),
            ("QUOKKA_TOSS_CALLS", "0"),
            ("QUOKKA_SETTLE_EVERY", "1h"),
        ];
        let mistakes = Config::read(&mut Env::from_pairs("test", wrong)).unwrap_err();
        let mut named: Vec<&str> = mistakes
            .iter()
            .map(|mistake| mistake.setting.as_str())
            .collect();
        named.sort_unstable();
        assert_eq!(
            named,
            [
                "QUOKKA_DATABASE_URL",
                "QUOKKA_JWKS_URL",
                "QUOKKA_KAFKA_BROKERS",
                "QUOKKA_ORDERS_URL",
                "QUOKKA_SETTLE_EVERY",
                "QUOKKA_TOSS_CALLS",
                "QUOKKA_TOSS_SECRET_KEY",
                "QUOKKA_TOSS_TIMEOUT",
                "QUOKKA_TOSS_URL",
            ]
        );
    }

    #[test]
    fn help_names_every_setting_that_is_read() {
        let mut env = Env::from_pairs("test", GOOD);
        Config::read(&mut env).unwrap();
        for name in env.names() {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
