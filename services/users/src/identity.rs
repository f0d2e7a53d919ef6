//! Signing up, signing in and staying signed in: the flows, with nothing of HTTP in them.
//!
//! What must never happen here: a password or token in a log or an error; an answer, or the time it takes, that tells
//! whether an address has an account (sign-up, which has to tell, excepted); a connection held while a password is hashed.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use uuid::Uuid;

use crate::account::{Email, Name, NewPassword, Password, Profile};
use crate::guesses::{Guesser, Guesses};
use crate::hashing::{Check, Hashing, HashingError, Turn};
use crate::metrics::REFRESH_TOKENS_REUSED;
use crate::store::{Account, NewAccount, Refreshed, SessionLife, Store, StoreError};
use crate::tokens::{AccessTokens, KeyError, RefreshToken};

/// Why a flow did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("the address has an account")]
    EmailTaken,
    #[error("no account with this address and password")]
    WrongCredentials,
    #[error("too many wrong passwords; wait {0:?}")]
    TooManyWrong(Duration),
    #[error("the refresh token is unknown, used or over")]
    NotRefreshable,
    #[error("the account is gone")]
    NoAccount,
    #[error(transparent)]
    Hashing(#[from] HashingError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Who wants an account.
pub(crate) struct SignUp {
    pub(crate) email: Email,
    pub(crate) name: Name,
    pub(crate) password: NewPassword,
    /// SHA-256 of the request's Idempotency-Key.
    pub(crate) key: Option<[u8; 32]>,
    pub(crate) source: Option<IpAddr>,
}

/// What a guest holds while signed in.
pub(crate) struct TokenPair {
    pub(crate) access: SecretString,
    pub(crate) refresh: SecretString,
    /// Of the access token.
    pub(crate) ttl: Duration,
}

/// The accounts, and what it takes to use them.
pub(crate) struct Identity {
    pub(crate) store: Store,
    pub(crate) hashing: Hashing,
    pub(crate) guesses: Guesses,
    pub(crate) tokens: AccessTokens,
    pub(crate) session_life: SessionLife,
}

impl Identity {
    /// Makes an account. Sign-ups at once with one address: one makes it, the others find it taken.
    pub(crate) async fn sign_up(&self, new: &SignUp) -> Result<Profile, IdentityError> {
        // Looking first saves the hash; the unique index is what decides.
        if let Some(existing) = self.store.account_by_email(&new.email).await? {
            return self.signed_up_before(new, existing).await;
        }
        let (turn, password_hash) = self
            .hashing
            .turn()
            .await?
            .hash(new.password.password())
            .await?;
        drop(turn);
        let account = NewAccount {
            email: &new.email,
            name: &new.name,
            password_hash: &password_hash,
            sign_up_key: new.key,
        };
        if let Some(profile) = self.store.create_account(account).await? {
            return Ok(profile);
        }
        let existing = self
            .store
            .account_by_email(&new.email)
            .await?
            .ok_or(IdentityError::EmailTaken)?;
        self.signed_up_before(new, existing).await
    }

    /// The address has an account. If it was made with this request's Idempotency-Key and password, then this is the same
    /// sign-up once more, whose answer was lost before anybody stored it; else the address is taken.
    async fn signed_up_before(
        &self,
        new: &SignUp,
        existing: Account,
    ) -> Result<Profile, IdentityError> {
        let same_key = new
            .key
            .is_some_and(|key| existing.sign_up_key.as_deref() == Some(key.as_slice()));
        if !same_key {
            return Err(IdentityError::EmailTaken);
        }
        let guesser = Guesser::new(&new.email, new.source);
        let (_turn, check) = self
            .check(&guesser, new.password.password(), Some(&existing))
            .await?;
        if check == Check::Wrong {
            Err(IdentityError::EmailTaken)
        } else {
            Ok(existing.profile)
        }
    }

    /// Opens a session for who knows the password.
    pub(crate) async fn sign_in(
        &self,
        email: &Email,
        password: &Password,
        source: Option<IpAddr>,
    ) -> Result<TokenPair, IdentityError> {
        let guesser = Guesser::new(email, source);
        self.may_guess(&guesser)?;
        let account = self.store.account_by_email(email).await?;
        let (turn, check) = self.check(&guesser, password, account.as_ref()).await?;
        let account = account
            .filter(|_| check != Check::Wrong)
            .ok_or(IdentityError::WrongCredentials)?;
        let user_id = account.profile.user_id;
        if check == Check::RightButDated {
            let (turn, renewed) = turn.hash(password).await?;
            drop(turn);
            self.store
                .replace_hash(user_id, &account.password_hash, &renewed)
                .await?;
        } else {
            drop(turn);
        }

        let token = RefreshToken::first();
        self.store
            .open_session(user_id, token.hashes(), self.session_life)
            .await?;
        self.pair(user_id, &account.profile.roles, &token)
    }

    /// Exchanges a refresh token, once, for the next pair.
    pub(crate) async fn refresh(&self, presented: &str) -> Result<TokenPair, IdentityError> {
        let presented = RefreshToken::parse(presented).ok_or(IdentityError::NotRefreshable)?;
        let next = presented.next();
        match self
            .store
            .refresh(presented.hashes(), next.hashes(), self.session_life)
            .await?
        {
            Refreshed::Next { user_id, roles } => self.pair(user_id, &roles, &next),
            Refreshed::Refused => Err(IdentityError::NotRefreshable),
            Refreshed::Reused => {
                REFRESH_TOKENS_REUSED.inc();
                tracing::warn!(session_id = %presented.hashes().session_id, "a used refresh token came again: session ended");
                Err(IdentityError::NotRefreshable)
            }
        }
    }

    /// Ends all sessions of an account. Access tokens that are out stay good until they expire.
    pub(crate) async fn sign_out(&self, user_id: Uuid) -> Result<(), IdentityError> {
        Ok(self.store.sign_out(user_id).await?)
    }

    /// The caller's own account.
    pub(crate) async fn profile(&self, user_id: Uuid) -> Result<Profile, IdentityError> {
        self.store
            .profile(user_id)
            .await?
            .ok_or(IdentityError::NoAccount)
    }

    /// Gives the caller another name.
    pub(crate) async fn rename(
        &self,
        user_id: Uuid,
        name: &Name,
    ) -> Result<Profile, IdentityError> {
        self.store
            .rename(user_id, name)
            .await?
            .ok_or(IdentityError::NoAccount)
    }

    fn may_guess(&self, guesser: &Guesser) -> Result<(), IdentityError> {
        self.guesses
            .wait(guesser, Instant::now())
            .map_or(Ok(()), |wait| Err(IdentityError::TooManyWrong(wait)))
    }

    /// Checks a password, and keeps count. Without an account it does the same work, and the password is wrong.
    ///
    /// The turn is held until the outcome is counted, and guesses are looked at again once it came: many guesses at once
    /// get no further than as many in a row, and one for each worker.
    async fn check(
        &self,
        guesser: &Guesser,
        password: &Password,
        account: Option<&Account>,
    ) -> Result<(Turn, Check), IdentityError> {
        let turn = self.hashing.turn().await?;
        self.may_guess(guesser)?;
        let stored = account.map_or(self.hashing.nobody(), |account| &account.password_hash);
        let (turn, check) = turn.check(password, stored).await?;
        if check == Check::Wrong || account.is_none() {
            self.guesses.wrong(guesser, Instant::now());
            return Ok((turn, Check::Wrong));
        }
        self.guesses.right(guesser);
        Ok((turn, check))
    }

    fn pair(
        &self,
        user_id: Uuid,
        roles: &[String],
        refresh: &RefreshToken,
    ) -> Result<TokenPair, IdentityError> {
        let access = self
            .tokens
            .issue(user_id, roles, jiff::Timestamp::now())?
            .into();
        Ok(TokenPair {
            access,
            refresh: refresh.reveal(),
            ttl: self.tokens.ttl(),
        })
    }
}
