//! What a claim takes off an order, for `orders`, while a guest waits.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use chassis::http::{Json, Path, Query};
use chassis::problem::Problem;
use jiff::Timestamp;
use sale_stock::books::{Discount, SaleDefinition, SaleKind, StayDates, Target};
use sale_stock::{ClaimId, SaleStock, SaleUid, UserId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::internal::{CLAIM_NOT_FOUND, CLAIM_UNSETTLED, RECOVERING};
use super::sales::Sales;
use crate::claims::made_before;
use crate::store::{DiscountRow, Store};

/// How long a claim that was taken a moment ago is waited for: the ledger has it well within that in quiet times, and
/// who asks has other things to do.
const RECORD_WAIT: Duration = Duration::from_secs(1);

/// The pause between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the handler works with.
#[derive(Clone)]
pub(super) struct Discounts {
    pub(super) store: Store,
    pub(super) stock: SaleStock,
    pub(super) sales: Sales,
}

pub(super) fn routes(discounts: Discounts) -> Router {
    Router::new()
        .route("/internal/v1/discounts/{claimId}", get(discount))
        .with_state(discounts)
}

/// What is asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DiscountQuery {
    /// Whose the claim must be.
    user_id: Uuid,
}

/// Of what the claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Kind {
    TimeSale,
    Coupon,
}

/// A claim that may be used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiscountBody {
    claim_id: ClaimId,
    kind: Kind,
    /// The sale's or campaign's name.
    sale_id: String,
    discount: Discount,
    /// Time sales: what it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    /// Time sales: the nights it covers; left out means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    stay_dates: Option<StayDates>,
    /// Coupons: the least that the order comes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_order_amount: Option<i64>,
    /// Coupons: where it may be used; empty means everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl DiscountBody {
    fn new(claim_id: ClaimId, definition: SaleDefinition, expires_at: Option<Timestamp>) -> Self {
        let coupon = definition.coupon;
        Self {
            claim_id,
            kind: match definition.kind {
                SaleKind::TimeSale => Kind::TimeSale,
                SaleKind::CouponCampaign => Kind::Coupon,
            },
            sale_id: definition.name,
            discount: definition.discount,
            target: definition.target,
            stay_dates: definition.stay_dates,
            min_order_amount: coupon.as_ref().and_then(|coupon| coupon.min_order_amount),
            regions: coupon.map(|coupon| coupon.regions),
            expires_at,
        }
    }
}

/// `GET /internal/v1/discounts/{claimId}?userId`: 200 | 404 CLAIM_NOT_FOUND for a claim that isn't the user's to use: none,
/// another's, ended, over, or with an order | 503 while the ledger doesn't know.
async fn discount(
    State(discounts): State<Discounts>,
    Path(claim): Path<Uuid>,
    Query(query): Query<DiscountQuery>,
) -> Result<Json<DiscountBody>, Problem> {
    let (user, claim) = (UserId(query.user_id), ClaimId(claim));
    let row = discounts.recorded(user, claim).await?;
    let row = row.filter(|row| row.usable).ok_or_else(no_claim)?;
    Ok(Json(DiscountBody::new(
        claim,
        row.definition,
        row.expires_at,
    )))
}

fn no_claim() -> Problem {
    CLAIM_NOT_FOUND.problem("the user has no such claim to use")
}

impl Discounts {
    /// The claim in the ledger. One that Redis knows and the ledger doesn't yet is waited for: an order that is made
    /// with it would find that it isn't there.
    async fn recorded(&self, user: UserId, claim: ClaimId) -> Result<Option<DiscountRow>, Problem> {
        let until = Instant::now() + RECORD_WAIT;
        loop {
            let found = self.store.discount_of(user, claim).await?;
            if found.is_some() || !self.is_taken(user, claim).await? {
                return Ok(found);
            }
            if Instant::now() >= until {
                return Err(CLAIM_UNSETTLED
                    .problem("the ledger has yet to record it; ask again")
                    .retry_after(1));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the user has the claim in the stock of a living sale. That he hasn't is said only where the stock is
    /// whole: one that is lost, or being rebuilt, may have held it.
    async fn is_taken(&self, user: UserId, claim: ClaimId) -> Result<bool, Problem> {
        let Some(made) = made_before(claim) else {
            return Ok(false);
        };
        let living = self.sales.now();
        let sales: Vec<SaleUid> = living
            .all()
            .filter(|sale| !sale.drained && sale.definition.starts <= made)
            .map(|sale| sale.uid())
            .collect();
        let holdings = self.stock.holdings(&sales, user).await.map_err(|error| {
            tracing::warn!(%error, "a claim can't be looked up");
            Problem::unavailable("Redis is not there")
        })?;
        let mut entries = holdings.iter().flat_map(|held| &held.entries);
        if entries.any(|entry| entry.claim == claim) {
            return Ok(true);
        }
        if holdings.iter().any(|held| held.unopened.is_some()) {
            return Err(RECOVERING
                .problem("a sale's stock is being put right; ask again")
                .retry_after(1));
        }
        Ok(false)
    }
}
