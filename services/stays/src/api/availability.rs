//! What a stay has free, and for how much, night by night.

use std::sync::Arc;

use axum::extract::State;
use chassis::http::{Json, Path, Query};
use chassis::problem::Problem;
use chassis::refusals;
use money::{Krw, NightPrice, Used, lowest};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::problems;
use crate::calendar::Day;
use crate::discounts::{ActiveSales, Sale};
use crate::stay::Card;
use crate::store::{NightRow, RoomTypeRow, Store};

/// Most nights of one answer.
const NIGHTS_SHOWN_MAX: i32 = 100;

/// Which nights, both dates included.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range {
    /// The first night.
    from: Day,
    /// The last night: at most 99 days later.
    to: Day,
}

/// What is free.
#[derive(Serialize, ToSchema)]
#[schema(as = Availability)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AvailabilityBody {
    stay_id: Uuid,
    from: Day,
    to: Day,
    room_types: Vec<RoomTypeNights>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RoomTypeNights {
    id: Uuid,
    name: String,
    capacity: u16,
    /// Those that the host offers.
    nights: Vec<NightBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Night)]
#[serde(rename_all = "camelCase")]
struct NightBody {
    date: Day,
    rooms_left: u32,
    min_nights: u16,
    lowest_price: NightPriceBody,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NightPrice)]
#[serde(rename_all = "camelCase")]
struct NightPriceBody {
    amount: Krw,
    original_amount: Krw,
    discount: Option<NightDiscountBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NightDiscount)]
#[serde(rename_all = "camelCase")]
struct NightDiscountBody {
    kind: Used,
    /// Rounded to the nearest.
    percent: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    #[schema(value_type = Option<String>)]
    time_sale_id: Option<Arc<str>>,
}

/// The lowest price of a night among the sales that cover it, and by which one.
fn night_price<'a>(
    night: &NightRow,
    sales: impl Iterator<Item = &'a Arc<Sale>>,
) -> (NightPrice, Option<&'a Arc<Sale>>) {
    let mut best = (lowest(night.price, night.own, None), None);
    for sale in sales {
        let price = lowest(night.price, night.own, Some(sale.discount));
        if price.amount < best.0.amount {
            best = (price, Some(sale));
        }
    }
    best
}

impl NightBody {
    fn new(card: &Card, room_type: Uuid, night: &NightRow, sales: &[Arc<Sale>]) -> Self {
        let covering = sales
            .iter()
            .filter(|sale| sale.covers(card.region, card.stay_id, room_type, night.day));
        let (price, sale) = night_price(night, covering);
        let (off, original) = (price.off().get(), price.original.get());
        let discount = (price.used != Used::None).then(|| NightDiscountBody {
            kind: price.used,
            percent: (off * 200 + original) / (original.max(1) * 2),
            time_sale_id: sale.map(|sale| Arc::clone(&sale.id)),
        });
        Self {
            date: night.day,
            rooms_left: night.left,
            min_nights: night.min_nights,
            lowest_price: NightPriceBody {
                amount: price.amount,
                original_amount: price.original,
                discount,
            },
        }
    }
}

refusals! { ShowRefusals: problems::STAY_NOT_FOUND }

/// Reads what a stay has free, and for how much, night by night.
#[utoipa::path(get, path = "/v1/stays/{id}/availability", operation_id = "readAvailability", tag = "Stays",
    params(("id" = Uuid, Path, description = "The stay's id."), Range),
    responses((status = 200, description = "The nights that the host offers.", body = AvailabilityBody), ShowRefusals))]
pub(crate) async fn show(
    State(store): State<Store>,
    State(sales): State<ActiveSales>,
    Path(stay_id): Path<Uuid>,
    Query(Range { from, to }): Query<Range>,
) -> Result<Json<AvailabilityBody>, Problem> {
    if !(0..NIGHTS_SHOWN_MAX).contains(&to.since(from)) {
        return Err(Problem::parameter(
            "to",
            format!("is not from `from` to {} days later", NIGHTS_SHOWN_MAX - 1),
        ));
    }
    let stay = store.stay(stay_id).await?.ok_or_else(problems::no_stay)?;
    let card = &stay.card;
    let room_types = store.room_types(card.stay_no).await?;
    let nos: Vec<i32> = room_types.iter().map(|row| row.room_type_no).collect();
    let nights = store.nights(&nos, from, to).await?;
    let sales = sales.now();
    let of = |room_type: RoomTypeRow| RoomTypeNights {
        nights: nights
            .iter()
            .filter(|(no, _)| *no == room_type.room_type_no)
            .map(|(_, night)| NightBody::new(card, room_type.room_type_id, night, &sales))
            .collect(),
        id: room_type.room_type_id,
        name: room_type.name,
        capacity: room_type.capacity,
    };
    Ok(Json(AvailabilityBody {
        stay_id,
        from,
        to,
        room_types: room_types.into_iter().map(of).collect(),
    }))
}
