//! `/v1/time-sales`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::problem::Problem;
use chassis::refusals;
use events::producer::AppendError;
use events::{Record, Returned, SaleEvent, partition_of};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use sale_stock::books::{Discount, SaleKind, StayDates, Target};
use sale_stock::{
    ACK_DEADLINE, ClaimId, Ending, EntryRef, PER_USER_LIMIT_MAX, Slot, Stock, UserId,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::catalog::Sale;
use super::claims::ClaimBody;
use super::{Api, claims, problems};
use crate::store::ClaimStatus;

const KIND: SaleKind = SaleKind::TimeSale;

/// A time sale as guests read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimeSale)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimeSaleBody {
    id: String,
    display_name: String,
    starts: Timestamp,
    ends: Timestamp,
    target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stay_dates: Option<StayDates>,
    discount: Discount,
    stock: StockBody,
    per_user_limit: u8,
    paused: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TimeSaleStock)]
struct StockBody {
    #[schema(value_type = u32)]
    total: Stock,
    /// At most half a second old; null while it can't be told.
    remaining: Option<i64>,
}

impl TimeSaleBody {
    async fn new(api: &Api, sale: &Sale) -> Self {
        let definition = &sale.definition;
        Self {
            id: definition.name.clone(),
            display_name: definition.display_name.clone(),
            starts: definition.starts,
            ends: definition.ends,
            target: definition.target.clone(),
            stay_dates: definition.stay_dates.clone(),
            discount: definition.discount.clone(),
            stock: StockBody {
                total: definition.stock,
                remaining: api.catalog.stock_left(sale).await,
            },
            per_user_limit: definition.per_user_limit,
            paused: definition.paused,
        }
    }
}

/// Lists time sales, by name.
#[utoipa::path(get, path = "/v1/time-sales", operation_id = "listTimeSales", tag = "Time sales",
    security((), ("accessToken" = [])),
    params(PageQuery),
    responses((status = 200, description = "A page of time sales.", body = Page<TimeSaleBody>)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Option<Caller>,
    page: PageQuery,
) -> Result<Json<Page<TimeSaleBody>>, Problem> {
    let after: Option<String> = page.cursor()?;
    let limit = page.size() as usize + 1;
    let sales = api.catalog.list(KIND, after.as_deref(), limit)?;
    let page = page.page(sales, |last| last.definition.name.clone());
    let items =
        futures::future::join_all(page.items.iter().map(|sale| TimeSaleBody::new(&api, sale)))
            .await;
    Ok(Json(Page {
        items,
        next_page_token: page.next_page_token,
    }))
}

refusals! {
    GetRefusals: problems::SALE_NOT_FOUND;
    ClaimRefusals: problems::SALE_NOT_FOUND, problems::SOLD_OUT, problems::NOT_STARTED, problems::ENDED,
        problems::PAUSED, problems::RECOVERING, problems::CLAIM_UNKNOWN;
}

/// Reads a time sale.
#[utoipa::path(get, path = "/v1/time-sales/{id}", operation_id = "readTimeSale", tag = "Time sales",
    security((), ("accessToken" = [])),
    params(("id" = String, Path, description = "The time sale's name.")),
    responses((status = 200, description = "The time sale.", body = TimeSaleBody), GetRefusals))]
pub(super) async fn get(
    State(api): State<Api>,
    _: Option<Caller>,
    Path(name): Path<String>,
) -> Result<Json<TimeSaleBody>, Problem> {
    let sale = api.catalog.find(KIND, &name)?;
    Ok(Json(TimeSaleBody::new(&api, &sale).await))
}

/// Claims a unit of a time sale.
///
/// Asked again, the same claim is answered. It is the caller's until `expiresAt`, or longer if an order keeps it. A yes is true: it is in the log.
#[utoipa::path(post, path = "/v1/time-sales/{id}/claims", operation_id = "claimTimeSale", tag = "Time sales",
    security(("accessToken" = [])),
    params(("id" = String, Path, description = "The time sale's name."),
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

refusals! {
    GiveBackRefusals: problems::SALE_NOT_FOUND, problems::CLAIM_NOT_FOUND, problems::CLAIM_RESERVED,
        problems::CLAIM_USED, problems::RECOVERING, problems::CLAIM_UNKNOWN
}

/// Gives a unit of a time sale back.
///
/// It is for sale again within a moment. Asked again, the same.
#[utoipa::path(delete, path = "/v1/time-sales/{id}/claims/{claimId}", operation_id = "giveBackClaim",
    tag = "Time sales",
    security(("accessToken" = [])),
    params(("id" = String, Path, description = "The time sale's name."),
        ("claimId" = Uuid, Path, description = "The claim's id.")),
    responses((status = 204, description = "The claim has ended."), GiveBackRefusals))]
