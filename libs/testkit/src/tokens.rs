//! Access tokens as `users` issues them, for tests of everything that checks them.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

use crate::Error;

/// The `iss` of its tokens.
const ISSUER: &str = "quokka";
/// The `aud` of its tokens.
const AUDIENCE: &str = "quokka-api";
/// How long its tokens are good, in seconds.
const TTL_SECONDS: u64 = 900;

/// Somebody with an Ed25519 key of its own who signs access tokens.
#[derive(Clone)]
pub struct TokenIssuer {
    kid: String,
    private_pem: String,
    public_pem: String,
    key: EncodingKey,
    jwk: Value,
}

impl TokenIssuer {
    /// One with a new key. Panics if the system has no randomness.
    pub fn new() -> Self {
        let pair =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("an Ed25519 key can be made");
        // `ring` writes PKCS#8 version 2, which carries the public key too; tokens are signed from version 1.
        let private_der = pair.serialize_der();
        let seed = &private_der[SEED_AT..SEED_AT + SEED_LENGTH];
        let der = [PKCS8_ED25519_PREFIX, seed].concat();
        let key = EncodingKey::from_ed_der(&der);
        let kid = crate::unique_name("key");
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("a key just made");
        jwk.common.key_id = Some(kid.clone());
        Self {
            private_pem: pem("PRIVATE KEY", &der),
            public_pem: pair.public_key_pem(),
            key,
            jwk: serde_json::to_value(jwk).expect("a JWK is JSON"),
            kid,
        }
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key, PKCS#8 in PEM: what `users` is given as its signing key.
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The JWK set with this one key.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk] })
    }

    /// A good token of a user.
    pub fn token(&self, user_id: Uuid) -> String {
        self.token_with(user_id, json!({}))
    }

    /// A good token of a user with roles.
    pub fn token_with_roles(&self, user_id: Uuid, roles: &[&str]) -> String {
        self.token_with(user_id, json!({ "roles": roles }))
    }

    /// A token that was good until a minute ago.
    pub fn expired_token(&self, user_id: Uuid) -> String {
        self.token_with(user_id, json!({ "exp": unix_now() - 60 }))
    }

    /// A token whose claims are those of a good one, with `claims` put over them; `null` removes one.
    pub fn token_with(&self, user_id: Uuid, claims: Value) -> String {
        let now = unix_now();
        let mut all = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "jti": Uuid::new_v4(),
            "iat": now,
            "exp": now + TTL_SECONDS,
            "roles": ["guest"],
        });
        for (name, value) in claims.as_object().expect("claims are an object") {
            match value {
                Value::Null => all.as_object_mut().expect("made above").remove(name),
                value => all
                    .as_object_mut()
                    .expect("made above")
                    .insert(name.clone(), value.clone()),
            };
        }
        self.sign(&all)
    }

    /// Signs any claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, claims, &self.key)
            .expect("claims are JSON and the key is good")
    }
}

impl Default for TokenIssuer {
    fn default() -> Self {
        Self::new()
    }
}

/// Everything of a PKCS#8 (RFC 8410) Ed25519 private key before its seed.
const PKCS8_ED25519_PREFIX: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// Where the seed is, in version 1 and 2 alike.
const SEED_AT: usize = 16;
const SEED_LENGTH: usize = 32;

fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    // 48 bytes are 64 characters: an Ed25519 key is one line.
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        BASE64_STANDARD.encode(der)
    )
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A server of JWK sets, as `users` is one. It ends when it is dropped.
pub struct JwksServer {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    jwks: std::sync::Mutex<Value>,
    up: AtomicBool,
    requests: AtomicU64,
}

impl JwksServer {
    /// Serves `jwks` on a free port.
    pub async fn start(jwks: Value) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            jwks: std::sync::Mutex::new(jwks),
            up: AtomicBool::new(true),
            requests: AtomicU64::new(0),
        });
        let router = Router::new()
            .route("/.well-known/jwks.json", get(answer))
            .with_state(Arc::clone(&shared));
        let failed = |error| Error::Io {
            action: "serve a JWK set".to_owned(),
            error,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let url = format!(
            "http://{}/.well-known/jwks.json",
            listener.local_addr().map_err(failed)?
        );
        let server = tokio::spawn(async move {
            // It ends by being aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            url,
            shared,
            server,
        })
    }

    /// Where the set is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves another set from now on.
    pub fn publish(&self, jwks: Value) {
        *self
            .shared
            .jwks
            .lock()
            .expect("nothing panics while holding it") = jwks;
    }

    /// Answers 503 from now on, or no longer.
    pub fn set_up(&self, up: bool) {
        self.shared.up.store(up, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for JwksServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    if !shared.up.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let jwks = shared
        .jwks
        .lock()
        .expect("nothing panics while holding it")
        .clone();
    axum::Json(jwks).into_response()
}
