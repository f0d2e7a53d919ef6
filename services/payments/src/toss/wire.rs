//! One call of the gateway over HTTP, by TLS where its address says so.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept: less than what proxies on the way keep it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read: a payment has some kilobytes, a page of transactions less than a megabyte.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody answered whole.
    #[error("{0}")]
    NoAnswer(String),
    /// Somebody answered, with more than is read.
    #[error("an answer that is too large")]
    TooLarge,
}

/// Speaks HTTP/1.1 to one gateway and follows no redirects. Clones share the connections.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Http {
    /// Each call may take as long as `timeout`, its answer included. With `secure`, nothing ever leaves without TLS, and
    /// the gateway's certificate must be vouched for by an authority that this machine trusts.
    pub(super) fn new(secure: bool, timeout: Duration) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let tls = if secure {
            tls.with_native_roots()?
        } else {
            tls.with_root_certificates(RootCertStore::empty())
        };
        Ok(Self::with(secure, tls.with_no_client_auth(), timeout))
    }

    fn with(secure: bool, tls: ClientConfig, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = if secure {
            connector.https_only()
        } else {
            connector.https_or_http()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector.enable_http1().wrap_connector(tcp));
        Self { client, timeout }
    }

    /// Sends the request, and answers with the status and the whole body.
    pub(super) async fn call(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), CallError> {
        tokio::time::timeout(self.timeout, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(CallError::NoAnswer("no answer in time".to_owned())))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| CallError::NoAnswer(whole(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        match body.collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge),
            Err(error) => Err(CallError::NoAnswer(whole(&*error))),
        }
    }
}

/// An error with its causes. None of them has the address or what was sent.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use rcgen::CertifiedKey;
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A gateway named localhost that answers one request by TLS, and its certificate.
    async fn gateway() -> (SocketAddr, CertificateDer<'static>) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = cert.der().clone();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that doesn't trust us hangs up here.
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
                return;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        (address, certificate)
    }

    fn trusting(roots: RootCertStore) -> Http {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Http::with(true, tls, TIMEOUT)
    }

    fn get(scheme: &str, address: SocketAddr) -> Request<Full<Bytes>> {
        let uri = format!("{scheme}://localhost:{}/", address.port());
        Request::get(uri).body(Full::default()).unwrap()
    }

    #[tokio::test]
    async fn a_gateway_that_somebody_vouches_for_is_spoken_to_by_tls() {
        let (address, certificate) = gateway().await;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let answer = trusting(roots).call(get("https", address)).await.unwrap();
        assert_eq!(answer, (StatusCode::OK, Bytes::from_static(b"{}")));
    }

    #[tokio::test]
    async fn a_gateway_that_nobody_vouches_for_hears_nothing() {
        let (address, _) = gateway().await;
        let error = trusting(RootCertStore::empty())
            .call(get("https", address))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("UnknownIssuer"),
            "refused for its certificate: {error}"
        );
    }

    #[tokio::test]
    async fn nothing_leaves_without_tls_where_it_is_asked_for() {
        let (address, _) = gateway().await;
        let error = trusting(RootCertStore::empty())
            .call(get("http", address))
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::NoAnswer(_)));
    }
}
