//! Nights: what hosts put into calendars, and what booking says is left.

use events::outbox::{self, OutboxError};
use events::saga::{self, AvailabilityChanged, CalendarChanged, RoomTypeId};
use money::{Discount, Krw, Percent};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::changes::Change;
use super::{Doing as _, Store, StoreError, changes, impossible};
use crate::calendar::{Day, Nights};

/// A night as a host puts it into a calendar.
#[derive(Debug, Clone)]
pub(crate) struct CalendarNight {
    pub(crate) day: Day,
    pub(crate) price: Krw,
    pub(crate) own: Option<Discount>,
    pub(crate) allotment: u32,
    pub(crate) min_nights: u16,
}

/// A night as guests get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NightRow {
    pub(crate) day: Day,
    pub(crate) price: Krw,
    pub(crate) own: Option<Discount>,
    pub(crate) left: u32,
    pub(crate) min_nights: u16,
}

/// Some nights of a room type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NightsRange {
    pub(crate) room_type_no: i32,
    pub(crate) first: Day,
    pub(crate) last: Day,
}

/// The nights of a room type in a range, as columns.
#[derive(Debug, Default)]
pub(crate) struct RoomNights {
    pub(crate) room_type_no: i32,
    pub(crate) days: Vec<i32>,
    pub(crate) prices: Vec<i32>,
    /// 0 for none.
    pub(crate) own_percents: Vec<i16>,
    /// 0 for none.
    pub(crate) own_amounts: Vec<i32>,
    pub(crate) left: Vec<i32>,
    pub(crate) min_nights: Vec<i16>,
}

/// A discount as the two columns have it.
fn own_discount(
    percent: Option<i16>,
    amount: Option<i32>,
) -> Result<Option<Discount>, sqlx::Error> {
    let impossible = || impossible("a discount");
    match (percent, amount) {
        (None, None) => Ok(None),
        (Some(percent), None) => u8::try_from(percent)
            .ok()
            .and_then(|percent| Percent::new(percent).ok())
            .map(|percent| Some(Discount::Percent(percent)))
            .ok_or_else(impossible),
        (None, Some(amount)) => Ok(Some(Discount::Amount(krw(amount)?))),
        (Some(_), Some(_)) => Err(impossible()),
    }
}

fn krw(won: i32) -> Result<Krw, sqlx::Error> {
    Krw::new(i64::from(won)).map_err(|_| impossible("an amount of money"))
}

fn day(date: time::Date) -> Result<Day, sqlx::Error> {
    Day::from_sql(date).ok_or_else(|| impossible("a date"))
}

/// What the columns of a calendar's nights are bound to.
#[derive(Default)]
struct Columns {
    days: Vec<time::Date>,
    prices: Vec<i32>,
    own_percents: Vec<i16>,
    own_amounts: Vec<i32>,
    allotments: Vec<i32>,
    min_nights: Vec<i16>,
}

impl Columns {
    fn of(nights: &[CalendarNight]) -> Self {
        let mut columns = Self::default();
        for night in nights {
            columns.days.push(night.day.sql());
            columns
                .prices
                .push(i32::try_from(night.price.get()).unwrap_or(i32::MAX));
            let (percent, amount) = match night.own {
                None => (0, 0),
                Some(Discount::Percent(percent)) => (i16::from(percent.get()), 0),
                Some(Discount::Amount(amount)) => {
                    (0, i32::try_from(amount.get()).unwrap_or(i32::MAX))
                }
            };
            columns.own_percents.push(percent);
            columns.own_amounts.push(amount);
            columns
                .allotments
                .push(i32::try_from(night.allotment).unwrap_or(i32::MAX));
            columns
                .min_nights
                .push(i16::try_from(night.min_nights).unwrap_or(i16::MAX));
        }
        columns
    }
}

/// A calendar was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CalendarError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("tell booking of a calendar: {0}")]
    Outbox(#[from] OutboxError),
}

