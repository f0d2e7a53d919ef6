//! What hosts offer.

use std::collections::BTreeMap;

use events::outbox::Messages;
use events::saga::RoomTypeId;
use sqlx::PgConnection;
use time::Date;
use uuid::Uuid;

use super::{rooms_left, tell_availability};
use crate::inventory::Night;

/// A part of a calendar, read.
#[derive(Debug, Clone)]
pub struct CalendarPart {
    /// Whose.
    pub room_type_id: RoomTypeId,
    /// Of which stay.
    pub stay_id: Uuid,
    /// Grows with each change.
    pub version: i64,
    /// Each night once, and how many rooms are offered.
    pub nights: BTreeMap<Date, i32>,
}

/// Takes what a host offers from now on, and tells of it. Nights that a later version has set stay as they are. Answers
/// the nights on which more is reserved than is offered: they keep what is reserved.
pub async fn write_calendar(
    connection: &mut PgConnection,
    part: &CalendarPart,
) -> Result<Vec<Date>, sqlx::Error> {
    let CalendarPart {
        room_type_id,
        stay_id,
        version,
        nights,
    } = part;
    let availability_version = sqlx::query_scalar!(
        "INSERT INTO room_types AS r (room_type_id, stay_id, availability_version) VALUES ($1, $2, 1)
        ON CONFLICT (room_type_id) DO UPDATE SET availability_version = r.availability_version + 1
        RETURNING availability_version",
        room_type_id.0,
        stay_id
    )
    .fetch_one(&mut *connection)
    .await?;
    let (dates, offered): (Vec<Date>, Vec<i32>) = nights
        .iter()
        .map(|(night, offered)| (*night, *offered))
        .unzip();
    let rows = sqlx::query!(
        "INSERT INTO room_nights AS n (room_type_id, night, offered, allotment, calendar_version)
        SELECT $1, c.night, c.offered, c.offered, $2 FROM unnest($3::date[], $4::integer[]) AS c (night, offered)
        ON CONFLICT (room_type_id, night) DO UPDATE SET
            offered = excluded.offered,
            allotment = greatest(excluded.offered, n.reserved),
            calendar_version = excluded.calendar_version
        WHERE n.calendar_version < excluded.calendar_version
        RETURNING night, offered, reserved",
        room_type_id.0,
        version,
        &dates,
        &offered
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut over = Vec::new();
    let mut left = Vec::with_capacity(rows.len());
    for row in rows {
        let night = Night {
            offered: row.offered,
            reserved: row.reserved,
        };
        if night.reserved > night.offered {
            over.push(row.night);
        }
        left.push(rooms_left(row.night, night));
    }
    if !left.is_empty() {
        let mut messages = Messages::new();
        tell_availability(&mut messages, *room_type_id, availability_version, left)?;
        messages.put(connection).await?;
    }
    Ok(over)
}
