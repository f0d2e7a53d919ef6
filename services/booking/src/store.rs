//! Every SQL statement of the service.
//!
//! Locks are always taken in this order, each kind in the order of its ids: holds, room types. So two transactions
//! never wait for each other in a circle. Nights are read and written only under their room type's lock.

mod bookings;
mod calendar;

use std::collections::BTreeMap;

use events::outbox::{Messages, OutboxError};
use events::saga::{AVAILABILITY, AvailabilityChanged, OrderId, RoomTypeId, RoomsLeft};
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::inventory::{Changed, Desk, End, Hold, Night, NightKey, Refusal, Terms};
use crate::nights::{Nights, date_text};

pub use self::bookings::{BookingRow, booking_of, bookings_of};
pub use self::calendar::{CalendarPart, write_calendar};

/// A hold's row, as `sqlx` reads it.
struct HoldRow {
    order_id: Uuid,
    state: String,
    refusal: Option<String>,
    user_id: Option<Uuid>,
    room_type_id: Option<Uuid>,
    check_in: Option<Date>,
    check_out: Option<Date>,
    guests: Option<i16>,
    expires_at: Option<OffsetDateTime>,
    booking_id: Option<Uuid>,
}

impl HoldRow {
    fn terms(&self) -> Option<Terms> {
        Some(Terms {
            user_id: self.user_id?,
            room_type_id: RoomTypeId(self.room_type_id?),
            nights: Nights::new(self.check_in?, self.check_out?).ok()?,
            guests: self.guests?,
            expires_at: self.expires_at?,
        })
    }

    /// An error says that the table's checks don't hold.
    fn read(&self) -> Result<(OrderId, Hold), sqlx::Error> {
        let terms = self.terms();
        let hold = match (self.state.as_str(), terms, self.booking_id) {
            ("HELD", Some(terms), _) => Hold::Held(terms),
            ("BOOKED", Some(terms), Some(booking)) => Hold::Booked(terms, booking),
            ("RELEASED", terms, None) => Hold::Ended(terms, End::Released),
            ("RELEASED", terms, Some(booking)) => Hold::Ended(terms, End::Cancelled(booking)),
            ("EXPIRED", terms, _) => Hold::Ended(terms, End::Expired),
            ("REFUSED", terms, _) => {
                let refusal = self.refusal.as_deref().and_then(Refusal::from_code);
                Hold::Ended(terms, End::Refused(refusal.unwrap_or(Refusal::Ended)))
            }
            (state, ..) => {
                let reason = format!(
                    "hold of order {} is in state {state} without its terms",
                    self.order_id
                );
                return Err(sqlx::Error::Decode(reason.into()));
            }
        };
        Ok((OrderId(self.order_id), hold))
    }
}

fn read_all(rows: Vec<HoldRow>) -> Result<Vec<(OrderId, Hold)>, sqlx::Error> {
    rows.iter().map(HoldRow::read).collect()
}

fn state_of(hold: &Hold) -> &'static str {
    match hold {
        Hold::Held(_) => "HELD",
        Hold::Booked(..) => "BOOKED",
        Hold::Ended(_, End::Released | End::Cancelled(_)) => "RELEASED",
        Hold::Ended(_, End::Expired) => "EXPIRED",
        Hold::Ended(_, End::Refused(_)) => "REFUSED",
    }
}

/// Locks and reads the holds of these orders. An order without one has nothing to lock: of two transactions that both
/// make it, the second fails and is done again.
pub async fn lock_holds(
    connection: &mut PgConnection,
    orders: &[Uuid],
) -> Result<Vec<(OrderId, Hold)>, sqlx::Error> {
    let rows = sqlx::query_as!(
        HoldRow,
        "SELECT order_id, state, refusal, user_id, room_type_id, check_in, check_out, guests, expires_at, booking_id
        FROM holds WHERE order_id = ANY ($1) ORDER BY order_id FOR UPDATE",
        orders
    )
    .fetch_all(connection)
    .await?;
    read_all(rows)
}

