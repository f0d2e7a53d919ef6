//! Every setting of the operator, from the environment.

use std::time::Duration;

use chassis::config::{Env, Mistakes, Process};
use secrecy::SecretString;
use url::Url;

/// The settings, for `--help`.
pub const HELP: &str = "\
Settings, from the environment:
  QUOKKA_NAMESPACE                 namespace whose sales are looked after [quokka]
  QUOKKA_KAFKA_BROKERS             brokers to begin with, host:port,host:port
  QUOKKA_KAFKA_REPLICATION_FACTOR  copies of each partition of a new topic [3]
  QUOKKA_REDIS_URL                 redis://host:port
  QUOKKA_LEDGER_URL                the ledger's internal API [http://quokka-promotions-ledger:8081]
  QUOKKA_CLEANUP_DEADLINE          after this a deletion is said to be stuck [5m]
  QUOKKA_RECONCILE_CONCURRENCY     resources of a kind looked at at a time [16]
  QUOKKA_LEASE_DURATION            how long a silent leader is waited for [15s]
  QUOKKA_OPS_ADDR                  /livez, /readyz and /metrics [0.0.0.0:9090]
  QUOKKA_LOG                       what is logged [info]
  QUOKKA_OTLP_ENDPOINT             where traces go, by gRPC
  QUOKKA_SHUTDOWN_GRACE            how long the end may take [20s]
  POD_NAME                         name of this replica
The Kubernetes API is found as kubectl finds it: KUBECONFIG, or the pod's service account.";

/// The settings of the operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every process has: ops address, log, namespace and so on.
    pub process: Process,
    /// `QUOKKA_KAFKA_BROKERS`: `host:port`, separated by commas.
    pub kafka_brokers: Vec<String>,
    /// `QUOKKA_KAFKA_REPLICATION_FACTOR`: copies of each partition of a topic that is made. Default 3; 1 where there is
    /// one broker.
    pub replication_factor: u16,
    /// `QUOKKA_REDIS_URL`: `redis://host:port`.
    pub redis_url: SecretString,
    /// `QUOKKA_LEDGER_URL`: the ledger's internal API. Default `http://quokka-promotions-ledger:8081`.
    pub ledger_url: Url,
    /// `QUOKKA_CLEANUP_DEADLINE`: how long a deletion may take before an event says that it is stuck. Default 5m.
    pub cleanup_deadline: Duration,
    /// `QUOKKA_RECONCILE_CONCURRENCY`: resources of a kind looked at at the same time. Default 16.
    pub concurrency: u16,
    /// `QUOKKA_LEASE_DURATION`: how long the others wait for a leader that is silent. Default 15s.
    pub lease_duration: Duration,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn read(env: &mut Env) -> Result<Self, Mistakes> {
        let config = Self {
            process: Process::read(env),
            kafka_brokers: env.required("QUOKKA_KAFKA_BROKERS"),
            replication_factor: env.or("QUOKKA_KAFKA_REPLICATION_FACTOR", 3),
            redis_url: env.secret_url("QUOKKA_REDIS_URL", &["redis", "rediss"]),
            ledger_url: env.or("QUOKKA_LEDGER_URL", default_ledger_url()),
            cleanup_deadline: env.or("QUOKKA_CLEANUP_DEADLINE", Duration::from_secs(300)),
            concurrency: env.or("QUOKKA_RECONCILE_CONCURRENCY", 16),
            lease_duration: env.or("QUOKKA_LEASE_DURATION", Duration::from_secs(15)),
        };
        if config.replication_factor == 0 {
            env.mistake("QUOKKA_KAFKA_REPLICATION_FACTOR", "is not 1 or more");
        }
        if config.concurrency == 0 {
            env.mistake("QUOKKA_RECONCILE_CONCURRENCY", "is not 1 or more");
        }
        if config.lease_duration < Duration::from_secs(3) {
            env.mistake(
                "QUOKKA_LEASE_DURATION",
                "is shorter than 3s: a slow answer of the API would end it",
            );
        }
        env.finish()?;
        Ok(config)
    }
}

fn default_ledger_url() -> Url {
    Url::parse("http://quokka-promotions-ledger:8081").expect("it is a URL")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_mistake_is_named_at_once() {
        let mut env = Env::from_pairs(
            "operator",
            [
                ("QUOKKA_REDIS_URL", "http://redis"),
                ("QUOKKA_KAFKA_REPLICATION_FACTOR", "0"),
                ("QUOKKA_LEASE_DURATION", "1s"),
                ("QUOKKA_LEDGER_URL", "nonsense"),
            ],
        );
        let mistakes = Config::read(&mut env).unwrap_err();
        let named: Vec<_> = mistakes
            .iter()
            .map(|mistake| mistake.setting.as_str())
            .collect();
        for setting in [
            "QUOKKA_KAFKA_BROKERS",
            "QUOKKA_REDIS_URL",
            "QUOKKA_KAFKA_REPLICATION_FACTOR",
            "QUOKKA_LEASE_DURATION",
            "QUOKKA_LEDGER_URL",
        ] {
            assert!(named.contains(&setting), "{setting} is not in {named:?}");
        }
    }
}
