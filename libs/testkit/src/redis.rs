//! Redis.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::OnceCell,
    time::timeout,
};

use crate::{
    Error, free_port,
    process::{self, Server, Signal, Spec},
    tools,
};

/// How long a command of ours may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis server without persistence: whatever ends it, it starts again empty and with another run id.
pub struct Redis {
    port: u16,
    server: Server,
}

impl Redis {
    /// Starts one of the caller's own.
    pub async fn start() -> Result<Self, Error> {
        let program = tools::find("redis-server", &[])?;
        let folder = process::data_folder("redis-")?;
        let port = free_port();
        let data = folder.path().to_owned();
        let spec = Spec {
            name: "redis",
            command: Box::new(move || {
                let mut command = Command::new(&program);
                command
                    .args([
                        "--port",
                        &port.to_string(),
                        "--bind",
                        "127.0.0.1",
                        "--save",
                        "",
                        "--appendonly",
                        "no",
                    ])
                    .args(["--enable-debug-command", "yes", "--dir"])
                    .arg(&data);
                command
            }),
            user: None,
            death_signal: "KILL",
            ready_timeout: Duration::from_secs(30),
        };
        let redis = Self {
            port,
            server: Server::new(spec, folder),
        };
        redis.resume().await?;
        Ok(redis)
    }

    /// The one that all tests of this binary share: use keys of your own, and don't flush it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Redis> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                Self::start()
                    .await
                    .unwrap_or_else(|error| panic!("{error}"))
            })
            .await
    }

    /// Where it is, such as `redis://127.0.0.1:20001`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port; the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Kills it, as `kill -9` does.
    pub async fn kill(&self) -> Result<(), Error> {
        self.server.signal_and_wait(Signal::Kill).await
    }

    /// Stops it in good order.
    pub async fn stop(&self) -> Result<(), Error> {
        self.server.signal_and_wait(Signal::Terminate).await
    }

    /// Starts it again, empty, on the same port.
    pub async fn resume(&self) -> Result<(), Error> {
        self.server
            .start(|| async {
                self.command("PING")
                    .await
                    .is_ok_and(|answer| answer == "+PONG")
            })
            .await
    }

    /// Kills it and starts it again: everything is lost, and the run id is another.
    pub async fn restart_empty(&self) -> Result<(), Error> {
        self.kill().await?;
        self.resume().await
    }

    /// Loses everything; the process stays, and with it the run id.
    pub async fn flush(&self) -> Result<(), Error> {
        match self.command("FLUSHALL").await? {
            answer if answer == "+OK" => Ok(()),
            answer => Err(Error::answer("FLUSHALL", answer)),
        }
    }

    /// Makes it hang: connections stand, nothing is answered.
    pub fn freeze(&self) -> Result<(), Error> {
        self.server.signal(Signal::Freeze)
    }

    /// Ends a [`Redis::freeze`].
    pub fn thaw(&self) -> Result<(), Error> {
        self.server.signal(Signal::Thaw)
    }

    /// The first line of the answer to a command without arguments.
    async fn command(&self, command: &str) -> Result<String, Error> {
        let ask = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream
                .write_all(format!("{command}\r\n").as_bytes())
                .await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await?;
            Ok::<_, std::io::Error>(line.trim_end().to_owned())
        };
        match timeout(COMMAND_TIMEOUT, ask).await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(Error::answer(command, error)),
            Err(_) => Err(Error::answer(command, "no answer")),
        }
    }
}
