//! The room types of a stay.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::{Json, Mistakes, Path};
use chassis::idempotency::Key;
use chassis::problem::{Problem, common};
use chassis::refusals;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problems;
use super::stays::{HOST, NAME_CHARS_MAX, text};
use crate::store::{NewRoomType, RoomTypeRow, Store};

/// Most people of one room.
const CAPACITY_MAX: u16 = 50;

/// Most room types of a stay.
const ROOM_TYPES_MAX: usize = 100;

/// A room type as its host describes it.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewRoomType)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RoomTypeRequest {
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
    )]
    name: String,
    #[serde(default)]
    #[schema(max_length = 100, pattern = r"^[^\u0000]*$")]
    name_en: String,
    /// How many people it has room for.
    #[schema(minimum = 1, maximum = 50)]
    capacity: u16,
}

/// A room type as it is shown.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomType)]
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

refusals! {
    CreateRefusals: common::FORBIDDEN, problems::NOT_YOUR_STAY, problems::STAY_NOT_FOUND,
        problems::ROOM_TYPE_NOT_FOUND, problems::TOO_MANY_ROOM_TYPES
}

/// Adds a room type to a stay. For its host.
#[utoipa::path(post, path = "/v1/stays/{id}/room-types", operation_id = "createRoomType", tag = "Stays",
    security(("accessToken" = [])),
    params(("id" = Uuid, Path, description = "The stay's id.")),
    request_body = RoomTypeRequest,
    responses((status = 201, description = "The room type is there, with no night offered yet.", body = RoomTypeBody),
        CreateRefusals))]
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
