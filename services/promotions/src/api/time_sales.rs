//! `/v1/time-sales`.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use chassis::auth::Caller;
use chassis::http::{Json, Page, PageQuery, Path};
use chassis::problem::Problem;
use events::producer::AppendError;
use events::{Record, Returned, SaleEvent, partition_of};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use sale_stock::books::{Discount, SaleKind, StayDates, Target};
use sale_stock::{ClaimId, Stock, UserId};
use serde::Serialize;
use uuid::Uuid;

use super::catalog::Sale;
use super::{Api, claims, problems};
use crate::store::ClaimStatus;

const KIND: SaleKind = SaleKind::TimeSale;

/// A time sale as guests read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TimeSaleBody {
    id: String,
    display_name: String,
    starts: Timestamp,
    ends: Timestamp,
    target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stay_dates: Option<StayDates>,
    discount: Discount,
    stock: StockBody,
    per_user_limit: u8,
    paused: bool,
}

#[derive(Debug, Serialize)]
struct StockBody {
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

/// `GET /v1/time-sales`.
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

/// `GET /v1/time-sales/{id}`.
pub(super) async fn get(
    State(api): State<Api>,
    _: Option<Caller>,
    Path(name): Path<String>,
) -> Result<Json<TimeSaleBody>, Problem> {
    let sale = api.catalog.find(KIND, &name)?;
    Ok(Json(TimeSaleBody::new(&api, &sale).await))
}

/// `POST /v1/time-sales/{id}/claims`.
pub(super) async fn claim(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    claims::claim(&api, KIND, &name, &caller, &headers, &body).await
}

/// `DELETE /v1/time-sales/{id}/claims/{claimId}`: appends the return; the ledger ends the claim and releases its
/// unit. Asked again, the same.
pub(super) async fn give_back(
    State(api): State<Api>,
    caller: Caller,
    Path((name, claim)): Path<(String, Uuid)>,
) -> Result<StatusCode, Problem> {
    let (user, claim) = (UserId(caller.user_id), ClaimId(claim));
    let sale = api.catalog.find(KIND, &name)?;
    match claims::find_recorded(&api, user, claim).await? {
        Some(row) if row.sale != sale.uid() => return Err(problems::no_claim()),
        Some(row) => match row.status {
            ClaimStatus::Accepted => {}
            ClaimStatus::Returned | ClaimStatus::Expired => return Ok(StatusCode::NO_CONTENT),
            ClaimStatus::Used | ClaimStatus::Issued => {
                return Err(problems::CLAIM_USED
                    .problem("a claim that paid for an order can't be given back"));
            }
        },
        // Whoever was told its id was told yes: its record is in the log, before the return.
        None if claims::find_entry(&api, &sale, user, claim)
            .await?
            .is_some() => {}
        None => return Err(problems::no_claim()),
    }
    append_return(&api, &sale, Returned { user, claim }).await
}

async fn append_return(api: &Api, sale: &Sale, returned: Returned) -> Result<StatusCode, Problem> {
    // The partitioning belongs to the epoch, so it is read now: the return must follow its claim.
    let snapshot = api
        .stock
        .snapshot(sale.uid())
        .await
        .map_err(|error| problems::away(&error))?;
    let gate = snapshot
        .gate
        .filter(|gate| gate.own_run)
        .ok_or_else(problems::recovering)?;
    let partition = partition_of(returned.user, gate.partitions);
    let record = Record {
        sale: sale.uid(),
        event: SaleEvent::Returns(vec![returned]),
    };
    match api
        .producer
        .append(&sale.definition.topic, partition, &record)
        .await
    {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(AppendError::NotSent(error)) => Err(problems::away(&error)),
        Err(error @ AppendError::Unknown { .. }) => {
            tracing::warn!(%error, "return not known to be appended");
            Err(problems::unknown())
        }
    }
}
