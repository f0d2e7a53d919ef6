//! Guests with access tokens.
//!
//! A few are real: they sign up and in through the API. Thousands get tokens signed here with the platform's own
//! key, read from its Secret, since hashing 4,000 passwords says nothing about claims.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, decode_header, encode};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::{Answer, Call, Connection};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Tokens made here live as long as the longest run.
const TOKEN_LIFE_S: i64 = 3 * 3600;

/// A guest that can call the API.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) user: Uuid,
    pub(crate) authorization: HeaderValue,
}

/// Signs access tokens as the users service does.
pub(crate) struct TokenSigner {
    key: EncodingKey,
    key_id: String,
    issuer: String,
}

#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: Uuid,
    jti: Uuid,
    iat: i64,
    exp: i64,
    roles: &'a [&'a str],
}

impl TokenSigner {
    /// A signer with the platform's key (PEM) that names the key as `like`, a token of the users service, does.
    pub(crate) fn like(pem: &[u8], like: &str, issuer: &str) -> anyhow::Result<Self> {
        let header = decode_header(like)
            .context("reading the header of a token made by the users service")?;
        Self::new(
            pem,
            &header.kid.context("a token that does not name its key")?,
            issuer,
        )
    }

    /// A signer with this key (PEM), named `key_id` in the tokens.
    pub(crate) fn new(pem: &[u8], key_id: &str, issuer: &str) -> anyhow::Result<Self> {
        let key = EncodingKey::from_ed_pem(pem).context("reading the signing key")?;
        Ok(Self {
            key,
            key_id: key_id.to_owned(),
            issuer: issuer.to_owned(),
        })
    }

    /// A new guest.
    pub(crate) fn guest(&self) -> anyhow::Result<Guest> {
        self.somebody(&[])
    }

    /// Somebody new with these roles.
    pub(crate) fn somebody(&self, roles: &[&str]) -> anyhow::Result<Guest> {
        let user = Uuid::now_v7();
        let now = Timestamp::now().as_second();
        let claims = AccessClaims {
            iss: &self.issuer,
            aud: "quokka-api",
            sub: user,
            jti: Uuid::new_v4(),
            iat: now,
            exp: now + TOKEN_LIFE_S,
            roles,
        };
        let header = Header {
            kid: Some(self.key_id.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = encode(&header, &claims, &self.key).context("signing a guest's token")?;
        Ok(Guest {
            user,
            authorization: bearer(&token)?,
        })
    }

    /// `count` new guests.
    pub(crate) fn guests(&self, count: usize) -> anyhow::Result<Vec<Guest>> {
        (0..count).map(|_| self.guest()).collect()
    }
}

/// A guest who signed up and in through the API, and the token that was handed out.
pub(crate) async fn sign_up_and_in(address: SocketAddr) -> anyhow::Result<(Guest, String)> {
    let mut connection = Connection::new(address);
    let email = format!("guest-{}@example.com", Uuid::new_v4());
    let password = Uuid::new_v4().to_string();
    let user = post(
        &mut connection,
        "/v1/users",
        json!({"email": email, "password": password, "name": "Guest"}),
    )
    .await?;
    let session = post(
        &mut connection,
        "/v1/sessions",
        json!({"email": email, "password": password}),
    )
    .await?;
    let token = session["accessToken"]
        .as_str()
        .context("a session without accessToken")?
        .to_owned();
    let guest = Guest {
        user: user_id(&user)?,
        authorization: bearer(&token)?,
    };

    let me = Call {
        authorization: Some(guest.authorization.clone()),
        ..Call::get(Uri::from_static("/v1/users/me"))
    };
    let me = connection
        .send(&me, TIMEOUT)
        .await
        .map_err(|no| anyhow::anyhow!("GET /v1/users/me: {no:?}"))?;
    ensure!(
        me.status.is_success(),
        "GET /v1/users/me: {} {}",
        me.status,
        String::from_utf8_lossy(&me.body)
    );
    let me: Value = serde_json::from_slice(&me.body)?;
    ensure!(
        user_id(&me)? == guest.user,
        "GET /v1/users/me names another user: {me}"
    );
    Ok((guest, token))
}

fn user_id(user: &Value) -> anyhow::Result<Uuid> {
    let id = user["id"]
        .as_str()
        .or(user["userId"].as_str())
        .with_context(|| format!("a user without an id: {user}"))?;
    Ok(id.parse()?)
}

fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))?;
    header.set_sensitive(true);
    Ok(header)
}

async fn post(
    connection: &mut Connection,
    path: &'static str,
    body: Value,
) -> anyhow::Result<Value> {
    let call = Call {
        body: Bytes::from(body.to_string()),
        ..Call::post(Uri::from_static(path), None)
    };
    match connection.send(&call, TIMEOUT).await {
        Ok(Answer { status, body }) if status.as_u16() == 201 => Ok(serde_json::from_slice(&body)?),
        Ok(Answer { status, body }) => {
            bail!("POST {path}: {status} {}", String::from_utf8_lossy(&body))
        }
        Err(no) => bail!("POST {path}: {no:?}"),
    }
}
