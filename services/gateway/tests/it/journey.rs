//! One trace shows an order from its guest's request to the booking: over the gateway, stays, orders, booking,
//! promotions and payments, each a process of its own, and over Kafka between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use chassis::{config::Env, serve};
use events::saga::{BOOKING_COMMANDS, ORDER_REPLIES, PROMOTIONS_COMMANDS};
use jiff::civil::Date;
use jiff::{SignedDuration, Span as Days, Timestamp};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use sale_stock::books::{
    Books, CouponTerms, Discount, GateState, PercentDiscount, SaleDefinition, SaleKind,
};
use sale_stock::{SaleUid, Stock};
use serde_json::{Value, json};
use testkit::collector::{Collector, attribute, hex};
use testkit::{Database, Kafka, Postgres, Redis, unique_name};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;
use toss_simulator::{Means, NewSession, Settings, Simulator};
use uuid::Uuid;

use crate::support::{Gateway, Issuer, Setup};

/// Which service a process of this program is.
const SERVICE: &str = "QUOKKA_TEST_SERVICE";
/// Many processes start, and a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the guests' own traces are called, and the span of them that asks.
const TRACES: [&str; 2] = [
    "7a85ed2cf3b94f0b8a1f6b0c5d3e2f10",
    "c4b1f9d07e3a4c6c9d2b5a8f6e1d3c20",
];
const ASKING: [u8; 8] = 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes();
const TOSS_KEY: &str = "test_sk_of_tests";
const NIGHT: i64 = 100_000;
const ALLOTMENT: u32 = 3;

/// No test of its own: what the process of a service runs.
#[test]
fn a_service() {
    let Ok(name) = std::env::var(SERVICE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    assert_eq!(runtime.block_on(run(&name)), ExitCode::SUCCESS);
}

async fn run(name: &str) -> ExitCode {
    let mut env = Env::new("test");
    match name {
        "stays" => {
            let config = stays::config::Config::read(&mut env).unwrap();
            let telemetry = config.process.telemetry(name, "1.2.3");
            serve::process(&telemetry, stays::app::run(config)).await
        }
        "booking" => {
            let config = booking::config::Config::read(&mut env).unwrap();
            let telemetry = config.process.telemetry(name, "1.2.3");
            serve::process(&telemetry, booking::app::run(config)).await
        }
        "orders" => {
            let settings = orders::config::Settings::read().unwrap();
            let telemetry = settings.process.telemetry(name, "1.2.3");
            serve::process(&telemetry, orders::app::run(settings)).await
        }
        "payments" => {
            let config = payments::config::Config::read(&mut env).unwrap();
            let telemetry = config.process.telemetry(name, "1.2.3");
            serve::process(&telemetry, payments::app::run(config)).await
        }
        "promotions-api" => {
            let settings = promotions::config::ApiSettings::read().unwrap();
            let telemetry = settings.common.process.telemetry(name, "1.2.3");
            serve::process(&telemetry, promotions::api::run(settings)).await
        }
        "promotions-ledger" => {
            let settings = promotions::config::LedgerSettings::read().unwrap();
            let telemetry = settings.common.process.telemetry(name, "1.2.3");
            serve::process(&telemetry, promotions::ledger::run(settings)).await
        }
        other => panic!("no service {other}"),
    }
}

/// A service's process; killed when dropped.
struct Running {
    child: Child,
    serving: Value,
}

impl Running {
    /// Starts it and waits until it is ready.
    async fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journey::a_service", "--nocapture"])
            .env_clear()
            .env(SERVICE, name)
            .env("QUOKKA_OPS_ADDR", "127.0.0.1:0")
            .env("QUOKKA_HTTP_ADDR", "127.0.0.1:0")
            .env("QUOKKA_INTERNAL_ADDR", "127.0.0.1:0")
            .env("QUOKKA_LOG", "info")
            .env("POD_NAME", unique_name(name))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (found, serving) = oneshot::channel();
        let mut found = Some(found);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                // The test's own lines are no JSON.
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"] == "serving"
                    && let Some(found) = found.take()
                {
                    let _ = found.send(line);
                }
            }
        });
        let serving = timeout(PATIENCE, serving)
            .await
            .unwrap_or_else(|_| panic!("{name} never served"))
            .unwrap_or_else(|_| panic!("{name} ended at once"));
        let running = Self { child, serving };
        let ready = format!("http://{}/readyz", running.address("ops"));
        testkit::eventually(PATIENCE, async || {
            let answer = reqwest::get(&ready).await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        running
    }

    fn address(&self, of: &str) -> SocketAddr {
        let text = self.serving[of].as_str().unwrap();
        let text = text.trim_start_matches("Some(").trim_end_matches(')');
        text.parse().unwrap()
    }

    fn url(&self, of: &str) -> String {
        format!("http://{}", self.address(of))
    }

    /// Ends it, which sends the spans it still has.
    async fn end(mut self) -> ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(told.unwrap().success());
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .unwrap()
    }
}

