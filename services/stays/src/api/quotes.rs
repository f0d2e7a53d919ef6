//! Quotes: what the nights of a stay cost before anybody's claim or coupon. For other services.

use axum::extract::State;
use chassis::http::{Json, Query};
use chassis::problem::Problem;
use money::{Discount, Krw};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problems;
use crate::calendar::{Day, Nights, NightsError};
use crate::stay::{Cancellation, Region};
use crate::store::Store;

/// `GET /internal/v1/quotes`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct QuoteQuery {
    room_type_id: Uuid,
    check_in: Day,
    check_out: Day,
    guests: u16,
}

/// A quote.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuoteBody {
    room_type_id: Uuid,
    stay_id: Uuid,
    host_id: Uuid,
    region: Region,
    /// The stay's name and the room type's.
    name: String,
    capacity: u16,
    cancellation: Cancellation,
    nights: Vec<QuotedNight>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotedNight {
    date: Day,
    price: Krw,
    own_discount: Option<Discount>,
}

/// The nights between two dates, or which of the parameters is wrong.
pub(super) fn nights(check_in: Day, check_out: Day) -> Result<Nights, Problem> {
    Nights::between(check_in, check_out, Day::today()).map_err(|error| {
        let parameter = match error {
            NightsError::Past => "checkIn",
            NightsError::Reversed | NightsError::TooMany => "checkOut",
        };
        Problem::parameter(parameter, error.to_string())
    })
}

/// `GET /internal/v1/quotes?roomTypeId&checkIn&checkOut&guests`: 200 | 404 ROOM_TYPE_NOT_FOUND | 409 UNAVAILABLE |
/// 422 TOO_MANY_GUESTS.
pub(crate) async fn quote(
    State(store): State<Store>,
    Query(query): Query<QuoteQuery>,
) -> Result<Json<QuoteBody>, Problem> {
    let stay = nights(query.check_in, query.check_out)?;
    if query.guests == 0 {
        return Err(Problem::parameter("guests", "is not 1 or more"));
    }
    let room = store
        .room_type(query.room_type_id)
        .await?
        .ok_or_else(problems::no_room_type)?;
    let capacity = room.room_type.capacity;
    if query.guests > capacity {
        return Err(
            problems::TOO_MANY_GUESTS.problem(format!("the room has room for {capacity} guests"))
        );
    }
    let nights = store.stay_nights(room.room_type.room_type_no, stay).await?;
    let count = stay.count();
    for offset in 0..count {
        let date = stay.check_in().plus(offset);
        let night = nights.iter().find(|night| night.day == date);
        let reason = match night {
            None => "is not offered".to_owned(),
            Some(night) if night.left == 0 => "has no room left".to_owned(),
            Some(night) if i32::from(night.min_nights) > count => {
                format!("is only sold with {} nights or more", night.min_nights)
            }
            Some(_) => continue,
        };
        return Err(problems::UNAVAILABLE.problem(format!("the night of {date} {reason}")));
    }
    Ok(Json(QuoteBody {
        room_type_id: query.room_type_id,
        stay_id: room.stay_id,
        host_id: room.host_id,
        region: room.region,
        name: format!("{} {}", room.stay_name, room.room_type.name),
        capacity,
        cancellation: room.cancellation,
        nights: nights
            .into_iter()
            .map(|night| QuotedNight {
                date: night.day,
                price: night.price,
                own_discount: night.own,
            })
            .collect(),
    }))
}
