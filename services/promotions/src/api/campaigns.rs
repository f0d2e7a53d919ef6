//! `/v1/coupon-campaigns`.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::problem::Problem;
use http::HeaderMap;
use jiff::Timestamp;
use sale_stock::Stock;
use sale_stock::books::{CouponTerms, Discount, SaleKind};
use serde::Serialize;

use super::catalog::Sale;
use super::{Api, claims};

const KIND: SaleKind = SaleKind::CouponCampaign;

/// A campaign as guests read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignBody {
    id: String,
    display_name: String,
    starts: Timestamp,
    ends: Timestamp,
    discount: Discount,
    coupon: Option<CouponTerms>,
    quantity: Stock,
    per_user_limit: u8,
    paused: bool,
}

impl CampaignBody {
    fn new(sale: &Sale) -> Self {
        let definition = &sale.definition;
        Self {
            id: definition.name.clone(),
            display_name: definition.display_name.clone(),
            starts: definition.starts,
            ends: definition.ends,
            discount: definition.discount.clone(),
            coupon: definition.coupon.clone(),
            quantity: definition.stock,
            per_user_limit: definition.per_user_limit,
            paused: definition.paused,
        }
    }
}

/// `GET /v1/coupon-campaigns`.
pub(super) async fn list(
    State(api): State<Api>,
    _: Option<Caller>,
    page: PageQuery,
) -> Result<Json<Page<CampaignBody>>, Problem> {
    let after: Option<String> = page.cursor()?;
    let limit = page.size() as usize + 1;
    let sales = api.catalog.list(KIND, after.as_deref(), limit)?;
    let page = page.page(sales, |last| last.definition.name.clone());
    Ok(Json(page.map(|sale| CampaignBody::new(&sale))))
}

/// `GET /v1/coupon-campaigns/{id}`.
pub(super) async fn get(
    State(api): State<Api>,
    _: Option<Caller>,
    Path(name): Path<String>,
) -> Result<Json<CampaignBody>, Problem> {
    Ok(Json(CampaignBody::new(&*api.catalog.find(KIND, &name)?)))
}

/// `POST /v1/coupon-campaigns/{id}/claims`.
pub(super) async fn claim(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    claims::claim(&api, KIND, &name, &caller, &headers, &body).await
}
