//! Claims, of either kind: taking one, and reading one.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::auth::Caller;
use chassis::http::{Json, Path};
use chassis::idempotency;
use chassis::problem::Problem;
use chassis::refusals;
use chassis::telemetry;
use events::saga::OrderId;
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use sale_stock::books::SaleKind;
use sale_stock::{ClaimId, Entry, KeyHash, Mark, SaleUid, Sequence, Unopened, UserId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::Sale;
use super::{Api, metrics, problems};
use crate::claims::{self, Answer, Claimed};
use crate::store::{ClaimRow, ClaimStatus};

/// A claim as guests read it; exactly one of the ids of its sale is there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Claim)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClaimBody<'a> {
    #[schema(value_type = Uuid)]
    claim_id: ClaimId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    campaign_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    time_sale_id: Option<&'a str>,
    /// Which of the sale's claims it is, from 1.
    #[schema(value_type = u64)]
    sequence: Sequence,
    status: ClaimStatus,
    claimed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<Timestamp>,
    /// The order that keeps or has used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>, nullable = false)]
    order_id: Option<OrderId>,
}

impl<'a> ClaimBody<'a> {
    fn new(sale: &'a Sale, claimed: &Claimed) -> Self {
        let definition = &sale.definition;
        let claimed_at = claimed
            .claimed_at
            .timestamp()
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let ttl = definition
            .claim_ttl_ms
            .filter(|_| definition.kind == SaleKind::TimeSale);
        let status = match definition.kind {
            // The ledger issues the coupon when it records the claim.
            SaleKind::CouponCampaign if claimed.recorded => ClaimStatus::Issued,
            SaleKind::CouponCampaign | SaleKind::TimeSale => ClaimStatus::Accepted,
        };
        let (campaign_id, time_sale_id) = ids(definition.kind, &definition.name);
        Self {
            claim_id: claimed.claim,
            campaign_id,
            time_sale_id,
            sequence: claimed.sequence,
            status,
            claimed_at,
            expires_at: ttl.and_then(|ttl| {
                claimed_at
                    .checked_add(SignedDuration::from_millis(ttl))
                    .ok()
            }),
            order_id: None,
        }
    }

    fn of_row(row: &'a ClaimRow) -> Self {
        let (campaign_id, time_sale_id) = ids(row.kind, &row.sale_name);
        Self {
            claim_id: row.claim,
            campaign_id,
            time_sale_id,
            sequence: row.sequence,
            status: row.status.told(row.kind),
            claimed_at: row.claimed_at,
            expires_at: row.expires_at,
            order_id: row.order,
        }
    }
}

fn ids(kind: SaleKind, name: &str) -> (Option<&str>, Option<&str>) {
    match kind {
        SaleKind::CouponCampaign => (Some(name), None),
        SaleKind::TimeSale => (None, Some(name)),
    }
}

/// Takes a unit of a sale for the caller: 201, or 200 with the claim that the caller has already.
pub(super) async fn claim(
    api: &Api,
    kind: SaleKind,
    name: &str,
    caller: &Caller,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let sale = api.catalog.find(kind, name)?;
    let key = idempotency_key(headers)?;
    no_body(body)?;
    let user = UserId(caller.user_id);
    let answer = if sale.closed {
        answer_of_closed(api, &sale, user, key).await
    } else {
        sale.gatherer().claim(user, key, telemetry::current()).await
    };
    sale.counters().count(answer);
    metrics::DURATION.observe(started.elapsed().as_secs_f64());
    match answer {
        Answer::Accepted(claimed) => Ok(told(StatusCode::CREATED, &sale, &claimed)),
        Answer::Repeated(claimed) => Ok(told(StatusCode::OK, &sale, &claimed)),
        Answer::SoldOut => Err(problems::SOLD_OUT.problem("no unit is left")),
        Answer::NotStarted => Err(problems::NOT_STARTED
            .problem(format!("claims are taken from {}", sale.definition.starts))),
        Answer::Ended => Err(problems::ENDED.problem("claims are not taken any more")),
        Answer::Paused => Err(problems::PAUSED.problem("claims are not taken for now")),
        Answer::Recovering => Err(problems::recovering()),
        Answer::Unknown => Err(problems::unknown()),
        Answer::Unavailable => Err(Problem::unavailable(
            "the claim could not be taken; ask again",
        )),
    }
}

fn told(status: StatusCode, sale: &Sale, claimed: &Claimed) -> Response {
    (status, Json(ClaimBody::new(sale, claimed))).into_response()
}

refusals! { GetRefusals: problems::CLAIM_NOT_FOUND, problems::CLAIM_UNSETTLED, problems::RECOVERING }

/// Reads one of the caller's claims, whatever has become of it.
#[utoipa::path(get, path = "/v1/claims/{claimId}", operation_id = "readClaim", tag = "Claims",
    security(("accessToken" = [])),
    params(("claimId" = Uuid, Path, description = "The claim's id.")),
    responses((status = 200, description = "The claim.", body = ClaimBody), GetRefusals))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(claim): Path<Uuid>,
) -> Result<Response, Problem> {
    let (user, claim) = (UserId(caller.user_id), ClaimId(claim));
    if let Some(row) = find_recorded(&api, user, claim).await? {
        return Ok(Json(ClaimBody::of_row(&row)).into_response());
    }
    // Taken a moment ago: the ledger has not read it yet.
    let sales = sales_that_may_hold(api.catalog.all()?, claim);
    let (sale, entry) = find_entry(&api, &sales, user, claim)
        .await?
        .ok_or_else(problems::no_claim)?;
    if entry.mark == Mark::Ending {
        return Err(problems::CLAIM_UNSETTLED
            .problem("it is being given back; ask again")
            .retry_after(1));
    }
    // Whoever knows its id was told yes for it: it is in the log, and the ledger will have it.
    let claimed = Claimed {
        claim: entry.claim,
        sequence: entry.sequence,
        claimed_at: entry.claimed_at,
        recorded: entry.mark == Mark::Recorded,
    };
    Ok(told(StatusCode::OK, sale, &claimed))
}

