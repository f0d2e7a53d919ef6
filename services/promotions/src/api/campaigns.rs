//! `/v1/coupon-campaigns`.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::problem::Problem;
use chassis::refusals;
use http::HeaderMap;
use jiff::Timestamp;
use sale_stock::Stock;
use sale_stock::books::{CouponTerms, Discount, SaleKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::catalog::Sale;
use super::claims::ClaimBody;
use super::{Api, claims, problems};

const KIND: SaleKind = SaleKind::CouponCampaign;

/// A campaign as guests read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CouponCampaign)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignBody {
    id: String,
    display_name: String,
    starts: Timestamp,
    ends: Timestamp,
    discount: Discount,
    coupon: Option<CouponTerms>,
    #[schema(value_type = u32)]
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

/// Lists coupon campaigns, by name.
#[utoipa::path(get, path = "/v1/coupon-campaigns", operation_id = "listCampaigns", tag = "Coupons",
    security((), ("accessToken" = [])),
    params(PageQuery),
    responses((status = 200, description = "A page of coupon campaigns.", body = Page<CampaignBody>)))]
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

refusals! {
    GetRefusals: problems::SALE_NOT_FOUND;
    ClaimRefusals: problems::SALE_NOT_FOUND, problems::SOLD_OUT, problems::NOT_STARTED, problems::ENDED,
        problems::PAUSED, problems::RECOVERING, problems::CLAIM_UNKNOWN;
}

/// Reads a campaign.
#[utoipa::path(get, path = "/v1/coupon-campaigns/{id}", operation_id = "readCampaign", tag = "Coupons",
    security((), ("accessToken" = [])),
    params(("id" = String, Path, description = "The campaign's name.")),
    responses((status = 200, description = "The campaign.", body = CampaignBody), GetRefusals))]
pub(super) async fn get(
    State(api): State<Api>,
    _: Option<Caller>,
    Path(name): Path<String>,
) -> Result<Json<CampaignBody>, Problem> {
    Ok(Json(CampaignBody::new(&*api.catalog.find(KIND, &name)?)))
}

/// Claims a coupon of a campaign.
///
/// Asked again, the same claim is answered. A yes is true: it is in the log.
#[utoipa::path(post, path = "/v1/coupon-campaigns/{id}/claims", operation_id = "claimCoupon", tag = "Coupons",
    security(("accessToken" = [])),
    params(("id" = String, Path, description = "The campaign's name."),
        ("Idempotency-Key" = Option<String>, Header, nullable = false, min_length = 1, max_length = 255,
            description = "Where a guest may have several units, another key asks for one more.")),
    responses((status = 201, description = "The claim.", body = ClaimBody),
        (status = 200, description = "The claim that the caller has already.", body = ClaimBody), ClaimRefusals))]
pub(super) async fn claim(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    claims::claim(&api, KIND, &name, &caller, &headers, &body).await
}
