//! Keys and answers in PostgreSQL. Every clock is the server's.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sqlx::{PgPool, Row as _, types::Json};
use tracing::warn;
use uuid::Uuid;

/// The table of keys. Give it to [`crate::postgres::Schema::with`].
pub const MIGRATION: &str = "
CREATE TABLE IF NOT EXISTS idempotency_keys (
    caller       text        NOT NULL,
    method       text        NOT NULL,
    route        text        NOT NULL,
    key          text        NOT NULL,
    fingerprint  bytea       NOT NULL,
    owner        uuid        NOT NULL,
    leased_until timestamptz NOT NULL,
    status       integer,
    headers      jsonb,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, method, route, key)
);
CREATE INDEX IF NOT EXISTS idempotency_keys_created_at ON idempotency_keys (created_at);
";

/// How long a key is remembered.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a request that stopped extending its lease counts as under way: its process is dead by then.
const LEASE: Duration = Duration::from_secs(15);

/// How often a handler that still runs extends its lease.
const LEASE_EXTENDED_EVERY: Duration = Duration::from_secs(5);

/// How often the end of a request is written before it is left to the lease.
const FINISH_ATTEMPTS: u32 = 4;

/// How many old keys one statement deletes.
const SWEEP_BATCH: i64 = 1_000;

/// How often a key that vanishes between two statements is looked for again.
const BEGIN_ATTEMPTS: u32 = 4;

/// Whose key it is and for what.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) caller: String,
    pub(super) method: String,
    pub(super) route: String,
    pub(super) key: String,
}

/// The right to run a request's handler.
#[derive(Debug)]
pub(super) struct Lease {
    scope: Scope,
    owner: Uuid,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Begin {
    /// Nothing: the handler is to run.
    Ours(Lease),
    /// The answer that was given.
    Answered(Answer),
    /// Somebody runs the handler.
    InFlight,
    /// It came with another request.
    OtherRequest,
}

/// An answer that is given again.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Clone)]
pub(super) struct Store {
    pool: PgPool,
}

impl Store {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Notes that the request is under way, unless it is or was.
    pub(super) async fn begin(
        &self,
        scope: Scope,
        fingerprint: [u8; 32],
    ) -> Result<Begin, sqlx::Error> {
        for _ in 0..BEGIN_ATTEMPTS {
            let owner = Uuid::now_v7();
            // One winner: the row's primary key, or its row lock where an old row is taken over.
            let taken = sqlx::query(
                "INSERT INTO idempotency_keys AS held (caller, method, route, key, fingerprint, owner, leased_until)
                 VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
                 ON CONFLICT (caller, method, route, key) DO UPDATE
                 SET fingerprint = excluded.fingerprint, owner = excluded.owner, leased_until = excluded.leased_until,
                     status = NULL, headers = NULL, body = NULL, created_at = now()
                 WHERE held.created_at < now() - make_interval(secs => $8)
                    OR (held.status IS NULL AND held.leased_until < now() AND held.fingerprint = excluded.fingerprint)",
            )
            .bind(&scope.caller)
            .bind(&scope.method)
            .bind(&scope.route)
            .bind(&scope.key)
            .bind(fingerprint.as_slice())
            .bind(owner)
            .bind(LEASE.as_secs_f64())
            .bind(RETENTION.as_secs_f64())
            .execute(&self.pool)
            .await?;
            if taken.rows_affected() == 1 {
                return Ok(Begin::Ours(Lease { scope, owner }));
            }
            if let Some(known) = self.find(&scope, fingerprint).await? {
                return Ok(known);
            }
            // The other request was refused between the two statements, and its key given up: the next try may take it.
        }
        Ok(Begin::InFlight)
    }

