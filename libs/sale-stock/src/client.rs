//! The typed client of the scripts. Every call ends within the configured timeouts; a Redis that is gone
//! is an error at once and found again by itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::ConnectionManager;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use uuid::fmt::Hyphenated;

use crate::link::Link;
use crate::scripts::{Scripts, Source};
use crate::{
    ClaimReply, ClaimRequest, Closing, Ending, Entry, EntryRef, Epoch, GATE_WRITE_VALIDITY, Gate,
    GateTerms, GateUpdate, GateWrite, GiveBack, Holding, NewGate, OpenReply, Outcome,
    PER_USER_LIMIT_MAX, Rebuild, RebuiltEntry, SaleUid, Sequence, SettleClock, Settled, Slot,
    Snapshot, Stale, Stock, UnixMillis, Unopened, UserId,
};

/// Most requests of one claim call: keeps the script short and its lists below Lua's limit.
const CLAIM_BATCH_MAX: usize = 256;

/// Most entries of one rebuilding call, and of one that ends claims, for the same reasons.
const ENTRIES_MAX: usize = 1_000;

/// Most entries of one settling call. Every claim is settled once, in the middle of the rush, and the claims of others
/// wait for a call that runs: it has to be as short as theirs.
const SETTLED_MAX: usize = 64;

/// A rebuild that nobody finished is gone after this many seconds.
const REBUILD_TTL_SECONDS: i64 = 600;

/// Where Redis is and how long it may take.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://host:port`.
    pub url: String,
    /// From sending a command to its reply.
    pub response_timeout: Duration,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
}

impl RedisSettings {
    /// The given address with timeouts of a second.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            response_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
        }
    }
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// The settings can't be used.
    #[error("use the Redis address: {0}")]
    Settings(#[source] RedisError),
    /// Redis can't be reached, didn't answer in time or refused. Whether the script ran is unknown.
    #[error("{doing} in Redis: {source}")]
    Redis {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: RedisError,
    },
    /// The server is a replica: a failover has demoted it, or the address names the wrong one.
    #[error("the Redis at the address is not a primary")]
    Replica,
    /// The reply is not one that the script gives.
    #[error("{doing} in Redis: unexpected reply {reply}")]
    Reply {
        /// What was being done.
        doing: &'static str,
        /// The reply, for people.
        reply: String,
    },
}

/// The stock of every sale. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct SaleStock {
    link: Arc<Link>,
    scripts: Arc<Scripts>,
}

impl std::fmt::Debug for SaleStock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaleStock").finish_non_exhaustive()
    }
}

struct Keys {
    gate: String,
    claims: String,
    unsettled: String,
}

impl Keys {
    fn of(sale: SaleUid) -> Self {
        Self {
            gate: format!("quokka:{{{sale}}}:gate"),
            claims: format!("quokka:{{{sale}}}:claims"),
            unsettled: format!("quokka:{{{sale}}}:unsettled"),
        }
    }
}

fn field(user: UserId, slot: Slot) -> String {
    format!("{user}/{slot}")
}

fn parse_field(text: &str) -> Option<(UserId, Slot)> {
    let (user, slot) = text.split_once('/')?;
    Some((user.parse().ok()?, Slot(slot.parse().ok()?)))
}

impl SaleStock {
    /// Uses the server at the address; connects with the first call, and again whenever the connection is
    /// lost. Must be called on a tokio runtime.
    pub fn connect_lazy(settings: &RedisSettings) -> Result<Self, StockError> {
        Ok(Self {
            link: Arc::new(Link::new(settings)?),
            scripts: Arc::new(Scripts::new()),
        })
    }

    /// Whether Redis answers, as a primary.
    pub async fn ping(&self) -> Result<(), StockError> {
        const DOING: &str = "ask for its role";
        let connection = self.link.connection();
        // Without a span: it is asked for ever.
        let asked = self.send(&redis::cmd("ROLE")).await;
        let reply = asked.map_err(|source| StockError::Redis {
            doing: DOING,
            source,
        })?;
        let parts = array(DOING, reply)?;
        let role = parts.first().ok_or_else(|| unexpected(DOING, &parts))?;
        if text(DOING, role)? == "master" {
            return Ok(());
        }
        self.link.replace(&connection);
        Err(StockError::Replica)
    }

