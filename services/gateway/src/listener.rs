//! Takes connections, reads the head of each request, and hands the rest to the proxy.
//!
//! The proxy library only ever sees heads that [`crate::head`] found good. A connection may be without a request for
//! the idle timeout; once a head has begun it must be whole within the client timeout, however slowly it drips.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use chassis::{http as measure, problem::Problem, telemetry::TraceContext};
use pingora::{
    apps::HttpServerApp as _,
    protocols::{Stream, http::ServerSession},
    proxy::HttpProxy,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Limits,
    connection::Connection,
    head, metrics,
    proxy::{Client, Gateway},
    refusal,
};

/// What a head is read into at first; most are smaller.
const HEAD_BYTES_USUAL: usize = 2 * 1024;

/// How long a client may take to read the answer to a head that was refused, and to end the connection.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// How much it may still send meanwhile.
const LAST_WORDS_UNREAD_BYTES_MAX: usize = 256 * 1024;

/// After an accept that failed for want of descriptors or memory, a moment for others to give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections share.
pub(crate) struct Listener {
    proxy: Arc<HttpProxy<Gateway>>,
    limits: Limits,
    places: Arc<Semaphore>,
    /// The process is on its way out: connections end after the request they are at.
    draining: CancellationToken,
    /// Nothing new is taken: connections without a request end at once.
    closing: CancellationToken,
}

/// What became of the wait for a head.
enum Head {
    Good(BytesMut),
    Refused(Problem),
    /// Nobody wants anything.
    Gone,
}

impl Listener {
    /// A listener that hands requests to `proxy`.
    pub(crate) fn new(
        proxy: HttpProxy<Gateway>,
        limits: Limits,
        draining: CancellationToken,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(limits.connections_max));
        Arc::new(Self {
            proxy: Arc::new(proxy),
            limits,
            places,
            draining,
            closing: CancellationToken::new(),
        })
    }

    /// Serves until the process is on its way out and the last request is answered.
    pub(crate) async fn run(self: Arc<Self>, tcp: TcpListener) {
        let connections = TaskTracker::new();
        let (told, shutdown) = watch::channel(false);
        let drained = async {
            self.draining.cancelled().await;
            told.send_replace(true);
            sleep(self.limits.drain).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                accepted = tcp.accept() => self.accepted(accepted, &connections, &shutdown).await,
                () = &mut drained => break,
            }
        }
        // Connections that the kernel has made already are somebody's requests.
        while let Ok(Ok(waiting)) = timeout(Duration::ZERO, tcp.accept()).await {
            self.accepted(Ok(waiting), &connections, &shutdown).await;
        }
        drop(tcp);
        self.closing.cancel();
        connections.close();
        connections.wait().await;
    }

    async fn accepted(
        self: &Arc<Self>,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        connections: &TaskTracker,
        shutdown: &watch::Receiver<bool>,
    ) {
        match accepted {
            Ok((stream, client)) => {
                let place = Arc::clone(&self.places).try_acquire_owned().ok();
                let this = Arc::clone(self);
                match place {
                    Some(place) => {
                        drop(connections.spawn(this.serve(stream, client, shutdown.clone(), place)))
                    }
                    None => refuse_connection(&stream),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        shutdown: watch::Receiver<bool>,
        _place: OwnedSemaphorePermit,
    ) {
        let _open = Open::new();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let mut stream: Stream = Box::new(Connection::new(stream));
        loop {
            let head = match self.read_head(&mut stream).await {
                Head::Good(head) => head,
                Head::Refused(problem) => return last_words(stream, problem).await,
                Head::Gone => return,
            };
            let mut session = ServerSession::new_http1(stream);
            session.set_pipelined_prefix(head);
            session.set_connection_user_context(Some(Box::new(Client(client))));
            session.set_read_timeout(Some(self.limits.client_timeout));
            session.set_write_timeout(Some(self.limits.client_timeout));
            session.set_total_drain_timeout(Some(self.limits.client_timeout));
            match self.proxy.process_new_http(session, &shutdown).await {
                Some(reused) => stream = reused.consume().0,
                None => return,
            }
        }
    }

    async fn read_head(&self, stream: &mut Stream) -> Head {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES_USUAL.min(self.limits.head.bytes_max));
        let first = tokio::select! {
            biased;
            read = timeout(self.limits.idle_timeout, stream.read_buf(&mut bytes)) => read,
            () = self.closing.cancelled() => return Head::Gone,
        };
        if !matches!(first, Ok(Ok(1..))) {
            return Head::Gone;
        }
        let began = Instant::now();
        let mut looked_at = 0;
        loop {
            // The first bytes tell whether this is HTTP at all; after them only a blank line changes anything.
            if looked_at == 0
                || bytes.len() >= self.limits.head.bytes_max
                || head::may_be_whole(&bytes, looked_at)
            {
                match head::check(&bytes, self.limits.head) {
                    Ok(Some(_)) => return Head::Good(bytes),
                    Ok(None) => {}
                    Err(fault) => return Head::Refused(fault.into()),
                }
            }
            looked_at = bytes.len();
            let left = self.limits.client_timeout.saturating_sub(began.elapsed());
            match timeout(left, stream.read_buf(&mut bytes)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Head::Gone,
                Err(_) => return Head::Refused(refusal::too_slow()),
            }
        }
    }
}

/// Counts a connection while it is open.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::CONNECTIONS.inc();
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::CONNECTIONS.dec();
    }
}

/// Answers on a connection that has no place. There is no room to wait, so what the socket takes at once is all.
fn refuse_connection(stream: &TcpStream) {
    let bytes = refusal::last_words(refusal::overloaded(), TraceContext::root());
    let _ = stream.try_write(&bytes);
}

/// Answers a head that no request could be made of, and ends the connection so that the answer arrives.
async fn last_words(mut stream: Stream, problem: Problem) {
    let began = std::time::Instant::now();
    let status = problem.status();
    let bytes = refusal::last_words(problem, TraceContext::root());
    let say = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(&mut stream).await?;
        // Closing while the client still sends would take the answer away again.
        let mut unread = BytesMut::with_capacity(HEAD_BYTES_USUAL);
        let mut unread_bytes = 0;
        while unread_bytes < LAST_WORDS_UNREAD_BYTES_MAX {
            match stream.read_buf(&mut unread).await? {
                0 => break,
                more => unread_bytes += more,
            }
            unread.clear();
        }
        io::Result::Ok(())
    };
    // The client may be gone, and then there is nobody to tell.
    let _ = timeout(LAST_WORDS_TIMEOUT, say).await;
    measure::observe("_OTHER", "", status, began);
}
