//! Searching stays.

use std::sync::Arc;

use axum::extract::State;
use chassis::http::{Json, Page, PageQuery, Query as Parameters};
use chassis::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::quotes::nights;
use super::stays::CardBody;
use crate::calendar::{Day, Nights};
use crate::discounts::ActiveSales;
use crate::search::{DiscountKind, Hit, Order, Position, Query, Searcher, WORDS_MAX};
use crate::stay::{Amenities, Amenity, Place, Region, metres};

/// Longer words are no words.
const Q_CHARS_MAX: usize = 200;

/// More people than any room has room for.
const GUESTS_MAX: u16 = 50;

/// What is looked for. Without dates, tonight.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SearchParameters {
    #[param(value_type = Option<Region>, nullable = false)]
    region: Option<String>,
    /// The first night; with `checkOut`, or tonight without both.
    #[param(nullable = false)]
    check_in: Option<Day>,
    /// The day of leaving.
    #[param(nullable = false)]
    check_out: Option<Day>,
    /// How many people.
    #[param(minimum = 1, maximum = 50, default = 1, nullable = false)]
    guests: Option<u16>,
    /// The least that a night costs on average, in whole won.
    #[param(nullable = false)]
    min_price: Option<i64>,
    /// The most that a night costs on average, in whole won.
    #[param(nullable = false)]
    max_price: Option<i64>,
    /// Names apart by commas; a stay has all of them.
    #[param(value_type = Option<Vec<Amenity>>, style = Form, explode = false, nullable = false)]
    amenities: Option<String>,
    /// At most 8 words of the name or address.
    #[param(
        nullable = false,
        max_length = 200,
        pattern = r"^\s*([^\s\u0000]+(\s+[^\s\u0000]+){0,7}\s*)?$"
    )]
    q: Option<String>,
    /// `price`, `rating`, or `distance` from `lat` and `lng`.
    #[param(
        nullable = false,
        pattern = "^(price|rating|distance)$",
        default = "price"
    )]
    sort: Option<String>,
    /// Degrees north; with `lng`.
    #[param(nullable = false, minimum = -90, maximum = 90)]
    lat: Option<f64>,
    /// Degrees east; with `lat`.
    #[param(nullable = false, minimum = -180, maximum = 180)]
    lng: Option<f64>,
    /// How many items to answer at most.
    #[param(minimum = 1, maximum = 100, default = 20, nullable = false)]
    page_size: Option<u32>,
    /// The `nextPageToken` of the page before, of the same search.
    #[param(nullable = false)]
    page_token: Option<String>,
}

/// Where the next page begins, and of which search.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    #[serde(flatten)]
    position: Position,
    /// A digest of what was asked: the cursor of one search is none of another.
    #[serde(rename = "q")]
    query: u64,
    /// The dates, which may have been left out.
    #[serde(rename = "i")]
    check_in: i32,
    #[serde(rename = "o")]
    check_out: i32,
}

/// A stay that was found.
#[derive(Serialize, ToSchema)]
#[schema(as = StayFound)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HitBody {
    #[serde(flatten)]
    card: CardBody,
    /// The cheapest room type that fits.
    room_type_id: Uuid,
    /// From the point given, where the list is sorted by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    distance_meters: Option<u32>,
    lowest_price: LowestPrice,
}

/// What the nights cost together.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LowestPrice {
    amount: i64,
    original_amount: i64,
    /// On average, rounded up.
    per_night: i64,
    discount: Option<DiscountBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = StayDiscount)]
#[serde(rename_all = "camelCase")]
struct DiscountBody {
    kind: DiscountKind,
    /// Of the whole, rounded to the nearest.
    percent: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    #[schema(value_type = Option<String>)]
    time_sale_id: Option<Arc<str>>,
}

impl HitBody {
    fn new(hit: &Hit, query: &Query) -> Self {
        let offer = &hit.offer;
        Self {
            card: CardBody::from(&*hit.card),
            room_type_id: hit.room_type_id,
            distance_meters: matches!(query.order, Order::Distance(_))
                .then(|| metres(hit.position.key)),
            lowest_price: LowestPrice {
                amount: offer.amount,
                original_amount: offer.original,
                per_night: offer.per_night(query.nights.count()),
                discount: offer.discount().map(|kind| DiscountBody {
                    kind,
                    percent: offer.percent_off(),
                    time_sale_id: offer.sale.clone(),
                }),
            },
        }
    }
}

impl SearchParameters {
    /// A digest of everything but the page: FNV-1a, since a cursor may outlive the process that gave it.
    fn digest(&self) -> u64 {
        let all = Self {
            page_size: None,
            page_token: None,
            ..self.clone()
        };
        format!("{all:?}")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }

    fn nights(&self) -> Result<Nights, Problem> {
        let missing = |name| Problem::parameter(name, "is missing beside the other date");
        match (self.check_in, self.check_out) {
            (Some(check_in), Some(check_out)) => nights(check_in, check_out),
            (None, None) => nights(Day::today(), Day::today().plus(1)),
            (None, Some(_)) => Err(missing("checkIn")),
            (Some(_), None) => Err(missing("checkOut")),
        }
    }

    /// Where the guest is, if that was said; it is looked at whatever the order, so that a mistake in it is found.
    fn place(&self) -> Result<Option<Place>, Problem> {
        let name_no_place = || Problem::parameter("lat", "and lng name no place");
        match (self.lat, self.lng) {
            (None, None) => Ok(None),
            (Some(lat), Some(lng)) => Place::new(lat, lng).map(Some).ok_or_else(name_no_place),
            _ => Err(name_no_place()),
        }
    }

