//! The connections of one listener: taken up to a number, and ended in good order.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
};
use http::{HeaderValue, Request, StatusCode, header::CONNECTION};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, warn};

/// How long the listener rests when it can't take a connection, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// How many there are at once; more wait in the system's queue.
    pub(super) connections_max: usize,
    /// How long the head of a request may take, and how long a connection may lie idle before it.
    pub(super) head_timeout: Duration,
    /// How long a head that has begun may still take once no new connections are taken.
    pub(super) last_head_timeout: Duration,
}

impl Limits {
    /// Those of a process that has `grace` to end in.
    pub(super) fn within(grace: Duration) -> Self {
        Self {
            // Four gateways with all that they let in at once, on one replica; some 20 kB each.
            connections_max: 8_192,
            // The gateway keeps an idle connection for 60 s, and has to be the one who lets go of it: closed from here,
            // it may be so in the moment in which a request is sent on it.
            head_timeout: Duration::from_secs(75),
            last_head_timeout: Duration::from_secs(1).min(grace / 10),
        }
    }
}

/// Serves until `stop`, then takes no more connections and returns when the last one has ended: a request that is under
/// way is finished, and a connection without one is closed. To drop the future cuts all of them off.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    // Puts the routes together once, and not for each request.
    let router = router.with_state::<()>(());
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let (stream, slot) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        // Nothing is left to be said about those that have ended.
        while connections.try_join_next().is_some() {}
        let connection = serve_connection(stream, router.clone(), limits, stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("nobody closes it");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                warn!(%error, "connection not taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    // A small answer must not wait for the acknowledgement of the one before it.
    if let Err(error) = stream.set_nodelay(true) {
        warn!(%error, "TCP_NODELAY not set");
    }
    let requests = Arc::new(Requests::default());
    let counted = Arc::clone(&requests);
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = UnderWay::new(&counted);
        let answer = router.clone().call(request);
        async move {
            let mut response = answer.await?;
            if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
                // The rest of the body isn't read, so that the connection ends: nobody is to send a request on it.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _under_way: under_way,
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            let (begun, idle) = (requests.begun(), requests.are_done());
            // Closes it when the request under way is answered, or at once if nothing has come since the last one.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                // Half a head is no request, and may never become one.
                () = sleep(limits.last_head_timeout), if idle => {
                    if requests.begun() == begun {
                        return;
                    }
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// The requests of one connection.
#[derive(Default)]
struct Requests {
    begun: AtomicU64,
    done: AtomicU64,
}

impl Requests {
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    fn are_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.begun()
    }
}

/// A request whose head has come and whose answer isn't handed over to its end.
struct UnderWay(Arc<Requests>);

impl UnderWay {
    fn new(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(requests))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// The body of an answer, which is under way until it ends.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use axum::{extract::State, routing::get};
    use futures::StreamExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::watch,
        task::JoinHandle,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Of which a test shortens what it is about.
    const LIMITS: Limits = Limits {
        connections_max: 100,
        head_timeout: PATIENCE,
        last_head_timeout: PATIENCE,
    };

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        /// Lets the answers of /gated end.
        gate: watch::Sender<bool>,
        serving: JoinHandle<()>,
    }

    impl Served {
        async fn start(limits: Limits) -> Self {
            let (gate, opened) = watch::channel(false);
            let router = Router::new()
                .route("/", get(async || "hello"))
                .route("/gated", get(gated))
                .with_state(opened);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
            Self {
                address,
                gate,
                serving: tokio::spawn(serve(listener, router, limits, stop.clone())),
                stop,
            }
        }

        /// A connection on which this was sent.
        async fn connect(&self, bytes: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream
        }

        /// Stops taking connections, and waits until that is so.
        async fn stop(&self) {
            self.stop.cancel();
            testkit::eventually(PATIENCE, || async {
                TcpStream::connect(self.address).await.is_err()
            })
            .await;
        }

        async fn ended(self) {
            tokio::time::timeout(PATIENCE, self.serving)
                .await
                .unwrap()
                .unwrap();
        }
    }

    /// Answers with a beginning at once, and with the end when the gate opens.
    async fn gated(State(mut opened): State<watch::Receiver<bool>>) -> Body {
        let end = async move {
            opened.wait_for(|opened| *opened).await.unwrap();
            "end"
        };
        let chunks = futures::stream::iter(["beginning "]).chain(futures::stream::once(end));
        Body::from_stream(chunks.map(Ok::<_, Infallible>))
    }

    /// Reads until what was read contains this.
    async fn read_until(stream: &mut TcpStream, text: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(text) {
            assert_ne!(
                stream.read_buf(&mut read).await.unwrap(),
                0,
                "ended after {read:?}"
            );
        }
    }

    async fn read_to_the_end(mut stream: TcpStream) -> String {
        let mut read = Vec::new();
        let reading = stream.read_to_end(&mut read);
        // A reset is an end as well.
        let _ = tokio::time::timeout(PATIENCE, reading).await.unwrap();
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_has_begun_is_finished_after_the_stop() {
        let served = Served::start(Limits {
            last_head_timeout: Duration::ZERO,
            ..LIMITS
        })
        .await;
        let mut stream = served
            .connect("GET /gated HTTP/1.1\r\nhost: h\r\n\r\n")
            .await;
        read_until(&mut stream, "beginning").await;
        served.stop().await;
        served.gate.send(true).unwrap();
        let rest = read_to_the_end(stream).await;
        assert!(
            rest.contains("end") && rest.ends_with("0\r\n\r\n"),
            "{rest:?}"
        );
        served.ended().await;
    }

    #[tokio::test]
    async fn a_connection_without_a_request_ends_with_the_stop() {
        let served = Served::start(Limits {
            last_head_timeout: Duration::ZERO,
            ..LIMITS
        })
        .await;
        let silent = served.connect("").await;
        let half = served.connect("GET / HTTP/1.1\r\nhost").await;
        let mut idle = served.connect("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        read_until(&mut idle, "hello").await;
        served.stop().await;
        for stream in [silent, half, idle] {
            assert_eq!(read_to_the_end(stream).await, "");
        }
        served.ended().await;
    }

    #[tokio::test]
    async fn half_a_head_is_not_waited_for_any_longer_than_its_timeout() {
        let served = Served::start(Limits {
            head_timeout: Duration::from_millis(50),
            ..LIMITS
        })
        .await;
        let half = served.connect("GET / HTTP/1.1\r\nhost").await;
        assert!(!read_to_the_end(half).await.contains("hello"));
    }

    #[tokio::test]
    async fn beyond_the_most_connections_the_next_one_waits_until_one_ends() {
        let served = Served::start(Limits {
            connections_max: 1,
            ..LIMITS
        })
        .await;
        let request = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
        let mut first = served.connect(request).await;
        read_until(&mut first, "hello").await;
        let mut second = served.connect(request).await;
        let mut read = Vec::new();
        // The first one is still served, and the second one isn't.
        first.write_all(request.as_bytes()).await.unwrap();
        tokio::select! {
            () = read_until(&mut first, "hello") => {}
            _ = second.read_buf(&mut read) => panic!("one too many is served"),
        }
        drop(first);
        read_until(&mut second, "hello").await;
    }
}
