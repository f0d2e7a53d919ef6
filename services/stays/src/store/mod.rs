//! Every SQL statement of the service.
//!
//! Whoever writes something that searches show says so on the channel of [`changes`] in the same transaction, so that
//! every index hears of it with the commit.

mod calendar;
pub(crate) mod changes;
mod search;
mod stays;

use sqlx::PgPool;
use sqlx::migrate::Migrator;

pub(crate) use calendar::{
    CalendarError, CalendarNight, NightRow, NightsRange, RoomNights, take_over,
};
pub(crate) use stays::{NewRoomType, NewStay, RoomTypeRow, SearchedStay, StayRow};

/// The migrations of the service's database.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// A statement that failed, and what it was for.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct StoreError {
    doing: &'static str,
    #[source]
    pub(crate) source: sqlx::Error,
}

impl From<StoreError> for chassis::problem::Problem {
    fn from(error: StoreError) -> Self {
        if chassis::postgres::is_unavailable(&error.source) {
            tracing::warn!(%error, "the database is not there");
            Self::unavailable("stays can't be read or written right now")
        } else {
            Self::internal(error)
        }
    }
}

/// Names what a statement was for.
trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError { doing, source })
    }
}

/// A value in the database that the service could not have written.
fn impossible(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} is none that this service writes").into())
}

/// The stays in PostgreSQL.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Those that the pool's database has.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}
