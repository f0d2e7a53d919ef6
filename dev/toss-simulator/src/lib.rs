//! A development simulator of the Toss Payments gateway, with faults that are off until they are asked for.
//!
//! Tests start it in process; the binary serves it for the local platform:
//!
//! ```no_run
//! # async fn test() -> std::io::Result<()> {
//! let simulator = toss_simulator::Simulator::start(toss_simulator::Settings::new("test_sk")).await?;
//! simulator.set_faults(toss_simulator::Faults { charge_and_drop_answer: 1.0, ..Default::default() });
//! println!("the gateway is at {}", simulator.url());
//! # Ok(())
//! # }
//! ```
//!
//! It keeps everything in memory, within bounds, and forgets the oldest. It must never be part of a production image.

mod admin;
mod api;
mod cut;
mod faults;
mod gateway;
mod model;
mod refusal;
mod replay;
mod settlements;
mod webhooks;
mod window;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::{Faults, Operation};
pub use gateway::NewSession;
pub use model::{
    Cancel, Card, EasyPay, Failure, Means, Payment, Receipt, RefundAccount, Status, Transaction,
    Transfer, VirtualAccount,
};
pub use refusal::Refusal;
pub use settlements::{Fee, Settlement};

use crate::cut::{Cuttable, Scissors};
use crate::faults::Dice;
use crate::gateway::Gateway;
use crate::replay::Replay;

/// How the simulator behaves; what can be changed while it runs is not here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The user name of HTTP Basic authentication.
    pub secret_key: String,
    /// How long an authenticated session can be confirmed: 10 minutes at the real gateway.
    pub session_ttl: Duration,
    /// What webhooks are tried again in multiples of: a minute at the real gateway.
    pub webhook_unit: Duration,
    /// Where webhooks go at first; nowhere if left out.
    pub webhook_url: Option<String>,
    /// How many payments are kept.
    pub payments_max: usize,
}

impl Settings {
    /// The real gateway's times, and room for a hundred thousand payments (some 150 MB).
    pub fn new(secret_key: impl Into<String>) -> Self {
        Self {
            secret_key: secret_key.into(),
            session_ttl: Duration::from_secs(600),
            webhook_unit: Duration::from_secs(60),
            webhook_url: None,
            payments_max: 100_000,
        }
    }
}

struct Shared {
    settings: Settings,
    gateway: Mutex<Gateway>,
    dice: Mutex<Dice>,
    replay: Mutex<Replay>,
    webhook_url: Mutex<Option<String>>,
    webhooks: webhooks::Queue,
    webhook_counts: webhooks::Counts,
    http: reqwest::Client,
}

impl Shared {
    fn gateway(&self) -> MutexGuard<'_, Gateway> {
        lock(&self.gateway)
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        lock(&self.dice)
    }

    fn replay(&self) -> MutexGuard<'_, Replay> {
        lock(&self.replay)
    }

    fn webhook_url(&self) -> Option<String> {
        lock(&self.webhook_url).clone()
    }

    fn set_webhook_url(&self, url: Option<String>) {
        *lock(&self.webhook_url) = url;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running simulator. It ends when it is dropped.
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    sender: JoinHandle<()>,
}

impl Simulator {
    /// On a free port of this host.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::start_at(settings, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// At an address.
    pub async fn start_at(settings: Settings, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (queue, jobs) = webhooks::queue();
        let shared = Arc::new(Shared {
            gateway: Mutex::new(Gateway::new(
                settings.payments_max.max(1),
                settings.session_ttl,
            )),
            dice: Mutex::new(Dice::new(Faults::default())),
            replay: Mutex::new(Replay::new(settings.payments_max.max(1) * 2)),
            webhook_url: Mutex::new(settings.webhook_url.clone()),
            webhooks: queue,
            webhook_counts: webhooks::Counts::default(),
            http: reqwest::Client::new(),
            settings,
        });
        let router = Router::new()
            .merge(api::routes())
            .merge(admin::routes())
            .merge(window::routes())
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<Scissors>();
            // It ends by being aborted.
            let _ = axum::serve(Cuttable(listener), service).await;
        });
        let sender = tokio::spawn(webhooks::run(Arc::clone(&shared), jobs));
        Ok(Self {
            address,
            shared,
            server,
            sender,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients are given as the gateway's address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Switches faults: what isn't named is off.
    pub fn set_faults(&self, faults: Faults) {
        *self.shared.dice() = Dice::new(faults);
    }

    /// Sends webhooks to this address from now on.
    pub fn send_webhooks_to(&self, url: impl Into<String>) {
        self.shared.set_webhook_url(Some(url.into()));
    }

    /// A session as a person makes one in the window; its payment key.
    pub fn authenticate(&self, session: NewSession) -> Result<String, Refusal> {
        Ok(self.shared.gateway().authenticate(session)?.payment_key)
    }

    /// Captures without a call, as a call whose caller died does.
    pub fn confirm(&self, payment_key: &str) -> Result<Payment, Refusal> {
        let mut gateway = self.shared.gateway();
        let payment = gateway.by_key(payment_key)?;
        gateway.confirm(payment_key, &payment.order_id, payment.total_amount, None)
    }

    /// Money arrives at a virtual account.
    pub fn deposit(&self, payment_key: &str) -> Result<Payment, Refusal> {
        api::deposit(&self.shared, payment_key)
    }

    /// The bank takes a deposit back.
    pub fn reverse_deposit(&self, payment_key: &str) -> Result<Payment, Refusal> {
        api::reverse_deposit(&self.shared, payment_key)
    }

    /// A payment as it is now.
    pub fn payment(&self, payment_key: &str) -> Result<Payment, Refusal> {
        self.shared.gateway().by_key(payment_key)
    }

    /// Sets everything of a payment back by some time, as if it had happened earlier.
    pub fn age(&self, payment_key: &str, by: Duration) -> Result<Payment, Refusal> {
        self.shared.gateway().age(payment_key, by)
    }

    /// Serves until it is aborted.
    pub async fn served(mut self) {
        // It ends by being dropped or aborted, never by itself.
        let _ = (&mut self.server).await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.server.abort();
        self.sender.abort();
    }
}
