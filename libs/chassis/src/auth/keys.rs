//! The public keys that tokens are checked with, and how they are kept fresh.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use http::StatusCode;
use http_body_util::BodyExt as _;
use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk},
};
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::health::Dependency;

/// How often the keys are asked for when nothing calls for it: a key that `users` has stopped publishing is gone by then.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// How soon a failed fetch is tried again while there are no keys at all.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often a token with an unknown key may cause a fetch, so that forged tokens can't flood `users`.
const ON_DEMAND_EVERY: Duration = Duration::from_secs(5);
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// A larger answer isn't a key set of ours.
const JWKS_BYTES_MAX: usize = 64 * 1024;

/// Keys that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Not a JWK set, or not a key.
    #[error("not a JWK: {0}")]
    Json(#[from] serde_json::Error),
    /// Not an Ed25519 public key.
    #[error("not an Ed25519 public key: {0}")]
    Key(#[from] jsonwebtoken::errors::Error),
    /// No key in the set can check EdDSA signatures.
    #[error("no Ed25519 key with an id among the keys")]
    Empty,
    /// The keys couldn't be fetched.
    #[error("fetch: {0}")]
    Fetch(String),
}

/// The keys of one moment.
pub(super) struct KeySet {
    generation: u64,
    by_id: HashMap<String, DecodingKey>,
    /// What they were made of: the same text is the same set.
    source: Vec<u8>,
}

impl KeySet {
    fn new(by_id: HashMap<String, DecodingKey>, source: Vec<u8>) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        Self {
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            by_id,
            source,
        }
    }

    pub(super) fn get(&self, kid: &str) -> Option<&DecodingKey> {
        self.by_id.get(kid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Differs from one set to another.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Keys that don't change: for tests, and for a process that checks its own tokens.
#[derive(Clone)]
pub struct StaticKeys {
    by_id: HashMap<String, DecodingKey>,
}

impl StaticKeys {
    /// The one key `kid`, from its public half in PEM.
    pub fn from_public_pem(kid: &str, pem: &[u8]) -> Result<Self, KeysError> {
        Ok(Self {
            by_id: HashMap::from([(kid.to_owned(), DecodingKey::from_ed_pem(pem)?)]),
        })
    }

    /// The keys of a JWK set.
    pub fn from_jwks_json(json: &[u8]) -> Result<Self, KeysError> {
        Ok(Self {
            by_id: read_jwks(json)?,
        })
    }
}

/// A JWK set whose keys are yet to be read.
#[derive(Deserialize)]
struct RawJwks {
    keys: Vec<Value>,
}

/// The Ed25519 keys of a JWK set; keys of other kinds are for others and are left out. So is one that can't be read: the
/// rest of the set is as good without it.
fn read_jwks(json: &[u8]) -> Result<HashMap<String, DecodingKey>, KeysError> {
    let set: RawJwks = serde_json::from_slice(json)?;
    let mut by_id = HashMap::new();
    for jwk in set.keys {
        match read_jwk(jwk) {
            Ok(key) => by_id.extend(key),
            Err(error) => warn!(%error, "a key of the set is left out"),
        }
    }
    if by_id.is_empty() {
        Err(KeysError::Empty)
    } else {
        Ok(by_id)
    }
}

/// An Ed25519 key by its id; `None` for a key of another kind or without an id.
fn read_jwk(jwk: Value) -> Result<Option<(String, DecodingKey)>, KeysError> {
    let jwk: Jwk = serde_json::from_value(jwk)?;
    let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else {
        return Ok(None);
    };
    if pair.curve != EllipticCurve::Ed25519 {
        return Ok(None);
    }
    let Some(kid) = jwk.common.key_id.clone() else {
        return Ok(None);
    };
    Ok(Some((kid, DecodingKey::from_jwk(&jwk)?)))
}

/// Where a verifier finds the keys of the moment.
pub(super) struct KeySource {
    keys: Arc<ArcSwap<KeySet>>,
    refresh: Option<RefreshHandle>,
}

/// How a request asks for a fetch and hears of it.
struct RefreshHandle {
    wanted: Arc<Notify>,
    fetches: watch::Receiver<Fetches>,
}

#[derive(Clone, Copy)]
struct Fetches {
    done: u64,
    last: Option<Instant>,
}

impl KeySource {
    pub(super) fn fixed(keys: StaticKeys) -> Self {
        Self {
            keys: Arc::new(ArcSwap::from_pointee(KeySet::new(keys.by_id, Vec::new()))),
            refresh: None,
        }
    }

    pub(super) fn fetched(url: Url, dependency: Dependency) -> (Self, Refresh) {
        let keys = Arc::new(ArcSwap::from_pointee(KeySet::new(
            HashMap::new(),
            Vec::new(),
        )));
        let wanted = Arc::new(Notify::new());
        let (fetched, fetches) = watch::channel(Fetches {
            done: 0,
            last: None,
        });
        let refresh = Refresh {
            url,
            dependency,
            keys: Arc::clone(&keys),
            wanted: Arc::clone(&wanted),
            fetched,
        };
        (
            Self {
                keys,
                refresh: Some(RefreshHandle { wanted, fetches }),
            },
            refresh,
        )
    }

    pub(super) fn current(&self) -> Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// The keys after a fetch, if one may be made now; otherwise those there are.
    pub(super) async fn refreshed(&self, seen: &KeySet) -> Arc<KeySet> {
        if self.current().generation() == seen.generation()
            && let Some(refresh) = &self.refresh
        {
            refresh.ask().await;
        }
        self.keys.load_full()
    }
}

impl RefreshHandle {
    async fn ask(&self) {
        let mut fetches = self.fetches.clone();
        let before = *fetches.borrow_and_update();
        if before
            .last
            .is_some_and(|last| last.elapsed() < ON_DEMAND_EVERY)
        {
            return;
        }
        self.wanted.notify_one();
        // An error or a timeout leaves the keys as they are, and the caller decides by those.
        let _ = timeout(
            FETCH_TIMEOUT,
            fetches.wait_for(|now| now.done > before.done),
        )
        .await;
    }
}

/// The task that keeps the keys fresh.
pub(super) struct Refresh {
    url: Url,
    dependency: Dependency,
    keys: Arc<ArcSwap<KeySet>>,
    wanted: Arc<Notify>,
    fetched: watch::Sender<Fetches>,
}

impl Refresh {
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), reqwest::Error> {
        // A connection of its own for each fetch: they are rare, and one that was made to the wrong place, while names
        // or routes were still being set up, must not be kept. The keys are only ever those of the address that was
        // configured: not of one that it points to, nor from a proxy that the environment happens to name.
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .pool_max_idle_per_host(0)
            .redirect(Policy::none())
            .no_proxy()
            .build()?;
        loop {
            self.fetch_once(&client).await;
            let pause = if self.keys.load().is_empty() {
                RETRY_EVERY
            } else {
                REFRESH_EVERY
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn fetch_once(&self, client: &reqwest::Client) {
        match self.fetch(client).await {
            Ok(()) => self.dependency.set_ready(),
            // With keys in hand the process can work on, so it stays ready.
            Err(error) if self.keys.load().is_empty() => self.dependency.set_unready(error),
            Err(error) => warn!(%error, "keys not refreshed, the last ones stay"),
        }
        self.fetched.send_modify(|fetches| {
            *fetches = Fetches {
                done: fetches.done + 1,
                last: Some(Instant::now()),
            };
        });
    }

    async fn fetch(&self, client: &reqwest::Client) -> Result<(), KeysError> {
        let response = client
            .get(self.url.clone())
            .send()
            .await
            .map_err(|error| KeysError::Fetch(error.without_url().to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(KeysError::Fetch(format!("answered {}", response.status())));
        }
        let body = http_body_util::Limited::new(reqwest::Body::from(response), JWKS_BYTES_MAX);
        let json = body
            .collect()
            .await
            .map_err(|error| KeysError::Fetch(error.to_string()))?
            .to_bytes();
        if json == self.keys.load().source {
            return Ok(());
        }
        let keys = KeySet::new(read_jwks(&json)?, json.to_vec());
        info!(keys = keys.by_id.len(), "keys for access tokens changed");
        self.keys.store(Arc::new(keys));
        Ok(())
    }
}