    /// Redis's clock.
    pub async fn time(&self) -> Result<UnixMillis, StockError> {
        const DOING: &str = "read the clock";
        let reply = self.query(DOING, "TIME", &redis::cmd("TIME")).await?;
        let parts = array(DOING, reply)?;
        match parts.as_slice() {
            [seconds, micros] => {
                let seconds: i64 = parse_text(DOING, seconds)?;
                let micros: i64 = parse_text(DOING, micros)?;
                Ok(UnixMillis(seconds * 1_000 + micros / 1_000))
            }
            other => Err(unexpected(DOING, &other)),
        }
    }

    /// Puts every script into the server's cache, so that the first claim needn't.
    pub async fn load_scripts(&self) -> Result<(), StockError> {
        for script in self.scripts.all() {
            self.query("load a script", "SCRIPT LOAD", &load(script))
                .await?;
        }
        Ok(())
    }

    /// Takes units for up to 256 requests of one sale.
    pub async fn claim(
        &self,
        sale: SaleUid,
        requests: &[ClaimRequest],
    ) -> Result<ClaimReply, StockError> {
        const DOING: &str = "claim";
        debug_assert!(!requests.is_empty() && requests.len() <= CLAIM_BATCH_MAX);
        let mut command = self.call(&self.scripts.claim, &Keys::of(sale));
        let mut buffer = [0_u8; Hyphenated::LENGTH];
        for request in requests {
            command.arg(&*request.user.0.hyphenated().encode_lower(&mut buffer));
            command.arg(&*request.claim.0.hyphenated().encode_lower(&mut buffer));
            command.arg(hex16(request.key.0).as_slice());
        }
        let reply = self.run(DOING, &self.scripts.claim, &command).await?;
        parse_claim_reply(reply, requests.len())
    }

    /// Gives back units whose append is certain not to be in the log (R4); answers how many were.
    pub async fn give_back(&self, sale: SaleUid, entries: &[GiveBack]) -> Result<u32, StockError> {
        const DOING: &str = "give back units";
        let mut given = 0;
        for chunk in entries.chunks(ENTRIES_MAX) {
            let mut command = self.call(&self.scripts.give_back, &Keys::of(sale));
            for back in chunk {
                command
                    .arg(field(back.entry.user, back.entry.slot))
                    .arg(back.entry.claim.to_string())
                    .arg(back.claimed_at.0);
            }
            let reply = self.run(DOING, &self.scripts.give_back, &command).await?;
            given += count(DOING, &reply)?;
        }
        Ok(given)
    }

    /// After a commit of the ledger: marks the claims that it has recorded, and removes the entries of those
    /// that it knows to be ended or voided. Safe to repeat.
    pub async fn settle(
        &self,
        sale: SaleUid,
        recorded: &[EntryRef],
        removed: &[EntryRef],
    ) -> Result<Settled, StockError> {
        const DOING: &str = "settle entries";
        let mut total = Settled {
            open: true,
            ..Settled::default()
        };
        let marks = recorded.iter().map(|entry| (true, entry));
        let all: Vec<_> = marks
            .chain(removed.iter().map(|entry| (false, entry)))
            .collect();
        for chunk in all.chunks(SETTLED_MAX) {
            let mut command = self.call(&self.scripts.settle, &Keys::of(sale));
            command.arg(chunk.iter().filter(|(mark, _)| *mark).count());
            for (_, entry) in chunk {
                command
                    .arg(field(entry.user, entry.slot))
                    .arg(entry.claim.to_string());
            }
            let reply = self.run(DOING, &self.scripts.settle, &command).await?;
            let parts = array(DOING, reply)?;
            let [marked, gone, open] = parts.as_slice() else {
                return Err(unexpected(DOING, &parts));
            };
            total.recorded += count(DOING, marked)?;
            total.removed += count(DOING, gone)?;
            total.open &= integer(DOING, open)? == 1;
        }
        Ok(total)
    }