    async fn find(
        &self,
        scope: &Scope,
        fingerprint: [u8; 32],
    ) -> Result<Option<Begin>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT fingerprint, status, headers, body FROM idempotency_keys
             WHERE caller = $1 AND method = $2 AND route = $3 AND key = $4",
        )
        .bind(&scope.caller)
        .bind(&scope.method)
        .bind(&scope.route)
        .bind(&scope.key)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<Vec<u8>, _>("fingerprint")? != fingerprint {
            return Ok(Some(Begin::OtherRequest));
        }
        let Some(status) = row.try_get::<Option<i32>, _>("status")? else {
            return Ok(Some(Begin::InFlight));
        };
        let Json(headers) = row.try_get::<Json<Vec<(String, String)>>, _>("headers")?;
        Ok(Some(Begin::Answered(Answer {
            status: u16::try_from(status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())
                .ok_or_else(|| sqlx::Error::Decode(format!("status {status}").into()))?,
            headers: headers
                .iter()
                .filter_map(|(name, value)| {
                    Some((
                        name.parse::<HeaderName>().ok()?,
                        HeaderValue::from_str(value).ok()?,
                    ))
                })
                .collect(),
            body: row.try_get::<Vec<u8>, _>("body")?.into(),
        })))
    }

    /// Extends the lease for as long as it is polled.
    pub(super) async fn keep_alive(&self, lease: &Lease) -> Infallible {
        loop {
            tokio::time::sleep(LEASE_EXTENDED_EVERY).await;
            let extended = sqlx::query(
                "UPDATE idempotency_keys SET leased_until = now() + make_interval(secs => $6)
                 WHERE caller = $1 AND method = $2 AND route = $3 AND key = $4 AND owner = $5",
            )
            .bind(&lease.scope.caller)
            .bind(&lease.scope.method)
            .bind(&lease.scope.route)
            .bind(&lease.scope.key)
            .bind(lease.owner)
            .bind(LEASE.as_secs_f64())
            .execute(&self.pool)
            .await;
            if let Err(error) = extended {
                warn!(%error, "the lease of an idempotent request was not extended");
            }
        }
    }

    /// Keeps the answer. If it can't be kept, the lease ends by itself and the next attempt runs the handler again.
    pub(super) async fn finish(&self, lease: &Lease, answer: &Answer) {
        let headers: Vec<(&str, &str)> = answer
            .headers
            .iter()
            .filter(|(name, _)| {
                !matches!(
                    **name,
                    header::DATE | header::CONTENT_LENGTH | header::TRANSFER_ENCODING
                )
            })
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let write = || async {
            sqlx::query(
                "UPDATE idempotency_keys SET status = $6, headers = $7, body = $8
                 WHERE caller = $1 AND method = $2 AND route = $3 AND key = $4 AND owner = $5",
            )
            .bind(&lease.scope.caller)
            .bind(&lease.scope.method)
            .bind(&lease.scope.route)
            .bind(&lease.scope.key)
            .bind(lease.owner)
            .bind(i32::from(answer.status.as_u16()))
            .bind(Json(&headers))
            .bind(answer.body.as_ref())
            .execute(&self.pool)
            .await
        };
        if let Err(error) = retried(write).await {
            warn!(%error, "the answer of an idempotent request was not kept");
        }
    }

    /// Forgets a request that had no effect.
    pub(super) async fn release(&self, lease: &Lease) {
        let delete = || async {
            sqlx::query(
                "DELETE FROM idempotency_keys
                 WHERE caller = $1 AND method = $2 AND route = $3 AND key = $4 AND owner = $5",
            )
            .bind(&lease.scope.caller)
            .bind(&lease.scope.method)
            .bind(&lease.scope.route)
            .bind(&lease.scope.key)
            .bind(lease.owner)
            .execute(&self.pool)
            .await
        };
        if let Err(error) = retried(delete).await {
            warn!(%error, "the key of a refused request was not given up");
        }
    }

    /// Forgets keys whose time is over.
    pub(super) async fn sweep(&self) -> Result<(), sqlx::Error> {
        loop {
            let deleted = sqlx::query(
                "DELETE FROM idempotency_keys WHERE ctid IN (
                     SELECT ctid FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1) LIMIT $2)",
            )
            .bind(RETENTION.as_secs_f64())
            .bind(SWEEP_BATCH)
            .execute(&self.pool)
            .await?
            .rows_affected();
            if deleted < SWEEP_BATCH as u64 {
                return Ok(());
            }
        }
    }
}

/// A short database outage at the end of a request is waited out.
async fn retried<T, F: Future<Output = Result<T, sqlx::Error>>>(
    operation: impl FnMut() -> F,
) -> Result<T, sqlx::Error> {
    use backon::{ExponentialBuilder, Retryable as _};
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_times(FINISH_ATTEMPTS as usize)
        .with_jitter();
    operation
        .retry(backoff)
        .when(crate::postgres::is_unavailable)
        .await
}
