//! Every setting of the service, with its unit and default. Read whole at start; each mistake is named.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use argon2::Params;
use chassis::config::{Env, Mistakes, Process, Setting, parse_duration};
use jsonwebtoken::jwk::Jwk;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;

use crate::hashing::HashingConfig;
use crate::store::SessionLife;
use crate::tokens::{SigningKey, published_key_from_pem};

/// What `--help` says about the settings.
pub(crate) const HELP: &str = "\
Settings (environment variables):
  QUOKKA_DATABASE_URL        postgres:// address of the service's own database; required
  QUOKKA_SIGNING_KEY_FILE    PEM file with the Ed25519 private key (PKCS#8) that signs access tokens; required
  QUOKKA_PREVIOUS_KEY_FILE   PEM file with a second key, private or public, that is published but does not sign
  QUOKKA_JWT_ISSUER          `iss` of the access tokens [quokka]
  QUOKKA_ACCESS_TOKEN_TTL    how long an access token is good for, 1s to 24h [15m]
  QUOKKA_REFRESH_TOKEN_TTL   how long a refresh token is good for, 1s to 400d [30d]
  QUOKKA_SESSION_AGE_MAX     how long after a sign-in its refresh tokens end for good, 1s to 3650d [365d]
  QUOKKA_ARGON2_MEMORY_KIB   memory of one password hash, 1024 to 1048576 KiB [19456]
  QUOKKA_ARGON2_ITERATIONS   passes of one password hash, 1 to 20 [2]
  QUOKKA_HASHING_WORKERS     passwords hashed at the same time, 1 to 64 [one less than the CPUs, at least 1]
  QUOKKA_HASHING_QUEUE       requests that may wait for that, 0 to 10000; more are answered 503 [64]
  QUOKKA_FORWARDED_HOPS      proxies in front that append to X-Forwarded-For, 0 to 8; 0 believes no header [1]
  QUOKKA_HTTP_ADDR           where the API is served [0.0.0.0:8080]
  QUOKKA_OPS_ADDR            where /livez, /readyz and /metrics are served [0.0.0.0:9090]
  QUOKKA_LOG                 a tracing filter [info]
  QUOKKA_OTLP_ENDPOINT       where traces go, by gRPC [nowhere]
  QUOKKA_SHUTDOWN_GRACE      how long a shutdown may take [20s]
  QUOKKA_NAMESPACE           the platform's namespace [quokka]
  POD_NAME                   which replica this is [the host's name]";

/// The settings of the service.
pub(crate) struct Config {
    pub(crate) process: Process,
    pub(crate) http_addr: SocketAddr,
    pub(crate) database_url: SecretString,
    pub(crate) signing_key: SigningKey,
    /// Published, but does not sign.
    pub(crate) previous_key: Option<Jwk>,
    pub(crate) issuer: String,
    pub(crate) access_ttl: Duration,
    pub(crate) session_life: SessionLife,
    pub(crate) hashing: HashingConfig,
    /// How many entries at the end of X-Forwarded-For were written by proxies of ours.
    pub(crate) forwarded_hops: usize,
}

impl Config {
    pub(crate) fn read(env: &mut Env) -> Result<Self, Mistakes> {
        let process = Process::read(env);
        let http_addr = env.or(
            "QUOKKA_HTTP_ADDR",
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
        );
        let database_url = database_url(env);
        let signing_key = signing_key(env);
        let previous_key = previous_key(env);
        let issuer = env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned());
        let AccessTtl(access_ttl) = env.or(
            "QUOKKA_ACCESS_TOKEN_TTL",
            AccessTtl(Duration::from_secs(15 * 60)),
        );
        let RefreshTtl(refresh_ttl) = env.or(
            "QUOKKA_REFRESH_TOKEN_TTL",
            RefreshTtl(Duration::from_secs(30 * 86_400)),
        );
        let SessionAge(session_age_max) = env.or(
            "QUOKKA_SESSION_AGE_MAX",
            SessionAge(Duration::from_secs(365 * 86_400)),
        );
        let MemoryKib(memory_kib) = env.or("QUOKKA_ARGON2_MEMORY_KIB", MemoryKib(19_456));
        let Iterations(iterations) = env.or("QUOKKA_ARGON2_ITERATIONS", Iterations(2));
        let Workers(workers) = env.or("QUOKKA_HASHING_WORKERS", Workers(default_workers()));
        let Queue(queue) = env.or("QUOKKA_HASHING_QUEUE", Queue(64));
        let Hops(hops) = env.or("QUOKKA_FORWARDED_HOPS", Hops(1));
        env.finish()?;

        let params = Params::new(memory_kib, iterations, 1, None)
            .expect("the ranges above are inside argon2's");
        Ok(Self {
            process,
            http_addr,
            database_url,
            signing_key: signing_key.expect("without a key, finish() has refused"),
            previous_key,
            issuer,
            access_ttl,
            session_life: SessionLife {
                ttl: refresh_ttl,
                age_max: session_age_max,
            },
            hashing: HashingConfig {
                params,
                workers: workers as usize,
                queue: queue as usize,
            },
            forwarded_hops: hops as usize,
        })
    }
}

fn database_url(env: &mut Env) -> SecretString {
    let url = env.secret("QUOKKA_DATABASE_URL");
    let text = url.expose_secret();
    let postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if !text.is_empty() && (!postgres || PgConnectOptions::from_str(text).is_err()) {
        env.mistake(
            "QUOKKA_DATABASE_URL",
            "is not a URL such as postgres://user:password@host:5432/quokka_users",
        );
    }
    url
}

fn signing_key(env: &mut Env) -> Option<SigningKey> {
    const NAME: &str = "QUOKKA_SIGNING_KEY_FILE";
    let Some(path) = env.optional::<PathBuf>(NAME) else {
        env.mistake(NAME, format!("is not set: give {}", PathBuf::describe()));
        return None;
    };
    from_file(env, NAME, &path, |pem| {
        SigningKey::from_pem(pem).map_err(|error| error.to_string())
    })
}

fn previous_key(env: &mut Env) -> Option<Jwk> {
    const NAME: &str = "QUOKKA_PREVIOUS_KEY_FILE";
    let path = env.optional::<PathBuf>(NAME)?;
    from_file(env, NAME, &path, |pem| {
        published_key_from_pem(pem).map_err(|error| error.to_string())
    })
}

fn from_file<T>(
    env: &mut Env,
    name: &str,
    path: &PathBuf,
    parse: impl Fn(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let read =
        std::fs::read(path).map_err(|error| format!("names a file that can't be read ({error})"));
    match read.and_then(|pem| parse(&pem)) {
        Ok(value) => Some(value),
        Err(reason) => {
            env.mistake(name, reason);
            None
        }
    }
}

/// One CPU is left for everything else, where there is more than one.
fn default_workers() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus.saturating_sub(1))
        .unwrap_or(64)
        .clamp(1, 64)
}