    fn order(&self) -> Result<Order, Problem> {
        let place = self.place()?;
        match self.sort.as_deref() {
            None | Some("price") => Ok(Order::Price),
            Some("rating") => Ok(Order::Rating),
            Some("distance") => place
                .map(|place| Order::Distance(place.point()))
                .ok_or_else(|| Problem::parameter("lat", "and lng are missing")),
            Some(_) => Err(Problem::parameter(
                "sort",
                "is not price, rating or distance",
            )),
        }
    }

    fn amenities(&self) -> Result<Amenities, Problem> {
        let names = self.amenities.as_deref().unwrap_or_default().split(',');
        names
            .filter(|name| !name.is_empty())
            .map(|name| name.parse())
            .collect::<Result<_, ()>>()
            .map_err(|()| Problem::parameter("amenities", "are not names apart by commas"))
    }

    fn words(&self) -> Result<Vec<String>, Problem> {
        let q = self.q.as_deref().unwrap_or_default();
        let words: Vec<String> = q.split_whitespace().map(str::to_lowercase).collect();
        if words.len() > WORDS_MAX || q.chars().count() > Q_CHARS_MAX || q.contains('\0') {
            return Err(Problem::parameter(
                "q",
                format!("is not at most {WORDS_MAX} words of at most {Q_CHARS_MAX} characters"),
            ));
        }
        Ok(words)
    }

    fn region(&self) -> Result<Option<Region>, Problem> {
        self.region
            .as_deref()
            .map(|region| {
                region
                    .parse()
                    .map_err(|()| Problem::parameter("region", "is no region"))
            })
            .transpose()
    }

    /// The query, with the cursor's place and dates in it.
    fn query(&self, page: &PageQuery) -> Result<Query, Problem> {
        let cursor = page.cursor::<Cursor>()?;
        let guests = self.guests.unwrap_or(1);
        if !(1..=GUESTS_MAX).contains(&guests) {
            return Err(Problem::parameter("guests", "is not 1 to 50"));
        }
        let other = || Problem::parameter("pageToken", "is of another search");
        let nights = match &cursor {
            None => self.nights()?,
            Some(cursor) if cursor.query != self.digest() => return Err(other()),
            Some(cursor) => {
                let day = |number| Day::new(number).ok_or_else(other);
                nights(day(cursor.check_in)?, day(cursor.check_out)?)?
            }
        };
        Ok(Query {
            region: self.region()?,
            nights,
            guests,
            min_price: self.min_price.unwrap_or(0),
            max_price: self.max_price.unwrap_or(i64::MAX),
            amenities: self.amenities()?,
            words: self.words()?,
            order: self.order()?,
            after: cursor.map(|cursor| cursor.position),
            limit: page.size() as usize + 1,
        })
    }
}

/// Searches stays that have a room for the nights, each with its lowest price.
#[utoipa::path(get, path = "/v1/stays", operation_id = "searchStays", tag = "Stays",
    params(SearchParameters),
    responses((status = 200, description = "A page of stays.", body = Page<HitBody>)))]
pub(crate) async fn search(
    State(searcher): State<Searcher>,
    State(sales): State<ActiveSales>,
    Parameters(parameters): Parameters<SearchParameters>,
) -> Result<Json<Page<HitBody>>, Problem> {
    let page = PageQuery::new(parameters.page_size, parameters.page_token.clone())?;
    let query = parameters.query(&page)?;
    let hits = searcher.search(&query, &sales.now()).await?;
    let digest = parameters.digest();
    let page = page.page(hits, |last| Cursor {
        position: last.position,
        query: digest,
        check_in: query.nights.check_in().number(),
        check_out: query.nights.check_out().number(),
    });
    Ok(Json(page.map(|hit| HitBody::new(&hit, &query))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parameters(q: &str) -> SearchParameters {
        SearchParameters {
            q: Some(q.to_owned()),
            ..SearchParameters::default()
        }
    }

    #[test]
    fn words_are_lower_case_and_few() {
        assert_eq!(
            parameters(" Aewol\t애월 ").words().unwrap(),
            ["aewol", "애월"]
        );
        assert_eq!(parameters("").words().unwrap(), [""; 0]);
        assert!(parameters(&"a ".repeat(9)).words().is_err());
        assert!(parameters(&"a".repeat(201)).words().is_err());
        assert!(parameters("a\0b").words().is_err());
    }

    #[test]
    fn a_cursor_is_of_its_search_and_of_any_page_of_it() {
        let one = parameters("a");
        let page = SearchParameters {
            page_size: Some(5),
            page_token: Some("x".to_owned()),
            ..one.clone()
        };
        assert_eq!(one.digest(), page.digest());
        assert_ne!(one.digest(), parameters("b").digest());
    }

    #[test]
    fn a_distance_needs_a_place() {
        let mut distance = SearchParameters {
            sort: Some("distance".to_owned()),
            ..SearchParameters::default()
        };
        assert!(distance.order().is_err());
        (distance.lat, distance.lng) = (Some(33.4), Some(126.5));
        assert!(matches!(distance.order(), Ok(Order::Distance(_))));
        distance.lat = Some(f64::NAN);
        assert!(distance.order().is_err());
    }
}
