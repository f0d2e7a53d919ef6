//! Every SQL statement of the service. No statement holds a connection while a password is hashed.

use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::account::{Email, Name, Profile};
use crate::tokens::RefreshHashes;

/// Sessions that one account may hold: a person with many devices fits; a loop that only signs in stays bounded.
const SESSIONS_PER_USER_MAX: i64 = 50;

/// Dead sessions removed by one statement, so that none holds its locks for long.
const SWEEP_ROWS_MAX: i64 = 1_000;

/// A statement that failed, and what it was for.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub(crate) struct StoreError {
    doing: &'static str,
    pub(crate) source: sqlx::Error,
}

fn while_doing(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError { doing, source }
}

/// An account with what proves its owner.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) profile: Profile,
    pub(crate) password_hash: String,
    pub(crate) sign_up_key: Option<Vec<u8>>,
}

/// An account to be.
#[derive(Debug)]
pub(crate) struct NewAccount<'a> {
    pub(crate) email: &'a Email,
    pub(crate) name: &'a Name,
    pub(crate) password_hash: &'a str,
    pub(crate) sign_up_key: Option<[u8; 32]>,
}

/// How long a session lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLife {
    /// Without a refresh.
    pub(crate) ttl: Duration,
    /// However often it is refreshed.
    pub(crate) age_max: Duration,
}

/// What became of a refresh.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The session goes on with the next token.
    Next { user_id: Uuid, roles: Vec<String> },
    /// The token had been used before: the session is ended, for whoever holds its newest token.
    Reused,
    /// No such session, or it is over.
    Refused,
}

/// The accounts and sessions in PostgreSQL.
#[derive(Clone)]
pub(crate) struct Store {
    pool: PgPool,
}

impl Store {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub(crate) async fn account_by_email(
        &self,
        email: &Email,
    ) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query!(
            "SELECT user_id, email, name, password_hash, roles, sign_up_key, created_at FROM users WHERE email = $1",
            email.as_str(),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing("find an account by its address"))?;
        Ok(row.map(|row| Account {
            profile: profile(row.user_id, row.email, row.name, row.roles, row.created_at),
            password_hash: row.password_hash,
            sign_up_key: row.sign_up_key,
        }))
    }

    /// Guards "one account for each address": the unique index decides between sign-ups at once. `None` if it is taken.
    pub(crate) async fn create_account(
        &self,
        new: NewAccount<'_>,
    ) -> Result<Option<Profile>, StoreError> {
        let row = sqlx::query!(
            "INSERT INTO users (user_id, email, name, password_hash, sign_up_key) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (email) DO NOTHING
             RETURNING user_id, email, name, roles, created_at",
            Uuid::now_v7(),
            new.email.as_str(),
            new.name.as_str(),
            new.password_hash,
            new.sign_up_key.as_ref().map(<[u8; 32]>::as_slice),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing("create an account"))?;
        Ok(row.map(|row| profile(row.user_id, row.email, row.name, row.roles, row.created_at)))
    }

    pub(crate) async fn profile(&self, user_id: Uuid) -> Result<Option<Profile>, StoreError> {
        let row = sqlx::query!(
            "SELECT user_id, email, name, roles, created_at FROM users WHERE user_id = $1",
            user_id
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing("read a profile"))?;
        Ok(row.map(|row| profile(row.user_id, row.email, row.name, row.roles, row.created_at)))
    }

    pub(crate) async fn rename(
        &self,
        user_id: Uuid,
        name: &Name,
    ) -> Result<Option<Profile>, StoreError> {
        let row = sqlx::query!(
            "UPDATE users SET name = $2, updated_at = now() WHERE user_id = $1
             RETURNING user_id, email, name, roles, created_at",
            user_id,
            name.as_str(),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing("change a name"))?;
        Ok(row.map(|row| profile(row.user_id, row.email, row.name, row.roles, row.created_at)))
    }

    /// Puts a hash of today's parameters in the place of the one it was made from; a password changed meanwhile stays.
    pub(crate) async fn replace_hash(
        &self,
        user_id: Uuid,
        old: &str,
        new: &str,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE users SET password_hash = $3, updated_at = now() WHERE user_id = $1 AND password_hash = $2",
            user_id,
            old,
            new,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("renew a password's hash"))?;
        Ok(())
    }

    /// Opens a session, and ends the ones refreshed longest ago if the account would hold too many.
    pub(crate) async fn open_session(
        &self,
        user_id: Uuid,
        token: RefreshHashes,
        life: SessionLife,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH crowded AS (
                 SELECT session_id FROM sessions WHERE user_id = $2 AND ended_at IS NULL
                 ORDER BY refreshed_at DESC OFFSET $6
             ), ended AS (
                 UPDATE sessions SET ended_at = now(), end_reason = 'CROWDED_OUT'
                 WHERE session_id IN (SELECT session_id FROM crowded) AND ended_at IS NULL
             )
             INSERT INTO sessions (session_id, user_id, family_hash, turn_hash, expires_at)
             VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))",
            token.session_id,
            user_id,
            &token.family,
            &token.turn,
            life.ttl.min(life.age_max).as_secs_f64(),
            SESSIONS_PER_USER_MAX - 1,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("open a session"))?;
        Ok(())
    }

    /// Guards "a refresh token works once": the row changes hands only from the very turn presented, so that of two
    /// refreshes at once one finds its turn gone. That one has presented a used token, and ends the session.
    pub(crate) async fn refresh(
        &self,
        presented: RefreshHashes,
        next: RefreshHashes,
        life: SessionLife,
    ) -> Result<Refreshed, StoreError> {
        let won = sqlx::query!(
            "UPDATE sessions s
             SET turn_hash = $4, turn = turn + 1, refreshed_at = now(),
                 expires_at = LEAST(now() + make_interval(secs => $5), s.created_at + make_interval(secs => $6))
             FROM users u
             WHERE s.session_id = $1 AND s.family_hash = $2 AND s.turn_hash = $3
               AND s.ended_at IS NULL AND s.expires_at > now() AND s.created_at + make_interval(secs => $6) > now()
               AND u.user_id = s.user_id
             RETURNING u.user_id, u.roles",
            presented.session_id,
            &presented.family,
            &presented.turn,
            &next.turn,
            life.ttl.as_secs_f64(),
            life.age_max.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(while_doing("refresh a session"))?;
        if let Some(row) = won {
            return Ok(Refreshed::Next {
                user_id: row.user_id,
                roles: row.roles,
            });
        }
        let ended = sqlx::query!(
            "UPDATE sessions SET ended_at = now(), end_reason = 'REUSED'
             WHERE session_id = $1 AND family_hash = $2 AND turn_hash <> $3 AND ended_at IS NULL AND expires_at > now()",
            presented.session_id,
            &presented.family,
            &presented.turn,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("end a session whose token was used twice"))?;
        Ok(if ended.rows_affected() == 1 {
            Refreshed::Reused
        } else {
            Refreshed::Refused
        })
    }

    /// Ends every session of an account.
    pub(crate) async fn sign_out(&self, user_id: Uuid) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE sessions SET ended_at = now(), end_reason = 'SIGNED_OUT' WHERE user_id = $1 AND ended_at IS NULL",
            user_id,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("sign out"))?;
        Ok(())
    }

    /// Removes sessions that are over, those that were ended a day after that: a used token that comes again meanwhile can
    /// still be looked into. True if there may be more.
    pub(crate) async fn sweep_sessions(&self) -> Result<bool, StoreError> {
        let swept = sqlx::query!(
            "DELETE FROM sessions WHERE session_id IN (
                 SELECT session_id FROM sessions WHERE expires_at < now() OR ended_at < now() - interval '1 day'
                 LIMIT $1 FOR UPDATE SKIP LOCKED
             )",
            SWEEP_ROWS_MAX,
        )
        .execute(&self.pool)
        .await
        .map_err(while_doing("remove sessions that are over"))?;
        Ok(swept.rows_affected() == SWEEP_ROWS_MAX.unsigned_abs())
    }
}