impl Store {
    /// Writes nights of a calendar and, in the same transaction, what booking is told; answers the calendar's version.
    /// Rooms left of a night that is new are all; of one that is known, they are what booking said last, until it
    /// hears of this. The room type's row is locked first, so that versions are in the order of the commits.
    pub(crate) async fn put_calendar(
        &self,
        room_type_id: Uuid,
        stay_id: Uuid,
        nights: &[CalendarNight],
    ) -> Result<i64, CalendarError> {
        const DOING: &str = "write a calendar";
        let columns = Columns::of(nights);
        let mut tx = self.pool.begin().await.doing(DOING)?;
        let room = sqlx::query!(
            "UPDATE room_types SET calendar_version = calendar_version + 1, changed_at = clock_timestamp()
             WHERE room_type_id = $1 RETURNING room_type_no, calendar_version",
            room_type_id,
        )
        .fetch_one(&mut *tx)
        .await
        .doing(DOING)?;
        sqlx::query!(
            "INSERT INTO nights (room_type_no, night, price, own_percent, own_amount, allotment, min_nights, rooms_left)
             SELECT $1, night, price, nullif(own_percent, 0), nullif(own_amount, 0), allotment, min_nights, allotment
             FROM unnest($2::date[], $3::integer[], $4::smallint[], $5::integer[], $6::integer[], $7::smallint[])
                 AS new (night, price, own_percent, own_amount, allotment, min_nights)
             ON CONFLICT (room_type_no, night) DO UPDATE SET price = EXCLUDED.price,
                 own_percent = EXCLUDED.own_percent, own_amount = EXCLUDED.own_amount,
                 allotment = EXCLUDED.allotment, min_nights = EXCLUDED.min_nights",
            room.room_type_no,
            &columns.days,
            &columns.prices,
            &columns.own_percents,
            &columns.own_amounts,
            &columns.allotments,
            &columns.min_nights,
        )
        .execute(&mut *tx)
        .await
        .doing(DOING)?;
        let told = CalendarChanged {
            room_type_id: RoomTypeId(room_type_id),
            stay_id,
            version: room.calendar_version,
            nights: nights
                .iter()
                .map(|night| saga::CalendarNight {
                    date: night.day.to_string(),
                    allotment: night.allotment,
                })
                .collect(),
        };
        outbox::put(&mut tx, saga::CALENDAR, &room_type_id.to_string(), &told).await?;
        let days = nights.iter().map(|night| night.day);
        if let (Some(first), Some(last)) = (days.clone().min(), days.max()) {
            let range = NightsRange {
                room_type_no: room.room_type_no,
                first,
                last,
            };
            changes::tell(&mut tx, Change::Nights(range))
                .await
                .doing(DOING)?;
        }
        tx.commit().await.doing(DOING)?;
        Ok(room.calendar_version)
    }

    /// The nights of room types from `first` to `last`, both included, of which there is a calendar; in the order of
    /// room types and dates.
    pub(crate) async fn nights(
        &self,
        room_type_nos: &[i32],
        first: Day,
        last: Day,
    ) -> Result<Vec<(i32, NightRow)>, StoreError> {
        const DOING: &str = "read nights";
        let rows = sqlx::query!(
            r#"SELECT room_type_no, night, price, own_percent, own_amount, min_nights,
                 least(rooms_left, allotment) AS "left!"
             FROM nights WHERE room_type_no = ANY($1) AND night BETWEEN $2 AND $3
             ORDER BY room_type_no, night"#,
            room_type_nos,
            first.sql(),
            last.sql(),
        )
        .fetch_all(&self.pool)
        .await
        .doing(DOING)?;
        rows.into_iter()
            .map(|row| {
                let night = NightRow {
                    day: day(row.night)?,
                    price: krw(row.price)?,
                    own: own_discount(row.own_percent, row.own_amount)?,
                    left: u32::try_from(row.left).map_err(|_| impossible("rooms left"))?,
                    min_nights: u16::try_from(row.min_nights)
                        .map_err(|_| impossible("a minimum of nights"))?,
                };
                Ok((row.room_type_no, night))
            })
            .collect::<Result<_, sqlx::Error>>()
            .doing(DOING)
    }