macro_rules! bounded {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $parse:expr, $min:expr, $max:expr, $describe:literal;)+) => {$(
        $(#[$doc])*
        struct $name($inner);

        impl Setting for $name {
            fn parse(text: &str) -> Result<Self, String> {
                let value: Option<$inner> = $parse(text);
                value.filter(|value| ($min..=$max).contains(value)).map(Self).ok_or_else(|| "is out of range".to_owned())
            }

            fn placeholder() -> Self {
                Self($min)
            }

            fn describe() -> &'static str {
                $describe
            }
        }
    )+};
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

bounded! {
    /// More than a GiB for one hash is a slip of the pen; less than a MiB protects nothing.
    MemoryKib(u32) = number, 1_024, 1_048_576, "a whole number of KiB from 1024 to 1048576";
    Iterations(u32) = number, 1, 20, "a whole number from 1 to 20";
    Workers(u32) = number, 1, 64, "a whole number from 1 to 64";
    Queue(u32) = number, 0, 10_000, "a whole number from 0 to 10000";
    Hops(u32) = number, 0, 8, "a whole number from 0 to 8";
    AccessTtl(Duration) = parse_duration, Duration::from_secs(1), Duration::from_secs(86_400), "a duration from 1s to 24h";
    RefreshTtl(Duration) = parse_duration, Duration::from_secs(1), Duration::from_secs(400 * 86_400), "a duration from 1s to 400d";
    SessionAge(Duration) = parse_duration, Duration::from_secs(1), Duration::from_secs(3_650 * 86_400), "a duration from 1s to 3650d";
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn mistakes(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut env = Env::from_pairs("users", pairs.iter().copied());
        let Err(mistakes) = Config::read(&mut env) else {
            return Vec::new();
        };
        mistakes
            .iter()
            .map(|mistake| (mistake.setting.clone(), mistake.reason.clone()))
            .collect()
    }

    #[test]
    fn two_settings_are_enough() {
        let key = file(PRIVATE);
        let mut env = Env::from_pairs(
            "users",
            [
                ("QUOKKA_DATABASE_URL", "postgres://u@h/d"),
                ("QUOKKA_SIGNING_KEY_FILE", key.path().to_str().unwrap()),
            ],
        );
        let config = Config::read(&mut env).unwrap();
        assert_eq!(config.access_ttl, Duration::from_secs(900));
        assert_eq!(config.session_life.ttl, Duration::from_secs(2_592_000));
        assert_eq!(config.session_life.age_max, Duration::from_secs(31_536_000));
        assert_eq!(
            (
                config.hashing.params.m_cost(),
                config.hashing.params.t_cost()
            ),
            (19_456, 2)
        );
    }

    #[test]
    fn nothing_set_names_both_that_are_missing() {
        let named: Vec<String> = mistakes(&[])
            .into_iter()
            .map(|(setting, _)| setting)
            .collect();
        assert_eq!(named, ["QUOKKA_DATABASE_URL", "QUOKKA_SIGNING_KEY_FILE"]);
    }

    #[test]
    fn every_mistake_is_named_once_and_no_value_is_shown() {
        let not_a_key = file("s3cret");
        let wrong = [
            ("QUOKKA_DATABASE_URL", "mysql://root:s3cret@h/d"),
            (
                "QUOKKA_SIGNING_KEY_FILE",
                not_a_key.path().to_str().unwrap(),
            ),
            ("QUOKKA_PREVIOUS_KEY_FILE", "/nowhere/s3cret.pem"),
            ("QUOKKA_ACCESS_TOKEN_TTL", "900"),
            ("QUOKKA_REFRESH_TOKEN_TTL", "0"),
            ("QUOKKA_SESSION_AGE_MAX", "4000d"),
            ("QUOKKA_ARGON2_MEMORY_KIB", "1"),
            ("QUOKKA_ARGON2_ITERATIONS", "0"),
            ("QUOKKA_HASHING_WORKERS", "many"),
            ("QUOKKA_HASHING_QUEUE", "-1"),
            ("QUOKKA_FORWARDED_HOPS", "9"),
        ];
        let found = mistakes(&wrong);
        let named: Vec<&str> = found.iter().map(|(setting, _)| setting.as_str()).collect();
        assert_eq!(named, wrong.map(|(setting, _)| setting));
        assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
    }

    #[test]
    fn help_names_every_setting_that_is_read() {
        let mut env = Env::from_pairs("users", [("QUOKKA_LOG", "info")]);
        assert!(Config::read(&mut env).is_err());
        for name in env.names() {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
