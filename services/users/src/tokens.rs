//! The two tokens of a session.
//!
//! An access token is a signed JWT that any service checks by the published keys; it lives for minutes and can't be taken
//! back. A refresh token is opaque and works once: it gets the next pair.
//!
//! A refresh token is `<session>.<family>.<turn>`, base64url. The family's secret stays for the session's life, the turn's
//! changes with each refresh; the database has SHA-256 hashes of both (they are random, so a fast hash is enough).
//! Knowing the family's secret proves that the bearer once held a token of this session: with an old turn it is a token
//! used before, which ends the session. Knowing only the session's id proves nothing and ends nothing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::SecretString;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Who the access tokens are for; services refuse others.
const AUDIENCE: &str = "quokka-api";

/// Why a key or a token could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error(
        "is not an Ed25519 private key in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it"
    )]
    Private,
    #[error("is neither an Ed25519 private key nor a public key in PEM")]
    Published,
    #[error("sign an access token: {0}")]
    Sign(jsonwebtoken::errors::Error),
}

/// A key pair that signs, and its published half.
pub(crate) struct SigningKey {
    private: EncodingKey,
    public: Jwk,
}

impl SigningKey {
    /// Reads the private key, and tries it.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let private = EncodingKey::from_ed_pem(pem).map_err(|_| KeyError::Private)?;
        let public =
            Jwk::from_encoding_key(&private, Algorithm::EdDSA).map_err(|_| KeyError::Private)?;
        Ok(Self {
            public: published(public).map_err(|_| KeyError::Private)?,
            private,
        })
    }

    /// A secret for another purpose that only holders of this key can know. It changes when the key does.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.private.as_bytes())
            .expect("a key of any length will do");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// A key that is published but does not sign: the one before, or the next. Either half will do.
pub(crate) fn published_key_from_pem(pem: &[u8]) -> Result<Jwk, KeyError> {
    if let Ok(key) = SigningKey::from_pem(pem) {
        return Ok(key.public);
    }
    DecodingKey::from_ed_pem(pem)
        .and_then(|public| Jwk::from_decoding_key(&public, Some(Algorithm::EdDSA)))
        .and_then(published)
        .map_err(|_| KeyError::Published)
}

/// A key's id is its RFC 7638 thumbprint: the same on every replica, with nothing to configure.
fn published(mut key: Jwk) -> Result<Jwk, jsonwebtoken::errors::Error> {
    key.common.key_id = Some(key.thumbprint(ThumbprintHash::SHA256)?);
    key.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(key)
}

/// What an access token says.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: Uuid,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: Uuid,
    roles: &'a [String],
}

/// Makes access tokens, and publishes the keys to check them by.
pub(crate) struct AccessTokens {
    key: SigningKey,
    header: Header,
    jwks: JwkSet,
    issuer: String,
    ttl: Duration,
}

impl AccessTokens {
    pub(crate) fn new(
        key: SigningKey,
        also_published: Option<Jwk>,
        issuer: String,
        ttl: Duration,
    ) -> Self {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid.clone_from(&key.public.common.key_id);
        let mut keys = vec![key.public.clone()];
        keys.extend(also_published.filter(|other| other.common.key_id != header.kid));
        Self {
            key,
            header,
            jwks: JwkSet { keys },
            issuer,
            ttl,
        }
    }

    /// The published keys, the signing one first.
    pub(crate) fn jwks(&self) -> &JwkSet {
        &self.jwks
    }

    /// How long a token is good for.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Signs a token for a user, good from now on.
    pub(crate) fn issue(
        &self,
        user_id: Uuid,
        roles: &[String],
        now: jiff::Timestamp,
    ) -> Result<String, KeyError> {
        let iat = now.as_second();
        let claims = Claims {
            iss: &self.issuer,
            sub: user_id,
            aud: AUDIENCE,
            iat,
            exp: iat.saturating_add_unsigned(self.ttl.as_secs()),
            jti: Uuid::new_v4(),
            roles,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key.private).map_err(KeyError::Sign)
    }
}

