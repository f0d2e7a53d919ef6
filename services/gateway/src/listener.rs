//! Takes connections, reads the head of each request, and hands the rest to the proxy.
//!
//! The proxy library only ever sees heads that [`crate::head`] found good, one at a time. A connection may be without a
//! request for the idle timeout; once a head has begun it must be whole within the client timeout, however slowly it
//! drips.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use chassis::{http as measure, problem::Problem, telemetry::TraceContext};
use pingora::{apps::HttpServerApp as _, protocols::http::ServerSession, proxy::HttpProxy};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, error::Elapsed, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Limits,
    connection::Connection,
    head::{self, Whole},
    metrics,
    proxy::{Client, Gateway},
    refusal,
};

/// How long a client may take to read the answer to a head that was refused, and to end the connection.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// How much it may still send meanwhile.
const LAST_WORDS_UNREAD_BYTES_MAX: usize = 256 * 1024;
/// Connections that have no place but are still told so, at the same time; any more just end.
const TOLD_MAX: usize = 64;

/// After an accept that failed for want of descriptors or memory, a moment for others to give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections share.
pub(crate) struct Listener {
    proxy: Arc<HttpProxy<Gateway>>,
    limits: Limits,
    places: Arc<Semaphore>,
    told: Arc<Semaphore>,
    /// The process is on its way out: connections end after the request they are at.
    draining: CancellationToken,
    /// Nothing new is taken: connections without a request end at once.
    closing: CancellationToken,
}

/// What became of the wait for a head.
enum Head {
    Good(Whole),
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
            told: Arc::new(Semaphore::new(TOLD_MAX)),
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
                    None => this.refuse(stream, connections),
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
        let mut connection = Box::new(Connection::new(stream));
        loop {
            let head = match self.read_head(&mut connection).await {
                Head::Good(head) => head,
                Head::Refused(problem) => return last_words(*connection, problem).await,
                Head::Gone => return,
            };
            let begun = connection.begin(head);
            let mut session = ServerSession::new_http1(connection);
            session.set_pipelined_prefix(begun);
            session.set_connection_user_context(Some(Box::new(Client(client))));
            session.set_read_timeout(Some(self.limits.client_timeout));
            session.set_write_timeout(Some(self.limits.client_timeout));
            session.set_total_drain_timeout(Some(self.limits.client_timeout));
            let Some(reused) = self.proxy.process_new_http(session, &shutdown).await else {
                return;
            };
            match reused.consume().0.into_any().downcast::<Connection>() {
                Ok(same) if same.is_between_requests() => connection = same,
                _ => return,
            }
        }
    }

    /// Tells a connection that there is no place for it, if there is room for that.
    fn refuse(&self, stream: TcpStream, connections: &TaskTracker) {
        let Ok(room) = Arc::clone(&self.told).try_acquire_owned() else {
            metrics::refused(refusal::OVERLOADED);
            return;
        };
        drop(connections.spawn(async move {
            last_words(Connection::new(stream), refusal::overloaded()).await;
            drop(room);
        }));
    }

    async fn read_head(&self, connection: &mut Connection) -> Head {
        if connection.ahead().is_empty()
            && !matches!(
                self.read(connection, self.limits.idle_timeout).await,
                Ok(Ok(1..))
            )
        {
            return Head::Gone;
        }
        let began = Instant::now();
        let mut looked_at = 0;
        loop {
            let bytes = connection.ahead();
            // The first bytes tell whether this is HTTP at all; after them only a blank line changes anything.
            if looked_at == 0
                || bytes.len() >= self.limits.head.bytes_max
                || head::may_be_whole(bytes, looked_at)
            {
                match head::check(bytes, self.limits.head) {
                    Ok(Some(head)) => return Head::Good(head),
                    Ok(None) => {}
                    Err(fault) => return Head::Refused(fault.into()),
                }
            }
            looked_at = bytes.len();
            let left = self.limits.client_timeout.saturating_sub(began.elapsed());
            match self.read(connection, left).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Head::Gone,
                Err(_) => return Head::Refused(refusal::too_slow()),
            }
        }
    }

    /// Reads more of a head within `time`. When nothing new is taken any more, what hasn't come yet is not waited for:
    /// of half a head nothing was done.
    async fn read(
        &self,
        connection: &mut Connection,
        time: Duration,
    ) -> Result<io::Result<usize>, Elapsed> {
        tokio::select! {
            biased;
            read = timeout(time, connection.read_ahead()) => read,
            () = self.closing.cancelled() => Ok(Ok(0)),
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

/// Answers where no request could be made of what came, and ends the connection so that the answer arrives.
async fn last_words(mut connection: Connection, problem: Problem) {
    let began = std::time::Instant::now();
    let status = problem.status();
    let bytes = refusal::last_words(problem, TraceContext::root());
    let say = async {
        connection.write_all(&bytes).await?;
        connection.flush().await?;
        AsyncWriteExt::shutdown(&mut connection).await?;
        // Closing while the client still sends would take the answer away again.
        let mut unread_bytes = 0;
        while unread_bytes < LAST_WORDS_UNREAD_BYTES_MAX {
            connection.forget_ahead();
            match connection.read_ahead().await? {
                0 => break,
                more => unread_bytes += more,
            }
        }
        io::Result::Ok(())
    };
    // The client may be gone, and then there is nobody to tell.
    let _ = timeout(LAST_WORDS_TIMEOUT, say).await;
    measure::observe("_OTHER", "", status, began);
}
