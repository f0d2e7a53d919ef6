//! `GET /v1/coupons`.

use axum::extract::State;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery};
use chassis::problem::Problem;
use events::saga::OrderId;
use jiff::Timestamp;
use sale_stock::books::{Discount, SaleKind};
use sale_stock::{ClaimId, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, problems};
use crate::store::{ClaimStatus, CouponRow};

/// A coupon as its owner reads it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Coupon)]
#[serde(rename_all = "camelCase")]
pub(super) struct CouponBody {
    /// The claim that issued it.
    #[schema(value_type = uuid::Uuid)]
    coupon_id: ClaimId,
    campaign_id: String,
    display_name: String,
    discount: Discount,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    min_order_amount: Option<i64>,
    /// Where it applies; empty means everywhere.
    regions: Vec<String>,
    status: ClaimStatus,
    claimed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<Timestamp>,
    /// The order that keeps or has used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    #[schema(value_type = Option<uuid::Uuid>)]
    order_id: Option<OrderId>,
}

impl From<CouponRow> for CouponBody {
    fn from(row: CouponRow) -> Self {
        let coupon = row.definition.coupon;
        Self {
            coupon_id: row.claim,
            campaign_id: row.campaign,
            display_name: row.definition.display_name,
            discount: row.definition.discount,
            min_order_amount: coupon.as_ref().and_then(|coupon| coupon.min_order_amount),
            regions: coupon.map(|coupon| coupon.regions).unwrap_or_default(),
            status: row.status.told(SaleKind::CouponCampaign),
            claimed_at: row.claimed_at,
            expires_at: row.expires_at,
            order_id: row.order,
        }
    }
}

/// Lists the caller's coupons, the newest first.
#[utoipa::path(get, path = "/v1/coupons", operation_id = "listCoupons", tag = "Coupons",
    security(("accessToken" = [])),
    params(PageQuery),
    responses((status = 200, description = "A page of coupons.", body = Page<CouponBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    page: PageQuery,
) -> Result<Json<Page<CouponBody>>, Problem> {
    let before: Option<ClaimId> = page.cursor()?;
    let rows = api
        .store
        .coupons_of(UserId(caller.user_id), before, page.size() + 1)
        .await
        .map_err(|error| problems::away(&error))?;
    Ok(Json(
        page.page(rows, |last| last.claim).map(CouponBody::from),
    ))
}
