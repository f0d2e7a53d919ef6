//! Puts the parts of the gateway together and runs them until the process is told to end.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use chassis::{
    auth::Verifier,
    health::Readiness,
    serve::{self, Serve, Shutdown},
};
use futures::{FutureExt as _, future::BoxFuture};
use pingora::{proxy::http_proxy, server::configuration::ServerConf};
use tokio::sync::Semaphore;

use crate::{
    config::{Config, Discovery},
    discovery,
    listener::Listener,
    metrics,
    policy::{ATTEMPTS_MAX, Admission},
    proxy::{Gateway, LARGE_BODIES_MAX},
    reference::Reference,
    upstreams::Upstreams,
};

/// Connections to services that are kept for the next request, for each thread.
const POOLED_PER_THREAD: usize = 512;

/// Runs the gateway; the exit code says whether it ended as it should.
pub(crate) async fn run(config: Config) -> ExitCode {
    let telemetry = config
        .process
        .telemetry("gateway", env!("CARGO_PKG_VERSION"));
    serve::process(&telemetry, start(config)).await
}

async fn start(config: Config) -> anyhow::Result<()> {
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let (upstreams, watch) = discover(&config, &readiness).await?;
    let gateway = Gateway {
        upstreams,
        reference: Reference::new().context("put the API's document together")?,
        verifier: Verifier::from_jwks_url(
            config.jwks_url,
            &config.jwt_issuer,
            &readiness,
            &shutdown,
        ),
        admission: Admission::new(
            config.limits.in_flight_max,
            config.limits.body_bytes_held_max,
        ),
        large_bodies: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
        limits: config.limits,
        trusted_proxies: config.trusted_proxies,
        draining: shutdown.draining(),
    };
    let library = ServerConf {
        threads: config.threads,
        max_retries: ATTEMPTS_MAX,
        upstream_keepalive_pool_size: POOLED_PER_THREAD,
        ..ServerConf::default()
    };
    let listener = Listener::new(
        http_proxy(&Arc::new(library), gateway),
        config.limits,
        shutdown.draining(),
    );
    let tcp = serve::listen(config.http_addr)?;
    tracing::info!(http = %tcp.local_addr()?, threads = config.threads, "taking requests");
    // Requests that are finished after SIGTERM still need to know where services are.
    shutdown.task("requests", async move {
        tokio::select! {
            () = listener.run(tcp) => Ok(()),
            () = watch => Err("the watch of endpoints ended"),
        }
    });
    let serve = Serve {
        http: None,
        internal: None,
        ops: config.process.ops_addr,
        readiness,
        grace: config.process.shutdown_grace,
        shutdown,
    };
    Ok(serve::run(serve).await?)
}

/// The endpoints of services, and what keeps them as Kubernetes has them where they aren't given once and for all.
async fn discover(
    config: &Config,
    readiness: &Readiness,
) -> anyhow::Result<(Arc<Upstreams>, BoxFuture<'static, ()>)> {
    let upstreams = Arc::new(Upstreams::default());
    let watch = match &config.discovery {
        Discovery::Fixed(fixed) => {
            for (service, addresses) in fixed {
                upstreams.of(*service).replace(addresses);
                metrics::endpoints(*service, addresses.len());
            }
            std::future::pending().boxed()
        }
        Discovery::Kubernetes => {
            let client = kube::Client::try_default()
                .await
                .context("find the Kubernetes API")?;
            let synced = readiness.dependency("endpoints");
            discovery::watch(
                client,
                config.process.namespace.clone(),
                Arc::clone(&upstreams),
                synced,
            )
            .boxed()
        }
    };
    Ok((upstreams, watch))
}
