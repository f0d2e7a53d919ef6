//! Settings from environment variables, checked whole at start.
//!
//! [`Env`] reads every setting before it complains, so that one start names every mistake. A setting's value is
//! never printed: what is wrong with it is said in words, since any of them may carry a password.

mod setting;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use secrecy::SecretString;
use url::Url;

use crate::telemetry::TelemetryConfig;

pub use setting::{Setting, parse_duration};

/// What a process exits with when its settings can't work.
pub const EXIT_CODE: u8 = 2;

/// What the names of our variables begin with.
const PREFIX: &str = "QUOKKA_";

/// [`Env::unread`] of this process's own environment, kept until there is a log to tell it in.
static UNREAD: OnceLock<Vec<String>> = OnceLock::new();

/// Finds a variable by its name.
type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// The environment of a process, read setting by setting.
///
/// An accessor that meets a mistake remembers it and answers a placeholder, so that the reading goes on;
/// [`Env::finish`] then refuses to hand the placeholders over to anyone.
pub struct Env {
    process: String,
    variables: Box<Lookup>,
    /// The names of ours that are there.
    present: BTreeSet<String>,
    /// The environment is this process's own, and not one of a test.
    is_real: bool,
    read: BTreeSet<String>,
    mistakes: Vec<Mistake>,
}

impl Env {
    /// The environment of this process, called `process` in what is said about mistakes.
    pub fn new(process: impl Into<String>) -> Self {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Self {
            is_real: true,
            ..Self::with(process, names, |name| std::env::var_os(name))
        }
    }

    /// The environment of this process, called by the name of its executable.
    pub fn from_process() -> Self {
        let name = std::env::args_os().next().and_then(|path| {
            std::path::Path::new(&path)
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
        });
        Self::new(name.unwrap_or_else(|| "process".to_owned()))
    }

    /// An environment of its own, for tests.
    pub fn from_pairs<K, V>(
        process: impl Into<String>,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self
    where
        K: Into<String>,
        V: Into<OsString>,
    {
        let pairs: std::collections::HashMap<String, OsString> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let names: Vec<String> = pairs.keys().cloned().collect();
        Self::with(process, names, move |name| pairs.get(name).cloned())
    }

    fn with(
        process: impl Into<String>,
        names: impl IntoIterator<Item = String>,
        variables: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
    ) -> Self {
        Self {
            process: process.into(),
            variables: Box::new(variables),
            present: names
                .into_iter()
                .filter(|name| name.starts_with(PREFIX))
                .collect(),
            is_real: false,
            read: BTreeSet::new(),
            mistakes: Vec::new(),
        }
    }

    /// A setting that must be there.
    pub fn required<T: Setting>(&mut self, name: &str) -> T {
        match self.text(name) {
            Some(text) => self.parse(name, &text),
            None => {
                self.mistake(name, format!("is not set: give {}", T::describe()));
                T::placeholder()
            }
        }
    }

    /// A setting that may be left out. An empty value, or one of blanks, counts as left out.
    pub fn optional<T: Setting>(&mut self, name: &str) -> Option<T> {
        self.text(name).map(|text| self.parse(name, &text))
    }

    /// A setting with a default.
    pub fn or<T: Setting>(&mut self, name: &str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A setting that must be there and must never be shown.
    pub fn secret(&mut self, name: &str) -> SecretString {
        match self.text(name) {
            Some(text) => SecretString::from(text),
            None => {
                self.mistake(name, "is not set: give the secret text");
                SecretString::from("")
            }
        }
    }

    /// A URL with one of `schemes` that must be there and, since it may carry a password, must never be shown.
    pub fn secret_url(&mut self, name: &str, schemes: &[&str]) -> SecretString {
        let Some(text) = self.text(name) else {
            self.mistake(
                name,
                format!(
                    "is not set: give a URL such as {}://host",
                    schemes.join(":// or ")
                ),
            );
            return SecretString::from("");
        };
        match <Url as Setting>::parse(&text) {
            Ok(url) if schemes.contains(&url.scheme()) => {}
            Ok(_) => self.mistake(
                name,
                format!("has a wrong scheme: give {}://", schemes.join(":// or ")),
            ),
            Err(reason) => self.mistake(name, format!("{reason}: give {}", Url::describe())),
        }
        SecretString::from(text)
    }

    /// Says that a setting which could be read can't work, for instance because of another one.
    ///
    /// `reason` follows the setting's name in the message and must not contain its value.
    pub fn mistake(&mut self, name: &str, reason: impl Into<String>) {
        self.mistakes.push(Mistake {
            setting: name.to_owned(),
            reason: reason.into(),
        });
    }

    /// Refuses the settings if anything was wrong with them, and names all of it.
    pub fn finish(&mut self) -> Result<(), Mistakes> {
        if self.mistakes.is_empty() {
            if self.is_real {
                UNREAD.get_or_init(|| self.unread().map(ToOwned::to_owned).collect());
            }
            return Ok(());
        }
        Err(Mistakes {
            process: self.process.clone(),
            mistakes: std::mem::take(&mut self.mistakes),
        })
    }

    /// The names that were asked for, in order: what `--help` and a chart's check can be held against.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.read.iter().map(String::as_str)
    }

    /// The variables named as ours are that no setting has read: misspelt, or for another process. They are no mistake,
    /// since one environment may serve several processes; [`crate::serve::process`] logs them.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        self.present.difference(&self.read).map(String::as_str)
    }

