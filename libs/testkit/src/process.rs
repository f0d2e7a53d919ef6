//! Server processes that die with the process that started them.
//!
//! Two mechanisms, since a killed test can't clean up: every server asks the kernel for a signal at its parent's
//! death (`setpriv --pdeathsig`), and one shell, blocked on a pipe that only this process holds open, removes the
//! folder of all data when the pipe closes.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    error::{Error, While as _},
    storage, tools,
};

/// Less room than this in memory, and the data goes to disk.
const MEMORY_BYTES_MIN: u64 = 2 << 30;

/// How much of a log an error shows.
const TAIL_BYTES: u64 = 4_096;

/// How often a process or its answer is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a server that was told to stop may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How a server is run: the same way at every start.
pub(crate) struct Spec {
    /// What it is called in errors.
    pub(crate) name: &'static str,
    /// The program with its arguments, environment and folder.
    pub(crate) command: Box<dyn Fn() -> Command + Send + Sync>,
    /// The user it runs as, if not this process's.
    pub(crate) user: Option<&'static str>,
    /// What it gets when this process dies: `KILL`, or something gentler that ends it as surely.
    pub(crate) death_signal: &'static str,
    /// How long it may take until it answers.
    pub(crate) ready_timeout: Duration,
}

/// A server, running or not.
pub(crate) struct Server {
    spec: Spec,
    folder: TempDir,
    child: Mutex<Option<Child>>,
}

/// Signals by name, as kill(1) takes them.
#[derive(Clone, Copy)]
pub(crate) enum Signal {
    Kill,
    Terminate,
    Interrupt,
    Freeze,
    Thaw,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Freeze => "STOP",
            Self::Thaw => "CONT",
        }
    }
}

/// A folder for a server's data, which goes with the server.
pub(crate) fn data_folder(name: &str) -> Result<TempDir, Error> {
    let home = home()?;
    let folder = tempfile::Builder::new()
        .prefix(name)
        .tempdir_in(home)
        .while_doing(|| format!("create a folder in {}", home.display()))?;
    // Servers may run as other users, who find their own folder by its full name.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))
        .while_doing(|| format!("open {}", folder.path().display()))?;
    Ok(folder)
}