async fn database() -> Database {
    Postgres::shared().await.create_database().await.unwrap()
}

struct Platform {
    gateway: Gateway,
    issuer: Issuer,
    services: Vec<Running>,
    ledger_url: String,
    toss: Simulator,
    namespace: String,
    http: reqwest::Client,
}

impl Platform {
    async fn start(endpoint: &str) -> Self {
        let setup = Setup::new().await;
        let (brokers, redis) = (Kafka::shared().await.brokers(), Redis::shared().await.url());
        let jwks = setup.issuer.jwks_url().to_owned();
        let namespace = unique_name("ns");
        let toss = Simulator::start(Settings::new(TOSS_KEY)).await.unwrap();
        let toss_url = toss.url();
        let promotions = database().await;
        let databases = [
            database().await,
            database().await,
            database().await,
            database().await,
        ];
        let shared = [
            ("QUOKKA_KAFKA_BROKERS", brokers.as_str()),
            ("QUOKKA_JWKS_URL", &jwks),
            ("QUOKKA_NAMESPACE", &namespace),
            ("QUOKKA_OTLP_ENDPOINT", endpoint),
        ];
        let with = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            let more = more.iter().chain(&shared);
            more.map(|(name, value)| (*name, (*value).to_owned()))
                .collect()
        };
        let start = async |name: &str, settings: Vec<(&'static str, String)>| {
            let settings: Vec<(&str, &str)> = settings
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            Running::start(name, &settings).await
        };
        let partitions = ("QUOKKA_SAGA_PARTITIONS", "2");
        let (ledger, api, stays, booking) = tokio::join!(
            start(
                "promotions-ledger",
                with(&[
                    ("QUOKKA_DATABASE_URL", promotions.url.as_str()),
                    ("QUOKKA_REDIS_URL", &redis),
                    partitions
                ])
            ),
            start(
                "promotions-api",
                with(&[
                    ("QUOKKA_DATABASE_URL", promotions.url.as_str()),
                    ("QUOKKA_REDIS_URL", &redis)
                ])
            ),
            start(
                "stays",
                with(&[
                    ("QUOKKA_DATABASE_URL", databases[0].url.as_str()),
                    ("QUOKKA_REDIS_URL", &redis),
                    partitions
                ])
            ),
            start(
                "booking",
                with(&[
                    ("QUOKKA_DATABASE_URL", databases[1].url.as_str()),
                    partitions
                ])
            ),
        );
        let orders = start(
            "orders",
            with(&[
                ("QUOKKA_DATABASE_URL", databases[2].url.as_str()),
                ("QUOKKA_STAYS_URL", &stays.url("internal")),
                ("QUOKKA_PROMOTIONS_URL", &ledger.url("internal")),
                partitions,
            ]),
        )
        .await;
        let payments = start(
            "payments",
            with(&[
                ("QUOKKA_DATABASE_URL", databases[3].url.as_str()),
                ("QUOKKA_ORDERS_URL", &orders.url("internal")),
                ("QUOKKA_TOSS_URL", &toss_url),
                ("QUOKKA_TOSS_SECRET_KEY", TOSS_KEY),
                partitions,
            ]),
        )
        .await;
        let upstreams = [
            ("stays", &stays),
            ("promotions", &api),
            ("booking", &booking),
            ("orders", &orders),
            ("payments", &payments),
        ];
        let upstreams =
            upstreams.map(|(name, running)| format!("quokka-{name}={}", running.address("http")));
        let (gateway, issuer) = setup
            .env("QUOKKA_UPSTREAMS", upstreams.join(","))
            .env("QUOKKA_OTLP_ENDPOINT", endpoint)
            .env("QUOKKA_NAMESPACE", &namespace)
            .start()
            .await;
        Self {
            gateway,
            issuer,
            ledger_url: ledger.url("internal"),
            services: vec![ledger, api, stays, booking, orders, payments],
            toss,
            namespace,
            http: reqwest::Client::new(),
        }
    }

    /// Asks the gateway, as a part of a guest's trace or of none that is exported.
    async fn ask(
        &self,
        who: &str,
        trace: Option<&str>,
        request: reqwest::RequestBuilder,
    ) -> (u16, Value) {
        let (trace, flags) = trace.map_or_else(
            || (Uuid::new_v4().simple().to_string(), "00"),
            |trace| (trace.to_owned(), "01"),
        );
        let response = request
            .header("authorization", who)
            .header(
                "traceparent",
                format!("00-{trace}-{}-{flags}", hex(&ASKING)),
            )
            .header("idempotency-key", Uuid::new_v4().to_string())
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn post(&self, who: &str, path: &str, body: &Value) -> Value {
        let request = self.http.post(self.gateway.url(path)).json(body);
        let (status, body) = self.ask(who, None, request).await;
        assert!(matches!(status, 200 | 201), "{path}: {status} {body}");
        body
    }

    /// Waits until what is at a path is as it should be.
    async fn until(&self, who: &str, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        testkit::eventually(PATIENCE, async || {
            let request = self.http.get(self.gateway.url(path));
            let (status, body) = self.ask(who, None, request).await;
            if status == 200 && holds(&body) {
                Ok(body)
            } else {
                Err(format!("{path}: {status} {body}"))
            }
        })
        .await
    }

    /// A stay whose one room type can be booked; its id.
    async fn offer(&self, nights: &[Date]) -> String {
        let roles = json!({"roles": ["guest", "host"]});
        let host = self.issuer.bearer_with(roles);
        let stay = json!({
            "name": "A house", "region": "busan", "lat": 35.16, "lng": 129.16, "amenities": ["wifi"],
            "cancellation": "MODERATE",
        });
        let stay = self.post(&host, "/v1/stays", &stay).await;
        let stay = stay["id"].as_str().unwrap();
        let room = json!({"name": "Room", "capacity": 2});
        let path = format!("/v1/stays/{stay}/room-types");
        let room = self.post(&host, &path, &room).await;
        let room = room["id"].as_str().unwrap().to_owned();
        let offered: Vec<Value> = nights
            .iter()
            .map(|night| json!({"date": night, "price": NIGHT, "allotment": ALLOTMENT}))
            .collect();
        let path = format!("/v1/room-types/{room}/calendar");
        let put = self.http.put(self.gateway.url(&path));
        let put = put.json(&json!({"nights": offered}));
        let (status, body) = self.ask(&host, None, put).await;
        assert_eq!(status, 200, "{body}");
        let (first, last) = (nights.first().unwrap(), nights.last().unwrap());
        let path = format!("/v1/stays/{stay}/availability?from={first}&to={last}");
        // It is booking that says how many rooms are left: it knows of them by then.
        self.until(&host, &path, |availability| {
            let nights = availability["roomTypes"][0]["nights"].as_array();
            nights.is_some_and(|nights| {
                !nights.is_empty() && nights.iter().all(|night| night["roomsLeft"] == ALLOTMENT)
            })
        })
        .await;
        room
    }

    /// A campaign that is open, declared as the operator does; its name.
    async fn campaign(&self) -> String {
        let name = unique_name("campaign");
        let now = Timestamp::now();
        let definition = SaleDefinition {
            uid: SaleUid(Uuid::new_v4()),
            topic: events::claims_topic(&self.namespace, &name),
            name: name.clone(),
            kind: SaleKind::CouponCampaign,
            generation: 1,
            display_name: "A campaign".to_owned(),
            starts: now - SignedDuration::from_secs(60),
            ends: now + SignedDuration::from_hours(1),
            stock: Stock(10),
            per_user_limit: 1,
            claim_ttl_ms: None,
            paused: false,
            partitions: 2,
            target: None,
            stay_dates: None,
            discount: Discount::Percent(PercentDiscount {
                percent: 10,
                max_amount: None,
            }),
            coupon: Some(CouponTerms {
                valid_for_ms: 24 * 3_600_000,
                min_order_amount: None,
                regions: Vec::new(),
            }),
        };
        let brokers = Kafka::shared().await.brokers();
        events::topics::ensure(&brokers, &[(definition.topic.as_str(), 2)])
            .await
            .unwrap();
        let books = format!("{}/internal/v1/sales/{}", self.ledger_url, definition.uid);
        testkit::eventually(PATIENCE, async || {
            let put = self.http.put(&books).json(&definition).send().await;
            put.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        testkit::eventually(PATIENCE, async || {
            let answer = self.http.get(&books).send().await.ok()?;
            let books: Books = answer.json().await.ok()?;
            (books.gate == GateState::Open && !books.recovering).then_some(())
        })
        .await;
        name
    }

    /// A coupon of a campaign, which the guest has claimed; its id.
    async fn coupon(&self, who: &str, campaign: &str) -> String {
        let path = format!("/v1/coupon-campaigns/{campaign}");
        self.until(who, &path, |_| true).await;
        let claim = self.post(who, &format!("{path}/claims"), &json!({})).await;
        let claim = claim["claimId"].as_str().unwrap();
        let issued = |claim: &Value| claim["status"] == "ISSUED";
        self.until(who, &format!("/v1/claims/{claim}"), issued)
            .await;
        claim.to_owned()
    }

    /// Orders what is wished for, pays, and sees it confirmed: all in one trace. Answers the order's id.
    async fn order(&self, who: &str, trace: &str, wish: &Value) -> String {
        let order = self.http.post(self.gateway.url("/v1/orders")).json(wish);
        let (status, order) = self.ask(who, Some(trace), order).await;
        assert_eq!(status, 201, "{order}");
        let id = order["orderId"].as_str().unwrap();
        let amount = order["amount"].as_i64().unwrap();
        assert_eq!(amount, 2 * NIGHT * 9 / 10);
        let path = format!("/v1/orders/{id}");
        let may_be_paid = |order: &Value| order["status"] == "AWAITING_PAYMENT";
        self.until(who, &path, may_be_paid).await;
        let session = NewSession {
            order_id: id.to_owned(),
            order_name: "Two nights".to_owned(),
            amount,
            means: Means::Card,
            refund_account: None,
            refuse: None,
        };
        let key = self.toss.authenticate(session).unwrap();
        let confirm = json!({"paymentKey": key, "orderId": id, "amount": amount});
        let pay = self.http.post(self.gateway.url("/v1/payments/confirm"));
        let (status, paid) = self.ask(who, Some(trace), pay.json(&confirm)).await;
        assert_eq!(
            (status, &paid["status"]),
            (200, &json!("CAPTURED")),
            "{paid}"
        );
        let confirmed = |order: &Value| order["status"] == "CONFIRMED";
        self.until(who, &path, confirmed).await;
        id.to_owned()
    }

    /// Ends every process; all that they sent to the collector, with who sent it.
    async fn end(mut self, mut collector: Collector) -> Vec<Told> {
        self.gateway.terminate();
        assert!(self.gateway.ended().await.success());
        for service in self.services {
            assert!(service.end().await.success());
        }
        let mut told = Vec::new();
        for resource in collector.received() {
            let of = resource.resource.unwrap().attributes;
            let value = |key| attribute(&of, key).unwrap_or_else(|| panic!("no {key}: {of:?}"));
            for key in ["service.version", "service.instance.id"] {
                assert!(!value(key).is_empty());
            }
            assert_eq!(value("service.namespace"), self.namespace);
            let service = value("service.name");
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            told.extend(spans.map(|span| Told {
                service: service.clone(),
                span,
            }));
        }
        told
    }
}

/// A span, and who told of it.
struct Told {
    service: String,
    span: Span,
}

impl Told {
    fn name(&self) -> String {
        format!("{}: {}", self.service, self.span.name)
    }

    #[track_caller]
    fn attribute(&self, key: &str) -> String {
        let attributes = &self.span.attributes;
        attribute(attributes, key).unwrap_or_else(|| panic!("{} has no {key}", self.name()))
    }
}

/// Everything of one trace, by its spans.
struct Trace<'a>(BTreeMap<Vec<u8>, &'a Told>);

impl Trace<'_> {
    fn named(&self, name: &str) -> impl Iterator<Item = &Told> {
        self.0
            .values()
            .copied()
            .filter(move |told| told.name() == name)
    }

    /// Shown when the test fails: what a span caused, beneath it, in the order of time.
    fn print(&self, caused_by: &[u8], depth: usize) {
        let mut caused: Vec<&Told> = (self.0.values().copied())
            .filter(|told| told.span.parent_span_id == caused_by)
            .collect();
        caused.sort_by_key(|told| told.span.start_time_unix_nano);
        for told in caused {
            println!("{:1$}{2}", "", 2 * depth, told.name());
            self.print(&told.span.span_id, depth + 1);
        }
    }

    /// What a span was caused by, from the first cause on.
    fn story(&self, told: &Told) -> Vec<String> {
        let mut names = vec![told.name()];
        let mut parent = self.0.get(&told.span.parent_span_id);
        while let Some(told) = parent {
            names.push(told.name());
            parent = self.0.get(&told.span.parent_span_id);
        }
        names.reverse();
        names
    }

    #[track_caller]
    fn has_story(&self, story: &[&str]) {
        let last = story.last().unwrap();
        let stories: Vec<Vec<String>> = self.named(last).map(|told| self.story(told)).collect();
        assert!(
            stories.iter().any(|told| told == story),
            "{story:#?} is none of {stories:#?}"
        );
    }

    /// From the guest's requests to the booking, through every service and over Kafka.
    fn tells_the_journey(&self) {
        let services: BTreeSet<&str> = (self.0.values())
            .map(|told| told.service.as_str())
            .collect();
        let expected = [
            "booking",
            "gateway",
            "orders",
            "payments",
            "promotions-ledger",
            "stays",
        ];
        assert_eq!(services, BTreeSet::from(expected));
        for told in self.0.values() {
            let known = self.0.contains_key(&told.span.parent_span_id);
            let the_guests = told.span.parent_span_id == ASKING;
            assert!(known || the_guests, "{} hangs in the air", told.name());
        }

        // What is asked of promotions, and its answer.
        let of_the_coupon = [
            "orders: send quokka.promotions.commands",
            "promotions-ledger: process quokka.promotions.commands",
            "promotions-ledger: send quokka.orders.replies",
            "orders: process quokka.orders.replies",
        ];
        // The nights are held.
        let hold = [
            "gateway: POST /v1/orders",
            "orders: POST /v1/orders",
            "orders: send quokka.booking.commands",
            "booking: process quokka.booking.commands",
            "booking: send quokka.orders.replies",
            "orders: process quokka.orders.replies",
        ];
        self.has_story(&hold);
        // Then the coupon is reserved.
        self.has_story(&[&hold[..], &of_the_coupon].concat());
        // The payment is captured, and the booking made.
        let book = [
            "gateway: POST /v1/payments/confirm",
            "payments: POST /v1/payments/confirm",
            "payments: send quokka.orders.replies",
            "orders: process quokka.orders.replies",
            "orders: send quokka.booking.commands",
            "booking: process quokka.booking.commands",
            "booking: send quokka.orders.replies",
            "orders: process quokka.orders.replies",
        ];
        self.has_story(&book);
        // At last the coupon is used.
        self.has_story(&[&book[..], &of_the_coupon].concat());
    }

    /// Nothing of another order.
    fn is_of(&self, order: &str) {
        for asked in [
            "gateway: POST /v1/orders",
            "payments: POST /v1/payments/confirm",
        ] {
            assert_eq!(self.named(asked).count(), 1, "{asked}");
        }
        let topics = [BOOKING_COMMANDS, PROMOTIONS_COMMANDS, ORDER_REPLIES];
        for told in self.0.values() {
            let topic = told.span.name.strip_prefix("send ");
            if topic.is_some_and(|topic| topics.contains(&topic)) {
                let key = told.attribute("messaging.kafka.message.key");
                assert_eq!(key, order, "{}", told.name());
            }
        }
    }

    /// The conventions for messages.
    fn messages_are_well_told(&self) {
        for told in self.0.values() {
            let Some((operation, topic)) = told.span.name.split_once(' ') else {
                continue;
            };
            let kind = match operation {
                "send" => SpanKind::Producer,
                "process" => SpanKind::Consumer,
                _ => continue,
            };
            assert_eq!(told.span.kind(), kind, "{}", told.name());
            assert_eq!(told.attribute("messaging.system"), "kafka");
            assert_eq!(told.attribute("messaging.operation.type"), operation);
            assert_eq!(told.attribute("messaging.destination.name"), topic);
            for key in [
                "messaging.destination.partition.id",
                "messaging.kafka.offset",
            ] {
                told.attribute(key);
            }
            if kind == SpanKind::Consumer {
                told.attribute("messaging.consumer.group.name");
                let links: Vec<&Vec<u8>> =
                    (told.span.links.iter()).map(|link| &link.span_id).collect();
                assert_eq!(links, [&told.span.parent_span_id], "{}", told.name());
                let sent = &self.0[&told.span.parent_span_id];
                assert_eq!(sent.span.name, format!("send {topic}"));
            }
        }
    }
}