    /// To be called before claims are ended by a return or an expiry: no request that comes after this is told yes for
    /// them. Each entry becomes recorded again if the ledger turns out not to have ended its claim within the deadline.
    /// Refused while the gate isn't open: a recovery may just be putting the claims back as they were.
    pub async fn begin_ending(
        &self,
        sale: SaleUid,
        entries: &[EntryRef],
    ) -> Result<Ending, StockError> {
        const DOING: &str = "announce the end of claims";
        let script = &self.scripts.begin_ending;
        let (mut modulus, mut total) = (0, 0);
        for chunk in entries.chunks(ENTRIES_MAX) {
            let mut command = self.call(script, &Keys::of(sale));
            for entry in chunk {
                command
                    .arg(field(entry.user, entry.slot))
                    .arg(entry.claim.to_string());
            }
            let reply = self.run(DOING, script, &command).await?;
            if let Some(why) = unopened(&reply) {
                return Ok(Ending::Unopened(why));
            }
            let parts = array(DOING, reply)?;
            let [partitions, marked] = parts.as_slice() else {
                return Err(unexpected(DOING, &parts));
            };
            modulus = number(DOING, partitions)?;
            total += count(DOING, marked)?;
        }
        Ok(Ending::Begun {
            partitions: modulus,
            marked: total,
        })
    }

    /// [`Self::settle`] for recorded claims alone.
    pub async fn mark_recorded(
        &self,
        sale: SaleUid,
        entries: &[EntryRef],
    ) -> Result<Settled, StockError> {
        self.settle(sale, entries, &[]).await
    }

    /// [`Self::settle`] for ended and voided claims alone.
    pub async fn remove_entries(
        &self,
        sale: SaleUid,
        entries: &[EntryRef],
    ) -> Result<Settled, StockError> {
        self.settle(sale, &[], entries).await
    }

    /// Marks up to `max` entries that nobody has asked for within the deadline as [`crate::Mark::Voiding`] (R6)
    /// and returns them, to have a Void record appended for each (R7). `read_up_to` is when the log held nothing yet
    /// that the ledger has not read by now. `None` where there is nothing to settle: no gate, another run's gate, or too
    /// few readings of the clock yet.
    pub async fn take_stale(
        &self,
        sale: SaleUid,
        clock: &mut SettleClock,
        read_up_to: Instant,
        max: u32,
    ) -> Result<Option<Stale>, StockError> {
        let sent = Instant::now();
        let redis = self.time().await?;
        // The reading is not older than its sending: a slow reply only makes the cutoff later to be used.
        let Some(cutoff) = clock.observe(redis, Instant::now().max(sent), read_up_to) else {
            return Ok(None);
        };
        self.take_stale_before(sale, cutoff, max).await
    }

    /// [`Self::take_stale`] for a cutoff that the caller knows to be older than the deadline.
    pub async fn take_stale_before(
        &self,
        sale: SaleUid,
        cutoff: UnixMillis,
        max: u32,
    ) -> Result<Option<Stale>, StockError> {
        const DOING: &str = "take stale entries";
        let mut command = self.call(&self.scripts.take_stale, &Keys::of(sale));
        command.arg(cutoff.0).arg(max);
        let reply = self.run(DOING, &self.scripts.take_stale, &command).await?;
        if unopened(&reply).is_some() {
            return Ok(None);
        }
        let parts = array(DOING, reply)?;
        let [epoch, partitions, entries @ ..] = parts.as_slice() else {
            return Err(unexpected(DOING, &parts));
        };
        let entries = entries
            .chunks(2)
            .map(|pair| {
                let [name, claim] = pair else {
                    return Err(unexpected(DOING, &pair));
                };
                let (user, slot) =
                    parse_field(text(DOING, name)?).ok_or_else(|| unexpected(DOING, name))?;
                Ok(EntryRef {
                    user,
                    slot,
                    claim: parse_text(DOING, claim)?,
                })
            })
            .collect::<Result<_, StockError>>()?;
        Ok(Some(Stale {
            epoch: Epoch(number(DOING, epoch)?),
            partitions: number(DOING, partitions)?,
            entries,
        }))
    }

