//! The platform under test as its users and its engineers reach it: the API's address, the Kubernetes API,
//! and the stores behind it, whose addresses stand in the platform's own Secrets.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PostParams,
};
use redis::AsyncCommands;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::time::Instant;
use uuid::Uuid;

use crate::checker::{AtRest, LedgerClaim, RedisClaim, Sale, Status};
use crate::guests::{TokenSigner, sign_up_and_in};

/// Where each service tells its metrics.
const OPS_PORT: u16 = 9090;

/// The two kinds of sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TimeSale,
    CouponCampaign,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let kind = match self {
            Self::TimeSale => "TimeSale",
            Self::CouponCampaign => "CouponCampaign",
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk("quokka.travel", "v1alpha1", kind))
    }

    /// The collection's path in the REST API.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::TimeSale => "/v1/time-sales",
            Self::CouponCampaign => "/v1/coupon-campaigns",
        }
    }
}

/// A sale to declare for a run.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) stock: usize,
    pub(crate) starts: Timestamp,
    pub(crate) ends: Timestamp,
    /// Only for time sales.
    pub(crate) claim_ttl: &'static str,
    /// Only for time sales: where they lower prices.
    pub(crate) region: &'static str,
}

impl Declaration {
    fn manifest(&self) -> Value {
        let mut spec = json!({
            "displayName": "Load run",
            "starts": self.starts.to_string(),
            "ends": self.ends.to_string(),
            "perUserLimit": 1,
            // Three partitions, so that their order and their readers are tested as well.
            "expectedPeak": {"claimsPerSecond": 60_000},
            "discount": {"percent": 10},
        });
        let more = match self.kind {
            Kind::TimeSale => {
                json!({"stock": self.stock, "target": {"regions": [self.region]}, "claimTtl": self.claim_ttl})
            }
            Kind::CouponCampaign => {
                json!({"quantity": self.stock, "coupon": {"validFor": "720h", "minOrderAmount": 50000}})
            }
        };
        if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
            spec.extend(more);
        }
        let resource = self.kind.resource();
        json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": self.name}, "spec": spec})
    }
}

/// A declared sale.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) declaration: Declaration,
    pub(crate) uid: String,
}

impl Declared {
    /// What the checker needs to know of it.
    pub(crate) fn facts(&self) -> Sale {
        let Declaration {
            stock,
            starts,
            ends,
            ..
        } = self.declaration;
        Sale {
            stock,
            per_user_limit: 1,
            starts,
            ends,
        }
    }

    /// Where guests claim.
    pub(crate) fn claims_path(&self) -> String {
        format!(
            "{}/{}/claims",
            self.declaration.kind.path(),
            self.declaration.name
        )
    }
}

/// Handles to everything a run reads or disturbs.
pub(crate) struct Platform {
    pub(crate) api: SocketAddr,
    pub(crate) kube: kube::Client,
    pub(crate) namespace: String,
    ledger: PgPool,
    redis_url: String,
}

impl Platform {
    /// Connects with the current kubeconfig and the addresses in the namespace's Secrets.
    pub(crate) async fn connect(api: SocketAddr, namespace: &str) -> anyhow::Result<Self> {
        let kube = kube::Client::try_default()
            .await
            .context("reaching the Kubernetes API; is KUBECONFIG set?")?;
        let database = secret(&kube, namespace, "quokka-postgres-promotions", "url").await?;
        let redis_url = text(secret(&kube, namespace, "quokka-redis", "url").await?)?;
        let ledger = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy(&text(database)?)?;
        Ok(Self {
            api,
            kube,
            namespace: namespace.to_owned(),
            ledger,
            redis_url,
        })
    }

    /// What a Secret of the platform holds under a key.
    pub(crate) async fn secret(&self, name: &str, key: &str) -> anyhow::Result<String> {
        text(secret(&self.kube, &self.namespace, name, key).await?)
    }

    /// A service's own database.
    pub(crate) async fn database(&self, service: &str) -> anyhow::Result<PgPool> {
        let url = self
            .secret(&format!("quokka-postgres-{service}"), "url")
            .await?;
        Ok(PgPoolOptions::new().max_connections(2).connect_lazy(&url)?)
    }

