//! Every setting of the gateway, with its unit and default.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use chassis::config::{Env, Mistakes, Process};
use url::Url;

use crate::{
    forwarded::TrustedProxies,
    head::{self, HeadLimits},
    proxy::BODY_BYTES_MAX,
    upstreams::Service,
};

/// The settings of a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What every process has.
    pub(crate) process: Process,
    /// `QUOKKA_HTTP_ADDR` (0.0.0.0:8080): where requests come in.
    pub(crate) http_addr: SocketAddr,
    /// `QUOKKA_JWKS_URL`: where the keys of access tokens are published.
    pub(crate) jwks_url: Url,
    /// `QUOKKA_JWT_ISSUER` (`quokka`): who may have issued a token.
    pub(crate) jwt_issuer: String,
    /// `QUOKKA_GATEWAY_THREADS` (one for each core): threads that do the work.
    pub(crate) threads: usize,
    /// Where the endpoints of services come from.
    pub(crate) discovery: Discovery,
    /// What is asked of connections and requests.
    pub(crate) limits: Limits,
    /// `QUOKKA_GATEWAY_TRUSTED_PROXIES` (nobody): networks, separated by commas, of the proxies in front of the gateway
    /// whose `X-Forwarded-` headers are believed.
    pub(crate) trusted_proxies: TrustedProxies,
}

/// Where the endpoints of services come from.
#[derive(Debug, Clone)]
pub(crate) enum Discovery {
    /// The EndpointSlices of the platform's namespace.
    Kubernetes,
    /// `QUOKKA_UPSTREAMS`: `service=address`, separated by commas; a service may be there several times.
    Fixed(Vec<(Service, BTreeSet<SocketAddr>)>),
}

/// What is asked of connections and requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// `QUOKKA_GATEWAY_HEADER_BYTES_MAX` (16384, at most 262144) and `QUOKKA_GATEWAY_HEADER_FIELDS_MAX` (96, which is
    /// also the most).
    pub(crate) head: HeadLimits,
    /// `QUOKKA_GATEWAY_BODY_BYTES_MAX` (65536, which is also the most); a calendar may have twice as many anyway.
    pub(crate) body_bytes_max: usize,
    /// `QUOKKA_GATEWAY_BODY_BYTES_HELD_MAX` (33554432): of all bodies that are in memory at the same time.
    pub(crate) body_bytes_held_max: usize,
    /// `QUOKKA_GATEWAY_CONNECTIONS_MAX` (10000): open at the same time.
    pub(crate) connections_max: usize,
    /// `QUOKKA_GATEWAY_IN_FLIGHT_MAX` (2048): requests being worked on at the same time.
    pub(crate) in_flight_max: usize,
    /// `QUOKKA_GATEWAY_REQUEST_TIMEOUT` (15s): from a request's head to the end of its answer.
    pub(crate) request_timeout: Duration,
    /// `QUOKKA_GATEWAY_CLIENT_TIMEOUT` (10s): for a client to send a whole head, to send a whole body, or to take more
    /// of an answer.
    pub(crate) client_timeout: Duration,
    /// `QUOKKA_GATEWAY_IDLE_TIMEOUT` (60s): how long a connection may be open without a request.
    pub(crate) idle_timeout: Duration,
    /// `QUOKKA_GATEWAY_CONNECT_TIMEOUT` (1s): to reach an endpoint.
    pub(crate) connect_timeout: Duration,
    /// `QUOKKA_GATEWAY_DRAIN` (3s): how long new requests are still taken after SIGTERM, while those who send them
    /// learn of it. The last of them has the request timeout besides, and the grace period has to cover both.
    pub(crate) drain: Duration,
}

