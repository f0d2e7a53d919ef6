//! The binary as a process: started with settings, found by what it logs, ended by signals.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A condition that does not come true is a failure after this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A file with this text, as a mounted Secret would have it.
pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The binary with these settings and no others.
pub(crate) fn command(settings: &BTreeMap<&str, &str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_users"));
    command
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A running service; killed when dropped.
pub(crate) struct Process {
    child: Child,
    http: String,
    ops: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it on ports of its own choice, and learns them from what it logs.
    pub(crate) async fn start(settings: &BTreeMap<&str, &str>) -> Self {
        let mut settings = settings.clone();
        settings.extend([
            ("QUOKKA_HTTP_ADDR", "127.0.0.1:0"),
            ("QUOKKA_OPS_ADDR", "127.0.0.1:0"),
        ]);
        let mut child = command(&settings).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let sink = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                sink.lock().unwrap().push(line);
            }
        });
        let process = Self {
            child,
            http: String::new(),
            ops: String::new(),
            lines,
        };
        let (http, ops) = testkit::eventually(PATIENCE, async || process.listening()).await;
        Self {
            http,
            ops,
            ..process
        }
    }

    fn listening(&self) -> Option<(String, String)> {
        let line = self
            .logged()
            .into_iter()
            .find(|line| line["message"] == "serving")?;
        let http = line["http"]
            .as_str()?
            .trim_start_matches("Some(")
            .trim_end_matches(')')
            .to_owned();
        Some((http, line["ops"].as_str()?.to_owned()))
    }

    /// What it logged so far; each line has to be JSON.
    pub(crate) fn logged(&self) -> Vec<Value> {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The address of a path of the API.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The address of a path for operators.
    pub(crate) fn ops(&self, path: &str) -> String {
        format!("http://{}{path}", self.ops)
    }

    /// Asks it to end, as Kubernetes does.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the process ends")
            .unwrap()
    }
}
