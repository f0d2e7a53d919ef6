//! Puts the operator together and lets it lead when it is its turn.

use std::{pin::pin, time::Duration};

use chassis::{
    health::{Dependency, Readiness},
    serve::{self, Serve, Shutdown},
};
use kube::Client;
use quokka_crds::{CouponCampaign, TimeSale};
use sale_stock::{RedisSettings, SaleStock, discounts::Discounts};
use secrecy::ExposeSecret as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    config::Config,
    lease::{Election, LeaseTerms},
    ledger::Ledger,
    metrics,
    platform::Platform,
    reconcile::{self, Reconciler},
    replicas::Replicas,
    sale_clock::SaleClock,
    silence::Silence,
    topics::Topics,
};

/// The Lease that replicas share.
pub const LEASE: &str = "quokka-operator";

/// How long looks that are under way at the end may take, before the lease is given back anyway.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// Why the operator can't run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Nothing says where the Kubernetes API is.
    #[error("find the Kubernetes API: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// A client of it can't be made.
    #[error("make a client of the Kubernetes API: {0}")]
    Kube(#[from] kube::Error),
    /// The client of Kafka can't be made.
    #[error("make a client of Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The client of Redis can't be made.
    #[error("make a client of Redis: {0}")]
    Redis(#[from] sale_stock::StockError),
    /// Redis's address can't be used.
    #[error("use the Redis address: {0}")]
    RedisAddress(#[from] redis::RedisError),
    /// The client of the ledger can't be made.
    #[error("make a client of the ledger: {0}")]
    Ledger(#[from] reqwest::Error),
    /// The process ended otherwise than by being told to.
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
}

/// Runs the operator until the process is told to end.
///
/// # Errors
///
/// What it can't run without isn't there. That a server doesn't answer is no error.
pub async fn run(config: Config) -> Result<(), AppError> {
    let kube = kube::Config::infer().await?;
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    let operator = Operator::new(&config, &kube)?;
    let kubernetes = readiness.dependency("kubernetes");
    let stop = shutdown.token();
    shutdown.task(
        "leader",
        async move { operator.lead(&kubernetes, stop).await },
    );
    serve::run(Serve {
        http: None,
        internal: None,
        ops: config.process.ops_addr,
        readiness,
        grace: config.process.shutdown_grace,
        shutdown,
    })
    .await?;
    Ok(())
}

/// One replica of the operator.
pub struct Operator {
    client: Client,
    /// The lease has connections of its own: nothing that the reconcilers do can delay a renewal.
    lease_client: Client,
    platform: Platform,
    config: Config,
}

impl Operator {
    /// A replica that talks to the API of `kube`. Contacts nobody yet.
    ///
    /// # Errors
    ///
    /// A client can't be made.
    pub fn new(config: &Config, kube: &kube::Config) -> Result<Self, AppError> {
        metrics::init();
        let redis = RedisSettings::new(config.redis_url.expose_secret());
        Ok(Self {
            client: Client::try_from(kube.clone())?,
            lease_client: Client::try_from(kube.clone())?,
            platform: Platform {
                topics: Topics::new(&config.kafka_brokers, config.replication_factor)?,
                ledger: Ledger::new(config.ledger_url.clone())?,
                stock: SaleStock::connect_lazy(&redis)?,
                discounts: Discounts::connect_lazy(&redis, &config.process.namespace)?,
                redis_silence: Silence::default(),
                replicas: Replicas::connect_lazy(config.redis_url.expose_secret())?,
                clock: SaleClock::default(),
            },
            config: config.clone(),
        })
    }

    /// Waits for the lease, reconciles while it is held, and again, until `stop` is cancelled; gives the lease back
    /// then.
    pub async fn lead(&self, kubernetes: &Dependency, stop: CancellationToken) {
        let heard = |answer: Result<(), &kube::Error>| match answer {
            Ok(()) => kubernetes.set_ready(),
            Err(error) => {
                warn!(%error, "the Kubernetes API doesn't answer");
                kubernetes.set_unready("the Kubernetes API doesn't answer");
            }
        };
        let terms = LeaseTerms {
            namespace: self.config.process.namespace.clone(),
            name: LEASE.to_owned(),
            holder: self.config.process.instance.clone(),
            duration: self.config.lease_duration,
        };
        let mut election = Election::new(self.lease_client.clone(), terms);
        while election.win(&stop, heard).await {
            metrics::leading(true);
            let finish = CancellationToken::new();
            let mut work = pin!(self.reconcile(finish.clone()));
            tokio::select! {
                () = &mut work => error!("the controllers ended by themselves; they are begun again"),
                // Whatever is under way is dropped on the spot: another leads from now on.
                () = election.keep(heard) => {}
                () = stop.cancelled() => {
                    finish.cancel();
                    if timeout(FINISH_WITHIN, &mut work).await.is_err() {
                        warn!("looks under way were cut off");
                    }
                }
            }
            metrics::leading(false);
        }
        election.give_back().await;
    }

    /// Runs the controllers of all kinds. Each term as a leader begins with nothing remembered.
    async fn reconcile(&self, stop: CancellationToken) {
        let (client, config) = (&self.client, &self.config);
        let time_sales = reconcile::controller::<TimeSale>(client, config);
        let campaigns = reconcile::controller::<CouponCampaign>(client, config);
        let of_time_sales =
            Reconciler::new(client, config, self.platform.clone(), campaigns.store());
        let of_campaigns =
            Reconciler::new(client, config, self.platform.clone(), time_sales.store());
        tokio::join!(
            of_time_sales.run(time_sales, stop.clone()),
            of_campaigns.run(campaigns, stop)
        );
    }
}
