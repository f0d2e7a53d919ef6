//! PostgreSQL.

use std::{os::unix::fs::chown, path::PathBuf, process::Command, time::Duration};

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::sync::OnceCell;

use crate::{
    Error,
    error::While as _,
    free_port,
    process::{self, Server, Signal, Spec},
    storage, tools, unique_name,
};

/// Who owns everything; there is no password.
const USER: &str = "quokka";

/// Settings of a server whose data nobody will miss.
const FORGETFUL: &[&str] = &["fsync=off", "full_page_writes=off"];

/// Settings of a server that is there to be measured, with memory as on a machine of its own.
const UNDER_LOAD: &[&str] = &[
    "shared_buffers=1GB",
    "effective_cache_size=4GB",
    "work_mem=16MB",
    "max_wal_size=8GB",
    "random_page_cost=1.1",
];

/// Settings of a server to which many small pools connect.
const SETTINGS: &[&str] = &[
    "max_connections=300",
    "shared_buffers=64MB",
    "listen_addresses=127.0.0.1",
    // In its own folder, which goes with it; elsewhere, a killed server would leave it for ever.
    "dynamic_shared_memory_type=mmap",
];

/// How often a start is tried while the processes of a killed server still hold its memory.
const START_ATTEMPTS: u32 = 20;

/// A PostgreSQL server. It survives restarts and kills with its data.
pub struct Postgres {
    port: u16,
    server: Server,
}

/// A database of one test.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Where it is, such as `postgres://quokka@127.0.0.1:20001/test_abcdefgh`.
    pub url: String,
}

impl Database {
    /// A small pool of connections to it.
    pub async fn pool(&self) -> Result<PgPool, Error> {
        PgPoolOptions::new()
            .max_connections(8)
            .connect(&self.url)
            .await
            .map_err(|error| Error::answer(format!("connect to {}", self.url), error))
    }
}

impl Postgres {
    /// Where a program of PostgreSQL's is, such as `pgbench`: of the version that is started here.
    pub fn program(name: &str) -> Result<PathBuf, Error> {
        tools::find(name, &tools::postgres_folders())
    }

    /// Starts one of the caller's own.
    pub async fn start() -> Result<Self, Error> {
        let (initdb, program) = (Self::program("initdb")?, Self::program("postgres")?);
        let folder = process::data_folder("postgres-")?;
        let user = process::unprivileged("postgres");
        if let Some(user) = user {
            let (uid, gid) = ids_of(user)?;
            chown(folder.path(), Some(uid), Some(gid))
                .while_doing(|| format!("give {} to {user}", folder.path().display()))?;
        }
        let data = folder.path().join("data");
        let mut init = Command::new(initdb);
        init.arg("--pgdata").arg(&data).current_dir(folder.path());
        init.args([
            "--username",
            USER,
            "--auth",
            "trust",
            "--no-sync",
            "--encoding",
            "UTF8",
            "--no-locale",
        ]);
        process::run_once(init, user).await?;

        let port = free_port();
        let sockets = folder.path().to_owned();
        let spec = Spec {
            name: "postgres",
            command: Box::new(move || command(&program, &data, &sockets, port)),
            user,
            // Ends at once and lets go of its shared memory, which a killed postmaster can't.
            death_signal: "QUIT",
            ready_timeout: Duration::from_secs(60),
        };
        let postgres = Self {
            port,
            server: Server::new(spec, folder),
        };
        postgres.resume().await?;
        Ok(postgres)
    }

    /// The one that all tests of this binary share: each test makes a database of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                Self::start()
                    .await
                    .unwrap_or_else(|error| panic!("{error}"))
            })
            .await
    }

    /// Its port; the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of its first process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Where `database` is.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database with a name of its own.
    pub async fn create_database(&self) -> Result<Database, Error> {
        let name = unique_name("test").replace('-', "_");
        let mut connection = self.connect().await?;
        connection
            .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .map_err(|error| Error::answer(format!("create database {name}"), error))?;
        Ok(Database {
            url: self.url(&name),
            name,
        })
    }

    /// Kills it, as `kill -9` on its first process does.
    pub async fn kill(&self) -> Result<(), Error> {
        self.server.signal_and_wait(Signal::Kill).await
    }

    /// Stops it in good order, cutting off its clients.
    pub async fn stop(&self) -> Result<(), Error> {
        self.server.signal_and_wait(Signal::Interrupt).await
    }

    /// Starts it again on the same port with the same data.
    pub async fn resume(&self) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            match self
                .server
                .start(|| async { self.connect().await.is_ok() })
                .await
            {
                Err(Error::Server { .. }) if attempt < START_ATTEMPTS => attempt += 1,
                end => return end,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Stops it and starts it again.
    pub async fn restart(&self) -> Result<(), Error> {
        self.stop().await?;
        self.resume().await
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        PgConnection::connect(&self.url("postgres"))
            .await
            .map_err(|error| Error::answer("connect to PostgreSQL", error))
    }
}

fn command(program: &PathBuf, data: &PathBuf, sockets: &PathBuf, port: u16) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(sockets)
        .arg("-D")
        .arg(data)
        .args(["-p", &port.to_string(), "-k"])
        .arg(sockets);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    if storage::is_for_load() {
        for setting in UNDER_LOAD {
            command.args(["-c", setting]);
        }
    }
    if !storage::is_durable() {
        for setting in FORGETFUL {
            command.args(["-c", setting]);
        }
    }
    command
}

/// A user's ids, from the file that every Linux has.
fn ids_of(user: &str) -> Result<(u32, u32), Error> {
    let passwd =
        std::fs::read_to_string("/etc/passwd").while_doing(|| "read /etc/passwd".to_owned())?;
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&user))
        .and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))
        .ok_or_else(|| Error::MissingTool {
            program: format!("the user {user}"),
            looked: "/etc/passwd".to_owned(),
        })
}