/// What a request for a unit of a closed sale is answered: its gate is shut, and the ledger knows who had one.
async fn answer_of_closed(api: &Api, sale: &Sale, user: UserId, key: KeyHash) -> Answer {
    let unavailable = |error: &dyn std::error::Error| {
        tracing::warn!(error = %error, "a closed sale's claims can't be looked up");
        Answer::Unavailable
    };
    // Before it is drained, the ledger may have yet to read that the user claimed a unit, or gave it back.
    let mut held = false;
    if !sale.drained {
        let holdings = match api.stock.holdings(&[sale.uid()], user).await {
            Ok(holdings) => holdings,
            Err(error) => return unavailable(&error),
        };
        for holding in holdings {
            let lost = matches!(
                holding.unopened,
                Some(Unopened::Missing | Unopened::Foreign)
            );
            let mut marks = holding.entries.iter().map(|entry| entry.mark);
            if lost || marks.any(|mark| mark != Mark::Recorded) {
                return Answer::Recovering;
            }
            held |= !holding.entries.is_empty();
        }
    }
    match api.store.active_claim(sale.uid(), user, key).await {
        Ok(Some(active)) => Answer::Repeated(Claimed {
            claim: active.entry.claim,
            sequence: active.sequence,
            claimed_at: active.claimed_at,
            recorded: true,
        }),
        // Ended a moment ago.
        Ok(None) if held => Answer::Recovering,
        Ok(None) => Answer::Ended,
        Err(error) => unavailable(&error),
    }
}

/// Sales of which this claim may be, if the ledger doesn't have it yet. A drained sale's claims are all in the ledger,
/// and nothing was claimed before a sale's start.
fn sales_that_may_hold(sales: Vec<Arc<Sale>>, claim: ClaimId) -> Vec<Arc<Sale>> {
    let made = claims::made_before(claim);
    // Ids without a time are not given out.
    let may =
        |sale: &Arc<Sale>| !sale.drained && made.is_some_and(|made| sale.definition.starts <= made);
    sales.into_iter().filter(may).collect()
}

/// The caller's claim in the ledger.
pub(super) async fn find_recorded(
    api: &Api,
    user: UserId,
    claim: ClaimId,
) -> Result<Option<ClaimRow>, Problem> {
    api.store
        .claim_of(user, claim)
        .await
        .map_err(|error| problems::away(&error))
}

/// The caller's claim in the stock of one of the sales. That there is none is said only where the stock is whole: one
/// that is lost, or being rebuilt, may have held it.
pub(super) async fn find_entry<'a>(
    api: &Api,
    sales: &'a [Arc<Sale>],
    user: UserId,
    claim: ClaimId,
) -> Result<Option<(&'a Sale, Entry)>, Problem> {
    let uids: Vec<SaleUid> = sales.iter().map(|sale| sale.uid()).collect();
    let holdings = api
        .stock
        .holdings(&uids, user)
        .await
        .map_err(|error| problems::away(&error))?;
    let found = sales.iter().zip(&holdings).find_map(|(sale, held)| {
        let entry = held.entries.iter().find(|entry| entry.claim == claim)?;
        Some((&**sale, entry.clone()))
    });
    if found.is_none() && holdings.iter().any(|held| held.unopened.is_some()) {
        return Err(problems::recovering());
    }
    Ok(found)
}

/// A digest of the request's key.
fn idempotency_key(headers: &HeaderMap) -> Result<KeyHash, Problem> {
    Ok(match idempotency::key_of(headers)? {
        None => KeyHash::NONE,
        // The digest of no key at all is taken.
        Some(key) => KeyHash(xxh3_64(key.as_bytes()).max(1)),
    })
}

/// A claim says everything in its path: a body may be left out, or be an empty object.
fn no_body(body: &Bytes) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body) {
        Ok(fields) if fields.is_empty() => Ok(()),
        Ok(fields) => {
            let name = fields.keys().next().map_or("", String::as_str);
            Err(Problem::field(
                &format!("/{name}"),
                "is not a field of a claim",
            ))
        }
        Err(_) => Err(Problem::field("", "is not a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Option<KeyHash> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", value.parse().ok()?);
        idempotency_key(&headers).ok()
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        assert!(key("abc").is_some());
        assert_eq!(key("abc"), key("\"abc\""));
        assert_ne!(key("abc"), key("abd"));
    }

    #[test]
    fn a_key_that_is_empty_or_too_long_is_refused() {
        assert_eq!(key("\"\""), None);
        assert!(key(&"k".repeat(255)).is_some());
        assert_eq!(key(&"k".repeat(256)), None);
    }

    #[test]
    fn a_claim_takes_no_fields() {
        assert!(no_body(&Bytes::new()).is_ok());
        assert!(no_body(&Bytes::from_static(b" {} ")).is_ok());
        assert!(no_body(&Bytes::from_static(b"{\"quantity\":2}")).is_err());
        assert!(no_body(&Bytes::from_static(b"null")).is_err());
    }
}