    /// Closes the gate for a recovery that has won `epoch`. To be called once [`GATE_WRITE_VALIDITY`] has passed since
    /// the epoch was won: until then a recovery that lost its turn may still write, and so open, an older gate. After
    /// it [`crate::ACK_DEADLINE`] is to be waited out before the fence is appended.
    pub async fn close_gate(&self, sale: SaleUid, epoch: Epoch) -> Result<Closing, StockError> {
        const DOING: &str = "close the gate";
        let script = &self.scripts.close_gate;
        let mut command = start(script, &[&Keys::of(sale).gate]);
        command.arg(epoch.0);
        match self.run(DOING, script, &command).await? {
            Value::Int(stands) => Ok(Closing::Newer(Epoch(stands.unsigned_abs()))),
            reply => match text(DOING, &reply)? {
                "CLOSED" => Ok(Closing::Closed),
                "MISSING" => Ok(Closing::Missing),
                _ => Err(unexpected(DOING, &reply)),
            },
        }
    }

    /// Starts gathering the entries of a recovery that has won `epoch`; forgets an earlier attempt's.
    pub async fn begin_rebuild(&self, sale: SaleUid, epoch: Epoch) -> Result<Rebuild, StockError> {
        let key = format!("quokka:{{{sale}}}:rebuild:{epoch}");
        let mut command = redis::cmd("UNLINK");
        command.arg(&key);
        self.query("begin a rebuild", "UNLINK", &command).await?;
        Ok(Rebuild {
            sale,
            key,
            entries: 0,
        })
    }

    /// Adds active claims of the ledger; each is recorded by definition.
    pub async fn add_entries(
        &self,
        rebuild: &mut Rebuild,
        entries: &[RebuiltEntry],
    ) -> Result<(), StockError> {
        const DOING: &str = "rebuild entries";
        let mut value = String::new();
        for chunk in entries.chunks(ENTRIES_MAX) {
            let mut command = redis::cmd("HSET");
            command.arg(&rebuild.key);
            for rebuilt in chunk {
                value.clear();
                let at = rebuilt.claimed_at;
                // Writing to a string can't fail.
                let _ = write!(
                    value,
                    "{}|R|{at}|{}|{}|{at}",
                    rebuilt.entry.claim, rebuilt.sequence, rebuilt.key
                );
                command
                    .arg(field(rebuilt.entry.user, rebuilt.entry.slot))
                    .arg(&value);
            }
            let added = self.query(DOING, "HSET", &command).await?;
            rebuild.entries += number::<u64>(DOING, &added)?;
            let mut expire = redis::cmd("EXPIRE");
            expire.arg(&rebuild.key).arg(REBUILD_TTL_SECONDS);
            self.query(DOING, "EXPIRE", &expire).await?;
        }
        Ok(())
    }

    /// The last step of a recovery: puts the rebuilt entries in place and opens the gate in this run of the
    /// server, unless the recovery has lost its turn.
    pub async fn write_gate(
        &self,
        rebuild: Rebuild,
        gate: &NewGate,
    ) -> Result<GateWrite, StockError> {
        const DOING: &str = "write the gate";
        let keys = Keys::of(rebuild.sale);
        let script = &self.scripts.write_gate;
        let mut command = start(
            script,
            &[&keys.gate, &keys.claims, &keys.unsettled, &rebuild.key],
        );
        command
            .arg(gate.epoch.0)
            .arg(gate.read_at.0)
            .arg(GATE_WRITE_VALIDITY.as_millis().to_string())
            .arg(rebuild.entries);
        terms(&mut command, &gate.terms);
        command.arg(gate.partitions).arg(gate.sequence.0);
        match self.run(DOING, script, &command).await? {
            Value::Int(stands) => Ok(GateWrite::Newer(Epoch(stands.unsigned_abs()))),
            reply => match text(DOING, &reply)? {
                "OPENED" => Ok(GateWrite::Opened),
                "TOO_LATE" => Ok(GateWrite::TooLate),
                "REBUILD_LOST" => Ok(GateWrite::RebuildLost),
                _ => Err(unexpected(DOING, &reply)),
            },
        }
    }