    /// The nights of one stay in one room type, those without a calendar left out.
    pub(crate) async fn stay_nights(
        &self,
        room_type_no: i32,
        nights: Nights,
    ) -> Result<Vec<NightRow>, StoreError> {
        let last = nights.check_out().plus(-1);
        let rows = self
            .nights(&[room_type_no], nights.check_in(), last)
            .await?;
        Ok(rows.into_iter().map(|(_, night)| night).collect())
    }

    /// The nights of many ranges at once, as columns; a room type without any in its range is left out.
    pub(crate) async fn searched_nights(
        &self,
        ranges: &[NightsRange],
    ) -> Result<Vec<RoomNights>, StoreError> {
        let nos: Vec<i32> = ranges.iter().map(|range| range.room_type_no).collect();
        let firsts: Vec<time::Date> = ranges.iter().map(|range| range.first.sql()).collect();
        let lasts: Vec<time::Date> = ranges.iter().map(|range| range.last.sql()).collect();
        sqlx::query_as!(
            RoomNights,
            r#"SELECT n.room_type_no, array_agg(n.night - date '1970-01-01') AS "days!", array_agg(n.price) AS "prices!",
                 array_agg(coalesce(n.own_percent, 0::smallint)) AS "own_percents!",
                 array_agg(coalesce(n.own_amount, 0)) AS "own_amounts!",
                 array_agg(least(n.rooms_left, n.allotment)) AS "left!", array_agg(n.min_nights) AS "min_nights!"
             FROM unnest($1::integer[], $2::date[], $3::date[]) AS wanted (room_type_no, first, last)
             JOIN nights n ON n.room_type_no = wanted.room_type_no AND n.night BETWEEN wanted.first AND wanted.last
             GROUP BY n.room_type_no"#,
            &nos,
            &firsts,
            &lasts,
        )
        .fetch_all(&self.pool)
        .await
        .doing("read nights for searches")
    }
}

/// Takes over what booking says is left, in the transaction of its message. A night whose version is as high already
/// stays as it is, so that messages may come again and in any order; one that has no calendar is left out, since only
/// hosts make nights.
pub(crate) async fn take_over(
    tx: &mut Transaction<'static, Postgres>,
    message: &AvailabilityChanged,
) -> Result<(), sqlx::Error> {
    let mut days = Vec::new();
    let mut left = Vec::new();
    for night in &message.nights {
        // What can't be a date can't be in a calendar.
        if let Ok(day) = night.date.parse::<Day>() {
            days.push(day.sql());
            left.push(i32::try_from(night.left).unwrap_or(i32::MAX));
        }
    }
    let changed = sqlx::query!(
        "UPDATE nights n SET rooms_left = new.rooms_left, left_version = $4
         FROM unnest($2::date[], $3::integer[]) AS new (night, rooms_left),
             room_types r
         WHERE r.room_type_id = $1 AND n.room_type_no = r.room_type_no AND n.night = new.night AND n.left_version < $4
         RETURNING n.room_type_no, n.night",
        message.room_type_id.0,
        &days,
        &left,
        message.version,
    )
    .fetch_all(&mut **tx)
    .await?;
    let (Some(first), Some(last)) = (
        changed.iter().map(|row| row.night).min(),
        changed.iter().map(|row| row.night).max(),
    ) else {
        return Ok(());
    };
    let room_type_no = changed[0].room_type_no;
    sqlx::query!(
        "UPDATE room_types SET changed_at = clock_timestamp() WHERE room_type_no = $1",
        room_type_no,
    )
    .execute(&mut **tx)
    .await?;
    let range = NightsRange {
        room_type_no,
        first: day(first)?,
        last: day(last)?,
    };
    changes::tell(tx, Change::Nights(range)).await
}