impl Server {
    /// A server that isn't running yet.
    pub(crate) fn new(spec: Spec, folder: TempDir) -> Self {
        Self {
            spec,
            folder,
            child: Mutex::new(None),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn log(&self) -> PathBuf {
        self.folder().join("server.log")
    }

    /// Starts it and waits until `ready` says so.
    pub(crate) async fn start<F: Future<Output = bool>>(
        &self,
        ready: impl Fn() -> F,
    ) -> Result<(), Error> {
        assert!(self.child().is_none(), "{} runs already", self.spec.name);
        let mut command = dying_with_us(
            &(self.spec.command)(),
            self.spec.death_signal,
            self.spec.user,
        )?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .while_doing(|| format!("open {}", self.log().display()))?;
        let log_again = log
            .try_clone()
            .while_doing(|| format!("open {}", self.log().display()))?;
        command.stdin(Stdio::null()).stdout(log).stderr(log_again);
        let child = spawn(command).while_doing(|| format!("start {}", self.spec.name))?;
        *self.child() = Some(child);

        let deadline = Instant::now() + self.spec.ready_timeout;
        loop {
            if let Some(status) = self.ended() {
                return Err(self.failed(format!("ended with {status}")));
            }
            if ready().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.signal_and_wait(Signal::Kill).await?;
                return Err(self.failed(format!(
                    "does not answer after {:?}",
                    self.spec.ready_timeout
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let status = Command::new("kill")
            .args(["-s", signal.name(), &pid.to_string()])
            .status();
        match status.while_doing(|| format!("signal {}", self.spec.name))? {
            status if status.success() => Ok(()),
            status => Err(Error::answer(
                format!("kill -s {} {pid}", signal.name()),
                status,
            )),
        }
    }

    /// Ends it with a signal and waits until it is gone; kills it if it doesn't go.
    pub(crate) async fn signal_and_wait(&self, signal: Signal) -> Result<(), Error> {
        self.signal(signal)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.pid().is_some() && self.ended().is_none() {
            if Instant::now() > deadline {
                self.signal(Signal::Kill)?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The process's id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// The status it ended with, once.
    fn ended(&self) -> Option<std::process::ExitStatus> {
        let mut child = self.child();
        let status = child.as_mut()?.try_wait().ok()??;
        *child = None;
        Some(status)
    }

    pub(crate) fn failed(&self, reason: impl Into<String>) -> Error {
        let tail = tail(&self.log()).unwrap_or_else(|error| format!("(no log: {error})"));
        Error::Server {
            server: self.spec.name.to_owned(),
            reason: reason.into(),
            log: self.log(),
            tail,
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            // It may have ended by itself; either way it is gone after this.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a program of a server to its end, such as initdb.
pub(crate) async fn run_once(command: Command, user: Option<&'static str>) -> Result<(), Error> {
    let mut command = dying_with_us(&command, "KILL", user)?;
    let shown = format!("{command:?}");
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(|error| Error::answer(&shown, error))?
        .while_doing(|| shown.clone())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    Err(Error::answer(shown, format!("{}\n{said}", output.status)))
}

/// The user that a server runs as which refuses to run as root; none when this process isn't root either.
pub(crate) fn unprivileged(user: &'static str) -> Option<&'static str> {
    (own_uid() == Some(0)).then_some(user)
}

/// Who this process runs as.
pub(crate) fn own_uid() -> Option<u32> {
    Some(fs::metadata("/proc/self").ok()?.uid())
}

/// The same command, run as `user` and sent `signal` when the thread that starts it dies.
fn dying_with_us(command: &Command, signal: &str, user: Option<&str>) -> Result<Command, Error> {
    let mut wrapped = Command::new(tools::find("setpriv", &[])?);
    wrapped.args(["--pdeathsig", signal]);
    if let Some(user) = user {
        wrapped.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    Ok(wrapped)
}

/// Starts a command from a thread that lives as long as the process: the kernel's death signal is sent when the
/// *thread* ends that started a child, and the threads of tests end with each test.
fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::SyncSender<io::Result<Child>>);
    static STARTER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("testkit-starter".to_owned())
            .spawn(move || {
                for (mut command, reply) in requests {
                    // Whoever asked is waiting; a lost reply means that its thread is gone.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts servers is gone");
    STARTER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// The folder of all data of this process, removed after its death.
fn home() -> Result<&'static Path, Error> {
    static HOME: LazyLock<Result<PathBuf, String>> =
        LazyLock::new(|| make_home().map_err(|error| error.to_string()));
    HOME.as_deref()
        .map_err(|error| Error::answer("create the folder of test data", error))
}

fn make_home() -> io::Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let parent = if !storage::is_durable() && room_in(memory) >= MEMORY_BYTES_MIN {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let home = tempfile::Builder::new()
        .prefix("quokka-testkit-")
        .tempdir_in(parent)?
        .keep();
    fs::set_permissions(&home, Permissions::from_mode(0o755))?;
    // A process group of its own: an interrupt from the terminal must not take it before it has cleaned up.
    let mut cleaner = Command::new("sh")
        .args([
            "-c",
            r#"cat >/dev/null; until rm -rf "$1" 2>/dev/null; do sleep 0.1; done"#,
            "sh",
        ])
        .arg(&home)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    // The pipe closes when the process ends, however it ends.
    std::mem::forget(cleaner.stdin.take());
    Ok(home)
}

/// Bytes that are free in a folder's file system, as df(1) says; none if it can't.
fn room_in(folder: &Path) -> u64 {
    let output = Command::new("df")
        .args(["--output=avail", "--block-size=1"])
        .arg(folder)
        .output();
    output
        .ok()
        .and_then(|output| {
            String::from_utf8(output.stdout)
                .ok()?
                .lines()
                .nth(1)?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or_default()
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
