//! `GET /v1/bookings` and `GET /v1/bookings/{bookingId}`.

use axum::extract::State;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::problem::Problem;
use chassis::refusals;
use jiff::Timestamp;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Api, problems};
use crate::nights::date_text;
use crate::store::{self, BookingRow};

/// A booking as its guest reads it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Booking)]
#[serde(rename_all = "camelCase")]
pub(super) struct BookingBody {
    booking_id: Uuid,
    order_id: Uuid,
    stay_id: Uuid,
    room_type_id: Uuid,
    /// The first night.
    #[schema(format = Date)]
    check_in: String,
    /// The day of leaving.
    #[schema(format = Date)]
    check_out: String,
    guests: i16,
    #[schema(pattern = "^(CONFIRMED|CANCELLED)$")]
    status: String,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cancelled_at: Option<Timestamp>,
}

impl From<BookingRow> for BookingBody {
    fn from(row: BookingRow) -> Self {
        Self {
            booking_id: row.booking_id,
            order_id: row.order_id,
            stay_id: row.stay_id,
            room_type_id: row.room_type_id,
            check_in: date_text(row.check_in),
            check_out: date_text(row.check_out),
            guests: row.guests,
            status: row.status,
            created_at: timestamp(row.created_at),
            cancelled_at: row.cancelled_at.map(timestamp),
        }
    }
}

/// The database's times are far inside what can be written.
fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or(Timestamp::MAX)
}

/// Lists the caller's bookings, the newest first.
#[utoipa::path(get, path = "/v1/bookings", operation_id = "listBookings", tag = "Bookings",
    security(("accessToken" = [])),
    params(PageQuery),
    responses((status = 200, description = "A page of bookings.", body = Page<BookingBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    page: PageQuery,
) -> Result<Json<Page<BookingBody>>, Problem> {
    let before: Option<Uuid> = page.cursor()?;
    let rows = store::bookings_of(&api.pool, caller.user_id, before, page.limit()).await?;
    Ok(Json(
        page.page(rows, |last| last.booking_id)
            .map(BookingBody::from),
    ))
}

refusals! { GetRefusals: problems::BOOKING_NOT_FOUND }

/// Reads one of the caller's bookings.
#[utoipa::path(get, path = "/v1/bookings/{bookingId}", operation_id = "readBooking", tag = "Bookings",
    security(("accessToken" = [])),
    params(("bookingId" = Uuid, Path, description = "The booking's id.")),
    responses((status = 200, description = "The booking.", body = BookingBody), GetRefusals))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(booking): Path<Uuid>,
) -> Result<Json<BookingBody>, Problem> {
    let row = store::booking_of(&api.pool, caller.user_id, booking).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(problems::no_booking)
}
