//! The faults that a chaos run makes, each named. They reach for the processes of the local platform.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use tokio::process::Command;

use crate::checker::Conditions;
use crate::platform::{Declared, Platform};
use crate::sale_run::{Disturbance, Made};
use crate::storm::Progress;

/// How long a storm may take to reach the point of the fault.
const STORM_PATIENCE: Duration = Duration::from_secs(60);

/// A server that was killed is left dead this long, so that clients see more than a reset connection.
pub(crate) const OUTAGE: Duration = Duration::from_secs(3);

/// With the writers of the ledger stopped, so many claims are left in the log.
const BACKLOG: usize = 200;

/// Between the declaration and the start of a sale whose operator is to be dead by then.
const LEAD_TO_KILL_THE_OPERATOR: SignedDuration = SignedDuration::from_secs(30);

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
    /// Redis forgets everything and the writers of the ledger die, with claims in the log that nobody has read.
    RedisFlushedAndConsumerKilled,
    /// Redis forgets everything while one writer of the ledger hangs, so that nobody reads its part of the log, and another
    /// recovers the sale.
    RedisFlushedWhileAReaderHangs,
    /// Nothing; for planted bugs that show without a fault.
    Nothing,
}

/// A fault, and when in a storm it comes.
pub(crate) struct Disturbed {
    pub(crate) fault: Fault,
    /// The fault comes when this many claims have been accepted.
    pub(crate) after_claims: usize,
    /// Units for sale: some must be left when the fault has come.
    pub(crate) stock: usize,
}

impl Disturbance for Disturbed {
    fn conditions(&self) -> Conditions {
        match self.fault {
            Fault::Nothing | Fault::OperatorDead => Conditions::Quiet,
            _ => Conditions::Disturbed,
        }
    }

    fn lead(&self) -> SignedDuration {
        match self.fault {
            Fault::OperatorDead => LEAD_TO_KILL_THE_OPERATOR,
            _ => SignedDuration::from_secs(15),
        }
    }

    async fn before_start(&self, platform: &Platform) -> anyhow::Result<()> {
        if self.fault == Fault::OperatorDead {
            kill_the_operator(platform).await?;
        }
        Ok(())
    }

    async fn during(
        &self,
        platform: &Platform,
        sale: &Declared,
        progress: &Progress,
    ) -> anyhow::Result<Option<Made>> {
        if matches!(self.fault, Fault::Nothing | Fault::OperatorDead) {
            return Ok(None);
        }
        reached(platform, progress, self.after_claims).await?;
        let at = match self.fault {
            Fault::Nothing | Fault::OperatorDead => return Ok(None),
            Fault::PromotionsKilled => {
                signal(platform, "KILL", "promotions", Some("api"), None).await?
            }
            Fault::ConsumerKilled => {
                signal(platform, "KILL", "promotions", Some("ledger"), None).await?
            }
            Fault::RedisFlushed => flush(platform).await?,
            Fault::RedisFlushedAndConsumerKilled => {
                signal(platform, "STOP", "promotions", Some("ledger"), None).await?;
                reached(platform, progress, progress.claimed() + BACKLOG).await?;
                let at = flush(platform).await?;
                signal(platform, "KILL", "promotions", Some("ledger"), None).await?;
                at
            }
            Fault::RedisFlushedWhileAReaderHangs => {
                let reader = platform.ledger_that_only_reads(sale).await?;
                let ledger = Some("ledger");
                signal(platform, "STOP", "promotions", ledger, Some(&reader)).await?;
                reached(platform, progress, progress.claimed() + BACKLOG).await?;
                let at = flush(platform).await?;
                // Its partitions stay its own until its session is over.
                signal(platform, "KILL", "promotions", ledger, Some(&reader)).await?;
                at
            }
            Fault::RedisRestarted => killed("redis").await?,
            Fault::KafkaRestarted => killed("kafka").await?,
            Fault::PostgresRestarted => killed("postgres").await?,
        };
        let claimed = progress.claimed();
        ensure!(
            claimed < self.stock,
            "the fault came when everything was sold: nothing is shown by this run"
        );
        println!("  the fault came after {claimed} claims");
        if let Some(server) = self.server() {
            tokio::time::sleep(OUTAGE).await;
            server_does("start", server).await?;
        }
        Ok(Some(Made {
            at,
            redis_lost: matches!(
                self.fault,
                Fault::RedisFlushed
                    | Fault::RedisRestarted
                    | Fault::RedisFlushedAndConsumerKilled
                    | Fault::RedisFlushedWhileAReaderHangs
            ),
        }))
    }