    /// Changes what the gate enforces. Refused if it would leave less stock than is claimed.
    pub async fn update_gate(
        &self,
        sale: SaleUid,
        new: &GateTerms,
    ) -> Result<GateUpdate, StockError> {
        const DOING: &str = "change the gate";
        let keys = Keys::of(sale);
        let script = &self.scripts.update_gate;
        let mut command = start(script, &[&keys.gate, &keys.claims]);
        terms(&mut command, new);
        match self.run(DOING, script, &command).await? {
            claimed @ Value::Int(_) => Ok(GateUpdate::BelowClaimed(Stock(count(DOING, &claimed)?))),
            reply => match text(DOING, &reply)? {
                "APPLIED" => Ok(GateUpdate::Applied),
                "MISSING" => Ok(GateUpdate::Missing),
                "NEWER" => Ok(GateUpdate::Newer),
                _ => Err(unexpected(DOING, &reply)),
            },
        }
    }

    /// One consistent look at a sale. Changes nothing.
    pub async fn snapshot(&self, sale: SaleUid) -> Result<Snapshot, StockError> {
        const DOING: &str = "look at a sale";
        let command = self.call(&self.scripts.snapshot, &Keys::of(sale));
        let reply = self.run(DOING, &self.scripts.snapshot, &command).await?;
        let parts = array(DOING, reply)?
            .iter()
            .map(|part| integer(DOING, part))
            .collect::<Result<Vec<i64>, _>>()?;
        let gate = match *parts.as_slice() {
            [_, _, _] => None,
            [
                _,
                _,
                _,
                own,
                epoch,
                open,
                generation,
                starts,
                ends,
                stock,
                limit,
                paused,
                partitions,
                sequence,
            ] => Some(Gate {
                epoch: Epoch(epoch.unsigned_abs()),
                open: open == 1,
                own_run: own == 1,
                terms: GateTerms {
                    generation,
                    starts: UnixMillis(starts),
                    ends: UnixMillis(ends),
                    stock: Stock(small(DOING, stock)?),
                    per_user_limit: small(DOING, limit)?,
                    paused: paused == 1,
                },
                partitions: small(DOING, partitions)?,
                sequence: Sequence(sequence.unsigned_abs()),
            }),
            _ => return Err(unexpected(DOING, &parts)),
        };
        Ok(Snapshot {
            gate,
            claimed: small(DOING, parts[1])?,
            unsettled: small(DOING, parts[2])?,
            now: UnixMillis(parts[0]),
        })
    }

    /// What a user holds of each sale, in their order, all at one instant.
    pub async fn holdings(
        &self,
        sales: &[SaleUid],
        user: UserId,
    ) -> Result<Vec<Holding>, StockError> {
        const DOING: &str = "read a user's entries";
        if sales.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("INFO").arg("server");
        for sale in sales {
            let keys = Keys::of(*sale);
            pipeline.cmd("HLEN").arg(&keys.claims);
            pipeline.cmd("HMGET").arg(keys.gate);
            pipeline.arg("run").arg("open").arg("held");
            pipeline.cmd("HMGET").arg(keys.claims);
            for slot in 0..PER_USER_LIMIT_MAX {
                pipeline.arg(field(user, Slot(slot)));
            }
        }
        let mut connection = ConnectionManager::clone(&self.link.connection());
        let span = span("MULTI", "MULTI");
        let query = pipeline.query_async::<Vec<Value>>(&mut connection);
        let reply = query.instrument(span.clone()).await;
        let parts = told(&span, reply).map_err(|source| StockError::Redis {
            doing: DOING,
            source,
        })?;
        let [info, parts @ ..] = parts.as_slice() else {
            return Err(unexpected(DOING, &parts));
        };
        let info = text(DOING, info)?;
        let run = info
            .lines()
            .find_map(|line| line.trim_end().strip_prefix("run_id:"));
        if parts.len() != 3 * sales.len() {
            return Err(unexpected(DOING, &parts));
        }
        parts
            .chunks(3)
            .map(|of_sale| holding(DOING, run, of_sale))
            .collect()
    }

