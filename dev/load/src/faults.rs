//! The faults that a chaos run makes, each named. They reach for the processes of the local platform.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::platform::Platform;
use crate::sale_run::Disturbance;
use crate::storm::Progress;

/// How long a storm may take to reach the point of the fault.
const STORM_PATIENCE: Duration = Duration::from_secs(60);

/// A server that was killed is left dead this long, so that clients see more than a reset connection.
const OUTAGE: Duration = Duration::from_secs(3);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Every claim-serving process gets SIGKILL.
    PromotionsKilled,
    /// The processes that write the ledger get SIGKILL.
    ConsumerKilled,
    /// The operator is killed before the start and stays dead until the guests are served.
    OperatorDead,
    /// Redis forgets everything.
    RedisFlushed,
    /// Redis is killed and starts again with nothing.
    RedisRestarted,
    /// Kafka is killed and starts again.
    KafkaRestarted,
    /// PostgreSQL is killed and starts again.
    PostgresRestarted,
    /// Redis forgets everything while the writers of the ledger die with a backlog.
    RedisFlushedAndConsumerKilled,
}

/// A fault, and when in a storm it comes.
pub(crate) struct Disturbed {
    pub(crate) fault: Fault,
    /// The fault comes when this many claims have been accepted.
    pub(crate) after_claims: usize,
}

impl Disturbance for Disturbed {
    async fn before_start(&self, platform: &Platform) -> anyhow::Result<()> {
        if self.fault == Fault::OperatorDead {
            platform.scale("quokka-operator", 0).await?;
        }
        Ok(())
    }

    async fn during(&self, platform: &Platform, progress: &Progress) -> anyhow::Result<()> {
        platform
            .until(
                "the storm has come to the point of the fault",
                STORM_PATIENCE,
                async || Ok(progress.claimed() >= self.after_claims),
            )
            .await?;
        match self.fault {
            Fault::OperatorDead => Ok(()),
            Fault::PromotionsKilled => kill("promotions", "api"),
            Fault::ConsumerKilled => kill("promotions", "ledger"),
            Fault::RedisFlushed => flush(platform).await,
            Fault::RedisFlushedAndConsumerKilled => {
                kill("promotions", "ledger")?;
                flush(platform).await
            }
            Fault::RedisRestarted => restart_server("redis").await,
            Fault::KafkaRestarted => restart_server("kafka").await,
            Fault::PostgresRestarted => restart_server("postgres").await,
        }
    }

    async fn after(&self, platform: &Platform) -> anyhow::Result<()> {
        if self.fault == Fault::OperatorDead {
            platform.scale("quokka-operator", 2).await?;
        }
        Ok(())
    }
}

async fn flush(platform: &Platform) -> anyhow::Result<()> {
    let mut redis = platform.redis().await?;
    redis::cmd("FLUSHALL")
        .exec_async(&mut redis)
        .await
        .context("flushing Redis")
}

/// SIGKILL to every process of this machine that runs `program` with `role` as its first argument.
fn kill(program: &str, role: &str) -> anyhow::Result<()> {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let mut words = command.split(|byte| *byte == 0);
        let is_program = words.next().is_some_and(|path| {
            path.rsplit(|byte| *byte == b'/').next() == Some(program.as_bytes())
        });
        if is_program && words.next() == Some(role.as_bytes()) {
            let status = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status()?;
            killed += usize::from(status.success());
        }
    }
    ensure!(
        killed > 0,
        "no process `{program} {role}` is running on this machine"
    );
    Ok(())
}

async fn restart_server(name: &str) -> anyhow::Result<()> {
    server("kill", name).await?;
    tokio::time::sleep(OUTAGE).await;
    server("start", name).await
}

async fn server(action: &str, name: &str) -> anyhow::Result<()> {
    let front_door = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../quokka");
    let output = Command::new(front_door)
        .args(["server", action, name])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "server {action} {name}: {} {said}",
        output.status
    );
    Ok(())
}
