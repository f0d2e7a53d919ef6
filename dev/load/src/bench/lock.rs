//! What a claim costs when a distributed lock guards it, against the one script: the same checks and the same
//! writes, once as separate commands between SET NX PX and a releasing script, once as the script that
//! `promotions` runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Script};
use uuid::Uuid;

use super::process::cpu_time;

/// The lease of the lock: many times what a claim takes.
const LOCK_LEASE_MS: u64 = 3_000;

/// Who did not get the lock asks again after a random part of this.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// The very script that the claim path runs.
pub(crate) const CLAIM_SCRIPT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../libs/sale-stock/src/scripts/claim.lua"
));

const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

/// CPU microseconds for each claim: Redis's share and the client's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) redis_us: f64,
    pub(crate) client_us: f64,
    pub(crate) per_second: f64,
}

impl Cost {
    /// Both shares.
    pub(crate) fn total_us(&self) -> f64 {
        self.redis_us + self.client_us
    }
}

/// How a claim is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    Script,
    Lock,
}

struct Keys {
    gate: String,
    claims: String,
    unsettled: String,
    lock: String,
}

/// Makes `count` claims by `concurrency` clients at once on one fresh sale and measures what they cost.
pub(crate) async fn measure(
    url: &str,
    redis_pid: u32,
    guard: Guard,
    count: usize,
    concurrency: usize,
) -> anyhow::Result<Cost> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let keys = Arc::new(open_sale(&mut connection, count).await?);
    let next = Arc::new(AtomicUsize::new(0));
    let own_pid = std::process::id();
    let (redis_before, client_before) = (cpu_time(redis_pid)?, cpu_time(own_pid)?);
    let began = std::time::Instant::now();
    let workers = (0..concurrency).map(|_| {
        let (keys, next, mut connection) =
            (Arc::clone(&keys), Arc::clone(&next), connection.clone());
        tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                match guard {
                    Guard::Script => claim_by_script(&mut connection, &keys).await?,
                    Guard::Lock => claim_under_lock(&mut connection, &keys).await?,
                }
            }
            anyhow::Ok(())
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker??;
    }
    let took = began.elapsed();
    let sold: usize = connection.hlen(&keys.claims).await?;
    ensure!(sold == count, "{guard:?} sold {sold} instead of {count}");
    let each =
        |before: Duration, after: Duration| (after - before).as_secs_f64() * 1e6 / count as f64;
    Ok(Cost {
        redis_us: each(redis_before, cpu_time(redis_pid)?),
        client_us: each(client_before, cpu_time(own_pid)?),
        per_second: count as f64 / took.as_secs_f64(),
    })
}

/// A gate as the ledger role writes it, on a sale of this benchmark's own.
async fn open_sale(connection: &mut MultiplexedConnection, stock: usize) -> anyhow::Result<Keys> {
    let tag = Uuid::new_v4();
    let key = |name: &str| format!("quokka:{{{tag}}}:{name}");
    let keys = Keys {
        gate: key("gate"),
        claims: key("claims"),
        unsettled: key("unsettled"),
        lock: key("lock"),
    };
    write_gate(connection, &keys.gate, stock).await?;
    Ok(keys)
}

/// Writes an open gate with a window that holds now.
pub(crate) async fn write_gate(
    connection: &mut MultiplexedConnection,
    gate: &str,
    stock: usize,
) -> anyhow::Result<()> {
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(connection)
        .await?;
    let run = info
        .lines()
        .find_map(|line| line.strip_prefix("run_id:"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    let fields = [
        ("epoch", "1".to_owned()),
        ("run", run),
        ("open", "1".to_owned()),
        ("starts", "0".to_owned()),
        ("ends", "9999999999999".to_owned()),
        ("stock", stock.to_string()),
        ("limit", "1".to_owned()),
        ("paused", "0".to_owned()),
        ("partitions", "3".to_owned()),
        ("seq", "0".to_owned()),
        ("held", "0".to_owned()),
    ];
    let () = connection.hset_multiple(gate, &fields).await?;
    Ok(())
}

async fn claim_by_script(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> anyhow::Result<()> {
    static CLAIM: std::sync::LazyLock<Script> =
        std::sync::LazyLock::new(|| Script::new(CLAIM_SCRIPT));
    let mut call = CLAIM.key(&keys.gate);
    call.key(&keys.claims)
        .key(&keys.unsettled)
        .arg(Uuid::now_v7().to_string())
        .arg(Uuid::now_v7().to_string())
        .arg("0");
    let _: redis::Value = call.invoke_async(connection).await?;
    Ok(())
}

async fn claim_under_lock(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> anyhow::Result<()> {
    static UNLOCK: std::sync::LazyLock<Script> = std::sync::LazyLock::new(|| Script::new(RELEASE));
    let owner = Uuid::new_v4().to_string();
    loop {
        let locked: Option<String> = redis::cmd("SET")
            .arg(&keys.lock)
            .arg(&owner)
            .arg("NX")
            .arg("PX")
            .arg(LOCK_LEASE_MS)
            .query_async(connection)
            .await?;
        if locked.is_some() {
            break;
        }
        let pause = rand::rng().random_range(Duration::ZERO..LOCK_RETRY);
        tokio::time::sleep(pause).await;
    }
    let field = format!("{}/0", Uuid::now_v7());
    let (gate, now, held, taken): (Vec<String>, (u64, u64), Option<String>, usize) = redis::pipe()
        .hmget(
            &keys.gate,
            &["open", "starts", "ends", "stock", "paused", "seq"],
        )
        .cmd("TIME")
        .hget(&keys.claims, &field)
        .hlen(&keys.claims)
        .query_async(connection)
        .await?;
    let now_ms = now.0 * 1_000 + now.1 / 1_000;
    let number = |index: usize| gate[index].parse::<u64>();
    let allowed = gate[0] == "1" && gate[4] == "0" && now_ms >= number(1)? && now_ms < number(2)?;
    if allowed && held.is_none() && (taken as u64) < number(3)? {
        let sequence = number(5)? + 1;
        let entry = format!("{}|P|{now_ms}|{sequence}|0|{now_ms}", Uuid::now_v7());
        let () = redis::pipe()
            .hset(&keys.claims, &field, entry)
            .zadd(&keys.unsettled, &field, now_ms)
            .hset(&keys.gate, "seq", sequence)
            .query_async(connection)
            .await?;
    }
    let _: i32 = UNLOCK
        .key(&keys.lock)
        .arg(&owner)
        .invoke_async(connection)
        .await?;
    Ok(())
}
