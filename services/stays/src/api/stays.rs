//! Stays: what hosts make, and what everybody reads.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chassis::auth::Caller;
use chassis::http::{Json, Mistakes, Path};
use chassis::idempotency::Key;
use chassis::problem::{Problem, common};
use chassis::refusals;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problems;
use super::room_types::RoomTypeBody;
use crate::stay::{Amenities, Cancellation, Card, Place, Region, search_text};
use crate::store::{NewStay, RoomTypeRow, StayRow, Store};

/// The role of those who offer stays.
pub(super) const HOST: &str = "host";

/// The longest name, in characters.
pub(super) const NAME_CHARS_MAX: usize = 100;

const DESCRIPTION_CHARS_MAX: usize = 2_000;
const ADDRESS_CHARS_MAX: usize = 200;

/// A stay as its host describes it.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewStay)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StayRequest {
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"
    )]
    name: String,
    #[serde(default)]
    #[schema(max_length = 100, pattern = r"^[^\u0000]*$")]
    name_en: String,
    #[serde(default)]
    #[schema(max_length = 2000, pattern = r"^[^\u0000]*$")]
    description: String,
    region: Region,
    #[serde(default)]
    #[schema(max_length = 200, pattern = r"^[^\u0000]*$")]
    address: String,
    /// Degrees north.
    #[schema(minimum = -90, maximum = 90)]
    lat: f64,
    /// Degrees east.
    #[schema(minimum = -180, maximum = 180)]
    lng: f64,
    #[serde(default)]
    amenities: Amenities,
    cancellation: Cancellation,
}

/// A stay as it is shown by itself.
#[derive(Serialize, ToSchema)]
#[schema(as = Stay)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StayBody {
    #[serde(flatten)]
    card: CardBody,
    host_id: Uuid,
    description: String,
    address: String,
    cancellation: Cancellation,
    room_types: Vec<RoomTypeBody>,
}

/// What every list shows of a stay.
#[derive(Serialize, ToSchema)]
#[schema(as = StayCard)]
#[serde(rename_all = "camelCase")]
pub(super) struct CardBody {
    id: Uuid,
    #[schema(value_type = String)]
    name: std::sync::Arc<str>,
    #[schema(value_type = String)]
    name_en: std::sync::Arc<str>,
    region: Region,
    lat: f64,
    lng: f64,
    amenities: Amenities,
    /// Stars, 1 to 5; null without a review.
    rating: Option<f64>,
    reviews: u32,
}

impl From<&Card> for CardBody {
    fn from(card: &Card) -> Self {
        Self {
            id: card.stay_id,
            name: card.name.clone(),
            name_en: card.name_en.clone(),
            region: card.region,
            lat: card.place.latitude,
            lng: card.place.longitude,
            amenities: card.amenities,
            rating: (card.rating > 0).then(|| f64::from(card.rating) / 100.0),
            reviews: card.reviews,
        }
    }
}

impl StayBody {
    fn new(stay: StayRow, room_types: Vec<RoomTypeRow>) -> Self {
        Self {
            card: CardBody::from(&stay.card),
            host_id: stay.host_id,
            description: stay.description,
            address: stay.address,
            cancellation: stay.cancellation,
            room_types: room_types.into_iter().map(RoomTypeBody::from).collect(),
        }
    }
}

/// Notes a text that is too long, or missing though it must be there; it is taken without the spaces around it.
pub(super) fn text(
    mistakes: &mut Mistakes,
    pointer: &str,
    text: &str,
    chars: std::ops::RangeInclusive<usize>,
) -> String {
    let text = text.trim();
    if !chars.contains(&text.chars().count()) {
        mistakes.add(
            pointer,
            format!(
                "is not {} to {} characters long",
                chars.start(),
                chars.end()
            ),
        );
    }
    if text.contains('\0') {
        mistakes.add(pointer, "has a character that is none");
    }
    text.to_owned()
}

impl StayRequest {
    fn check(self, host_id: Uuid, key: Option<Extension<Key>>) -> Result<NewStay, Problem> {
        let mut mistakes = Mistakes::new();
        let name = text(&mut mistakes, "/name", &self.name, 1..=NAME_CHARS_MAX);
        let name_en = text(&mut mistakes, "/nameEn", &self.name_en, 0..=NAME_CHARS_MAX);
        let description = text(
            &mut mistakes,
            "/description",
            &self.description,
            0..=DESCRIPTION_CHARS_MAX,
        );
        let address = text(
            &mut mistakes,
            "/address",
            &self.address,
            0..=ADDRESS_CHARS_MAX,
        );
        let place = Place::new(self.lat, self.lng);
        mistakes.require(
            place.is_some(),
            "/lat",
            "is with /lng no place: -90 to 90 and -180 to 180 degrees",
        );
        mistakes.finish()?;
        let region = [self.region.korean(), self.region.as_str()];
        Ok(NewStay {
            stay_id: Uuid::now_v7(),
            host_id,
            request_key: key.map(|Extension(Key(key))| key),
            search_text: search_text([&*name, &*name_en, region[0], region[1], &*address]),
            name,
            name_en,
            description,
            region: self.region,
            address,
            place: place.unwrap_or(Place {
                latitude: 0.0,
                longitude: 0.0,
            }),
            amenities: self.amenities,
            cancellation: self.cancellation,
        })
    }
}

refusals! {
    CreateRefusals: common::FORBIDDEN;
    ShowRefusals: problems::STAY_NOT_FOUND;
}

/// Offers a stay. For hosts.
#[utoipa::path(post, path = "/v1/stays", operation_id = "createStay", tag = "Stays",
    security(("accessToken" = [])),
    request_body = StayRequest,
    responses((status = 201, description = "The stay is there, without a room yet.", body = StayBody,
        headers(("Location" = String, description = "Where it is read."))), CreateRefusals))]
pub(crate) async fn create(
    State(store): State<Store>,
    caller: Caller,
    key: Option<Extension<Key>>,
    Json(request): Json<StayRequest>,
) -> Result<impl IntoResponse, Problem> {
    caller.require_role(HOST)?;
    let stay_id = store
        .create_stay(request.check(caller.user_id, key)?)
        .await?;
    let body = read(&store, stay_id).await?;
    let location = format!("/v1/stays/{stay_id}");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(body),
    ))
}

/// Reads a stay with its room types.
#[utoipa::path(get, path = "/v1/stays/{id}", operation_id = "readStay", tag = "Stays",
    params(("id" = Uuid, Path, description = "The stay's id.")),
    responses((status = 200, description = "The stay.", body = StayBody), ShowRefusals))]
pub(crate) async fn show(
    State(store): State<Store>,
    Path(stay_id): Path<Uuid>,
) -> Result<Json<StayBody>, Problem> {
    read(&store, stay_id).await.map(Json)
}

async fn read(store: &Store, stay_id: Uuid) -> Result<StayBody, Problem> {
    let stay = store.stay(stay_id).await?.ok_or_else(problems::no_stay)?;
    let room_types = store.room_types(stay.card.stay_no).await?;
    Ok(StayBody::new(stay, room_types))
}
