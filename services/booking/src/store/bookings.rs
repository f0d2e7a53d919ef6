//! Bookings, as their guests read them.

use sqlx::PgPool;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// A booking, as its guest reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookingRow {
    /// Its name.
    pub booking_id: Uuid,
    /// The order that it was paid by.
    pub order_id: Uuid,
    /// The stay.
    pub stay_id: Uuid,
    /// The room type.
    pub room_type_id: Uuid,
    /// The first night.
    pub check_in: Date,
    /// The day of leaving.
    pub check_out: Date,
    /// How many people.
    pub guests: i16,
    /// CONFIRMED or CANCELLED.
    pub status: String,
    /// When it was confirmed.
    pub created_at: OffsetDateTime,
    /// When it was cancelled, if it was.
    pub cancelled_at: Option<OffsetDateTime>,
}

/// A user's bookings before `before` (all if none), the newest first.
pub async fn bookings_of(
    pool: &PgPool,
    user: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<BookingRow>, sqlx::Error> {
    sqlx::query_as!(
        BookingRow,
        "SELECT booking_id, order_id, stay_id, room_type_id, check_in, check_out, guests, status, created_at,
            cancelled_at
        FROM bookings WHERE user_id = $1 AND ($2::uuid IS NULL OR booking_id < $2)
        ORDER BY booking_id DESC LIMIT $3",
        user,
        before,
        limit
    )
    .fetch_all(pool)
    .await
}

/// A user's booking; `None` if there is none, or it is somebody else's.
pub async fn booking_of(
    pool: &PgPool,
    user: Uuid,
    booking: Uuid,
) -> Result<Option<BookingRow>, sqlx::Error> {
    sqlx::query_as!(
        BookingRow,
        "SELECT booking_id, order_id, stay_id, room_type_id, check_in, check_out, guests, status, created_at,
            cancelled_at
        FROM bookings WHERE user_id = $1 AND booking_id = $2",
        user,
        booking
    )
    .fetch_optional(pool)
    .await
}