    /// The value of a variable; `None` where it is missing, blank, or not text (which is a mistake).
    fn text(&mut self, name: &str) -> Option<String> {
        self.read.insert(name.to_owned());
        match (self.variables)(name)?.into_string() {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(text),
            Err(_) => {
                self.mistake(name, "is not UTF-8 text");
                None
            }
        }
    }

    fn parse<T: Setting>(&mut self, name: &str, text: &str) -> T {
        T::parse(text.trim()).unwrap_or_else(|reason| {
            self.mistake(name, format!("{reason}: give {}", T::describe()));
            T::placeholder()
        })
    }
}

/// What [`Env::unread`] was when this process had read its settings.
pub(crate) fn unread_variables() -> &'static [String] {
    UNREAD.get().map_or(&[], Vec::as_slice)
}

/// One setting that can't work, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The name of the environment variable.
    pub setting: String,
    /// What is wrong with it; never its value.
    pub reason: String,
}

/// Everything that is wrong with a process's settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    process: String,
    mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes in the order in which they were met.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.mistakes.iter()
    }

    /// Tells them on standard error and ends the process with [`EXIT_CODE`].
    ///
    /// Telemetry isn't there yet, so this is the one thing a process says in plain text.
    pub fn exit(&self) -> ! {
        eprintln!("{self}");
        std::process::exit(EXIT_CODE.into())
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = if self.mistakes.len() == 1 {
            "setting"
        } else {
            "settings"
        };
        write!(
            f,
            "{}: {} {settings} can't work",
            self.process,
            self.mistakes.len()
        )?;
        for mistake in &self.mistakes {
            write!(f, "\n  {} {}", mistake.setting, mistake.reason)?;
        }
        Ok(())
    }
}

/// The settings that every Quokka process has.
#[derive(Debug, Clone)]
pub struct Process {
    /// `QUOKKA_OPS_ADDR`: where /livez, /readyz and /metrics are served. Default 0.0.0.0:9090.
    pub ops_addr: SocketAddr,
    /// `QUOKKA_LOG`: a `tracing` filter. Default `info`.
    pub log_filter: String,
    /// `QUOKKA_OTLP_ENDPOINT`: where traces go, by gRPC. Left out: traces are not exported.
    pub otlp_endpoint: Option<Url>,
    /// `QUOKKA_SHUTDOWN_GRACE`: how long a shutdown may take. Default 20s.
    pub shutdown_grace: Duration,
    /// `QUOKKA_NAMESPACE`: the platform's namespace. Default `quokka`.
    pub namespace: String,
    /// `POD_NAME`: which of the replicas this is. Default: the host's name, or the process id.
    pub instance: String,
}

impl Process {
    /// Reads them; what is wrong with them is told by [`Env::finish`].
    pub fn read(env: &mut Env) -> Self {
        let log_filter = env.or("QUOKKA_LOG", "info".to_owned());
        if let Err(reason) = crate::telemetry::check_log_filter(&log_filter) {
            env.mistake(
                "QUOKKA_LOG",
                format!("{reason}: give a filter such as `info` or `info,sqlx=warn`"),
            );
        }
        let shutdown_grace = env.or("QUOKKA_SHUTDOWN_GRACE", Duration::from_secs(20));
        if shutdown_grace.is_zero() {
            env.mistake(
                "QUOKKA_SHUTDOWN_GRACE",
                "is no time at all: give a duration such as 20s",
            );
        }
        Self {
            ops_addr: env.or(
                "QUOKKA_OPS_ADDR",
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9090)),
            ),
            log_filter,
            otlp_endpoint: env.optional("QUOKKA_OTLP_ENDPOINT"),
            shutdown_grace,
            namespace: env.or("QUOKKA_NAMESPACE", "quokka".to_owned()),
            instance: env.optional("POD_NAME").unwrap_or_else(instance_name),
        }
    }

    /// What [`crate::telemetry::init`] wants to know about a process named `service_name`.
    pub fn telemetry(&self, service_name: &str, version: &str) -> TelemetryConfig {
        TelemetryConfig {
            service_name: service_name.to_owned(),
            namespace: self.namespace.clone(),
            version: version.to_owned(),
            instance: self.instance.clone(),
            log_filter: self.log_filter.clone(),
            otlp_endpoint: self.otlp_endpoint.clone(),
        }
    }
}

fn instance_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| format!("process-{}", std::process::id()))
}
