//! The life of a process: its listeners, its background tasks, and its end.
//!
//! On SIGTERM or SIGINT a process
//! 1. is not ready at once, and goes on serving for a moment, while those who send requests learn of it;
//! 2. takes no new connections and finishes the requests in flight;
//! 3. cancels [`Shutdown::token`] and waits for its background tasks, which commit and flush what they hold;
//! 4. ends with success, all within the grace period. What hasn't ended by then is named and cut off.
//!
//! A background task that ends before it was asked to starts the same sequence, and makes [`run`] fail with its name:
//! a process that can't do its whole work should be replaced rather than look healthy.

mod connections;
mod shutdown;

use std::{fmt, io, net::SocketAddr, process::ExitCode, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::connections::Limits;
use crate::{
    config,
    health::Readiness,
    metrics,
    telemetry::{self, TelemetryConfig},
};

pub use shutdown::{Shutdown, TaskEnd, TaskError};

/// How long a process that was told to end still takes new connections: as long as the news takes to get to
/// kube-proxy and the gateway. A tenth of a shorter grace period.
const LAME_DUCK: Duration = Duration::from_secs(2);

/// What a process serves, and how it ends.
pub struct Serve {
    /// The API that the gateway sees; none for a process that only works in the background.
    pub http: Option<(SocketAddr, Router)>,
    /// An API for other parts of the platform, on a port of its own.
    pub internal: Option<(SocketAddr, Router)>,
    /// Where /livez, /readyz and /metrics are.
    pub ops: SocketAddr,
    /// What /readyz answers from.
    pub readiness: Readiness,
    /// How long the end may take.
    pub grace: Duration,
    /// Whom the background tasks belong to.
    pub shutdown: Shutdown,
}

/// Why a process ended other than by being told to and doing so.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address can't be listened on.
    #[error("listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The signals can't be listened to.
    #[error("listen for signals: {0}")]
    Signals(io::Error),
    /// A background task ended before it was asked to.
    #[error("task `{name}` ended: {cause}")]
    TaskEnded {
        /// The task's name.
        name: String,
        /// What it ended with.
        cause: String,
    },
    /// The grace period was over before these were.
    #[error("not done within the grace period: {}", .0.join(", "))]
    Unfinished(Vec<String>),
}

/// Serves until the process is told to end, and ends as described in the [module](self). `Ok` means exit code 0.
pub async fn run(serve: Serve) -> Result<(), ServeError> {
    Server::bind(serve).await?.run().await
}

/// What `main` does once the settings are read: starts telemetry, runs `work` to its end, logs why it failed if it
/// did, sends the last traces, and answers the exit code.
pub async fn process<E: fmt::Display>(
    config: &TelemetryConfig,
    work: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    let telemetry = match telemetry::init(config) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            // Without telemetry nobody would see a log line.
            eprintln!("{}: {error}", config.service_name);
            return ExitCode::FAILURE;
        }
    };
    for variable in config::unread_variables() {
        warn!(variable, "no setting has this name: it has no effect here");
    }
    let code = match work.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format_args!("{error:#}"), "process failed");
            ExitCode::FAILURE
        }
    };
    telemetry.shutdown().await;
    code
}

/// A process whose listeners are open: what tests that ask for port 0 need.
pub struct Server {
    http: Option<(TcpListener, Router)>,
    internal: Option<(TcpListener, Router)>,
    ops: TcpListener,
    readiness: Readiness,
    grace: Duration,
    shutdown: Shutdown,
}

impl Server {
    /// Opens the listeners. From here on connections are kept waiting, as many as a crowd opens at once; [`Self::run`]
    /// accepts them.
    pub async fn bind(serve: Serve) -> Result<Self, ServeError> {
        Ok(Self {
            http: listen_with(serve.http)?,
            internal: listen_with(serve.internal)?,
            ops: listen(serve.ops)?,
            readiness: serve.readiness,
            grace: serve.grace,
            shutdown: serve.shutdown,
        })
    }

    /// Where the API is.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(listener, _)| addr(listener))
    }

    /// Where the internal API is.
    pub fn internal_addr(&self) -> Option<SocketAddr> {
        self.internal.as_ref().map(|(listener, _)| addr(listener))
    }

    /// Where /livez, /readyz and /metrics are.
    pub fn ops_addr(&self) -> SocketAddr {
        addr(&self.ops)
    }

    /// Serves until the end.
    pub async fn run(self) -> Result<(), ServeError> {
        let mut signals = Signals::new().map_err(ServeError::Signals)?;
        info!(ops = %self.ops_addr(), http = ?self.http_addr(), internal = ?self.internal_addr(), "serving");
        let Self {
            http,
            internal,
            ops,
            readiness,
            grace,
            shutdown,
        } = self;

        let limits = Limits::within(grace);
        let ops = tokio::spawn(connections::serve(
            ops,
            ops_router(readiness.clone()),
            limits,
            CancellationToken::new(),
        ));
        let closed = CancellationToken::new();
        let listeners: Vec<(&str, JoinHandle<()>)> = [("http", http), ("internal", internal)]
            .into_iter()
            .filter_map(|(name, api)| {
                let (listener, router) = api?;
                Some((
                    name,
                    tokio::spawn(connections::serve(listener, router, limits, closed.clone())),
                ))
            })
            .collect();

        tokio::select! {
            signal = signals.next() => info!(signal, "told to end"),
            () = shutdown.asked() => info!("asked to end"),
        }
        let deadline = Instant::now() + grace;
        readiness.shutting_down();
        shutdown.begin();
        if !listeners.is_empty() {
            sleep(LAME_DUCK.min(grace / 10)).await;
        }
        closed.cancel();
        let mut unfinished = Vec::new();
        for (name, mut listener) in listeners {
            if timeout_at(deadline, &mut listener).await.is_err() {
                listener.abort();
                unfinished.push(format!("{name} requests"));
            }
        }
        unfinished.extend(shutdown.end_tasks(deadline).await);
        // An ops request in flight isn't waited for.
        ops.abort();

        match shutdown.take_failure() {
            Some(failure) => Err(failure),
            None if unfinished.is_empty() => {
                info!("ended");
                Ok(())
            }
            None => Err(ServeError::Unfinished(unfinished)),
        }
    }
}

/// Most connections that wait to be accepted: what Linux allows by default (`net.core.somaxconn`). With the 128 that
/// listeners have otherwise, a crowd that comes at once waits for a second and more: whoever finds no room sends again
/// only then.
const WAITING_MAX: u32 = 4_096;

/// A listener with room for a crowd that comes at once. Must be called on a tokio runtime.
///
/// # Errors
///
/// The address is another's, or isn't this machine's.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listening = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // A restart finds the address free although old connections linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(WAITING_MAX)
    };
    listening().map_err(|error| ServeError::Listen { address, error })
}

fn listen_with(
    api: Option<(SocketAddr, Router)>,
) -> Result<Option<(TcpListener, Router)>, ServeError> {
    api.map(|(address, router)| Ok((listen(address)?, router)))
        .transpose()
}

fn addr(listener: &TcpListener) -> SocketAddr {
    listener
        .local_addr()
        .expect("a bound listener has an address")
}

/// /livez, /readyz and /metrics.
pub fn ops_router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::handler))
        .with_state(readiness)
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let report = readiness.report();
    let status = if report.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
