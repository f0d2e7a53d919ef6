//! Processes with signals and exit codes: this test binary again, told by its environment what to be.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use axum::{Router, routing::get as on_get};
use chassis::{
    config,
    health::Readiness,
    http::{HttpOptions, router},
    serve::{self, Serve, ServeError, Server, Shutdown},
};
use serde_json::Value;
use testkit::eventually;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc, time::timeout};

use super::PATIENCE;

/// Which process to be.
const ROLE: &str = "CHASSIS_TEST_ROLE";

fn local() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn options(http: Option<Router>, shutdown: &Shutdown, readiness: &Readiness) -> Serve {
    Serve {
        http: http.map(|routes| (local(), router(routes, HttpOptions::default()))),
        internal: None,
        ops: local(),
        readiness: readiness.clone(),
        grace: Duration::from_secs(20),
        shutdown: shutdown.clone(),
    }
}

/// Not a test of its own: what the other processes run. It never returns.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let code = runtime.block_on(async {
        let mut env = config::Env::new("test");
        let process = config::Process::read(&mut env);
        if let Err(mistakes) = env.finish() {
            mistakes.exit();
        }
        serve::process(&process.telemetry("test", "1.2.3"), run_as(&role)).await
    });
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

async fn run_as(role: &str) -> Result<(), ServeError> {
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let slow = async || {
        tracing::info!("slow request begins");
        tokio::time::sleep(Duration::from_secs(1)).await;
        "done"
    };
    let stop = shutdown.token();
    shutdown.task("flusher", async move {
        stop.cancelled().await;
        tracing::info!("flushed");
    });
    match role {
        "service" => {}
        "failing" => shutdown.task("consumer", async { Err::<(), _>("partition lost") }),
        "panicking" => shutdown.task("consumer", out_of_tea()),
        "stuck" => shutdown.task("stuck", std::future::pending::<()>()),
        other => panic!("no role {other}"),
    }
    let mut serve = options(
        Some(Router::new().route("/slow", on_get(slow))),
        &shutdown,
        &readiness,
    );
    if role == "stuck" {
        serve.grace = Duration::from_millis(300);
    }
    let server = Server::bind(serve).await?;
    tracing::info!(http = %server.http_addr().unwrap(), ops = %server.ops_addr(), "bound");
    server.run().await
}

async fn out_of_tea() {
    panic!("out of tea")
}