impl Config {
    /// Reads and checks all settings.
    pub(crate) fn read(mut env: Env) -> Result<Self, Mistakes> {
        let process = Process::read(&mut env);
        let grace = process.shutdown_grace;
        let config = Self {
            http_addr: env.or(
                "QUOKKA_HTTP_ADDR",
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            ),
            jwks_url: jwks_url(&mut env),
            jwt_issuer: env.or("QUOKKA_JWT_ISSUER", "quokka".to_owned()),
            threads: positive(&mut env, "QUOKKA_GATEWAY_THREADS", cores()),
            discovery: discovery(&mut env),
            limits: limits(&mut env, grace),
            trusted_proxies: trusted_proxies(&mut env),
            process,
        };
        env.finish()?;
        Ok(config)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

fn limits(env: &mut Env, grace: Duration) -> Limits {
    const HEADER_BYTES: &str = "QUOKKA_GATEWAY_HEADER_BYTES_MAX";
    const FIELDS: &str = "QUOKKA_GATEWAY_HEADER_FIELDS_MAX";
    const BODY_BYTES: &str = "QUOKKA_GATEWAY_BODY_BYTES_MAX";
    const HELD_BYTES: &str = "QUOKKA_GATEWAY_BODY_BYTES_HELD_MAX";
    let seconds = Duration::from_secs;
    let limits = Limits {
        head: HeadLimits {
            bytes_max: up_to(env, HEADER_BYTES, 16 * 1024, head::BYTES_MAX),
            fields_max: up_to(env, FIELDS, head::FIELDS_MAX, head::FIELDS_MAX),
        },
        body_bytes_max: up_to(env, BODY_BYTES, BODY_BYTES_MAX, BODY_BYTES_MAX),
        body_bytes_held_max: positive(env, HELD_BYTES, 32 * 1024 * 1024),
        connections_max: positive(env, "QUOKKA_GATEWAY_CONNECTIONS_MAX", 10_000),
        in_flight_max: positive(env, "QUOKKA_GATEWAY_IN_FLIGHT_MAX", 2_048),
        request_timeout: some_time(env, "QUOKKA_GATEWAY_REQUEST_TIMEOUT", seconds(15)),
        client_timeout: some_time(env, "QUOKKA_GATEWAY_CLIENT_TIMEOUT", seconds(10)),
        idle_timeout: some_time(env, "QUOKKA_GATEWAY_IDLE_TIMEOUT", seconds(60)),
        connect_timeout: some_time(env, "QUOKKA_GATEWAY_CONNECT_TIMEOUT", seconds(1)),
        drain: env.or("QUOKKA_GATEWAY_DRAIN", seconds(3)),
    };
    if limits.body_bytes_held_max < limits.body_bytes_max {
        env.mistake(
            HELD_BYTES,
            format!("is less than one body may have: see {BODY_BYTES}"),
        );
    }
    if limits.drain.saturating_add(limits.request_timeout) > grace {
        env.mistake(
            "QUOKKA_SHUTDOWN_GRACE",
            "is too short to finish what is in flight: give at least QUOKKA_GATEWAY_DRAIN and \
             QUOKKA_GATEWAY_REQUEST_TIMEOUT together",
        );
    }
    limits
}

fn jwks_url(env: &mut Env) -> Url {
    const NAME: &str = "QUOKKA_JWKS_URL";
    let url: Url = env.required(NAME);
    if !matches!(url.scheme(), "http" | "https") {
        env.mistake(NAME, "has a wrong scheme: give http:// or https://");
    }
    url
}

fn up_to(env: &mut Env, name: &str, default: usize, max: usize) -> usize {
    let value = positive(env, name, default);
    if value > max {
        env.mistake(name, format!("is too large: give at most {max}"));
    }
    value
}

fn positive(env: &mut Env, name: &str, default: usize) -> usize {
    let value = env.or(name, default);
    if value == 0 {
        env.mistake(name, "is zero: give a whole number from 1 up");
    }
    value
}

fn some_time(env: &mut Env, name: &str, default: Duration) -> Duration {
    let value = env.or(name, default);
    if value.is_zero() {
        env.mistake(name, "is no time at all: give a duration such as 10s");
    }
    value
}

fn trusted_proxies(env: &mut Env) -> TrustedProxies {
    const NAME: &str = "QUOKKA_GATEWAY_TRUSTED_PROXIES";
    let networks = env.optional::<Vec<String>>(NAME).unwrap_or_default();
    TrustedProxies::parse(&networks).unwrap_or_else(|index| {
        env.mistake(
            NAME,
            format!(
                "has an item, number {}, that is not a network such as 10.0.0.0/8",
                index + 1
            ),
        );
        TrustedProxies::default()
    })
}

fn discovery(env: &mut Env) -> Discovery {
    const NAME: &str = "QUOKKA_UPSTREAMS";
    let Some(items) = env.optional::<Vec<String>>(NAME) else {
        return Discovery::Kubernetes;
    };
    let mut fixed: Vec<(Service, BTreeSet<SocketAddr>)> = Service::ALL
        .into_iter()
        .map(|service| (service, BTreeSet::new()))
        .collect();
    for (index, item) in items.iter().enumerate() {
        let read = item.split_once('=').and_then(|(name, address)| {
            Some((
                Service::by_name(name.trim())?,
                address.trim().parse::<SocketAddr>().ok()?,
            ))
        });
        match read {
            Some((service, address)) => {
                for (_, list) in fixed.iter_mut().filter(|(of, _)| *of == service) {
                    list.insert(address);
                }
            }
            None => {
                let names = Service::ALL.map(Service::name).join(", ");
                env.mistake(NAME, format!("has an item, number {}, that is not one of {names}, `=`, an IP address and a port", index + 1));
            }
        }
    }
    Discovery::Fixed(fixed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const JWKS: (&str, &str) = (
        "QUOKKA_JWKS_URL",
        "http://quokka-users:8080/.well-known/jwks.json",
    );

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
        Config::read(Env::from_pairs("gateway", pairs.iter().copied()))
    }

    #[test]
    fn only_the_keys_have_to_be_told() {
        let config = read(&[JWKS]).unwrap();
        assert!(matches!(config.discovery, Discovery::Kubernetes));
        assert_eq!(config.limits.drain, Duration::from_secs(3));
    }

    #[test]
    fn a_payment_may_take_as_long_as_payments_waits_for_its_outcome() {
        // QUOKKA_CONFIRM_WAIT of payments, whose answer still has to come back.
        const CONFIRM_WAIT: Duration = Duration::from_secs(8);
        let config = read(&[JWKS]).unwrap();
        assert!(config.limits.request_timeout >= CONFIRM_WAIT + Duration::from_secs(2));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let mistakes = read(&[
            (
                "QUOKKA_UPSTREAMS",
                "quokka-users=127.0.0.1:1, quokka-else=127.0.0.1:2, quokka-users=here",
            ),
            ("QUOKKA_GATEWAY_THREADS", "0"),
            ("QUOKKA_GATEWAY_HEADER_BYTES_MAX", "262145"),
            ("QUOKKA_GATEWAY_HEADER_FIELDS_MAX", "97"),
            ("QUOKKA_GATEWAY_BODY_BYTES_MAX", "65537"),
            ("QUOKKA_GATEWAY_BODY_BYTES_HELD_MAX", "65536"),
            ("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "0s"),
            ("QUOKKA_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,ten"),
        ])
        .unwrap_err();
        let mut names: Vec<_> = mistakes
            .iter()
            .map(|mistake| mistake.setting.as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "QUOKKA_GATEWAY_BODY_BYTES_HELD_MAX",
                "QUOKKA_GATEWAY_BODY_BYTES_MAX",
                "QUOKKA_GATEWAY_HEADER_BYTES_MAX",
                "QUOKKA_GATEWAY_HEADER_FIELDS_MAX",
                "QUOKKA_GATEWAY_REQUEST_TIMEOUT",
                "QUOKKA_GATEWAY_THREADS",
                "QUOKKA_GATEWAY_TRUSTED_PROXIES",
                "QUOKKA_JWKS_URL",
                "QUOKKA_UPSTREAMS",
                "QUOKKA_UPSTREAMS",
            ]
        );
    }

    #[test]
    fn fixed_upstreams_may_have_several_endpoints() {
        let upstreams =
            "quokka-users=127.0.0.1:1,quokka-promotions=127.0.0.1:2,quokka-promotions=[::1]:3";
        let Discovery::Fixed(fixed) = read(&[JWKS, ("QUOKKA_UPSTREAMS", upstreams)])
            .unwrap()
            .discovery
        else {
            panic!("upstreams were given")
        };
        let counts: Vec<_> = fixed
            .iter()
            .map(|(service, addresses)| (service.name(), addresses.len()))
            .collect();
        assert_eq!(
            counts,
            [
                ("quokka-users", 1),
                ("quokka-promotions", 2),
                ("quokka-stays", 0),
                ("quokka-booking", 0),
                ("quokka-orders", 0),
                ("quokka-payments", 0),
            ]
        );
    }

    fn mistaken(pairs: &[(&str, &str)]) -> Vec<String> {
        let mistakes = read(pairs).unwrap_err();
        mistakes
            .iter()
            .map(|mistake| mistake.setting.clone())
            .collect()
    }

    #[test]
    fn the_grace_period_is_long_enough_for_draining_and_for_the_last_request() {
        const DRAIN: &str = "QUOKKA_GATEWAY_DRAIN";
        const GRACE: &str = "QUOKKA_SHUTDOWN_GRACE";
        assert_eq!(mistaken(&[JWKS, (GRACE, "17s")]), [GRACE]);
        assert_eq!(mistaken(&[JWKS, (DRAIN, "6s")]), [GRACE]);
        let config = read(&[JWKS, (GRACE, "18s")]).unwrap();
        assert_eq!(config.limits.drain, Duration::from_secs(3));
        let quick = ("QUOKKA_GATEWAY_REQUEST_TIMEOUT", "500ms");
        let config = read(&[JWKS, quick, (DRAIN, "1s"), (GRACE, "1500ms")]).unwrap();
        assert_eq!(config.limits.drain, Duration::from_secs(1));
    }

    #[test]
    fn keys_come_by_http_and_a_body_has_some_bytes() {
        let jwks = ("QUOKKA_JWKS_URL", "redis://quokka-users/jwks.json");
        assert_eq!(mistaken(&[jwks]), ["QUOKKA_JWKS_URL"]);
        let body_bytes = ("QUOKKA_GATEWAY_BODY_BYTES_MAX", "0");
        assert_eq!(mistaken(&[JWKS, body_bytes]), [body_bytes.0]);
    }
}
