//! A namespace with an operator, a ledger and an API of promotions of its own, on real servers.

use std::{net::SocketAddr, time::Duration};

use chassis::{
    config::Process,
    health::{Dependency, Readiness},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    events::v1::Event,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::KubeConfigOptions,
};
use promotions::config::{ApiSettings, Common, LedgerSettings};
use quokka_crds::{CouponCampaign, Phase, SaleStatus, TimeSale};
use quokka_operator::{app::Operator, config::Config, sale::SaleResource};
use reqwest::StatusCode;
use sale_stock::{RedisSettings, SaleStock, SaleUid, books::Books};
use serde_json::{Value, json};
use testkit::{
    Database, JwksServer, Kafka, KubeApi, Postgres, Redis, TokenIssuer, eventually, unique_name,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Long enough for a busy machine: every wait ends as soon as its condition holds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Seconds until a sale opens that has to be in place before: long enough for a busy machine, since every test waits for
/// the start.
pub(crate) const LEAD: i64 = 20;

/// Who the operator is to the Kubernetes API.
const SERVICE_ACCOUNT: &str = "quokka-operator";

/// Where the stores of a world are.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) redis_url: String,
    pub(crate) brokers: String,
    pub(crate) database: Database,
}

impl Stores {
    pub(crate) async fn shared() -> Self {
        Self {
            redis_url: Redis::shared().await.url(),
            brokers: Kafka::shared().await.brokers(),
            database: Postgres::shared().await.create_database().await.unwrap(),
        }
    }
}

pub(crate) struct World {
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    kube: kube::Config,
    ledger: SocketAddr,
    ledger_task: JoinHandle<()>,
    api: SocketAddr,
    issuer: TokenIssuer,
    http: reqwest::Client,
    _jwks: JwksServer,
}

/// An operator that runs until it is stopped or dropped.
pub(crate) struct Running {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    kubernetes: Dependency,
}