/// A process and the log lines that it writes.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(role: &str) -> Self {
        Self::start_with(role, &[])
    }

    fn start_with(role: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve::process", "--nocapture"])
            .env(ROLE, role)
            .env_remove("QUOKKA_LOG")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads up to the line with this message.
    fn wait_for(&mut self, message: &str) -> Value {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(line.get(line.find('{')?..)?).ok())
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("no line says {message:?}"))
    }

    fn terminate(&self) {
        let status = Command::new("kill")
            .args(["-s", "TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    fn exit_code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// Reads lines without blocking the runtime that the requests need.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_flushes_and_exits_0() {
    let mut service = Running::start("service");
    let (mut service, bound) = blocking(move || {
        let bound = service.wait_for("bound");
        (service, bound)
    })
    .await;
    let url = |port: &str, path: &str| format!("http://{}{path}", bound[port].as_str().unwrap());
    assert_eq!(
        reqwest::get(url("ops", "/readyz")).await.unwrap().status(),
        200
    );

    let slow = tokio::spawn(reqwest::get(url("http", "/slow")));
    let mut service = blocking(move || {
        let begins = service.wait_for("slow request begins");
        assert_eq!(
            begins["trace_id"].as_str().map(str::len),
            Some(32),
            "{begins}"
        );
        service.terminate();
        service.wait_for("told to end");
        service
    })
    .await;
    // Not ready, though it still takes requests until the news is round.
    eventually(PATIENCE, || async {
        reqwest::get(url("ops", "/readyz")).await.unwrap().status() == 503
    })
    .await;
    let answer = slow.await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap()),
        (200, "done".to_owned())
    );
    blocking(move || {
        service.wait_for("flushed");
        service.wait_for("ended");
        assert_eq!(service.exit_code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn half_a_head_does_not_keep_a_process_from_ending() {
    let mut service = Running::start("service");
    let (service, bound) = blocking(move || {
        let bound = service.wait_for("bound");
        (service, bound)
    })
    .await;
    let address = bound["http"].as_str().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost")
        .await
        .unwrap();
    // What came later is answered, so the process has seen the half.
    let url = format!("http://{address}/slow");
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200);
    let code = blocking(move || {
        service.terminate();
        service.exit_code()
    })
    .await;
    assert_eq!(code, Some(0));
}

#[test]
fn a_panic_is_a_log_line_with_its_place() {
    let mut process = Running::start("panicking");
    let line = process.wait_for("panicked: out of tea");
    assert_eq!(line["level"], "ERROR");
    let place = line["location"].as_str().unwrap();
    assert!(place.contains("tests/it/serve.rs:"), "{place}");
    assert_eq!(process.exit_code(), Some(1));
}

#[test]
fn a_task_that_ends_unasked_ends_the_process_with_its_name() {
    for (role, cause) in [
        ("failing", "partition lost"),
        ("panicking", "it panicked: out of tea"),
    ] {
        let mut process = Running::start(role);
        let line = process.wait_for("task ended");
        assert_eq!(
            (line["task"].as_str(), line["cause"].as_str()),
            (Some("consumer"), Some(cause))
        );
        // The others still get their time.
        process.wait_for("flushed");
        assert_eq!(process.exit_code(), Some(1));
    }
}

#[test]
fn a_misspelt_setting_is_told_in_the_log() {
    let mut process = Running::start_with("service", &[("QUOKKA_SHUTDOWN_GRAEC", "1s")]);
    let line = process.wait_for("no setting has this name: it has no effect here");
    assert_eq!(line["variable"], "QUOKKA_SHUTDOWN_GRAEC");
    process.wait_for("serving");
    process.terminate();
    assert_eq!(process.exit_code(), Some(0));
}

#[test]
fn what_is_not_done_within_the_grace_period_is_cut_off() {
    let mut process = Running::start("stuck");
    process.wait_for("serving");
    process.terminate();
    assert_eq!(process.exit_code(), Some(1));
}

#[test]
fn wrong_settings_end_the_process_with_2() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve::process", "--nocapture"])
        .envs([
            (ROLE, "service"),
            ("QUOKKA_OPS_ADDR", "nowhere"),
            ("QUOKKA_SHUTDOWN_GRACE", "soon"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("QUOKKA_OPS_ADDR") && said.contains("QUOKKA_SHUTDOWN_GRACE"),
        "{said}"
    );
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind(local()).await.unwrap();
    let mut serve = options(None, &Shutdown::new(), &Readiness::new());
    serve.ops = taken.local_addr().unwrap();
    let error = serve::run(serve).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&taken.local_addr().unwrap().to_string()),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sent_too_large_a_body_sends_the_next_request_on_another_connection() {
    let shutdown = Shutdown::new();
    let server = Server::bind(options(Some(Router::new()), &shutdown, &Readiness::new()));
    let server = server.await.unwrap();
    let url = format!("http://{}/nothing", server.http_addr().unwrap());
    let running = tokio::spawn(server.run());
    let large = "x".repeat(HttpOptions::default().body_limit_bytes + 1);
    let client = reqwest::Client::new();
    for _ in 0..20 {
        let refused = client.post(&url).body(large.clone()).send().await.unwrap();
        assert_eq!(refused.status(), 413);
        assert_eq!(refused.headers()["connection"], "close");
        refused.bytes().await.unwrap();
        let next = client.put(&url).send().await.unwrap();
        assert_eq!(next.status(), 404);
    }
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn two_apis_have_an_address_each() {
    let shutdown = Shutdown::new();
    let mut serve = options(
        Some(Router::new().route("/v1", on_get(async || "public"))),
        &shutdown,
        &Readiness::new(),
    );
    serve.internal = Some((
        local(),
        Router::new().route("/v1", on_get(async || "internal")),
    ));
    let server = Server::bind(serve).await.unwrap();
    let (http, internal) = (server.http_addr().unwrap(), server.internal_addr().unwrap());
    let running = tokio::spawn(server.run());
    for (address, expected) in [(http, "public"), (internal, "internal")] {
        assert_eq!(
            reqwest::get(format!("http://{address}/v1"))
                .await
                .unwrap()
                .text()
                .await
                .unwrap(),
            expected
        );
    }
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

/// Without room for it, a connection is answered only when it is asked for again, which Linux does after a second at first.
#[tokio::test]
async fn a_crowd_that_comes_at_once_is_kept_waiting_and_not_turned_away() {
    const CROWD: usize = 500;
    let shutdown = Shutdown::new();
    let server = Server::bind(options(Some(Router::new()), &shutdown, &Readiness::new()));
    let server = server.await.unwrap();
    let address = server.http_addr().unwrap();
    // Nothing is accepted yet.
    let crowd = (0..CROWD).map(|_| TcpStream::connect(address));
    let connected = timeout(PATIENCE, futures::future::try_join_all(crowd)).await;
    assert_eq!(connected.expect("not all found room").unwrap().len(), CROWD);
}

#[tokio::test]
async fn tasks_outlive_requests_and_jobs_are_awaited() {
    let (shutdown, (events, mut seen)) = (Shutdown::new(), mpsc::unbounded_channel());
    let (stop, from_task) = (shutdown.token(), events.clone());
    shutdown.task("batcher", async move {
        stop.cancelled().await;
        from_task.send("batcher told").unwrap();
    });
    let (draining, from_job) = (shutdown.draining(), events.clone());
    shutdown.job("upload", async move {
        draining.cancelled().await;
        from_job.send("job done").unwrap();
    });
    shutdown.job("short", async { Ok::<(), std::io::Error>(()) });
    let server = Server::bind(options(Some(Router::new()), &shutdown, &Readiness::new()))
        .await
        .unwrap();
    let running = tokio::spawn(server.run());
    shutdown.trigger();
    assert_eq!(seen.recv().await, Some("job done"));
    assert_eq!(seen.recv().await, Some("batcher told"));
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_restarting_task_is_started_again_until_the_end() {
    let (shutdown, (runs, mut ran)) = (Shutdown::new(), mpsc::unbounded_channel());
    let mut count = 0;
    shutdown.restarting_task("watcher", move || {
        count += 1;
        runs.send(count).unwrap();
        async { Err::<(), _>("connection lost") }
    });
    let server = Server::bind(options(None, &shutdown, &Readiness::new()))
        .await
        .unwrap();
    let running = tokio::spawn(server.run());
    for expected in 1..=3 {
        assert_eq!(ran.recv().await, Some(expected));
    }
    shutdown.trigger();
    running.await.unwrap().unwrap();
}
