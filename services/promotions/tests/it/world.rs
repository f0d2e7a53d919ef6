//! Real servers, and the roles as processes that can be killed; claims as guests make them; and what must be true of
//! the stores once all is quiet.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::claims_topic;
use events::producer::{Producer, ProducerSettings};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use reqwest::StatusCode;
use sale_stock::books::{
    AmountDiscount, Books, CouponTerms, Discount, GateState, SaleDefinition, SaleKind, Target,
};
use sale_stock::{ClaimId, Mark, RedisSettings, SaleStock, SaleUid, Slot, Stock, UserId};
use serde_json::Value;
use sqlx::PgPool;
use testkit::{
    Database, JwksServer, Kafka, Postgres, Redis, TokenIssuer, eventually, free_port, unique_name,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Plenty: a wait ends as soon as what it waits for is there.
pub(crate) const PLENTY: Duration = Duration::from_secs(90);

/// A server of the test's own, or one that all share.
pub(crate) enum Server<T: 'static> {
    Own(Box<T>),
    Shared(&'static T),
}

impl<T> Deref for Server<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(server) => server,
            Self::Shared(server) => server,
        }
    }
}

/// Which servers a test breaks, and so has for itself. Redis is always its own.
#[derive(Default, Clone, Copy)]
pub(crate) struct Breaks {
    pub(crate) kafka: bool,
    pub(crate) postgres: bool,
}

pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) kafka: Server<Kafka>,
    pub(crate) postgres: Server<Postgres>,
    pub(crate) database: Database,
    pub(crate) pool: PgPool,
    pub(crate) stock: SaleStock,
    pub(crate) namespace: String,
    pub(crate) http: reqwest::Client,
    issuer: TokenIssuer,
    jwks: JwksServer,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::breaking(Breaks::default()).await
    }

    pub(crate) async fn breaking(breaks: Breaks) -> Self {
        let redis = Redis::start().await.unwrap();
        let kafka = if breaks.kafka {
            Server::Own(Box::new(Kafka::start().await.unwrap()))
        } else {
            Server::Shared(Kafka::shared().await)
        };
        let postgres = if breaks.postgres {
            Server::Own(Box::new(Postgres::start().await.unwrap()))
        } else {
            Server::Shared(Postgres::shared().await)
        };
        let database = postgres.create_database().await.unwrap();
        let pool = database.pool().await.unwrap();
        let stock = SaleStock::connect_lazy(&RedisSettings::new(redis.url())).unwrap();
        let issuer = TokenIssuer::new();
        let jwks = JwksServer::start(issuer.jwks()).await.unwrap();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(15))
            .build()
            .unwrap();
        Self {
            redis,
            kafka,
            postgres,
            database,
            pool,
            stock,
            namespace: unique_name("ns"),
            http,
            issuer,
            jwks,
        }
    }

    /// Starts a ledger process and waits until it is ready.
    pub(crate) async fn ledger(&self) -> Role {
        let role = self.role("ledger", &[]);
        role.ready(self).await;
        role
    }

    /// Starts an API process and waits until it is ready.
    pub(crate) async fn api(&self) -> Role {
        let role = self.role("api", &[]);
        role.ready(self).await;
        role
    }

    /// Starts a process of the binary under test.
    pub(crate) fn role(&self, role: &'static str, more: &[(&str, &str)]) -> Role {
        let (port, ops) = (free_port(), free_port());
        let address = format!("127.0.0.1:{port}");
        let log = std::env::temp_dir().join(format!("{}-{role}-{port}.log", self.namespace));
        let output = File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_promotions"))
            .arg(role)
            .env("QUOKKA_DATABASE_URL", &self.database.url)
            .env("QUOKKA_REDIS_URL", self.redis.url())
            .env("QUOKKA_KAFKA_BROKERS", self.kafka.brokers())
            .env("QUOKKA_JWKS_URL", self.jwks.url())
            .env("QUOKKA_HTTP_ADDR", &address)
            .env("QUOKKA_INTERNAL_ADDR", &address)
            .env("QUOKKA_OPS_ADDR", format!("127.0.0.1:{ops}"))
            .env("QUOKKA_NAMESPACE", &self.namespace)
            .env("QUOKKA_SAGA_PARTITIONS", "2")
            .env("POD_NAME", unique_name(role))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Role {
            role,
            child,
            url: format!("http://{address}"),
            ops: format!("http://127.0.0.1:{ops}"),
            log,
        }
    }

    /// A sale that is on from a minute ago for an hour, with its topic.
    pub(crate) async fn definition(
        &self,
        kind: SaleKind,
        stock: u32,
        partitions: u32,
    ) -> SaleDefinition {
        let name = unique_name("sale");
        let topic = claims_topic(&self.namespace, &name);
        self.create_topic(&topic, partitions).await;
        let now = Timestamp::now();
        let coupon = (kind == SaleKind::CouponCampaign).then_some(CouponTerms {
            valid_for_ms: 3_600_000,
            min_order_amount: None,
            regions: Vec::new(),
        });
        SaleDefinition {
            uid: SaleUid(Uuid::new_v4()),
            display_name: name.clone(),
            name,
            kind,
            generation: 1,
            starts: now - SignedDuration::from_mins(1),
            ends: now + SignedDuration::from_hours(1),
            stock: Stock(stock),
            per_user_limit: 1,
            claim_ttl_ms: (kind == SaleKind::TimeSale).then_some(600_000),
            paused: false,
            topic,
            partitions,
            target: Some(Target {
                regions: vec!["jeju".to_owned()],
                ..Target::default()
            }),
            stay_dates: None,
            discount: Discount::Amount(AmountDiscount { amount: 5_000 }),
            coupon,
        }
    }

    /// The producer that claims are appended with, to write to a log by hand.
    pub(crate) fn producer(&self) -> Producer {
        Producer::new(&ProducerSettings::new(self.kafka.brokers(), "test")).unwrap()
    }

    /// Waits until the condition holds for the number of the sale's rows.
    pub(crate) async fn until_recorded(&self, uid: SaleUid, holds: impl Fn(i64) -> bool) {
        eventually(PLENTY, async || {
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM claims WHERE sale_uid = $1")
                .bind(uid.0)
                .fetch_one(&self.pool)
                .await
                .map_err(|error| error.to_string())?;
            if holds(rows) {
                Ok(())
            } else {
                Err(format!("{rows} rows"))
            }
        })
        .await;
    }

    /// The epoch given out last.
    pub(crate) async fn epoch(&self, uid: SaleUid) -> i64 {
        sqlx::query_scalar("SELECT epoch FROM sales WHERE uid = $1")
            .bind(uid.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", self.kafka.brokers())
            .create()
            .unwrap()
    }

    /// Deletes a topic and waits until the broker has forgotten it.
    pub(crate) async fn delete_topic(&self, topic: &str) {
        let admin = self.admin();
        let gone = admin
            .delete_topics(&[topic], &AdminOptions::new())
            .await
            .unwrap();
        gone.into_iter().for_each(|topic| drop(topic.unwrap()));
        let producer = self.producer();
        eventually(PLENTY, async || match producer.warm(topic, PLENTY).await {
            Err(error) => error.no_such_topic,
            Ok(_) => false,
        })
        .await;
    }

    pub(crate) async fn create_topic(&self, topic: &str, partitions: u32) {
        let admin = self.admin();
        let new = NewTopic::new(
            topic,
            i32::try_from(partitions).unwrap(),
            TopicReplication::Fixed(1),
        )
        .set("retention.ms", "-1");
        let made = admin
            .create_topics([&new], &AdminOptions::new())
            .await
            .unwrap();
        made.into_iter().for_each(|topic| drop(topic.unwrap()));
    }

    /// Declares a sale as the operator does; answers the status and the body.
    pub(crate) async fn put(
        &self,
        ledger: &Role,
        definition: &SaleDefinition,
    ) -> (StatusCode, Value) {
        let url = format!("{}/internal/v1/sales/{}", ledger.url, definition.uid);
        let answer = self.http.put(url).json(definition).send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap())
    }

    /// Declares a sale and waits until its gate stands open.
    pub(crate) async fn open(&self, ledger: &Role, definition: &SaleDefinition) {
        let (status, body) = self.put(ledger, definition).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        self.until_open(definition.uid).await;
    }

    /// Waits until the gate stands open in the running Redis.
    pub(crate) async fn until_open(&self, uid: SaleUid) {
        eventually(PLENTY, async || {
            let snapshot = self
                .stock
                .snapshot(uid)
                .await
                .map_err(|error| error.to_string())?;
            match snapshot.gate {
                Some(gate) if gate.unopened().is_none() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub(crate) async fn books(&self, ledger: &Role, uid: SaleUid) -> Result<Books, String> {
        let url = format!("{}/internal/v1/sales/{uid}", ledger.url);
        let answer = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    pub(crate) async fn post(&self, ledger: &Role, uid: SaleUid, what: &str) -> StatusCode {
        let url = format!("{}/internal/v1/sales/{uid}/{what}", ledger.url);
        let body = serde_json::json!({"reason": "a test wants it"});
        self.http
            .post(url)
            .json(&body)
            .send()
            .await
            .unwrap()
            .status()
    }

    fn path(definition: &SaleDefinition) -> String {
        let kind = match definition.kind {
            SaleKind::TimeSale => "time-sales",
            SaleKind::CouponCampaign => "coupon-campaigns",
        };
        format!("v1/{kind}/{}/claims", definition.name)
    }

    /// One request of a guest.
    pub(crate) async fn claim(
        &self,
        api: &str,
        definition: &SaleDefinition,
        user: UserId,
    ) -> Answer {
        self.claim_with(api, definition, user, None).await
    }

    /// One request of a guest, with a key of his.
    pub(crate) async fn claim_with(
        &self,
        api: &str,
        definition: &SaleDefinition,
        user: UserId,
        key: Option<&str>,
    ) -> Answer {
        let url = format!("{api}/{}", Self::path(definition));
        let mut request = self.http.post(url).bearer_auth(self.issuer.token(user.0));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let Ok(answer) = request.send().await else {
            return Answer::Unknown;
        };
        let status = answer.status();
        let Ok(body) = answer.json::<Value>().await else {
            return Answer::Unknown;
        };
        if status.is_success() {
            return Answer::Yes(ClaimId(body["claimId"].as_str().unwrap().parse().unwrap()));
        }
        match body["code"].as_str() {
            Some("SOLD_OUT") => Answer::SoldOut,
            Some("ENDED") => Answer::Ended,
            // The API's list of sales is a second old.
            Some("SALE_NOT_FOUND") => Answer::Unknown,
            _ if status == StatusCode::SERVICE_UNAVAILABLE => Answer::Unknown,
            other => panic!("{status}: {other:?}"),
        }
    }

    /// Asks until there is an answer that is known.
    pub(crate) async fn claim_for_sure(
        &self,
        api: &str,
        definition: &SaleDefinition,
        user: UserId,
    ) -> Answer {
        eventually(PLENTY, async || {
            Some(self.claim(api, definition, user).await)
                .filter(|answer| *answer != Answer::Unknown)
        })
        .await
    }

    /// What a guest reads of a claim: the status of the answer, and the claim's or the problem's code.
    pub(crate) async fn read(&self, api: &Role, user: UserId, claim: ClaimId) -> (u16, String) {
        let url = format!("{}/v1/claims/{claim}", api.url);
        let request = self.http.get(url).bearer_auth(self.issuer.token(user.0));
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        let told = body["code"].as_str().or(body["status"].as_str());
        (status, told.unwrap_or_default().to_owned())
    }

    /// Keeps the ledger from applying anything of the sale, as long as the transaction is held.
    pub(crate) async fn hold_up(&self, uid: SaleUid) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let mut held = self.pool.begin().await.unwrap();
        sqlx::query("SELECT uid FROM sales WHERE uid = $1 FOR UPDATE")
            .bind(uid.0)
            .execute(&mut *held)
            .await
            .unwrap();
        held
    }

    pub(crate) async fn give_back(
        &self,
        api: &Role,
        definition: &SaleDefinition,
        user: UserId,
        claim: ClaimId,
    ) -> StatusCode {
        let url = format!("{}/{}/{claim}", api.url, Self::path(definition));
        let request = self.http.delete(url).bearer_auth(self.issuer.token(user.0));
        request
            .send()
            .await
            .map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
    }

    /// What the ledger holds of a claim.
    pub(crate) async fn status(&self, claim: ClaimId) -> Option<String> {
        sqlx::query_scalar("SELECT status FROM claims WHERE claim_id = $1")
            .bind(claim.0)
            .fetch_optional(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until nothing is under way.
    pub(crate) async fn at_rest(&self, ledger: &Role, uid: SaleUid) -> Books {
        eventually(PLENTY, async || {
            let books = self.books(ledger, uid).await?;
            let quiet = books.lag == Some(0) && books.unsettled == 0 && books.unreleased == 0;
            let open = books.gate == GateState::Open && !books.recovering;
            if quiet && open {
                Ok(books)
            } else {
                Err(format!("{books:?}"))
            }
        })
        .await
    }

    /// Waits for rest, and applies the invariants of claims to the stores and to what guests were told.
    pub(crate) async fn check(&self, ledger: &Role, definition: &SaleDefinition, told: &Told) {
        let books = self.at_rest(ledger, definition.uid).await;
        if let Err(violations) = self.violations(definition, told, &books).await {
            panic!("{violations:#?}\n{books:?}\n{}", ledger.tail());
        }
    }

    /// What is wrong, if anything is.
    pub(crate) async fn violations(
        &self,
        definition: &SaleDefinition,
        told: &Told,
        books: &Books,
    ) -> Result<(), Vec<String>> {
        let rows: Vec<(Uuid, Uuid, i16, bool)> = sqlx::query_as(
            "SELECT claim_id, user_id, slot, ended_at IS NULL FROM claims WHERE sale_uid = $1",
        )
        .bind(definition.uid.0)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let refused: i64 =
            sqlx::query_scalar("SELECT count(*) FROM refused_claims WHERE sale_uid = $1")
                .bind(definition.uid.0)
                .fetch_one(&self.pool)
                .await
                .unwrap();
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        let active: BTreeMap<(UserId, Slot), ClaimId> = rows
            .iter()
            .filter(|row| row.3)
            .map(|row| {
                let slot = Slot(u8::try_from(row.2).unwrap());
                ((UserId(row.1), slot), ClaimId(row.0))
            })
            .collect();
        let count = u32::try_from(active.len()).unwrap();
        check(
            count <= definition.stock.0,
            format!("{count} active claims of {}", definition.stock),
        );
        check(
            count == books.stock.claimed.0,
            format!("{count} rows, {} counted", books.stock.claimed),
        );
        check(refused == 0, format!("the ledger refused {refused} claims"));

        let known: BTreeSet<ClaimId> = rows.iter().map(|row| ClaimId(row.0)).collect();
        for (claim, user, ..) in &rows {
            let (claim, user) = (ClaimId(*claim), UserId(*user));
            let heard = told.unknown.contains(&user) || told.yes.contains(&(user, claim));
            check(
                heard,
                format!("{user} has {claim}, and was told neither yes for it nor unknown"),
            );
        }
        for (user, claim) in &told.yes {
            check(
                known.contains(claim),
                format!("{user} was told yes for {claim}, which has no row"),
            );
        }
        let mut held = BTreeMap::new();
        for (user, entry) in self.entries(definition.uid).await {
            check(
                entry.mark == Mark::Recorded,
                format!("{user} is {:?} at rest", entry.mark),
            );
            held.insert((user, entry.slot), entry.claim);
        }
        check(
            held == active,
            format!("Redis holds {} entries, the ledger {count}", held.len()),
        );
        if told.sold_out {
            check(
                count == definition.stock.0,
                format!("sold out was answered with {count} claims"),
            );
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Every entry of a sale in Redis.
    pub(crate) async fn entries(&self, uid: SaleUid) -> Vec<(UserId, sale_stock::Entry)> {
        let mut entries = BTreeMap::new();
        let mut cursor = 0;
        loop {
            let (next, some) = self.stock.scan_entries(uid, cursor).await.unwrap();
            for (user, entry) in some {
                entries.insert((user, entry.slot), (user, entry));
            }
            if next == 0 {
                return entries.into_values().collect();
            }
            cursor = next;
        }
    }
}

/// What a guest hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes(ClaimId),
    SoldOut,
    Ended,
    /// 503, not known yet, or no answer at all.
    Unknown,
}

/// What guests were told, all in all.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) yes: Vec<(UserId, ClaimId)>,
    /// Those who didn't know at least once what became of a request.
    pub(crate) unknown: BTreeSet<UserId>,
    pub(crate) sold_out: bool,
}

impl Told {
    pub(crate) fn hear(&mut self, user: UserId, answer: Answer) {
        match answer {
            Answer::Yes(claim) => self.yes.push((user, claim)),
            Answer::SoldOut => self.sold_out = true,
            Answer::Unknown => {
                self.unknown.insert(user);
            }
            Answer::Ended => {}
        }
    }
}

/// Guests who all claim at once and ask until they know, some at a time. Ends when the last one knows.
pub(crate) fn rush(
    world: &Arc<World>,
    api: &Role,
    sale: &SaleDefinition,
    guests: Vec<UserId>,
) -> JoinHandle<Told> {
    let requests = guests.into_iter().map(|guest| (guest, None)).collect();
    rush_with(world, api, sale, requests)
}

/// [`rush`] with keys, of which a guest may have several.
pub(crate) fn rush_with(
    world: &Arc<World>,
    api: &Role,
    sale: &SaleDefinition,
    requests: Vec<(UserId, Option<String>)>,
) -> JoinHandle<Told> {
    const AT_A_TIME: usize = 24;
    let (world, sale, api) = (Arc::clone(world), sale.clone(), api.url.clone());
    tokio::spawn(async move {
        let heard = futures::stream::iter(requests)
            .map(|(guest, key)| {
                let (world, sale, api) = (&world, &sale, &api);
                async move {
                    let unknown = AtomicBool::new(false);
                    let answer = eventually(PLENTY, async || {
                        let answer = world.claim_with(api, sale, guest, key.as_deref()).await;
                        unknown.fetch_or(answer == Answer::Unknown, Ordering::Relaxed);
                        Some(answer).filter(|answer| *answer != Answer::Unknown)
                    });
                    let answer = answer.await;
                    (guest, answer, unknown.into_inner())
                }
            })
            .buffer_unordered(AT_A_TIME)
            .collect::<Vec<_>>()
            .await;
        let mut told = Told::default();
        for (guest, answer, unknown) in heard {
            told.hear(guest, answer);
            if unknown {
                told.hear(guest, Answer::Unknown);
            }
        }
        told
    })
}

/// New users.
pub(crate) fn users(count: usize) -> Vec<UserId> {
    (0..count).map(|_| UserId(Uuid::new_v4())).collect()
}

/// A process of the binary under test; killed when dropped.
pub(crate) struct Role {
    role: &'static str,
    child: Child,
    pub(crate) url: String,
    pub(crate) ops: String,
    log: PathBuf,
}

impl Role {
    pub(crate) async fn ready(&self, world: &World) {
        eventually(PLENTY, async || self.is_ready(world).await).await;
    }

    /// Whether /readyz answers 200, or what it answers instead.
    pub(crate) async fn is_ready(&self, world: &World) -> Result<(), String> {
        let asked = world.http.get(format!("{}/readyz", self.ops)).send().await;
        let answer = asked.map_err(|error| format!("{error}\n{}", self.tail()))?;
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{}: {body}\n{}", self.role, self.tail()))
        }
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// The value of a metric whose line starts so.
    pub(crate) async fn metric(&self, world: &World, line: &str) -> Option<f64> {
        let answer = world
            .http
            .get(format!("{}/metrics", self.ops))
            .send()
            .await
            .ok()?;
        let text = answer.text().await.ok()?;
        let found = text.lines().find(|candidate| candidate.starts_with(line))?;
        found.rsplit_once(' ')?.1.parse().ok()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; answers the exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        let child = &mut self.child;
        let mut ended = None;
        while ended.is_none() {
            ended = child.try_wait().unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ended.and_then(|status| status.code())
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Role {
    /// What the process said last, for whoever reads why a test failed.
    fn tell_end(&self) {
        const LINES_MAX: usize = 40;
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        println!("{} at {} said last:", self.role, self.url);
        for line in &lines[lines.len().saturating_sub(LINES_MAX)..] {
            println!("  {line}");
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.tell_end();
        } else {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}