    /// Some entries of a sale and the cursor to go on with; start with 0, and 0 ends it. What changes
    /// meanwhile may be missing or come twice.
    pub async fn scan_entries(
        &self,
        sale: SaleUid,
        cursor: u64,
    ) -> Result<(u64, Vec<(UserId, Entry)>), StockError> {
        const DOING: &str = "read the entries of a sale";
        let mut command = redis::cmd("HSCAN");
        command
            .arg(Keys::of(sale).claims)
            .arg(cursor)
            .arg("COUNT")
            .arg(ENTRIES_MAX);
        let parts = array(DOING, self.query(DOING, "HSCAN", &command).await?)?;
        let [next, pairs] = parts.as_slice() else {
            return Err(unexpected(DOING, &parts));
        };
        let Value::Array(pairs) = pairs else {
            return Err(unexpected(DOING, pairs));
        };
        let entries = pairs
            .chunks(2)
            .map(|pair| {
                let [name, value] = pair else {
                    return Err(unexpected(DOING, &pair));
                };
                let (user, slot) =
                    parse_field(text(DOING, name)?).ok_or_else(|| unexpected(DOING, name))?;
                let entry = Entry::parse_value(text(DOING, value)?, slot)
                    .ok_or_else(|| unexpected(DOING, value))?;
                Ok((user, entry))
            })
            .collect::<Result<_, StockError>>()?;
        Ok((parse_text(DOING, next)?, entries))
    }

    /// Removes a sale that is over and drained.
    pub async fn remove_all(&self, sale: SaleUid) -> Result<(), StockError> {
        let keys = Keys::of(sale);
        let mut command = redis::cmd("UNLINK");
        command.arg(keys.gate).arg(keys.claims).arg(keys.unsettled);
        self.query("remove a sale", "UNLINK", &command)
            .await
            .map(drop)
    }

    fn call(&self, script: &Source, keys: &Keys) -> Cmd {
        start(script, &[&keys.gate, &keys.claims, &keys.unsettled])
    }

    /// Runs a prepared script call; puts the script into the server's cache if it isn't there, as after a
    /// restart.
    async fn run(
        &self,
        doing: &'static str,
        script: &Source,
        command: &Cmd,
    ) -> Result<Value, StockError> {
        let span = tracing::info_span!(
            "EVALSHA",
            otel.name = format_args!("EVALSHA {}", script.name),
            otel.kind = "client",
            db.system.name = "redis",
            db.operation.name = "EVALSHA",
            db.stored_procedure.name = script.name,
            error.type = Empty,
        );
        let called = async {
            match self.send(command).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.send(&load(script)).await?;
                    self.send(command).await
                }
                result => result,
            }
        };
        let result = called.instrument(span.clone()).await;
        told(&span, result).map_err(|source| StockError::Redis { doing, source })
    }

    async fn query(
        &self,
        doing: &'static str,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<Value, StockError> {
        let span = span(operation, operation);
        let result = self.send(command).instrument(span.clone()).await;
        told(&span, result).map_err(|source| StockError::Redis { doing, source })
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let send = async |mut connection: ConnectionManager| {
            let reply = connection.send_packed_command(command).await;
            reply.and_then(Value::extract_error)
        };
        self.link.call(send).await
    }
}

fn load(script: &Source) -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(&script.text);
    command
}

/// Of one command that is no script.
fn span(name: &'static str, operation: &'static str) -> Span {
    tracing::info_span!(
        "redis",
        otel.name = name,
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = operation,
        error.type = Empty,
    )
}

/// Notes in the span why a call failed, if it did.
fn told<T>(span: &Span, result: RedisResult<T>) -> RedisResult<T> {
    result.inspect_err(|error| {
        span.record("error.type", error.code().unwrap_or(error.category()));
    })
}

fn start(script: &Source, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(&script.digest).arg(keys.len());
    for key in keys {
        command.arg(*key);
    }
    command
}

fn terms(command: &mut Cmd, terms: &GateTerms) {
    debug_assert!((1..=PER_USER_LIMIT_MAX).contains(&terms.per_user_limit));
    command
        .arg(terms.generation)
        .arg(terms.starts.0)
        .arg(terms.ends.0)
        .arg(terms.stock.0)
        .arg(terms.per_user_limit)
        .arg(u8::from(terms.paused));
}

fn hex16(value: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (index, digit) in text.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * index)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    text
}

fn unopened(reply: &Value) -> Option<Unopened> {
    match reply {
        Value::BulkString(text) => match text.as_slice() {
            b"MISSING" => Some(Unopened::Missing),
            b"CLOSED" => Some(Unopened::Closed),
            b"FOREIGN" => Some(Unopened::Foreign),
            _ => None,
        },
        _ => None,
    }
}