    async fn after(&self, platform: &Platform) -> anyhow::Result<()> {
        if let Some(server) = self.server() {
            server_does("start", server).await?;
        }
        if self.fault == Fault::OperatorDead {
            platform.scale("quokka-operator", 2).await?;
        }
        Ok(())
    }
}

impl Disturbed {
    /// The server that is killed and started again.
    fn server(&self) -> Option<&'static str> {
        match self.fault {
            Fault::RedisRestarted => Some("redis"),
            Fault::KafkaRestarted => Some("kafka"),
            Fault::PostgresRestarted => Some("postgres"),
            _ => None,
        }
    }
}

async fn reached(platform: &Platform, progress: &Progress, claims: usize) -> anyhow::Result<()> {
    platform
        .until(
            "the storm has come to the point of the fault",
            STORM_PATIENCE,
            async || Ok(progress.claimed() >= claims),
        )
        .await
}

/// SIGKILL, not a shutdown, and nobody starts it again.
async fn kill_the_operator(platform: &Platform) -> anyhow::Result<()> {
    platform.set_replicas("quokka-operator", 0).await?;
    signal(platform, "KILL", "quokka-operator", None, None).await?;
    platform
        .until(
            "no pod of the operator is left",
            STORM_PATIENCE,
            async || {
                let pods = platform.pods("app.kubernetes.io/name=quokka-operator");
                Ok(pods.await?.is_empty())
            },
        )
        .await
}

async fn flush(platform: &Platform) -> anyhow::Result<Timestamp> {
    let mut redis = platform.redis().await?;
    let at = Timestamp::now();
    redis::cmd("FLUSHALL")
        .exec_async(&mut redis)
        .await
        .context("flushing Redis")?;
    Ok(at)
}

/// A signal to every process of the platform's pods that runs `program`, with `role` as its first argument if one is
/// given; only to those of one pod, named by its uid, if one is given. Whatever else runs on this machine is left alone.
pub(crate) async fn signal(
    platform: &Platform,
    signal: &str,
    program: &str,
    role: Option<&str>,
    pod: Option<&str>,
) -> anyhow::Result<Timestamp> {
    let pods = match pod {
        Some(uid) => vec![uid.to_owned()],
        None => {
            let pods = platform.pods("").await?.into_iter();
            pods.filter_map(|pod| pod.metadata.uid).collect()
        }
    };
    let at = Timestamp::now();
    let mut told = 0;
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
        // A pod's control group bears its uid.
        let is_in_pod = || {
            std::fs::read_to_string(entry.path().join("cgroup"))
                .is_ok_and(|groups| pods.iter().any(|pod| groups.contains(pod)))
        };
        if is_program
            && is_in_pod()
            && role.is_none_or(|role| words.next() == Some(role.as_bytes()))
        {
            let status = std::process::Command::new("kill")
                .args(["-s", signal, &pid.to_string()])
                .status()?;
            told += usize::from(status.success());
        }
    }
    ensure!(
        told > 0,
        "no process `{program} {}` is running in the platform's pods",
        role.unwrap_or_default()
    );
    Ok(at)
}

async fn killed(server: &str) -> anyhow::Result<Timestamp> {
    let at = Timestamp::now();
    server_does("kill", server).await?;
    Ok(at)
}

pub(crate) async fn server_does(action: &str, name: &str) -> anyhow::Result<()> {
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