fn profile(
    user_id: Uuid,
    email: String,
    name: String,
    roles: Vec<String>,
    created_at: OffsetDateTime,
) -> Profile {
    Profile {
        user_id,
        email,
        name,
        roles,
        created_at: timestamp(created_at),
    }
}

fn timestamp(at: OffsetDateTime) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(at.unix_timestamp_nanos())
        .expect("a time that now() gave is before the year 9999")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn database_of_one_user() -> PgPool {
        let database = testkit::Postgres::shared()
            .await
            .create_database()
            .await
            .unwrap();
        let pool = database.pool().await.unwrap();
        sqlx::migrate!().run(&pool).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO users (user_id, email, name, password_hash)
             VALUES (gen_random_uuid(), 'kim@example.com', 'Kim', '$argon2id$')",
        )
        .execute(&pool)
        .await
        .unwrap();
        pool
    }

    #[tokio::test]
    async fn a_sweep_removes_sessions_that_are_over_a_bounded_number_at_a_time() {
        let pool = database_of_one_user().await;
        sqlx::raw_sql(
            "INSERT INTO sessions (session_id, user_id, family_hash, turn_hash, expires_at)
             SELECT gen_random_uuid(), user_id, sha256('f'), sha256('t'), now() + make_interval(secs => 500 - n)
             FROM users, generate_series(1, 1999) n",
        )
        .execute(&pool)
        .await
        .unwrap();

        let store = Store::new(pool.clone());
        let mut left = Vec::new();
        loop {
            let more = store.sweep_sessions().await.unwrap();
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions")
                .fetch_one(&pool)
                .await
                .unwrap();
            left.push(count);
            if !more {
                break;
            }
        }
        assert_eq!(left[0], 999, "the first thousand");
        // Some of the rest got over in the meantime; those that last minutes more did not.
        let last = *left.last().unwrap();
        assert!((1..=499).contains(&last), "{left:?}");
    }

    #[tokio::test]
    async fn a_sweep_removes_sessions_that_ended_a_day_ago_and_keeps_those_of_today() {
        let pool = database_of_one_user().await;
        sqlx::raw_sql(
            "INSERT INTO sessions (session_id, user_id, family_hash, turn_hash, expires_at, ended_at, end_reason)
             SELECT gen_random_uuid(), user_id, sha256('f'), sha256('t'), now() + interval '30 days',
                 now() - make_interval(hours => ago), CASE WHEN ago IS NOT NULL THEN 'SIGNED_OUT' END
             FROM users, unnest(ARRAY[NULL, 1, 23, 25, 600]) ago",
        )
        .execute(&pool)
        .await
        .unwrap();
        assert!(!Store::new(pool.clone()).sweep_sessions().await.unwrap());
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(left, 3);
    }
}