fn parse_claim_reply(reply: Value, requests: usize) -> Result<ClaimReply, StockError> {
    const DOING: &str = "claim";
    if let Some(why) = unopened(&reply) {
        return Ok(ClaimReply::Unopened(why));
    }
    let parts = array(DOING, reply)?;
    let [epoch, partitions, now, outcomes @ ..] = parts.as_slice() else {
        return Err(unexpected(DOING, &parts));
    };
    if outcomes.len() != requests {
        return Err(unexpected(DOING, &parts));
    }
    let outcomes = outcomes.iter().map(|outcome| match outcome {
        Value::Int(-1) => Ok(Outcome::NotStarted),
        Value::Int(-2) => Ok(Outcome::Ended),
        Value::Int(-3) => Ok(Outcome::Paused),
        Value::Int(-4) => Ok(Outcome::SoldOut),
        Value::Int(taken) if *taken > 0 => Ok(Outcome::Taken {
            slot: Slot((taken & 0xf) as u8),
            sequence: Sequence(taken.unsigned_abs() >> 4),
        }),
        entry => Entry::parse(text(DOING, entry)?)
            .map(Outcome::Repeat)
            .ok_or_else(|| unexpected(DOING, entry)),
    });
    Ok(ClaimReply::Open(OpenReply {
        epoch: Epoch(number(DOING, epoch)?),
        partitions: number(DOING, partitions)?,
        now: UnixMillis(integer(DOING, now)?),
        outcomes: outcomes.collect::<Result<_, _>>()?,
    }))
}

fn holding(
    doing: &'static str,
    run: Option<&str>,
    of_sale: &[Value],
) -> Result<Holding, StockError> {
    let [
        Value::Int(claimed),
        Value::Array(gate),
        Value::Array(values),
    ] = of_sale
    else {
        return Err(unexpected(doing, &of_sale));
    };
    let unopened = match gate.as_slice() {
        [Value::Nil, ..] | [_, Value::Nil, _] => Some(Unopened::Missing),
        [_, open, _] if text(doing, open)? != "1" => Some(Unopened::Closed),
        [_, _, Value::Nil] => Some(Unopened::Foreign),
        [wrote, _, held] => {
            let whole = parse_text::<i64>(doing, held)? == *claimed;
            let own = Some(text(doing, wrote)?) == run;
            (!own || !whole).then_some(Unopened::Foreign)
        }
        other => return Err(unexpected(doing, &other)),
    };
    let mut entries = Vec::new();
    for (slot, value) in (0..).zip(values) {
        if *value != Value::Nil {
            let entry = Entry::parse_value(text(doing, value)?, Slot(slot));
            entries.push(entry.ok_or_else(|| unexpected(doing, value))?);
        }
    }
    Ok(Holding { entries, unopened })
}

fn unexpected(doing: &'static str, reply: &dyn std::fmt::Debug) -> StockError {
    StockError::Reply {
        doing,
        reply: format!("{reply:?}"),
    }
}

fn array(doing: &'static str, reply: Value) -> Result<Vec<Value>, StockError> {
    match reply {
        Value::Array(parts) => Ok(parts),
        other => Err(unexpected(doing, &other)),
    }
}

fn text<'a>(doing: &'static str, value: &'a Value) -> Result<&'a str, StockError> {
    match value {
        Value::BulkString(bytes) => {
            std::str::from_utf8(bytes).map_err(|_| unexpected(doing, value))
        }
        Value::SimpleString(text) => Ok(text),
        _ => Err(unexpected(doing, value)),
    }
}

fn parse_text<T: std::str::FromStr>(doing: &'static str, value: &Value) -> Result<T, StockError> {
    text(doing, value)?
        .parse()
        .map_err(|_| unexpected(doing, value))
}

fn integer(doing: &'static str, value: &Value) -> Result<i64, StockError> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(unexpected(doing, other)),
    }
}

fn small<T: TryFrom<i64>>(doing: &'static str, value: i64) -> Result<T, StockError> {
    T::try_from(value).map_err(|_| unexpected(doing, &value))
}

fn number<T: TryFrom<i64>>(doing: &'static str, value: &Value) -> Result<T, StockError> {
    small(doing, integer(doing, value)?)
}

fn count(doing: &'static str, value: &Value) -> Result<u32, StockError> {
    number(doing, value)
}
