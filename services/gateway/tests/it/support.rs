//! What the tests have in common: the gateway as a process, services behind it, and a client that speaks raw HTTP.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use testkit::{JwksServer, Outcome, TokenIssuer};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use uuid::Uuid;

/// Longer than anything here takes on a machine that isn't broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The issuer of good tokens: its keys are published where the gateway looks for them.
pub(crate) struct Issuer {
    tokens: TokenIssuer,
    keys: JwksServer,
}

impl Issuer {
    async fn start() -> Self {
        let tokens = TokenIssuer::new();
        let keys = JwksServer::start(tokens.jwks()).await.unwrap();
        Self { tokens, keys }
    }

    /// Where the keys are.
    pub(crate) fn jwks_url(&self) -> &str {
        self.keys.url()
    }

    /// `Bearer` and a good token.
    pub(crate) fn bearer(&self) -> String {
        self.bearer_with(json!({}))
    }

    /// `Bearer` and a token in which some claims are other than in a good one; null leaves one out.
    pub(crate) fn bearer_with(&self, claims: Value) -> String {
        format!("Bearer {}", self.tokens.token_with(Uuid::new_v4(), claims))
    }

    /// `Bearer` and a token that was good once.
    pub(crate) fn expired(&self) -> String {
        format!("Bearer {}", self.tokens.expired_token(Uuid::new_v4()))
    }
}

/// Waits until `check` gives something.
#[track_caller]
pub(crate) fn eventually<O: Outcome, F: Future<Output = O>>(
    check: impl FnMut() -> F,
) -> impl Future<Output = O::Found> {
    testkit::eventually(PATIENCE, check)
}

/// A gateway process. It is killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) ops: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// A gateway that is yet to be started.
pub(crate) struct Setup {
    command: Command,
    /// Publishes the keys of the tokens.
    pub(crate) issuer: Issuer,
}

impl Setup {
    /// With settings that suit tests; the keys are published by a server of its own.
    pub(crate) async fn new() -> Self {
        let issuer = Issuer::start().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command
            .env_clear()
            .env("QUOKKA_HTTP_ADDR", "127.0.0.1:0")
            .env("QUOKKA_OPS_ADDR", "127.0.0.1:0")
            .env("QUOKKA_GATEWAY_THREADS", "2")
            .env("QUOKKA_GATEWAY_DRAIN", "0s")
            .env("QUOKKA_JWKS_URL", issuer.keys.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self { command, issuer }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Users and promotions at these addresses.
    pub(crate) fn upstreams(self, users: &[SocketAddr], promotions: &[SocketAddr]) -> Self {
        let users = users
            .iter()
            .map(|address| format!("quokka-users={address}"));
        let promotions = promotions
            .iter()
            .map(|address| format!("quokka-promotions={address}"));
        let all: Vec<_> = users.chain(promotions).collect();
        self.env("QUOKKA_UPSTREAMS", all.join(","))
    }

    /// Runs until it ends by itself; what it said on standard error.
    pub(crate) async fn run_to_end(mut self) -> (ExitStatus, String) {
        let output = timeout(PATIENCE, self.command.output())
            .await
            .expect("the process never ended")
            .unwrap();
        (output.status, String::from_utf8(output.stderr).unwrap())
    }

    /// Starts it and waits until it takes requests.
    pub(crate) async fn start(self) -> (Gateway, Issuer) {
        let (gateway, issuer) = self.start_unready().await;
        gateway.ready().await;
        (gateway, issuer)
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start_unready(mut self) -> (Gateway, Issuer) {
        let mut child = self.command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, mut addresses) = watch::channel((None, None));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let json: Value = serde_json::from_str(&line).unwrap_or_default();
                let address = |field: &str| json[field].as_str().and_then(|text| text.parse().ok());
                match json["message"].as_str() {
                    Some("taking requests") => {
                        found.send_modify(|addresses| addresses.0 = address("http"))
                    }
                    Some("serving") => found.send_modify(|addresses| addresses.1 = address("ops")),
                    _ => {}
                }
                kept.lock().unwrap().push(line);
            }
        });
        let listening =
            addresses.wait_for(|addresses| addresses.0.is_some() && addresses.1.is_some());
        let (http, ops) = *timeout(PATIENCE, listening)
            .await
            .unwrap_or_else(|_| panic!("never listened: {:?}", log.lock().unwrap()))
            .unwrap_or_else(|_| panic!("ended at once: {:?}", log.lock().unwrap()));
        (
            Gateway {
                child,
                http: http.unwrap(),
                ops: ops.unwrap(),
                log,
            },
            self.issuer,
        )
    }
}