/// Locks and reads holds whose time is over, up to `limit`, passing over those that somebody else works on.
pub async fn lock_due_holds(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(OrderId, Hold)>, sqlx::Error> {
    let rows = sqlx::query_as!(
        HoldRow,
        "SELECT order_id, state, refusal, user_id, room_type_id, check_in, check_out, guests, expires_at, booking_id
        FROM holds WHERE state = 'HELD' AND expires_at < now()
        ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit
    )
    .fetch_all(connection)
    .await?;
    read_all(rows)
}

/// Locks the room types of what is held and of what is wanted, and reads their nights.
pub async fn load_desk(
    connection: &mut PgConnection,
    holds: Vec<(OrderId, Hold)>,
    wanted: impl Iterator<Item = Terms>,
) -> Result<Desk, sqlx::Error> {
    let mut keys: Vec<NightKey> = holds
        .iter()
        .filter_map(|(_, hold)| hold.active())
        .chain(wanted)
        .flat_map(|terms| {
            terms
                .nights
                .iter()
                .map(move |night| (terms.room_type_id, night))
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let mut room_types: Vec<Uuid> = keys.iter().map(|(room_type, _)| room_type.0).collect();
    room_types.dedup();
    sqlx::query!(
        "SELECT room_type_id FROM room_types WHERE room_type_id = ANY ($1) ORDER BY room_type_id FOR UPDATE",
        &room_types
    )
    .fetch_all(&mut *connection)
    .await?;
    // A statement of its own: it sees what the locks' last owners committed.
    let (of, dates): (Vec<Uuid>, Vec<Date>) = keys
        .iter()
        .map(|(room_type, night)| (room_type.0, *night))
        .unzip();
    let rows = sqlx::query!(
        "SELECT n.room_type_id, n.night, n.offered, n.reserved
        FROM unnest($1::uuid[], $2::date[]) AS wanted (room_type_id, night)
        JOIN room_nights n USING (room_type_id, night)",
        &of,
        &dates
    )
    .fetch_all(connection)
    .await?;
    let nights = rows.into_iter().map(|row| {
        let night = Night {
            offered: row.offered,
            reserved: row.reserved,
        };
        ((RoomTypeId(row.room_type_id), row.night), night)
    });
    Ok(Desk::new(holds, nights))
}

/// Writes what the desk has become, and the messages that tell of it behind those that are there.
pub async fn write_desk(
    connection: &mut PgConnection,
    desk: &Desk,
    mut messages: Messages,
) -> Result<(), sqlx::Error> {
    let (new, changed): (Vec<Changed>, Vec<Changed>) =
        desk.changed().partition(|changed| changed.before.is_none());
    insert_holds(connection, &new).await?;
    update_holds(connection, &changed).await?;
    write_bookings(connection, new.iter().chain(&changed)).await?;
    move_nights(connection, desk, &mut messages).await?;
    Ok(messages.put(connection).await?)
}

async fn insert_holds(connection: &mut PgConnection, new: &[Changed]) -> Result<(), sqlx::Error> {
    if new.is_empty() {
        return Ok(());
    }
    let terms = |changed: &Changed| match changed.now {
        Hold::Held(terms) | Hold::Booked(terms, _) => Some(terms),
        Hold::Ended(terms, _) => terms,
    };
    fn column<T>(new: &[Changed], of: impl Fn(&Changed) -> T) -> Vec<T> {
        new.iter().map(of).collect()
    }
    let refusal = |changed: &Changed| match changed.now {
        Hold::Ended(_, End::Refused(refusal)) => Some(refusal.code()),
        _ => None,
    };
    sqlx::query!(
        "INSERT INTO holds (order_id, state, refusal, user_id, room_type_id, check_in, check_out, guests, expires_at,
            booking_id, ended_at)
        SELECT order_id, state, refusal, user_id, room_type_id, check_in, check_out, guests, expires_at, booking_id,
            CASE WHEN state IN ('HELD', 'BOOKED') THEN NULL ELSE now() END
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::date[], $7::date[],
            $8::smallint[], $9::timestamptz[], $10::uuid[])
            AS h (order_id, state, refusal, user_id, room_type_id, check_in, check_out, guests, expires_at,
                booking_id)",
        &column(new, |changed| changed.order.0),
        &column(new, |changed| state_of(&changed.now).to_owned()),
        &column(new, |changed| refusal(changed).map(str::to_owned)) as &[Option<String>],
        &column(new, |changed| terms(changed).map(|terms| terms.user_id)) as &[Option<Uuid>],
        &column(new, |changed| terms(changed).map(|terms| terms.room_type_id.0)) as &[Option<Uuid>],
        &column(new, |changed| terms(changed).map(|terms| terms.nights.check_in())) as &[Option<Date>],
        &column(new, |changed| terms(changed).map(|terms| terms.nights.check_out())) as &[Option<Date>],
        &column(new, |changed| terms(changed).map(|terms| terms.guests)) as &[Option<i16>],
        &column(new, |changed| terms(changed).map(|terms| terms.expires_at)) as &[Option<OffsetDateTime>],
        &column(new, |changed| changed.now.booking()) as &[Option<Uuid>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn update_holds(
    connection: &mut PgConnection,
    changed: &[Changed],
) -> Result<(), sqlx::Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let orders: Vec<Uuid> = changed.iter().map(|changed| changed.order.0).collect();
    let states: Vec<String> = changed
        .iter()
        .map(|changed| state_of(&changed.now).to_owned())
        .collect();
    let bookings: Vec<Option<Uuid>> = changed
        .iter()
        .map(|changed| changed.now.booking())
        .collect();
    sqlx::query!(
        "UPDATE holds h SET state = u.state, booking_id = u.booking_id,
            ended_at = CASE WHEN u.state IN ('HELD', 'BOOKED') THEN NULL ELSE now() END
        FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS u (order_id, state, booking_id)
        WHERE h.order_id = u.order_id",
        &orders,
        &states,
        &bookings as &[Option<Uuid>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_bookings(
    connection: &mut PgConnection,
    changed: impl Iterator<Item = &Changed>,
) -> Result<(), sqlx::Error> {
    let (mut made, mut cancelled) = (Vec::new(), Vec::new());
    for changed in changed {
        if changed.now.booking().is_some()
            && changed
                .before
                .is_none_or(|before| before.booking().is_none())
        {
            made.push(changed.order.0);
        }
        if matches!(changed.now, Hold::Ended(_, End::Cancelled(_))) {
            cancelled.push(changed.order.0);
        }
    }
    if !made.is_empty() {
        sqlx::query!(
            r#"INSERT INTO bookings (booking_id, order_id, user_id, stay_id, room_type_id, check_in, check_out, guests)
            SELECT h.booking_id, h.order_id, h.user_id, r.stay_id, h.room_type_id, h.check_in, h.check_out, h.guests
            FROM holds h JOIN room_types r USING (room_type_id) WHERE h.order_id = ANY ($1)"#,
            &made
        )
        .execute(&mut *connection)
        .await?;
    }
    if !cancelled.is_empty() {
        sqlx::query!(
            "UPDATE bookings SET status = 'CANCELLED', cancelled_at = now()
            WHERE order_id = ANY ($1) AND status = 'CONFIRMED'",
            &cancelled
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Moves what is reserved. The guards are the table's checks: never below 0, never above the allotment.
async fn move_nights(
    connection: &mut PgConnection,
    desk: &Desk,
    messages: &mut Messages,
) -> Result<(), sqlx::Error> {
    let mut room_types = Vec::new();
    let (mut nights, mut moves) = (Vec::new(), Vec::new());
    let mut left = BTreeMap::<Uuid, Vec<RoomsLeft>>::new();
    for (key, rooms) in desk.moved() {
        room_types.push(key.0.0);
        nights.push(key.1);
        moves.push(rooms);
        if let Some(night) = desk.night(&key) {
            left.entry(key.0.0)
                .or_default()
                .push(rooms_left(key.1, night));
        }
    }
    if moves.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE room_nights n SET reserved = n.reserved + m.rooms,
            allotment = greatest(n.offered, n.reserved + m.rooms)
        FROM unnest($1::uuid[], $2::date[], $3::integer[]) AS m (room_type_id, night, rooms)
        WHERE n.room_type_id = m.room_type_id AND n.night = m.night",
        &room_types,
        &nights,
        &moves
    )
    .execute(&mut *connection)
    .await?;
    room_types.dedup();
    let versions = sqlx::query!(
        "UPDATE room_types SET availability_version = availability_version + 1
        WHERE room_type_id = ANY ($1) RETURNING room_type_id, availability_version",
        &room_types
    )
    .fetch_all(connection)
    .await?;
    for row in versions {
        let nights = left.remove(&row.room_type_id).unwrap_or_default();
        tell_availability(
            messages,
            RoomTypeId(row.room_type_id),
            row.availability_version,
            nights,
        )?;
    }
    Ok(())
}

fn rooms_left(night: Date, of: Night) -> RoomsLeft {
    RoomsLeft {
        date: date_text(night),
        // What is left is never negative: `allotment` is at least what is reserved.
        left: of.left().unsigned_abs(),
    }
}

fn tell_availability(
    messages: &mut Messages,
    room_type_id: RoomTypeId,
    version: i64,
    nights: Vec<RoomsLeft>,
) -> Result<(), OutboxError> {
    let body = AvailabilityChanged {
        room_type_id,
        version,
        nights,
    };
    messages
        .add(AVAILABILITY, &room_type_id.0.to_string(), &body)
        .map(drop)
}
