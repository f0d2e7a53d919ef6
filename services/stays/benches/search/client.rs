//! A client that costs next to nothing, since it takes the same cores as what is measured: HTTP/1.1 with one request at
//! a time on a connection that stays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// PostgreSQL with a queue in front is slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A connection that is made with its first request.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: Vec::with_capacity(32 * 1024),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let answer = timeout(ANSWER_TIMEOUT, self.send(path)).await;
        let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")));
        if answer.is_err() {
            self.stream = None;
        }
        answer.with_context(|| format!("GET {path}"))
    }

    async fn send(&mut self, path: &str) -> anyhow::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().context("just connected")?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: stays\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            let read = stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the connection was closed");
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let (status, length) = head(&self.buffer[..end])?;
                let whole = end + 4 + length;
                while self.buffer.len() < whole {
                    let read = stream.read_buf(&mut self.buffer).await?;
                    ensure!(read > 0, "the connection was closed");
                }
                let body = self.buffer[end + 4..whole].to_vec();
                return Ok(Answer { status, body });
            }
        }
    }
}

/// The status and the length of the body.
fn head(head: &[u8]) -> anyhow::Result<(u16, usize)> {
    let head = std::str::from_utf8(head)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("no length")?;
    Ok((status, length.1.trim().parse()?))
}

/// What a run of requests came to.
pub(crate) struct Measured {
    took: Duration,
    /// Of what was answered, in order.
    latencies: Vec<Duration>,
    /// Requests that were refused with 503, because too many were waiting.
    pub(crate) refused: usize,
}

impl Measured {
    /// Answers in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// A latency quantile in milliseconds.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        let at = (self.latencies.len() as f64 * quantile) as usize;
        let latency = self.latencies.get(at.min(self.latencies.len() - 1));
        latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1_000.0)
    }
}

/// Asks for `paths` again and again for some `time`: as fast as answers come, or so many a second. An answer is 200; a
/// 503 counts as none.
pub(crate) async fn drive(
    address: SocketAddr,
    paths: &Arc<Vec<String>>,
    connections: usize,
    time: Duration,
    per_second: Option<f64>,
) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (paths, next) = (Arc::clone(paths), Arc::clone(&next));
        workers.spawn(async move {
            let mut connection = Connection::new(address);
            let mut latencies = Vec::new();
            let mut refused = 0;
            while began.elapsed() < time {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                // A request that is sent late because its connection was busy still counts from when it was due.
                let due = match per_second {
                    Some(rate) => began + Duration::from_secs_f64(turn as f64 / rate),
                    None => Instant::now(),
                };
                sleep_until(due).await;
                let path = &paths[turn % paths.len()];
                let answer = connection.get(path).await?;
                match answer.status {
                    200 => latencies.push(due.elapsed()),
                    503 => refused += 1,
                    status => bail!("{path}: {status}"),
                }
            }
            Ok((latencies, refused))
        });
    }
    let mut latencies = Vec::new();
    let mut refused = 0;
    while let Some(worker) = workers.join_next().await {
        let (of_worker, refused_of_worker): (Vec<Duration>, usize) = worker??;
        latencies.extend(of_worker);
        refused += refused_of_worker;
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "nothing was answered");
    Ok(Measured {
        took,
        latencies,
        refused,
    })
}
