//! Kafka: one process, broker and controller in one (KRaft).

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::OnceCell,
    time::timeout,
};

use crate::{
    Error,
    error::While as _,
    free_port,
    process::{self, Server, Signal, Spec},
    storage, tools,
};

/// Small and quick to start rather than quick to run, as tests want it.
const QUICK_TO_START: &[&str] = &[
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dlog4j2.level=WARN",
];

/// As the local platform runs it: compiled in full, and with room for its collector, whose pauses are few that way. A
/// goal of short pauses makes it collect so often that most answers wait for one where cores are scarce.
const QUICK_TO_RUN: &[&str] = &[
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-Dlog4j2.level=WARN",
];

/// An answer with the list of brokers is small; more than this isn't one.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A Kafka broker. It survives restarts and kills with its data.
pub struct Kafka {
    port: u16,
    server: Server,
}

impl Kafka {
    /// Starts one of the caller's own: some seconds and some 350 MB.
    pub async fn start() -> Result<Self, Error> {
        let class_path = tools::kafka_class_path()?;
        let java = tools::find("java", &[])?;
        let folder = process::data_folder("kafka-")?;
        let (port, controller) = (free_port(), free_port());
        let properties = folder.path().join("server.properties");
        fs::write(&properties, properties_of(folder.path(), port, controller))
            .while_doing(|| format!("write {}", properties.display()))?;

        let java_with = move |main: &'static str| {
            let mut command = Command::new(&java);
            let jvm = if storage::is_for_load() {
                QUICK_TO_RUN
            } else {
                QUICK_TO_START
            };
            command.args(jvm).args(["-cp", &class_path, main]);
            command
        };
        let mut format = java_with("kafka.tools.StorageTool");
        format
            .args([
                "format",
                "--standalone",
                "--cluster-id",
                "quokkatestkitquokkatest",
                "--config",
            ])
            .arg(&properties);
        process::run_once(format, None).await?;

        let spec = Spec {
            name: "kafka",
            command: Box::new(move || {
                let mut command = java_with("kafka.Kafka");
                command.arg(&properties);
                command
            }),
            user: None,
            death_signal: "KILL",
            ready_timeout: Duration::from_secs(90),
        };
        let kafka = Self {
            port,
            server: Server::new(spec, folder),
        };
        kafka.resume().await?;
        Ok(kafka)
    }

    /// The one that all tests of this binary share: use topics and groups of your own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                Self::start()
                    .await
                    .unwrap_or_else(|error| panic!("{error}"))
            })
            .await
    }

    /// What clients bootstrap from, such as `127.0.0.1:20001`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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

    /// Starts it again on the same port with the same data, and waits until clients are served.
    pub async fn resume(&self) -> Result<(), Error> {
        self.server
            .start(|| async { self.brokers_known().await.is_ok_and(|count| count > 0) })
            .await
    }

    /// Kills it and starts it again.
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill().await?;
        self.resume().await
    }

    /// Makes it hang: connections stand, nothing is answered.
    pub fn freeze(&self) -> Result<(), Error> {
        self.server.signal(Signal::Freeze)
    }

    /// Ends a [`Kafka::freeze`].
    pub fn thaw(&self) -> Result<(), Error> {
        self.server.signal(Signal::Thaw)
    }

    /// How many brokers a client would be told of: a broker that isn't in service yet leaves itself out.
    ///
    /// A Metadata request of version 1 by hand, which spares every test the link with a client library.
    async fn brokers_known(&self) -> std::io::Result<i32> {
        const METADATA: i16 = 3;
        const VERSION: i16 = 1;
        const NO_CLIENT_ID: i16 = -1;
        const NO_TOPICS: i32 = 0;
        let mut request = Vec::new();
        request.extend(METADATA.to_be_bytes());
        request.extend(VERSION.to_be_bytes());
        request.extend(0_i32.to_be_bytes());
        request.extend(NO_CLIENT_ID.to_be_bytes());
        request.extend(NO_TOPICS.to_be_bytes());

        let ask = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream.write_i32(request.len() as i32).await?;
            stream.write_all(&request).await?;
            let length = stream.read_i32().await?;
            if !(8..=ANSWER_BYTES_MAX as i32).contains(&length) {
                return Err(std::io::Error::other("not an answer to Metadata"));
            }
            let _correlation = stream.read_i32().await?;
            stream.read_i32().await
        };
        timeout(Duration::from_secs(2), ask)
            .await
            .map_err(std::io::Error::other)?
    }
}

fn properties_of(folder: &Path, port: u16, controller: u16) -> String {
    let data = folder.join("data");
    format!(
        "process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=8388608
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
",
        data.display()
    )
}
