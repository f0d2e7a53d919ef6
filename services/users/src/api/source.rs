//! Where a request comes from, as far as that can be believed.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use http::HeaderMap;
use http::request::Parts;

/// How many entries at the end of X-Forwarded-For were written by proxies of ours. Everything before them was written by
/// whoever sent the request, and says what they like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForwardedHops(pub(crate) usize);

/// The guest's address, which the outermost proxy of ours saw. None where no proxy of ours was passed: then whoever is
/// connected is inside the platform.
pub(crate) struct Source(pub(crate) Option<IpAddr>);

impl<S> FromRequestParts<S> for Source
where
    S: Send + Sync,
    ForwardedHops: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(forwarded(
            &parts.headers,
            ForwardedHops::from_ref(state),
        )))
    }
}

fn forwarded(headers: &HeaderMap, ForwardedHops(hops): ForwardedHops) -> Option<IpAddr> {
    let nth = hops.checked_sub(1)?;
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(','))
        .nth(nth)?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(lines: &[&str], hops: usize) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        forwarded(&headers, ForwardedHops(hops)).map(|address| address.to_string())
    }

    #[test]
    fn only_what_proxies_of_ours_wrote_is_believed() {
        for (lines, hops, address) in [
            (&[] as &[&str], 1, None),
            (&["192.0.2.1"], 0, None),
            (&["192.0.2.1"], 1, Some("192.0.2.1")),
            (&["10.9.9.9, 192.0.2.1"], 1, Some("192.0.2.1")),
            (&["10.9.9.9, 192.0.2.1, 10.0.0.7"], 2, Some("192.0.2.1")),
            (
                &["10.9.9.9", "192.0.2.1", "2001:db8::1"],
                2,
                Some("192.0.2.1"),
            ),
            (&["192.0.2.1"], 2, None),
            (&["unknown"], 1, None),
        ] {
            assert_eq!(seen(lines, hops).as_deref(), address, "{lines:?} {hops}");
        }
    }
}
