//! What runs while claims are measured: `promotions`, and the gateway before it.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::process::Command;
use uuid::Uuid;

use super::lock::{CLAIM_SCRIPT, write_gate};
use super::process::{self, Program};
use super::promotions::Promotions;
use super::servers::{Servers, free_addresses};

/// Calls that redis-benchmark makes.
const SCRIPT_CALLS: u32 = 200_000;

/// Everything that runs while claims are measured; it ends when this is dropped.
pub(crate) struct Stage {
    pub(crate) promotions: Promotions,
    pub(crate) gateway: SocketAddr,
    gateway_program: Program,
    pub(crate) servers: Servers,
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(servers: Servers) -> anyhow::Result<Self> {
        let promotions = Promotions::start(&servers).await?;
        // A yes rests on the log. The charts request a tenth of the CPU for the ledger that they do for the API, and a
        // production's PostgreSQL has cores of its own.
        println!(
            "  the ledger and PostgreSQL have a tenth of the others' share of a core that they compete for"
        );
        process::put_behind(promotions.ledger_program.pid()?)?;
        let postgres = servers.postgres.pid();
        process::put_behind(postgres.context("PostgreSQL has ended")?)?;
        let [gateway] = free_addresses();
        let upstreams = format!("quokka-users={0},quokka-promotions={0}", promotions.api);
        let of_gateway = [
            ("QUOKKA_HTTP_ADDR", gateway.to_string()),
            ("QUOKKA_UPSTREAMS", upstreams),
        ];
        let gateway_program = servers.program("gateway", &[], &of_gateway).await?;
        Ok(Self {
            promotions,
            gateway,
            gateway_program,
            servers,
        })
    }

    /// The endpoint of promotions that does nothing.
    pub(crate) fn nothing_path(&self) -> &'static str {
        "/v1/noop"
    }

    /// Our processes under measurement, by name.
    pub(crate) fn processes(&self) -> anyhow::Result<[(&'static str, u32); 3]> {
        Ok([
            ("promotions api", self.promotions.api_program.pid()?),
            ("promotions ledger", self.promotions.ledger_program.pid()?),
            ("gateway", self.gateway_program.pid()?),
        ])
    }

    /// Everything that works for a claim, by name.
    pub(crate) fn accounts(&self) -> anyhow::Result<Vec<(&'static str, u32)>> {
        let Servers {
            redis,
            kafka,
            postgres,
            ..
        } = &self.servers;
        Ok(vec![
            ("promotions api", self.promotions.api_program.pid()?),
            ("promotions ledger", self.promotions.ledger_program.pid()?),
            ("Kafka", kafka.pid().context("Kafka has ended")?),
            ("Redis", redis.pid().context("Redis has ended")?),
            (
                "PostgreSQL",
                postgres.pid().context("PostgreSQL has ended")?,
            ),
            ("load", std::process::id()),
        ])
    }

    /// Calls a second of the claim script alone, one claim a call, as redis-benchmark measures it.
    pub(crate) async fn script_by_redis_benchmark(
        &self,
        connections: usize,
    ) -> anyhow::Result<f64> {
        let tag = Uuid::new_v4();
        let key = |name: &str| format!("quokka:{{{tag}}}:{name}");
        let url = self.servers.redis.url();
        let mut redis = redis::Client::open(url.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        write_gate(&mut redis, &key("gate"), 10_000_000).await?;
        let digest: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(CLAIM_SCRIPT)
            .query_async(&mut redis)
            .await?;
        let port = url_port(&url)?;
        let claims = key("claims");
        let output = Command::new("redis-benchmark")
            .args([
                "-p",
                &port.to_string(),
                "-n",
                &SCRIPT_CALLS.to_string(),
                "-c",
                &connections.to_string(),
            ])
            .args(["-r", "1000000000", "--csv", "EVALSHA", &digest, "3"])
            .args([key("gate"), claims.clone(), key("unsettled")])
            .args(["user-__rand_int__", "claim-__rand_int__", "0"])
            .output()
            .await
            .context("starting redis-benchmark")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "redis-benchmark: {said}");
        // Refusals would be fast. Of so many random users a few are the same.
        let taken: u32 = redis::cmd("HLEN")
            .arg(&claims)
            .query_async(&mut redis)
            .await?;
        ensure!(
            taken >= SCRIPT_CALLS / 100 * 99,
            "{SCRIPT_CALLS} calls of the script took only {taken} units"
        );
        // They would take the memory of what is measured next.
        let keys = [key("gate"), claims, key("unsettled")];
        redis::cmd("UNLINK")
            .arg(&keys[..])
            .exec_async(&mut redis)
            .await?;
        // A header, then `"name","requests per second",latencies...`.
        let figure = said
            .lines()
            .last()
            .and_then(|line| line.split("\",\"").nth(1));
        figure
            .with_context(|| format!("no figure in {said}"))?
            .parse()
            .context("reading redis-benchmark's figure")
    }
}

fn url_port(url: &str) -> anyhow::Result<u16> {
    let end = url
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .context("a Redis address without a port")?;
    Ok(end.split('/').next().unwrap_or(end).parse()?)
}
