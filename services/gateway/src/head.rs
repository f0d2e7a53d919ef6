//! Whether the head of a request is one that the gateway will read at all, before anything is decided about it.
//!
//! Two servers that read the same bytes differently can be made to disagree about where a request ends. So what is
//! ambiguous is refused here, strictly, and what passes means one thing to everybody behind the gateway.

use http::uri::{Authority, PathAndQuery};

use crate::framing::Framing;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of the request line and all fields together.
    pub(crate) bytes_max: usize,
    /// Number of fields.
    pub(crate) fields_max: usize,
}

/// A head that is whole and good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Its bytes.
    pub(crate) length: usize,
    /// How its body ends.
    pub(crate) body: Framing,
}

/// The largest `fields_max`: hyper, which services are made of, takes 100, and the gateway adds up to 4 that say who
/// the client is and which trace it belongs to.
pub(crate) const FIELDS_MAX: usize = 96;
/// The largest `bytes_max`: well under what hyper takes, about 400 KiB, for what the gateway adds.
pub(crate) const BYTES_MAX: usize = 256 * 1024;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It isn't HTTP/1, or says two things at once.
    Malformed(&'static str),
    /// More bytes than are taken.
    TooLarge,
    /// More fields than are taken.
    TooManyFields,
    /// A method that a gateway must not pass on.
    Method,
}

/// Reads the head at the start of `bytes`: `None` when more has to come.
pub(crate) fn check(bytes: &[u8], limits: HeadLimits) -> Result<Option<Whole>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields[..limits.fields_max.min(FIELDS_MAX)]);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > limits.bytes_max => Err(Fault::TooLarge),
        Ok(httparse::Status::Complete(length)) => {
            validate(&request).map(|body| Some(Whole { length, body }))
        }
        Ok(httparse::Status::Partial) if bytes.len() >= limits.bytes_max => Err(Fault::TooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Fault::TooManyFields),
        Err(httparse::Error::Version) => Err(Fault::Malformed(
            "only HTTP/1.1 and HTTP/1.0 are spoken here",
        )),
        Err(_) => Err(Fault::Malformed(
            "the request line or a header field can't be read",
        )),
    }
}

/// Whether `bytes`, of which those before `from` were looked at before, contain the blank line that ends a head.
/// Cheaper than [`check`], for heads that come in many small pieces.
pub(crate) fn may_be_whole(bytes: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3);
    bytes[start..].windows(2).any(|pair| pair == b"\n\n")
        || bytes[start..].windows(3).any(|triple| triple == b"\n\r\n")
}

fn validate(request: &httparse::Request<'_, '_>) -> Result<Framing, Fault> {
    let http_10 = request.version == Some(0);
    let method = request.method.unwrap_or_default();
    // CONNECT and TRACE speak to the proxy itself; neither has a use here and both have been used against proxies.
    if method == "CONNECT" || method == "TRACE" {
        return Err(Fault::Method);
    }
    let host = only_one(request, "host", "there is more than one Host field")?;
    match host {
        Some(host) => check_host(host)?,
        None if http_10 => {}
        None => return Err(Fault::Malformed("there is no Host field")),
    }
    check_target(request.path.unwrap_or_default(), host)?;
    check_framing(request, http_10)
}

fn check_host(host: &[u8]) -> Result<(), Fault> {
    let authority =
        Authority::try_from(host).map_err(|_| Fault::Malformed("the Host field is not a host"))?;
    if authority.as_str().contains('@') {
        return Err(Fault::Malformed("the Host field is not a host"));
    }
    Ok(())
}

/// The target is a path, or an absolute URL of the very host that the Host field names.
fn check_target(target: &str, host: Option<&[u8]>) -> Result<(), Fault> {
    const NOT_A_PATH: Fault = Fault::Malformed("the request target is not a path");
    let path = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
            let rest = &target[7..];
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            if host != Some(&rest.as_bytes()[..end]) {
                return Err(Fault::Malformed("the request target is of another host"));
            }
            if end == rest.len() { "/" } else { &rest[end..] }
        }
        _ => target,
    };
    let visible = path
        .bytes()
        .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
    if !path.starts_with('/') || !visible || PathAndQuery::try_from(path).is_err() {
        return Err(NOT_A_PATH);
    }
    Ok(())
}