impl Running {
    /// As SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    pub(crate) fn hears_kubernetes(&self) -> bool {
        self.kubernetes.is_ready()
    }

    /// It reconciles or waits, and hasn't panicked.
    pub(crate) fn lives(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn process(namespace: &str) -> Process {
    Process {
        ops_addr: local(),
        log_filter: "warn".to_owned(),
        otlp_endpoint: None,
        shutdown_grace: Duration::from_secs(20),
        namespace: namespace.to_owned(),
        instance: unique_name("pod"),
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(KubeApi::shared().await, Stores::shared().await).await
    }

    /// Everything but the operator, in a namespace of its own.
    pub(crate) async fn on(kube_api: &KubeApi, stores: Stores) -> Self {
        kube_api
            .apply_crds(&[TimeSale::crd(), CouponCampaign::crd()])
            .await
            .unwrap();
        let client = kube_api.client().await.unwrap();
        let namespace = kube_api.create_namespace().await.unwrap();
        grant(&client, &namespace).await;
        let options = KubeConfigOptions::default();
        let mut kube =
            kube::Config::from_custom_kubeconfig(kube_api.kubeconfig().clone(), &options)
                .await
                .unwrap();
        // The operator may do what its role lets it do and nothing else, in every test.
        kube.auth_info.impersonate = Some(format!(
            "system:serviceaccount:{namespace}:{SERVICE_ACCOUNT}"
        ));

        let issuer = TokenIssuer::new();
        let jwks = JwksServer::start(issuer.jwks()).await.unwrap();
        let common = || Common {
            process: process(&namespace),
            database_url: stores.database.url.clone().into(),
            redis_url: stores.redis_url.clone().into(),
            kafka_brokers: stores.brokers.clone(),
        };
        let ledger = LedgerSettings {
            common: common(),
            internal_addr: local(),
            saga_partitions: 2,
        };
        let ledger = promotions::ledger::start(ledger).await.unwrap();
        let api = ApiSettings {
            common: common(),
            http_addr: local(),
            jwks_url: jwks.url().parse().unwrap(),
            jwt_issuer: "quokka".to_owned(),
            bench_noop: false,
        };
        let api = promotions::api::start(api).await.unwrap();
        let (ledger_addr, api_addr) = (ledger.internal_addr().unwrap(), api.http_addr().unwrap());
        let ledger_task = tokio::spawn(async move { ledger.run().await.unwrap() });
        tokio::spawn(api.run());
        Self {
            namespace,
            client,
            stores,
            kube,
            ledger: ledger_addr,
            ledger_task,
            api: api_addr,
            issuer,
            http: reqwest::Client::new(),
            _jwks: jwks,
        }
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            process: process(&self.namespace),
            kafka_brokers: vec![self.stores.brokers.clone()],
            replication_factor: 1,
            redis_url: self.stores.redis_url.clone().into(),
            ledger_url: format!("http://{}", self.ledger).parse().unwrap(),
            cleanup_deadline: Duration::from_secs(300),
            concurrency: 16,
            lease_duration: Duration::from_secs(15),
        }
    }

    pub(crate) fn operator(&self) -> Running {
        self.operator_with(self.config())
    }

    pub(crate) fn operator_with(&self, config: Config) -> Running {
        let operator = Operator::new(&config, &self.kube).unwrap();
        let kubernetes = Readiness::new().dependency("kubernetes");
        let (stop, dependency) = (CancellationToken::new(), kubernetes.clone());
        let token = stop.clone();
        let task = tokio::spawn(async move { operator.lead(&dependency, token).await });
        Running {
            stop,
            task: Some(task),
            kubernetes,
        }
    }

    /// From now on nobody answers the operator.
    pub(crate) async fn end_ledger(&mut self) {
        self.ledger_task.abort();
        let _ = (&mut self.ledger_task).await;
    }

    pub(crate) fn stock(&self) -> SaleStock {
        SaleStock::connect_lazy(&RedisSettings::new(&self.stores.redis_url)).unwrap()
    }

    pub(crate) fn sales<K: SaleResource>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create<K: SaleResource>(&self, resource: Value) -> K {
        let resource: K = serde_json::from_value(resource).unwrap();
        self.sales::<K>()
            .create(&PostParams::default(), &resource)
            .await
            .unwrap()
    }

    pub(crate) async fn change<K: SaleResource>(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.sales::<K>()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete<K: SaleResource>(&self, name: &str) {
        self.sales::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    pub(crate) async fn status<K: SaleResource>(&self, name: &str) -> SaleStatus {
        let resource = self.sales::<K>().get(name).await.unwrap();
        resource.sale_status().cloned().unwrap_or_default()
    }

    /// Waits until the status of a sale is as wanted; tells the last one otherwise.
    pub(crate) async fn until<K: SaleResource>(
        &self,
        name: &str,
        wanted: impl Fn(&SaleStatus) -> bool,
    ) -> SaleStatus {
        eventually(PATIENCE, async || {
            let status = self.status::<K>(name).await;
            if wanted(&status) {
                Ok(status)
            } else {
                Err(serde_json::to_string(&status).unwrap())
            }
        })
        .await
    }

    pub(crate) async fn until_gone<K: SaleResource>(&self, name: &str) {
        eventually(PATIENCE, async || {
            self.sales::<K>().get_opt(name).await.unwrap().is_none()
        })
        .await;
    }

    /// The reasons of the events about a resource, in the order in which they happened.
    pub(crate) async fn told(&self, uid: &str) -> Vec<String> {
        let events = self.events(uid).await.into_iter();
        events.map(|event| event.reason.unwrap()).collect()
    }

    /// The events about a resource, in the order in which they happened.
    pub(crate) async fn events(&self, uid: &str) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut events: Vec<_> = events
            .list(&Default::default())
            .await
            .unwrap()
            .into_iter()
            .filter(|event| {
                event
                    .regarding
                    .as_ref()
                    .and_then(|regarding| regarding.uid.as_deref())
                    == Some(uid)
            })
            .collect();
        events.sort_by_key(|event| event.event_time.as_ref().unwrap().0);
        events
    }

    /// From now on the operator may publish no events.
    pub(crate) async fn refuse_events(&self) {
        let roles: Api<Role> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut rules = rules();
        rules
            .as_array_mut()
            .unwrap()
            .retain(|rule| rule["apiGroups"][0] != "events.k8s.io");
        let patch = Patch::Merge(json!({ "rules": rules }));
        let params = PatchParams::default();
        roles.patch(SERVICE_ACCOUNT, &params, &patch).await.unwrap();
        // The API server takes a moment to go by it.
        let operators = Client::try_from(self.kube.clone()).unwrap();
        let events: Api<Event> = Api::namespaced(operators, &self.namespace);
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        eventually(PATIENCE, async || {
            match events.create(&dry_run, &Event::default()).await {
                Err(kube::Error::Api(status)) => status.is_forbidden(),
                _ => false,
            }
        })
        .await;
    }

    /// A guest claims a unit, by the API of promotions: the answer's status and code.
    pub(crate) async fn claim(&self, kind: &str, name: &str) -> (StatusCode, String) {
        let url = format!("http://{}/v1/{kind}/{name}/claims", self.api);
        let request = self
            .http
            .post(url)
            .bearer_auth(self.issuer.token(Uuid::new_v4()));
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Claims until `units` more are claimed.
    pub(crate) async fn sell(&self, kind: &str, name: &str, units: usize) {
        for _ in 0..units {
            eventually(PATIENCE, async || match self.claim(kind, name).await {
                (StatusCode::CREATED, _) => Ok(()),
                other => Err(other),
            })
            .await;
        }
    }

    pub(crate) async fn books(&self, uid: SaleUid) -> Books {
        let url = format!("http://{}/internal/v1/sales/{uid}", self.ledger);
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

/// The role that the operator's crate documents: the whole of what it may do.
pub(crate) fn rules() -> Value {
    json!([
        { "apiGroups": ["quokka.travel"], "resources": ["timesales", "couponcampaigns"],
          "verbs": ["get", "list", "watch", "patch"] },
        { "apiGroups": ["quokka.travel"], "resources": ["timesales/status", "couponcampaigns/status"],
          "verbs": ["patch"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["quokka-operator"],
          "verbs": ["get", "update"] },
    ])
}

async fn grant(client: &Client, namespace: &str) {
    let role = json!({ "metadata": { "name": SERVICE_ACCOUNT }, "rules": rules() });
    let role: Role = serde_json::from_value(role).unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": SERVICE_ACCOUNT },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SERVICE_ACCOUNT },
        "subjects": [{ "kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": namespace }],
    }))
    .unwrap();
    Api::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &role)
        .await
        .unwrap();
    Api::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
}

/// A time sale whose window opens `opens_in` seconds from now and lasts `lasts` seconds.
pub(crate) fn time_sale(name: &str, stock: i64, opens_in: i64, lasts: i64) -> Value {
    let starts = Timestamp::now() + SignedDuration::from_secs(opens_in);
    json!({
        "apiVersion": "quokka.travel/v1alpha1",
        "kind": "TimeSale",
        "metadata": { "name": name },
        "spec": {
            "displayName": "Jeju weekend",
            "starts": starts,
            "ends": starts + SignedDuration::from_secs(lasts),
            "target": { "regions": ["jeju"] },
            "discount": { "percent": 40 },
            "stock": stock,
            "expectedPeak": { "claimsPerSecond": 60_000 },
        },
    })
}

/// A campaign that is open for an hour.
pub(crate) fn campaign(name: &str, quantity: i64) -> Value {
    json!({
        "apiVersion": "quokka.travel/v1alpha1",
        "kind": "CouponCampaign",
        "metadata": { "name": name },
        "spec": {
            "displayName": "First trip",
            "starts": Timestamp::now(),
            "ends": Timestamp::now() + SignedDuration::from_hours(1),
            "quantity": quantity,
            "discount": { "percent": 10, "maxAmount": 20000 },
            "coupon": { "validFor": "720h" },
        },
    })
}

pub(crate) fn uid_of<K: SaleResource>(resource: &K) -> SaleUid {
    resource.uid().unwrap().parse().unwrap()
}

/// A condition as `status/reason`, such as `True/BooksAgree`.
pub(crate) fn condition(status: &SaleStatus, kind: &str) -> String {
    let is = status.conditions.iter().find(|is| is.type_ == kind);
    is.map(|is| format!("{}/{}", is.status, is.reason))
        .unwrap_or_default()
}

pub(crate) fn is_ready(status: &SaleStatus) -> bool {
    condition(status, "Ready") == "True/EverythingReady"
}

pub(crate) fn is_in(phase: Phase) -> impl Fn(&SaleStatus) -> bool {
    move |status| status.phase == Some(phase)
}
