//! Who the client is, as services behind the gateway are told.
//!
//! What a client says about itself is believed only if it is a proxy that the settings name; anybody else could say
//! anything. So the last address of `X-Forwarded-For` is always one that the gateway or a trusted proxy saw itself.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};
use ipnet::IpNet;
use pingora::{Error, ErrorType, http::RequestHeader};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers in which clients could claim to be somebody, and that nobody behind the gateway needs.
const NEVER_PASSED: [HeaderName; 5] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
    header::PROXY_AUTHORIZATION,
];

/// What internal headers of the platform start with: only its own processes may set them.
const INTERNAL_PREFIX: &str = "x-quokka-";

/// The proxies in front of the gateway that are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads networks such as `10.0.0.0/8`; single addresses are taken too. The error is the first that can't be read.
    pub(crate) fn parse(networks: &[String]) -> Result<Self, usize> {
        let parse = |text: &String| {
            text.parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .ok()
        };
        networks
            .iter()
            .enumerate()
            .map(|(index, text)| parse(text).ok_or(index))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn contains(&self, peer: IpAddr) -> bool {
        self.0
            .iter()
            .any(|network| network.contains(&peer.to_canonical()))
    }
}

/// Takes away what clients may not say and says what the gateway saw. `peer` is who opened the connection; where nobody
/// knows, the request must not be passed on, since what it says about itself would be believed.
pub(crate) fn rewrite(
    request: &mut RequestHeader,
    peer: Option<IpAddr>,
    trusted: &TrustedProxies,
) -> pingora::Result<()> {
    let unknown = || Error::explain(ErrorType::InternalError, "the client's address is unknown");
    let peer = peer.ok_or_else(unknown)?.to_canonical();
    let internal: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| name.as_str().starts_with(INTERNAL_PREFIX))
        .cloned()
        .collect();
    for name in internal.iter().chain(&NEVER_PASSED) {
        request.remove_header(name);
    }
    let believed = trusted.contains(peer);
    let chain = if believed {
        chain(request, peer)
    } else {
        peer.to_string()
    };
    request.insert_header(FOR, chain)?;
    if !(believed && is_scheme(request.headers.get(PROTO))) {
        request.insert_header(PROTO, HeaderValue::from_static("http"))?;
    }
    if !(believed && request.headers.contains_key(HOST)) {
        match request.headers.get(header::HOST).cloned() {
            Some(host) => request.insert_header(HOST, host)?,
            None => drop(request.remove_header(&HOST)),
        }
    }
    Ok(())
}

/// What a trusted proxy said, and then the proxy itself.
fn chain(request: &RequestHeader, peer: IpAddr) -> String {
    let mut chain = String::new();
    for value in request
        .headers
        .get_all(FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        chain.push_str(value);
        chain.push_str(", ");
    }
    chain.push_str(&peer.to_string());
    chain
}

fn is_scheme(value: Option<&HeaderValue>) -> bool {
    value.is_some_and(|value| value == "http" || value == "https")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    fn rewritten(fields: &[(&'static str, &str)], trusted: &[&str]) -> RequestHeader {
        let trusted: Vec<_> = trusted.iter().map(|text| (*text).to_owned()).collect();
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("host", "quokka.example").unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        rewrite(
            &mut request,
            Some(PEER),
            &TrustedProxies::parse(&trusted).unwrap(),
        )
        .unwrap();
        request
    }

    fn values(request: &RequestHeader, name: &str) -> Vec<String> {
        request
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_client_is_not_believed() {
        let request = rewritten(
            &[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("x-real-ip", "1.1.1.1"),
                ("forwarded", "for=1.1.1.1"),
                ("x-quokka-user", "somebody"),
                ("X-Quokka-Roles", "admin"),
            ],
            &["192.168.0.0/16"],
        );
        assert_eq!(values(&request, "x-forwarded-for"), ["10.1.2.3"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["quokka.example"]);
        for name in ["x-real-ip", "forwarded", "x-quokka-user", "x-quokka-roles"] {
            assert!(values(&request, name).is_empty(), "{name} was passed on");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_put_at_the_end() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-quokka-user", "x"),
        ];
        for network in ["10.0.0.0/8", "10.1.2.3"] {
            let request = rewritten(&fields, &[network]);
            assert_eq!(
                values(&request, "x-forwarded-for"),
                ["1.1.1.1, 2.2.2.2, 10.1.2.3"]
            );
            assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
            assert!(values(&request, "x-quokka-user").is_empty());
        }
        assert_eq!(
            values(
                &rewritten(&[("x-forwarded-proto", "gopher")], &["10.0.0.0/8"]),
                "x-forwarded-proto"
            ),
            ["http"]
        );
    }

    #[test]
    fn a_request_from_nobody_is_not_passed_on() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        assert!(rewrite(&mut request, None, &TrustedProxies::default()).is_err());
    }

    #[test]
    fn a_network_that_cannot_be_read_is_named() {
        let networks = ["10.0.0.0/8".to_owned(), "ten".to_owned()];
        assert_eq!(TrustedProxies::parse(&networks).unwrap_err(), 1);
    }
}