/// A body has one length, said in one way.
fn check_framing(request: &httparse::Request<'_, '_>, http_10: bool) -> Result<Framing, Fault> {
    let length = only_one(
        request,
        "content-length",
        "there is more than one Content-Length",
    )?;
    let coding = only_one(
        request,
        "transfer-encoding",
        "there is more than one Transfer-Encoding",
    )?;
    let body_bytes = length.map_or(Ok(0), body_bytes)?;
    match coding {
        None => Ok(Framing::Length(body_bytes)),
        Some(_) if length.is_some() => Err(Fault::Malformed(
            "both Content-Length and Transfer-Encoding are there",
        )),
        Some(_) if http_10 => Err(Fault::Malformed("HTTP/1.0 has no Transfer-Encoding")),
        Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::CHUNKED),
        Some(_) => Err(Fault::Malformed(
            "only the transfer coding chunked is read here",
        )),
    }
}

fn body_bytes(length: &[u8]) -> Result<u64, Fault> {
    const NOT_A_NUMBER: Fault = Fault::Malformed("Content-Length is not a number");
    if length.len() > 18 || !length.iter().all(u8::is_ascii_digit) {
        return Err(NOT_A_NUMBER);
    }
    let digits = std::str::from_utf8(length).map_err(|_| NOT_A_NUMBER)?;
    digits.parse().map_err(|_| NOT_A_NUMBER)
}