    /// A signer that makes tokens which the platform takes for its own. Waits until guests can sign up: what ran before
    /// may have taken a store away.
    pub(crate) async fn token_signer(&self) -> anyhow::Result<TokenSigner> {
        let mut token = String::new();
        self.until("a guest can sign up", Duration::from_secs(60), async || {
            token = sign_up_and_in(self.api).await?.1;
            Ok(true)
        })
        .await?;
        let pem = secret(&self.kube, &self.namespace, "quokka-signing-key", "key.pem").await?;
        TokenSigner::like(&pem, &token, "quokka")
    }

    fn sales(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.kube.clone(), &self.namespace, &kind.resource())
    }

    /// Creates the sale and waits until the operator says that its topic and stock are ready.
    pub(crate) async fn declare(&self, declaration: Declaration) -> anyhow::Result<Declared> {
        let sales = self.sales(declaration.kind);
        let manifest: DynamicObject = serde_json::from_value(declaration.manifest())?;
        let created = sales
            .create(&PostParams::default(), &manifest)
            .await
            .context("declaring the sale")?;
        let uid = created
            .metadata
            .uid
            .context("a created resource without uid")?;
        let declared = Declared { declaration, uid };
        self.until(
            "the sale's stock and topic are ready",
            Duration::from_secs(60),
            async || {
                let object = sales.get(&declared.declaration.name).await?;
                Ok(is_true(&object, "StockReady") && is_true(&object, "TopicReady"))
            },
        )
        .await?;
        Ok(declared)
    }

    /// Deletes the sale and waits until its finalizer has let it go.
    pub(crate) async fn remove(&self, declared: &Declared) -> anyhow::Result<()> {
        let sales = self.sales(declared.declaration.kind);
        sales
            .delete(&declared.declaration.name, &DeleteParams::default())
            .await?;
        self.until(
            "the deleted sale is gone",
            Duration::from_secs(90),
            async || Ok(sales.get_opt(&declared.declaration.name).await?.is_none()),
        )
        .await
    }

    /// Changes part of the sale's spec.
    pub(crate) async fn change(&self, declared: &Declared, spec: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.sales(declared.declaration.kind)
            .patch(&declared.declaration.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// The status as it stands in the Kubernetes API.
    pub(crate) async fn status(&self, declared: &Declared) -> anyhow::Result<Status> {
        let object = self
            .sales(declared.declaration.kind)
            .get(&declared.declaration.name)
            .await?;
        let status = &object.data["status"];
        let count = |name: &str| {
            status["stock"][name]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
        };
        Ok(Status {
            phase: status["phase"].as_str().unwrap_or_default().to_owned(),
            claimed: count("claimed").unwrap_or(0),
            remaining: count("remaining").unwrap_or(0),
            consistent: is_true(&object, "Consistent"),
        })
    }

    /// Everything the ledger holds of the sale.
    pub(crate) async fn ledger(&self, declared: &Declared) -> anyhow::Result<Vec<LedgerClaim>> {
        let rows = sqlx::query("SELECT claim_id, user_id, claimed_at, ended_at, status FROM claims WHERE sale_uid = $1::text::uuid")
            .bind(&declared.uid)
            .fetch_all(&self.ledger)
            .await
            .context("reading the ledger")?;
        rows.iter()
            .map(|row| {
                let ended_at: Option<time::OffsetDateTime> = row.try_get("ended_at")?;
                Ok(LedgerClaim {
                    claim: row.try_get("claim_id")?,
                    user: row.try_get("user_id")?,
                    claimed_at: timestamp(row.try_get("claimed_at")?)?,
                    ended_at: ended_at.map(timestamp).transpose()?,
                    returned: row.try_get::<&str, _>("status")? == "RETURNED",
                })
            })
            .collect()
    }

    /// A connection to the platform's Redis.
    pub(crate) async fn redis(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        client
            .get_multiplexed_async_connection()
            .await
            .context("connecting to Redis")
    }

    /// The units that Redis counts as taken.
    async fn redis_claims(&self, declared: &Declared) -> anyhow::Result<Vec<RedisClaim>> {
        let key = format!("quokka:{{{}}}:claims", declared.uid);
        let entries: Vec<(String, String)> = self.redis().await?.hgetall(&key).await?;
        entries
            .into_iter()
            .map(|(field, value)| {
                let user = field.split('/').next().unwrap_or_default().parse()?;
                let mut parts = value.split('|');
                let claim: Uuid = parts.next().unwrap_or_default().parse()?;
                let recorded = parts.next() == Some("R");
                Ok(RedisClaim {
                    claim,
                    user,
                    recorded,
                })
            })
            .collect()
    }

    /// Whether Redis or Kafka still hold anything of a sale that was removed.
    pub(crate) async fn redis_keys(&self, declared: &Declared) -> anyhow::Result<Vec<String>> {
        Ok(self
            .redis()
            .await?
            .keys(format!("quokka:{{{}}}:*", declared.uid))
            .await?)
    }

    /// Waits until the log has drained, Redis agrees with the ledger and the status has caught up, and reads them all.
    /// What does not come to rest in `patience` is returned as it is, for the checker to name.
    pub(crate) async fn at_rest(
        &self,
        declared: &Declared,
        patience: Duration,
    ) -> anyhow::Result<AtRest> {
        let deadline = Instant::now() + patience;
        loop {
            let read = self.read_all(declared).await;
            let quiet = read.as_ref().is_ok_and(is_quiet);
            if quiet || Instant::now() > deadline {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn read_all(&self, declared: &Declared) -> anyhow::Result<AtRest> {
        Ok(AtRest {
            redis: self.redis_claims(declared).await?,
            ledger: self.ledger(declared).await?,
            status: self.status(declared).await?,
            refused_by_ledger: self.refused_by_ledger(declared).await?,
        })
    }

    /// The ledger keeps which claims it had no room for, so that no restart forgets them.
    async fn refused_by_ledger(&self, declared: &Declared) -> anyhow::Result<u64> {
        let refused: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM refused_claims WHERE sale_uid = $1::text::uuid",
        )
        .bind(&declared.uid)
        .fetch_one(&self.ledger)
        .await
        .context("reading the refused claims")?;
        Ok(refused.unsigned_abs())
    }

    /// The uid of a ledger pod that reads part of the sale's log and does not tend the sale: only the one that tends it
    /// measures its lag.
    pub(crate) async fn ledger_that_only_reads(&self, sale: &Declared) -> anyhow::Result<String> {
        let lag = format!(
            "quokka_ledger_lag{{topic=\"quokka.claims.{}.{}\"}}",
            self.namespace, sale.declaration.name
        );
        let (mut tending, mut reading) = (0, None);
        for pod in self
            .pods("app.kubernetes.io/component=promotions-ledger")
            .await?
        {
            let ip = pod.status.and_then(|status| status.pod_ip);
            let address = format!("{}:{OPS_PORT}", ip.context("a ledger pod without address")?);
            let metrics = crate::http::Call::get("/metrics".parse()?);
            let answer = crate::http::Connection::new(address.parse()?)
                .send(&metrics, Duration::from_secs(5))
                .await
                .map_err(|no| anyhow::anyhow!("reading the metrics of {address}: {no:?}"))?;
            if String::from_utf8_lossy(&answer.body).contains(&lag) {
                tending += 1;
            } else {
                reading = pod.metadata.uid;
            }
        }
        ensure!(tending == 1, "{tending} ledgers tend the sale");
        reading.context("no ledger reads without tending: it needs two")
    }

    /// The pods that carry `labels`.
    pub(crate) async fn pods(&self, labels: &str) -> anyhow::Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.kube.clone(), &self.namespace);
        Ok(pods
            .list(&ListParams::default().labels(labels))
            .await?
            .items)
    }

    /// Takes a pod away at once, so that another comes.
    pub(crate) async fn forget(&self, pod: &Pod) -> anyhow::Result<()> {
        let pods = Api::<Pod>::namespaced(self.kube.clone(), &self.namespace);
        let name = pod.metadata.name.as_deref().context("a pod without name")?;
        let at_once = DeleteParams::default().grace_period(0);
        match pods.delete(name, &at_once).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => Ok(deleted.map(drop)?),
        }
    }

    /// Waits until as many other pods with these labels are ready as were taken away.
    pub(crate) async fn until_replaced(&self, labels: &str, gone: &[Pod]) -> anyhow::Result<()> {
        let what = format!("the pods {labels} are replaced");
        self.until(&what, Duration::from_secs(120), async || {
            let pods = self.pods(labels).await?;
            let is_new = |pod: &Pod| gone.iter().all(|old| old.metadata.uid != pod.metadata.uid);
            Ok(pods.len() == gone.len() && pods.iter().all(|pod| is_new(pod) && is_ready(pod)))
        })
        .await
    }

    /// Waits until all pods of a Deployment are ready.
    pub(crate) async fn until_ready(&self, deployment: &str) -> anyhow::Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.kube.clone(), &self.namespace);
        let what = format!("{deployment} is ready");
        self.until(&what, Duration::from_secs(120), async || {
            let deployment = deployments.get(deployment).await?;
            let wanted = deployment.spec.and_then(|spec| spec.replicas);
            let status = deployment.status.unwrap_or_default();
            Ok(wanted.is_some() && status.ready_replicas == wanted && status.replicas == wanted)
        })
        .await
    }

    /// Sets the number of a Deployment's pods.
    pub(crate) async fn set_replicas(&self, deployment: &str, replicas: i32) -> anyhow::Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.kube.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments
            .patch(deployment, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Sets the number of a Deployment's pods and waits until they are ready.
    pub(crate) async fn scale(&self, deployment: &str, replicas: i32) -> anyhow::Result<()> {
        self.set_replicas(deployment, replicas).await?;
        let deployments = Api::<Deployment>::namespaced(self.kube.clone(), &self.namespace);
        self.until(
            &format!("{deployment} has {replicas} pods"),
            Duration::from_secs(120),
            async || {
                let status = deployments
                    .get(deployment)
                    .await?
                    .status
                    .unwrap_or_default();
                Ok(status.replicas.unwrap_or(0) == replicas
                    && status.ready_replicas.unwrap_or(0) == replicas)
            },
        )
        .await
    }

    /// Waits for a condition; an error while looking counts as not yet.
    pub(crate) async fn until(
        &self,
        what: &str,
        patience: Duration,
        mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let seen = condition().await;
            if matches!(seen, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                match seen {
                    Ok(_) => bail!("waited {patience:?} until {what}, in vain"),
                    Err(error) => {
                        return Err(
                            error.context(format!("waited {patience:?} until {what}, in vain"))
                        );
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_quiet(stores: &AtRest) -> bool {
    let rows = stores
        .ledger
        .iter()
        .filter(|row| row.ended_at.is_none())
        .count();
    stores.redis.len() == rows
        && stores.redis.iter().all(|entry| entry.recorded)
        && stores.status.claimed == rows
        && stores.status.consistent
        && (stores.status.phase == "Ended"
            || (stores.status.remaining == 0) == (stores.status.phase == "SoldOut"))
}

fn is_true(object: &DynamicObject, condition: &str) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == condition && one["status"] == "True")
    })
}

pub(crate) fn timestamp(at: time::OffsetDateTime) -> anyhow::Result<Timestamp> {
    Ok(Timestamp::from_nanosecond(at.unix_timestamp_nanos())?)
}

fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    Ok(String::from_utf8(bytes)?)
}

async fn secret(
    kube: &kube::Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> anyhow::Result<Vec<u8>> {
    let secret = Api::<Secret>::namespaced(kube.clone(), namespace)
        .get(name)
        .await;
    let data = secret
        .with_context(|| format!("reading the Secret {namespace}/{name}"))?
        .data
        .unwrap_or_default();
    let value = data
        .get(key)
        .with_context(|| format!("the Secret {namespace}/{name} has no key {key}"))?;
    ensure!(
        !value.0.is_empty(),
        "the Secret {namespace}/{name} has nothing under {key}"
    );
    Ok(value.0.clone())
}