// Appends the return; the ledger ends the claim and releases its unit.
pub(super) async fn give_back(
    State(api): State<Api>,
    caller: Caller,
    Path((name, claim)): Path<(String, Uuid)>,
) -> Result<StatusCode, Problem> {
    let (user, claim) = (UserId(caller.user_id), ClaimId(claim));
    let sale = api.catalog.find(KIND, &name)?;
    if sale.closed {
        return end_in_ledger(&api, &sale, Returned { user, claim }).await;
    }
    match claims::find_recorded(&api, user, claim).await? {
        Some(row) if row.sale != sale.uid() => return Err(problems::no_claim()),
        Some(row) => match row.status {
            ClaimStatus::Accepted => {}
            ended => return told(ended),
        },
        // Whoever was told its id was told yes: its record is in the log, before the return.
        None => claims::find_entry(&api, &[Arc::clone(&sale)], user, claim)
            .await?
            .map(drop)
            .ok_or_else(problems::no_claim)?,
    }
    append_return(&api, &sale, Returned { user, claim }).await
}

/// What the return of a claim that has come to this is answered.
fn told(status: ClaimStatus) -> Result<StatusCode, Problem> {
    match status {
        ClaimStatus::Returned | ClaimStatus::Expired => Ok(StatusCode::NO_CONTENT),
        ClaimStatus::Reserved => Err(problems::CLAIM_RESERVED
            .problem("an order keeps it; it is free when that is cancelled")),
        ClaimStatus::Accepted | ClaimStatus::Used | ClaimStatus::Issued => {
            Err(problems::CLAIM_USED.problem("a claim that paid for an order can't be given back"))
        }
    }
}

/// The claim, wherever it is among the user's units.
fn in_any_slot(returned: Returned) -> [EntryRef; PER_USER_LIMIT_MAX as usize] {
    std::array::from_fn(|slot| EntryRef {
        user: returned.user,
        // There are fewer than 256.
        slot: Slot(slot as u8),
        claim: returned.claim,
    })
}

async fn append_return(api: &Api, sale: &Sale, returned: Returned) -> Result<StatusCode, Problem> {
    let begun = Instant::now();
    // Before the return can be in the log: who asks for a unit once this is answered must not be told yes for the claim
    // because Redis has not heard of its end yet.
    let ending = api
        .stock
        .begin_ending(sale.uid(), &in_any_slot(returned))
        .await
        .map_err(|error| problems::away(&error))?;
    // The partitioning belongs to the epoch, so it is read now: the return must follow its claim.
    let Ending::Begun { partitions, .. } = ending else {
        return Err(problems::recovering());
    };
    let partition = partition_of(returned.user, partitions);
    let record = Record {
        sale: sale.uid(),
        event: SaleEvent::Returns(vec![returned]),
    };
    match api
        .producer
        .append(&sale.definition.topic, partition, &record)
        .await
    {
        // As for a yes (R2): within the deadline, it is in the log before any fence or Void that would have the claim
        // stand.
        Ok(_) if begun.elapsed() < ACK_DEADLINE => Ok(StatusCode::NO_CONTENT),
        Ok(_) => Err(problems::unknown()),
        Err(AppendError::NotSent(error)) => Err(problems::away(&error)),
        Err(error @ AppendError::Unknown { .. }) => {
            tracing::warn!(%error, "return not known to be appended");
            Err(problems::unknown())
        }
    }
}

/// Of a closed sale: its log may have been read to the end already, so that the claim is ended where it is.
async fn end_in_ledger(api: &Api, sale: &Sale, returned: Returned) -> Result<StatusCode, Problem> {
    let away = |error: &dyn std::error::Error| problems::away(error);
    if !sale.drained {
        // Processes that don't know yet that it is closed ask Redis, while its gate is open.
        api.stock
            .begin_ending(sale.uid(), &in_any_slot(returned))
            .await
            .map_err(|error| away(&error))?;
    }
    let Returned { user, claim } = returned;
    match api.store.return_claim(sale.uid(), user, claim).await {
        Ok(Some(status)) => told(status),
        Ok(None) if sale.drained => Err(problems::no_claim()),
        // The ledger may have yet to read it.
        Ok(None) => Err(problems::recovering()),
        Err(error) => Err(away(&error)),
    }
}