/// The conventions for databases. Of booking's, wherever they are: those of a transaction that orders share are of no
/// order's trace.
fn statements_are_well_told(told: &[Told]) {
    let booking = told.iter().filter(|told| told.service == "booking");
    let statements: Vec<&Told> = booking
        .filter(|told| attribute(&told.span.attributes, "db.system.name").is_some())
        .collect();
    assert!(!statements.is_empty(), "booking asks its database");
    for told in statements {
        assert_eq!(told.span.kind(), SpanKind::Client, "{}", told.name());
        assert_eq!(told.attribute("db.system.name"), "postgresql");
        assert_eq!(told.attribute("db.query.summary"), told.span.name);
        for key in ["db.namespace", "db.operation.name", "db.query.text"] {
            told.attribute(key);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_shows_an_order_from_the_request_to_the_booking() {
    let collector = Collector::start().await;
    let platform = Platform::start(&collector.endpoint()).await;
    let today = Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(9)))
        .date();
    let check_in = today.checked_add(Days::new().days(30)).unwrap();
    let nights = [check_in, check_in.tomorrow().unwrap()];
    let (room, campaign) = tokio::join!(platform.offer(&nights), platform.campaign());
    // Two guests want the same nights at the same time, each in a trace of its own.
    let journeys = TRACES.map(async |trace| {
        let who = platform.issuer.bearer_with(json!({"sub": Uuid::new_v4()}));
        let coupon = platform.coupon(&who, &campaign).await;
        let wish = json!({
            "roomTypeId": room, "checkIn": check_in, "checkOut": nights[1].tomorrow().unwrap(),
            "guests": 2, "couponId": coupon,
        });
        (trace, platform.order(&who, trace, &wish).await)
    });
    let orders = futures::future::join_all(journeys).await;

    let told = platform.end(collector).await;
    for (trace, order) in orders {
        let of_trace = told
            .iter()
            .filter(|told| hex(&told.span.trace_id) == trace)
            .map(|told| (told.span.span_id.clone(), told));
        let trace = Trace(of_trace.collect());
        println!("order {order}");
        trace.print(&ASKING, 1);
        trace.tells_the_journey();
        trace.is_of(&order);
        trace.messages_are_well_told();
    }
    statements_are_well_told(&told);
}