impl Gateway {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) {
        eventually(|| async { self.readyz().await.filter(|status| *status == 200) }).await;
    }

    /// What /readyz answers; none when nobody does.
    pub(crate) async fn readyz(&self) -> Option<u16> {
        Some(
            reqwest::get(format!("http://{}/readyz", self.ops))
                .await
                .ok()?
                .status()
                .as_u16(),
        )
    }

    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.ops))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// The value of the one series that starts so, or 0.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let metrics = self.metrics().await;
        let line = metrics
            .lines()
            .find(|line| line.starts_with(series) && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }

    pub(crate) fn terminate(&self) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The exit status, once it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("never ended: {:?}", self.log.lock().unwrap()))
            .unwrap()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

/// A request as a service saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }
}

/// A service that answers every request with its own name, and remembers it. A request with `x-test-hold` is answered
/// when the test releases it.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    state: Arc<ServiceState>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct ServiceState {
    name: &'static str,
    seen: Mutex<Vec<Seen>>,
    held: watch::Sender<usize>,
    release: Notify,
}

impl Service {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::on(name, TcpListener::bind("127.0.0.1:0").await.unwrap()).await
    }

    pub(crate) async fn on(name: &'static str, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ServiceState {
            name,
            ..ServiceState::default()
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            state,
            server,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The one request that was seen.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    /// Waits until so many requests are held.
    pub(crate) async fn holds(&self, count: usize) {
        let mut held = self.state.held.subscribe();
        timeout(PATIENCE, held.wait_for(|held| *held == count))
            .await
            .expect("never so many")
            .unwrap();
    }

    /// Answers what is held.
    pub(crate) fn release(&self) {
        self.state.release.notify_waiters();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(state): State<Arc<ServiceState>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    state.seen.lock().unwrap().push(seen.clone());
    if seen.headers.contains_key("x-test-hold") {
        let released = state.release.notified();
        state.held.send_modify(|held| *held += 1);
        released.await;
        state.held.send_modify(|held| *held -= 1);
    }
    let status = seen
        .header("x-test-status")
        .first()
        .and_then(|text| text.parse().ok())
        .unwrap_or(StatusCode::OK);
    (
        status,
        [(header::CACHE_CONTROL, "private")],
        Json(json!({ "server": state.name, "target": seen.target })),
    )
        .into_response()
}

/// A service whose every connection is handled by the test.
pub(crate) async fn raw_service<F, Fut>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

/// Reads a request's head and as much of its body as comes along.
pub(crate) async fn read_some(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            break;
        }
    }
    bytes
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// An answer, read without a library's help.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That it is a problem of that status and code, with a trace id.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(
            self.status,
            status,
            "{self:?} {}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field} of {problem}"
            );
        }
        let trace_id = problem["traceId"].as_str().unwrap();
        assert!(
            trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{trace_id}"
        );
        if status == 503 {
            assert!(self.headers["retry-after"].parse::<u32>().is_ok());
        }
    }

    pub(crate) fn closes(&self) -> bool {
        self.headers
            .get("connection")
            .is_some_and(|value| value == "close")
    }
}

/// A connection on which bytes are sent as they are.
pub(crate) struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    pub(crate) async fn connect(gateway: &Gateway) -> Self {
        Self {
            stream: BufReader::new(TcpStream::connect(gateway.http).await.unwrap()),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .get_mut()
            .write_all(bytes.as_ref())
            .await
            .unwrap();
    }

    /// Sends, whether or not the other side still reads.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref()).await
    }

    /// Reads one answer, whose body has a length.
    pub(crate) async fn answer(&mut self) -> Answer {
        timeout(PATIENCE, self.try_answer())
            .await
            .expect("no answer")
            .expect("the connection ended without an answer")
    }

    /// The first bytes of an answer, of which no more is taken.
    pub(crate) async fn answer_begins(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await;
        read.expect("no answer").unwrap();
        bytes
    }

    /// What comes until it ends with `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let reading = async {
            while !bytes.ends_with(end) {
                let read = self.stream.read_buf(&mut bytes).await.unwrap();
                assert!(read > 0, "the connection ended after {bytes:?}");
            }
        };
        timeout(PATIENCE, reading).await.expect("no answer");
        bytes
    }

    /// `None` when the connection ends first.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status = lines[0].split(' ').nth(1)?.parse().ok()?;
        let headers: HashMap<_, _> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Answer {
            status,
            headers,
            body,
        })
    }

    /// That the other side ends the connection now, and in order: without a reset, which can take an answer away.
    pub(crate) async fn assert_ends_in_order(&mut self) {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        let read = read.expect("the connection never ended");
        assert!(matches!(read, Ok(0)), "{read:?} {rest:?}");
    }

    /// Everything until the other side ends the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("the connection never ended");
        rest
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn raw(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = Raw::connect(gateway).await;
    connection.send(bytes).await;
    connection.answer().await
}

/// A request with a body of known length.
pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let headers: BTreeMap<_, _> = headers.iter().copied().collect();
    let fields: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    let mut bytes =
        format!("{method} {target} HTTP/1.1\r\nhost: quokka.example\r\n{fields}{length}\r\n")
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
