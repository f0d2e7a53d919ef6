//! How the indexes of all replicas hear of what changed: a notification with each commit, and, for what was committed
//! while one was not listening, the times at which rows changed.

use std::fmt;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use time::OffsetDateTime;

use super::calendar::NightsRange;
use super::{Doing as _, Store, StoreError};
use crate::calendar::Day;

/// The channel.
const CHANNEL: &str = "quokka_stays_changed";

/// How long before a reading a change that it did not see may have been stamped: longer than a transaction here may
/// take, since a row is stamped before it is committed.
const OVERLAP: Duration = Duration::from_secs(60);

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stays from the first to the last number, with all their room types and nights.
    Stays(i32, i32),
    /// Nights of a room type.
    Nights(NightsRange),
    /// Nothing: somebody listens to himself.
    Echo(u64),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stays(first, last) => write!(f, "stays {first} {last}"),
            Self::Nights(range) => write!(
                f,
                "nights {} {} {}",
                range.room_type_no,
                range.first.number(),
                range.last.number()
            ),
            Self::Echo(of) => write!(f, "echo {of}"),
        }
    }
}

impl Change {
    /// Reads a notification; `None` for one of another version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse::<i32>().ok();
        match kind {
            "stays" => Some(Self::Stays(number()?, number()?)),
            "nights" => Some(Self::Nights(NightsRange {
                room_type_no: number()?,
                first: Day::new(number()?)?,
                last: Day::new(number()?)?,
            })),
            "echo" => words.next()?.parse().ok().map(Self::Echo),
            _ => None,
        }
    }
}

/// Says with the commit what changed.
pub(crate) async fn tell(connection: &mut PgConnection, change: Change) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, change.to_string())
        .execute(connection)
        .await
        .map(drop)
}

impl Store {
    /// Listens from now on. It has a connection of its own.
    pub(crate) async fn listen(&self) -> Result<PgListener, StoreError> {
        const DOING: &str = "listen for changes";
        let mut listener = PgListener::connect_with(&self.pool).await.doing(DOING)?;
        // A connection that was lost has missed something: a new listener is made, and what was missed is read.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await.doing(DOING)?;
        Ok(listener)
    }

    /// Sends an echo to everybody who listens.
    pub(crate) async fn echo(&self, of: u64) -> Result<(), StoreError> {
        const DOING: &str = "listen to oneself";
        let mut connection = self.pool.acquire().await.doing(DOING)?;
        tell(&mut connection, Change::Echo(of)).await.doing(DOING)
    }

    /// A time before which nothing stamped can be committed from now on.
    pub(crate) async fn horizon(&self) -> Result<OffsetDateTime, StoreError> {
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#)
            .fetch_one(&self.pool)
            .await
            .doing("read the database's clock")?;
        Ok(now - OVERLAP)
    }

    /// The numbers of stays of which something was stamped since.
    pub(crate) async fn changed_since(
        &self,
        since: OffsetDateTime,
    ) -> Result<Vec<i32>, StoreError> {
        sqlx::query_scalar!(
            r#"SELECT stay_no AS "stay_no!" FROM stays WHERE changed_at > $1
             UNION SELECT stay_no FROM room_types WHERE changed_at > $1 ORDER BY 1"#,
            since,
        )
        .fetch_all(&self.pool)
        .await
        .doing("find what changed")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives_being_told() {
        let range = NightsRange {
            room_type_no: 7,
            first: Day::new(20_000).unwrap(),
            last: Day::new(20_365).unwrap(),
        };
        for change in [
            Change::Stays(1, 500),
            Change::Nights(range),
            Change::Echo(u64::MAX),
        ] {
            assert_eq!(Change::parse(&change.to_string()), Some(change));
        }
        for text in ["", "stays 1", "nights 1 2", "room 1 2 3", "nights 1 -5 7"] {
            assert_eq!(Change::parse(text), None, "{text}");
        }
    }
}
