//! Who is calling: access tokens, verified with the keys that `users` publishes.
//!
//! A token is a JWT signed with EdDSA (Ed25519). Its signature is checked once and remembered in a bounded cache,
//! so that a caller who comes back costs a lookup; its expiry is checked every time. `users` may be down: the keys
//! last fetched stay good.

mod keys;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use http::{HeaderMap, HeaderValue, header, request::Parts};
use jsonwebtoken::{Algorithm, Validation};
use quick_cache::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use self::keys::{KeySet, KeySource};
use crate::{
    health::Readiness,
    problem::{Problem, common},
    serve::Shutdown,
};

pub use keys::{KeysError, StaticKeys};

/// What a token's `aud` must name.
pub const AUDIENCE: &str = "quokka-api";

/// Tokens that are remembered, so that a crowd is checked once: at about 150 bytes each, at most 10 MB.
const VERIFIED_MAX: usize = 65_536;

/// A longer token is refused unread: ours have about 500 bytes, and the cache must stay bounded in bytes too.
const TOKEN_BYTES_MAX: usize = 4_096;

/// The most roles that one caller has.
const ROLES_MAX: usize = 16;

/// Somebody with a good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user: the token's `sub`.
    pub user_id: Uuid,
    /// What the user may be: the token's `roles`.
    pub roles: Roles,
}

impl Caller {
    /// Whether the caller has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|has| has == role)
    }

    /// 403 for a caller without the role.
    pub fn require_role(&self, role: &'static str) -> Result<(), Problem> {
        if self.has_role(role) {
            Ok(())
        } else {
            Err(common::FORBIDDEN.problem(format!("only for the role {role}")))
        }
    }
}

/// The roles of a caller, shared with the cache.
pub type Roles = Arc<[String]>;

/// Checks access tokens. Clones share the keys and the cache.
#[derive(Clone)]
pub struct Verifier {
    inner: Arc<Inner>,
}

struct Inner {
    keys: KeySource,
    validation: Validation,
    /// By the token's SHA-256: no two tokens that anyone can find share one, and a crowd's worth of them stays small.
    verified: Cache<[u8; 32], Verified>,
}

#[derive(Clone)]
struct Verified {
    caller: Caller,
    expires_unix: u64,
    /// The key set that the token was verified with: another one may have left its key out.
    keys: u64,
}

/// Why a caller isn't known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization: Bearer`.
    #[error("send Authorization: Bearer with an access token")]
    Missing,
    /// The token is malformed, forged, for somebody else, or signed with a key that isn't published.
    #[error("the access token is not valid")]
    Invalid,
    /// The token was good once.
    #[error("the access token has expired")]
    Expired,
    /// No key has been fetched yet, so nothing can be said about any token.
    #[error("the keys that access tokens are checked with are not here yet")]
    NoKeys,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let challenge = match error {
            AuthError::NoKeys => return Problem::unavailable(error.to_string()),
            AuthError::Missing => r#"Bearer realm="quokka""#,
            AuthError::Invalid | AuthError::Expired => {
                r#"Bearer realm="quokka", error="invalid_token""#
            }
        };
        common::UNAUTHENTICATED.problem(error.to_string()).header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: Uuid,
    exp: u64,
    #[serde(default)]
    roles: Vec<String>,
}

impl Verifier {
    /// A verifier with the keys at `jwks_url`, fetched by a task of `shutdown` that asks again every few minutes,
    /// and at once, though not often, when a token names a key that isn't known. The process is unready, by the
    /// dependency `jwks`, until the first keys are here; after that it lives on with what it has.
    pub fn from_jwks_url(
        jwks_url: Url,
        issuer: &str,
        readiness: &Readiness,
        shutdown: &Shutdown,
    ) -> Self {
        let (keys, refresh) = KeySource::fetched(jwks_url, readiness.dependency("jwks"));
        let stop = shutdown.token();
        shutdown.task("jwks-refresh", async move { refresh.run(stop).await });
        Self::with(keys, issuer)
    }

    /// A verifier with keys that don't change, for tests.
    pub fn from_static(keys: StaticKeys, issuer: &str) -> Self {
        Self::with(KeySource::fixed(keys), issuer)
    }

    fn with(keys: KeySource, issuer: &str) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 0;
        Self {
            inner: Arc::new(Inner {
                keys,
                validation,
                verified: Cache::new(VERIFIED_MAX),
            }),
        }
    }

    /// Who the bearer of `token` is. A token seen before is answered without waiting; one whose key isn't known
    /// may wait for the keys to be fetched, for a few seconds at most.
    pub async fn verify(&self, token: &str) -> Result<Caller, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Invalid);
        }
        if let Some(known) = self.remembered(token) {
            return known;
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        let kid = header.kid.as_deref().ok_or(AuthError::Invalid)?;
        let mut keys = Arc::clone(&self.inner.keys.current());
        if keys.get(kid).is_none() {
            keys = self.inner.keys.refreshed(&keys).await;
        }
        self.check(token, kid, &keys)
    }

    /// Who sent a request with these headers.
    pub async fn verify_headers(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        self.verify(bearer_token(headers)?).await
    }

    fn remembered(&self, token: &str) -> Option<Result<Caller, AuthError>> {
        let known = self.inner.verified.get(&digest(token))?;
        if known.keys != self.inner.keys.current().generation() {
            return None;
        }
        Some(if known.expires_unix > unix_now() {
            Ok(known.caller)
        } else {
            Err(AuthError::Expired)
        })
    }

    fn check(&self, token: &str, kid: &str, keys: &KeySet) -> Result<Caller, AuthError> {
        if keys.is_empty() {
            return Err(AuthError::NoKeys);
        }
        let key = keys.get(kid).ok_or(AuthError::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.inner.validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => AuthError::Expired,
                _ => AuthError::Invalid,
            })?
            .claims;
        // The library takes a token at the very second of its expiry.
        if claims.exp <= unix_now() {
            return Err(AuthError::Expired);
        }
        if claims.roles.len() > ROLES_MAX {
            return Err(AuthError::Invalid);
        }
        let caller = Caller {
            user_id: claims.sub,
            roles: claims.roles.into(),
        };
        let verified = Verified {
            caller: caller.clone(),
            expires_unix: claims.exp,
            keys: keys.generation(),
        };
        self.inner.verified.insert(digest(token), verified);
        Ok(caller)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// The token of `Authorization: Bearer`, whose scheme is taken in any case.
fn bearer_token(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Invalid);
    }
    let value = value.to_str().map_err(|_| AuthError::Invalid)?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Missing);
    }
    Ok(token.trim())
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Verifier::from_ref(state)
            .verify_headers(&parts.headers)
            .await?)
    }
}

impl<S> OptionalFromRequestParts<S> for Caller
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    /// `None` without a token; a bad token is still refused.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        match Verifier::from_ref(state)
            .verify_headers(&parts.headers)
            .await
        {
            Ok(caller) => Ok(Some(caller)),
            Err(AuthError::Missing) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
