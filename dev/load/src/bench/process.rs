//! A process under measurement.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::http::{Call, Connection};

/// Linux counts CPU time for `/proc` in hundredths of a second on every architecture it runs on.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// How long a program may take until it is ready.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// CPU time, user and system, that the process with this id has used so far.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let fields = stat(pid).with_context(|| format!("process {pid} has ended"))?;
    added_up(&fields, OWN_TIMES)
}

/// utime and stime, fields 14 and 15 of proc(5), as [`stat`] counts.
const OWN_TIMES: Range<usize> = 11..13;

/// The same, and those of children that were waited for.
const ALL_TIMES: Range<usize> = 11..15;

fn added_up(fields: &[String], times: Range<usize>) -> anyhow::Result<Duration> {
    let times = fields.get(times).context("no CPU times in /proc")?;
    let ticks = times.iter().map(|field| field.parse::<u32>());
    Ok(CLOCK_TICK * ticks.sum::<Result<u32, _>>()?)
}

/// What `/proc` tells of a process after its name, which may hold spaces, unless it has ended: field 3 of proc(5) and
/// what follows.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some(fields.map(str::to_owned).collect())
}

/// The children that a process has now, with what is told of them.
fn children(pid: u32) -> anyhow::Result<Vec<(u32, Vec<String>)>> {
    let parent = pid.to_string();
    Ok(std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|child| Some((child, stat(child)?)))
        .filter(|(_, fields)| fields.get(1) == Some(&parent))
        .collect())
}

/// CPU time of a process and of its children, those that have ended included: a PostgreSQL works in its children.
fn cpu_time_of_family(pid: u32) -> anyhow::Result<Duration> {
    let own = stat(pid).with_context(|| format!("process {pid} has ended"))?;
    // A child that ends meanwhile is its parent's.
    let mut sum = added_up(&own, ALL_TIMES)?;
    for (_, child) in children(pid)? {
        sum += added_up(&child, OWN_TIMES)?;
    }
    Ok(sum)
}

/// About a tenth of the share of a core that others have, where it competes with them: each step of niceness is a factor
/// of 1.25 (sched(7)).
const BEHIND: &str = "10";

/// Lets a process, its threads and its children work in what others leave of the cores; those that it starts later too.
pub(crate) fn put_behind(pid: u32) -> anyhow::Result<()> {
    let mut threads = Vec::new();
    let children = children(pid)?.into_iter().map(|(child, _)| child);
    for process in std::iter::once(pid).chain(children) {
        // One that has ended meanwhile has no threads.
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
        let names = tasks.into_iter().flatten().filter_map(Result::ok);
        threads.extend(names.map(|task| task.file_name()));
    }
    let output = std::process::Command::new("renice")
        .args(["-n", BEHIND, "-p"])
        .args(threads)
        .env("LC_ALL", "C")
        .output()
        .context("starting renice, of Debian's bsdutils")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let mut failures = said.lines();
    let has_ended = |line: &str| line.contains("No such process");
    let done = output.status.success() || (!said.is_empty() && failures.all(has_ended));
    anyhow::ensure!(done, "renice: {said}");
    Ok(())
}

/// What CPU time some processes take for a piece of work.
pub(crate) struct Account {
    processes: Vec<(&'static str, u32)>,
    began: Vec<Duration>,
    took: Vec<Duration>,
}

impl Account {
    /// Of these processes, by name; PostgreSQL by its first one.
    pub(crate) fn new(processes: Vec<(&'static str, u32)>) -> Self {
        Self {
            began: Vec::new(),
            took: vec![Duration::ZERO; processes.len()],
            processes,
        }
    }

    fn read(&self) -> anyhow::Result<Vec<Duration>> {
        let pids = self.processes.iter().map(|(_, pid)| *pid);
        // The servers are children of this very process.
        let us = std::process::id();
        pids.map(|pid| match pid {
            pid if pid == us => cpu_time(pid),
            pid => cpu_time_of_family(pid),
        })
        .collect()
    }

    /// From now on it counts.
    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        self.began = self.read()?;
        Ok(())
    }

    /// Until now it counted.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        let now = self.read()?;
        for ((took, now), began) in self.took.iter_mut().zip(now).zip(&self.began) {
            *took += now.saturating_sub(*began);
        }
        Ok(())
    }

    /// Prints what each took for each of `count` pieces, and its share of all.
    pub(crate) fn print(&self, piece: &str, count: usize) {
        let each = |took: &Duration| took.as_secs_f64() * 1e6 / count as f64;
        let all: Duration = self.took.iter().sum();
        println!("  CPU for each {piece}: {:.0} us", each(&all));
        for ((name, _), took) in self.processes.iter().zip(&self.took) {
            let share = took.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE);
            println!(
                "    {name:<18} {:>7.0} us  {:>3.0} %",
                each(took),
                share * 100.0
            );
        }
    }
}

/// The most memory, in MB, that the process has had resident.
pub(crate) fn peak_resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no VmHWM in /proc")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1.024 / 1000.0)
}

/// A program of ours that runs for the length of a benchmark.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts `program` and waits until its readiness endpoint at `ops_port` says yes.
    pub(crate) async fn start(
        folder: &Path,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, String)],
        ops_port: u16,
    ) -> anyhow::Result<Self> {
        let path = folder.join(program);
        let log = std::fs::File::create(
            std::env::temp_dir().join(format!("bench-{program}-{}.log", arguments.join("-"))),
        )?;
        // It ends with us even when we are killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&path)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .kill_on_drop(true)
            .stdout(log.try_clone()?)
            .stderr(log);
        command.envs(
            environment
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        command.env("QUOKKA_OPS_ADDR", format!("127.0.0.1:{ops_port}"));
        let child = command.spawn().with_context(|| {
            format!("starting {}; was it built with --release?", path.display())
        })?;
        let mut started = Self { child };
        started.wait_until_ready(program, ops_port).await?;
        Ok(started)
    }

    async fn wait_until_ready(&mut self, program: &str, ops_port: u16) -> anyhow::Result<()> {
        let mut ops = Connection::new(([127, 0, 0, 1], ops_port).into());
        let ready = Call::get("/readyz".parse()?);
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{program} ended while starting: {status}; its log is in {}",
                    std::env::temp_dir().display()
                );
            }
            let answer = ops.send(&ready, Duration::from_secs(1)).await;
            if answer
                .as_ref()
                .is_ok_and(|answer| answer.status.is_success())
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                let said = answer
                    .map(|answer| String::from_utf8_lossy(&answer.body).into_owned())
                    .unwrap_or_default();
                bail!("{program} is not ready after {START_PATIENCE:?}: {said}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }
}