fn only_one<'a>(
    request: &httparse::Request<'_, 'a>,
    name: &str,
    twice: &'static str,
) -> Result<Option<&'a [u8]>, Fault> {
    let mut found = None;
    for field in request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(name))
    {
        if found.replace(field.value).is_some() {
            return Err(Fault::Malformed(twice));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes_max: 512,
        fields_max: 8,
    };

    fn length(bytes: &[u8]) -> Result<Option<usize>, Fault> {
        Ok(check(bytes, LIMITS)?.map(|head| head.length))
    }

    fn head(lines: &[&str]) -> Result<Option<Whole>, Fault> {
        check(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes(), LIMITS)
    }

    fn is_malformed(lines: &[&str]) -> bool {
        matches!(head(lines), Err(Fault::Malformed(_)))
    }

    #[test]
    fn a_plain_request_passes_and_its_length_excludes_the_body() {
        let request = b"POST /v1/users?x=%20 HTTP/1.1\r\nHost: quokka.example:8080\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(length(request), Ok(Some(request.len() - 2)));
        assert_eq!(length(&request[..40]), Ok(None));
    }

    #[test]
    fn how_the_body_ends_is_told() {
        for (field, body) in [
            ("A: b", Framing::WHOLE),
            ("Content-Length: 007", Framing::Length(7)),
            ("Transfer-Encoding: Chunked", Framing::CHUNKED),
        ] {
            let whole = head(&["POST / HTTP/1.1", "Host: a", field]).unwrap();
            assert_eq!(whole.unwrap().body, body, "{field}");
        }
    }

    #[test]
    fn an_absolute_target_passes_only_for_the_host_of_the_host_field() {
        assert!(
            head(&["GET http://a.example/v1?q HTTP/1.1", "Host: a.example"])
                .unwrap()
                .is_some()
        );
        assert!(is_malformed(&[
            "GET http://b.example/v1 HTTP/1.1",
            "Host: a.example"
        ]));
        assert!(is_malformed(&[
            "GET http://a.example#f HTTP/1.1",
            "Host: a.example"
        ]));
        assert!(is_malformed(&[
            "GET ftp://a.example/ HTTP/1.1",
            "Host: a.example"
        ]));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for lines in [
            &["GET / HTTP/1.1"][..],
            &["GET / HTTP/1.1", "Host: a", "Host: a"],
            &["GET / HTTP/1.1", "Host: user@a"],
            &["GET / HTTP/1.1", "Host:"],
            &["GET v1 HTTP/1.1", "Host: a"],
            &["GET /\u{e9} HTTP/1.1", "Host: a"],
            &["GET * HTTP/1.1", "Host: a"],
            &["GET / HTTP/2.0", "Host: a"],
            &["GET /", "Host: a"],
            &["GET / HTTP/1.1", "Host: a", " folded: b"],
            &["GET / HTTP/1.1", "Host: a", "spaced : b"],
            &[
                "POST / HTTP/1.1",
                "Host: a",
                "Content-Length: 1",
                "Content-Length: 1",
            ],
            &["POST / HTTP/1.1", "Host: a", "Content-Length: 1, 1"],
            &["POST / HTTP/1.1", "Host: a", "Content-Length:"],
            &["POST / HTTP/1.1", "Host: a", "Content-Length: +1"],
            &[
                "POST / HTTP/1.1",
                "Host: a",
                "Content-Length: 9999999999999999999999",
            ],
            &[
                "POST / HTTP/1.1",
                "Host: a",
                "Content-Length: 1",
                "Transfer-Encoding: chunked",
            ],
            &[
                "POST / HTTP/1.1",
                "Host: a",
                "Transfer-Encoding: gzip, chunked",
            ],
            &[
                "POST / HTTP/1.1",
                "Host: a",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: chunked",
            ],
            &["POST / HTTP/1.0", "Transfer-Encoding: chunked"],
        ] {
            assert!(is_malformed(lines), "{lines:?} passed: {:?}", head(lines));
        }
    }

    #[test]
    fn methods_for_the_proxy_itself_are_refused() {
        assert_eq!(
            head(&["CONNECT a:80 HTTP/1.1", "Host: a:80"]),
            Err(Fault::Method)
        );
        assert_eq!(head(&["TRACE / HTTP/1.1", "Host: a"]), Err(Fault::Method));
    }

    #[test]
    fn a_head_has_a_largest_size_and_number_of_fields() {
        let long = format!("GET /{} HTTP/1.1", "a".repeat(600));
        assert_eq!(head(&[&long, "Host: a"]), Err(Fault::TooLarge));
        assert_eq!(
            check(&long.as_bytes()[..LIMITS.bytes_max], LIMITS),
            Err(Fault::TooLarge)
        );
        assert!(
            head(&[
                "GET / HTTP/1.1",
                "Host: a",
                "b: 1",
                "c: 1",
                "d: 1",
                "e: 1",
                "f: 1",
                "g: 1",
                "h: 1"
            ])
            .is_ok()
        );
        let nine = [
            "GET / HTTP/1.1",
            "Host: a",
            "b: 1",
            "c: 1",
            "d: 1",
            "e: 1",
            "f: 1",
            "g: 1",
            "h: 1",
            "i: 1",
        ];
        assert_eq!(head(&nine), Err(Fault::TooManyFields));
    }

    proptest! {
        /// However a head is cut into pieces, looking for its end finds it exactly when parsing would.
        #[test]
        fn the_end_is_found_wherever_the_head_is_cut(cut in 0_usize..60, lf in any::<bool>()) {
            let end = if lf { "\n\n" } else { "\r\n\r\n" };
            let whole = format!("GET /v1/time-sales HTTP/1.1\r\nHost: quokka.example{end}");
            let cut = cut.min(whole.len() - 1);
            prop_assert!(!may_be_whole(&whole.as_bytes()[..cut], 0));
            prop_assert!(may_be_whole(whole.as_bytes(), cut));
            prop_assert_eq!(length(whole.as_bytes()), Ok(Some(whole.len())));
        }

        /// What passes is read by the proxy library without complaint, so that its own bare answers are never seen.
        #[test]
        fn what_passes_is_taken_by_the_proxy_library(
            target in "/[!-~]{0,20}", host in "[ -~]{0,12}", name in "[!-~]{1,8}", value in "[ -~\t\u{80}-\u{ff}]{0,12}",
        ) {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{name}: {value}\r\n\r\n");
            if check(bytes.as_bytes(), LIMITS).is_ok() {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let read = runtime.block_on(async {
                    let (client, _server) = tokio::io::duplex(1024);
                    let mut session = pingora::protocols::http::ServerSession::new_http1(Box::new(client));
                    session.set_pipelined_prefix(bytes.as_bytes().into());
                    session.read_request().await.map_err(|error| error.to_string())
                });
                prop_assert_eq!(read, Ok(true), "{}", bytes);
            }
        }
    }
}
