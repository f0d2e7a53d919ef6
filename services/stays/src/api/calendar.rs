//! The calendar of a room type: what each night costs, and how many rooms are offered.

use std::collections::HashSet;

use axum::extract::State;
use chassis::auth::Caller;
use chassis::http::{Json, Mistakes, Path};
use chassis::problem::{Problem, common};
use chassis::refusals;
use money::{Discount, Krw};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problems;
use super::stays::HOST;
use crate::calendar::{Day, HORIZON_DAYS, NIGHTS_MAX};
use crate::store::{CalendarError, CalendarNight, Store};

/// Whole won: the dearest night and the largest discount.
const WON_MAX: i64 = 100_000_000;

/// Most rooms of one type.
const ALLOTMENT_MAX: u32 = 10_000;

/// The nights given are put in the place of what they were; others stay.
#[derive(Deserialize, ToSchema)]
#[schema(as = CalendarChange)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CalendarRequest {
    /// Each date once.
    #[schema(min_items = 1, max_items = 366)]
    nights: Vec<NightRequest>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = CalendarNight)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NightRequest {
    /// From today in Seoul to a year from now.
    date: Day,
    #[schema(value_type = i64, minimum = 1, maximum = 100000000)]
    price: Krw,
    #[serde(default)]
    discount: Option<Discount>,
    /// How many rooms are offered.
    #[schema(maximum = 10000)]
    allotment: u32,
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 30)]
    min_nights: u16,
}

fn one() -> u16 {
    1
}

/// What became of it.
#[derive(Serialize, ToSchema)]
#[schema(as = CalendarChanged)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CalendarBody {
    room_type_id: Uuid,
    /// Grows with each change.
    version: i64,
    /// How many nights were written.
    nights: usize,
}

fn check(nights: &[NightRequest], today: Day) -> Result<(), Problem> {
    let mut mistakes = Mistakes::new();
    mistakes.require(
        (1..=HORIZON_DAYS as usize).contains(&nights.len()),
        "/nights",
        "are not 1 to 366",
    );
    let mut seen = HashSet::new();
    for (index, night) in nights.iter().enumerate() {
        let won = |amount: Krw| (1..=WON_MAX).contains(&amount.get());
        let amount = match night.discount {
            Some(Discount::Amount(amount)) => won(amount),
            Some(Discount::Percent(_)) | None => true,
        };
        let ahead = night.date.since(today);
        for (holds, field, detail) in [
            (
                (0..HORIZON_DAYS).contains(&ahead),
                "date",
                "is not from today to a year from now",
            ),
            (seen.insert(night.date), "date", "is there twice"),
            (won(night.price), "price", "is not 1 to 100000000 won"),
            (amount, "discount", "is not 1 to 100000000 won"),
            (
                night.allotment <= ALLOTMENT_MAX,
                "allotment",
                "is not 0 to 10000",
            ),
            (
                (1..=NIGHTS_MAX).contains(&i32::from(night.min_nights)),
                "minNights",
                "is not 1 to 30",
            ),
        ] {
            mistakes.require(holds, &format!("/nights/{index}/{field}"), detail);
        }
    }
    mistakes.finish()
}

refusals! { PutRefusals: common::FORBIDDEN, problems::NOT_YOUR_STAY, problems::ROOM_TYPE_NOT_FOUND }

/// Sets prices and rooms of nights. For the host of the stay.
#[utoipa::path(put, path = "/v1/room-types/{id}/calendar", operation_id = "putCalendar", tag = "Stays",
    security(("accessToken" = [])),
    params(("id" = Uuid, Path, description = "The room type's id.")),
    request_body = CalendarRequest,
    responses((status = 200, description = "The nights are written.", body = CalendarBody), PutRefusals))]
pub(crate) async fn put(
    State(store): State<Store>,
    caller: Caller,
    Path(room_type_id): Path<Uuid>,
    Json(CalendarRequest { nights }): Json<CalendarRequest>,
) -> Result<Json<CalendarBody>, Problem> {
    caller.require_role(HOST)?;
    let room_type = store
        .room_type(room_type_id)
        .await?
        .ok_or_else(problems::no_room_type)?;
    if room_type.host_id != caller.user_id {
        return Err(problems::not_yours());
    }
    check(&nights, Day::today())?;
    let nights: Vec<CalendarNight> = nights
        .into_iter()
        .map(|night| CalendarNight {
            day: night.date,
            price: night.price,
            own: night.discount,
            allotment: night.allotment,
            min_nights: night.min_nights,
        })
        .collect();
    let version = store
        .put_calendar(room_type_id, room_type.stay_id, &nights)
        .await
        .map_err(|error| match error {
            CalendarError::Store(error) => Problem::from(error),
            CalendarError::Outbox(error) => Problem::from(sqlx::Error::from(error)),
        })?;
    Ok(Json(CalendarBody {
        room_type_id,
        version,
        nights: nights.len(),
    }))
}
