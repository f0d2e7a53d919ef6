//! The room types of a stay.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::{Json, Mistakes, Path};
use chassis::idempotency::Key;
use chassis::problem::Problem;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problems;
use super::stays::{HOST, NAME_CHARS_MAX, text};
use crate::store::{NewRoomType, RoomTypeRow, Store};

/// Most people of one room.
const CAPACITY_MAX: u16 = 50;

/// Most room types of a stay.
const ROOM_TYPES_MAX: usize = 100;

/// `POST /v1/stays/{id}/room-types`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RoomTypeRequest {
    name: String,
    #[serde(default)]
    name_en: String,
    capacity: u16,
}

/// A room type as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoomTypeBody {
    id: Uuid,
    name: String,
    name_en: String,
    capacity: u16,
}

impl From<RoomTypeRow> for RoomTypeBody {
    fn from(row: RoomTypeRow) -> Self {
        Self {
            id: row.room_type_id,
            name: row.name,
            name_en: row.name_en,
            capacity: row.capacity,
        }
    }
}

/// `POST /v1/stays/{id}/room-types`: 201 | 403 FORBIDDEN | 403 NOT_YOUR_STAY | 404 STAY_NOT_FOUND.
pub(crate) async fn create(
    State(store): State<Store>,
    caller: Caller,
    Path(stay_id): Path<Uuid>,
    key: Option<Extension<Key>>,
    Json(request): Json<RoomTypeRequest>,
) -> Result<impl IntoResponse, Problem> {
    caller.require_role(HOST)?;
    let stay = store.stay(stay_id).await?.ok_or_else(problems::no_stay)?;
    if stay.host_id != caller.user_id {
        return Err(problems::not_yours());
    }
    let mut mistakes = Mistakes::new();
    let name = text(&mut mistakes, "/name", &request.name, 1..=NAME_CHARS_MAX);
    let name_en = text(
        &mut mistakes,
        "/nameEn",
        &request.name_en,
        0..=NAME_CHARS_MAX,
    );
    mistakes.require(
        (1..=CAPACITY_MAX).contains(&request.capacity),
        "/capacity",
        "is not 1 to 50",
    );
    mistakes.finish()?;
    let stay_no = stay.card.stay_no;
    if store.room_types(stay_no).await?.len() >= ROOM_TYPES_MAX {
        return Err(problems::TOO_MANY_ROOM_TYPES.problem("a stay has at most 100 room types"));
    }
    let new = NewRoomType {
        room_type_id: Uuid::now_v7(),
        request_key: key.map(|Extension(Key(key))| key),
        name,
        name_en,
        capacity: request.capacity,
    };
    let id = store.create_room_type(stay_no, new).await?;
    let made = store
        .room_type(id)
        .await?
        .ok_or_else(problems::no_room_type)?;
    Ok((
        StatusCode::CREATED,
        Json(RoomTypeBody::from(made.room_type)),
    ))
}