/// Bytes of each secret in a refresh token.
const SECRET_BYTES: usize = 32;
/// Bytes of a whole refresh token: the session's id and two secrets.
const TOKEN_BYTES: usize = 16 + 2 * SECRET_BYTES;
/// The same in base64 without padding.
const TOKEN_CHARS: usize = (TOKEN_BYTES * 4).div_ceil(3);

/// A refresh token in clear: it exists on its way to and from the guest only.
pub(crate) struct RefreshToken {
    session_id: Uuid,
    family: [u8; SECRET_BYTES],
    turn: [u8; SECRET_BYTES],
}

/// What the database keeps of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshHashes {
    pub(crate) session_id: Uuid,
    pub(crate) family: [u8; 32],
    pub(crate) turn: [u8; 32],
}

impl RefreshToken {
    /// The first of a new session.
    pub(crate) fn first() -> Self {
        Self {
            session_id: Uuid::now_v7(),
            family: rand::random(),
            turn: rand::random(),
        }
    }

    /// The one that takes this one's place.
    pub(crate) fn next(&self) -> Self {
        Self {
            turn: rand::random(),
            ..*self
        }
    }

    pub(crate) fn hashes(&self) -> RefreshHashes {
        RefreshHashes {
            session_id: self.session_id,
            family: Sha256::digest(self.family).into(),
            turn: Sha256::digest(self.turn).into(),
        }
    }

    /// For the guest.
    pub(crate) fn reveal(&self) -> SecretString {
        let bytes = [
            self.session_id.as_bytes().as_slice(),
            &self.family,
            &self.turn,
        ]
        .concat();
        URL_SAFE_NO_PAD.encode(bytes).into()
    }

    /// What a guest presents; `None` if it was never one of ours.
    pub(crate) fn parse(presented: &str) -> Option<Self> {
        if presented.len() != TOKEN_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(presented).ok()?;
        let (session_id, secrets) = bytes.split_first_chunk::<16>()?;
        let (family, turn) = secrets.split_first_chunk::<SECRET_BYTES>()?;
        Some(Self {
            session_id: Uuid::from_bytes(*session_id),
            family: *family,
            turn: turn.try_into().ok()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    /// RFC 8410, section 10.3, and the public half from section 10.1.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    fn tokens(also: Option<Jwk>) -> AccessTokens {
        let key = SigningKey::from_pem(PRIVATE.as_bytes()).unwrap();
        AccessTokens::new(key, also, "quokka".into(), Duration::from_secs(900))
    }

    #[test]
    fn both_halves_of_a_key_have_the_same_id_and_are_published_once() {
        let public = published_key_from_pem(PUBLIC.as_bytes()).unwrap();
        let private = published_key_from_pem(PRIVATE.as_bytes()).unwrap();
        assert_eq!(public, private);
        assert_eq!(tokens(Some(public)).jwks().keys.len(), 1);
    }

    #[test]
    fn the_published_keys_hold_no_private_part() {
        let shown = serde_json::to_value(tokens(None).jwks()).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({"keys": [{
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                "x": "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE",
                "kid": tokens(None).header.kid.unwrap(),
            }]})
        );
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        for bad in [
            "",
            "not a key",
            PUBLIC,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(SigningKey::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_token_is_of_the_same_family_with_another_turn() {
        let first = RefreshToken::first();
        let (one, two) = (first.hashes(), first.next().hashes());
        assert_eq!((one.session_id, one.family), (two.session_id, two.family));
        assert_ne!(one.turn, two.turn);
    }

    proptest! {
        #[test]
        fn a_token_survives_the_way_to_the_guest_and_back(id: u128, family: [u8; 32], turn: [u8; 32]) {
            let token = RefreshToken { session_id: Uuid::from_u128(id), family, turn };
            let back = RefreshToken::parse(token.reveal().expose_secret()).unwrap();
            prop_assert_eq!(back.hashes(), token.hashes());
        }

        #[test]
        fn anything_else_is_not_a_token(text in "\\PC{0,200}") {
            prop_assert!(RefreshToken::parse(&text).is_none());
        }
    }
}
