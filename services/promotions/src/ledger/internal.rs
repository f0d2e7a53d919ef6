//! The books, for the operator: what is to hold, what does, and what it may ask for.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use chassis::http::{Json, Mistakes, Path};
use chassis::problem::{Code, Problem};
use events::consumer::BatchConsumer;
use http::StatusCode;
use sale_stock::books::{Books, GateState, RecoveryRequest, SaleDefinition, SaleKind, StockBooks};
use sale_stock::{Epoch, GateUpdate, PER_USER_LIMIT_MAX, SaleStock, SaleUid, Snapshot, Stock};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::sales::Sales;
use super::steward;
use crate::store::{PutOutcome, SaleRow, Store, StoreError, gate_terms};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($status:ident, $title:literal);)+) => {
        $($(#[$doc])* pub(super) const $name: Code = Code::new(stringify!($name), StatusCode::$status, $title);)+
    };
}

codes! {
    /// Another living sale has the name, and with it the topic.
    NAME_TAKEN = (CONFLICT, "The name is taken");
    /// The stock would fall below the units claimed.
    STOCK_BELOW_CLAIMED = (CONFLICT, "The stock is below what is claimed");
    /// The sale has begun, and what guests claimed under can't change.
    TERMS_FIXED = (CONFLICT, "The terms are fixed");
    /// The stock can't shrink while the gate is shut, and a claim not be looked up: what the log still holds is not known.
    RECOVERING = (SERVICE_UNAVAILABLE, "The sale is recovering");
    /// The sale was closed for good.
    CLOSED = (CONFLICT, "The sale is closed");
    /// The sale is not closed and drained yet.
    NOT_DRAINED = (CONFLICT, "The sale is not drained");
    /// The ledger doesn't know the sale.
    SALE_NOT_FOUND = (NOT_FOUND, "No such sale");
    /// The user has no such claim to use.
    CLAIM_NOT_FOUND = (NOT_FOUND, "No such claim");
    /// The claim is taken, and the ledger has yet to read of it.
    CLAIM_UNSETTLED = (SERVICE_UNAVAILABLE, "The claim is not settled yet");
}

/// What the handlers work with.
#[derive(Clone)]
pub(super) struct Internal {
    pub(super) store: Store,
    pub(super) stock: SaleStock,
    pub(super) consumer: Arc<BatchConsumer>,
    pub(super) sales: Sales,
}

pub(super) fn routes(internal: Internal) -> Router {
    Router::new()
        .route(
            "/internal/v1/sales/{uid}",
            get(books).put(declare).delete(remove),
        )
        .route("/internal/v1/sales/{uid}/recoveries", post(recover))
        .route("/internal/v1/sales/{uid}/close", post(close))
        .with_state(internal)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_final() {
            Self::internal(error)
        } else {
            tracing::warn!(%error, "ledger unavailable");
            Self::unavailable("the ledger's database is not there")
        }
    }
}

/// A definition that is refused if it has a field that none has.
struct Declared(SaleDefinition);

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let unknown = SaleDefinition::unknown_fields(&json);
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            return Err(D::Error::custom(format!("no definition has {unknown}")));
        }
        SaleDefinition::deserialize(json)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

async fn declare(
    State(internal): State<Internal>,
    Path(uid): Path<SaleUid>,
    Json(Declared(definition)): Json<Declared>,
) -> Result<Json<Books>, Problem> {
    check(uid, &definition)?;
    let mut outcome = internal.store.put_sale(&definition, None).await?;
    if let PutOutcome::ShrinkGateFirst(epoch) = outcome {
        internal.shrink_gate(&definition, epoch).await?;
        outcome = internal.store.put_sale(&definition, Some(epoch)).await?;
    }
    match outcome {
        PutOutcome::Applied => {}
        PutOutcome::NameTaken => {
            return Err(NAME_TAKEN.problem(format!("another sale is named {}", definition.name)));
        }
        PutOutcome::BelowClaimed(claimed) => return Err(below(definition.stock, claimed)),
        PutOutcome::TermsFixed(term) => {
            return Err(TERMS_FIXED.problem(format!("{term} is fixed once the sale has started")));
        }
        PutOutcome::Closed => return Err(CLOSED.problem("a closed sale doesn't change")),
        // The sale was recovered between the two looks: its gate has to be asked again.
        PutOutcome::ShrinkGateFirst(_) => return Err(recovering()),
    }
    internal.sales.changed();
    internal.read(uid).await.map(Json)
}

fn below(stock: Stock, claimed: Stock) -> Problem {
    STOCK_BELOW_CLAIMED.problem(format!(
        "{claimed} units are claimed: the stock can't be {stock}"
    ))
}

fn recovering() -> Problem {
    RECOVERING
        .problem("the stock can shrink once the sale is open again")
        .retry_after(2)
}

/// What the resource's own rules leave open, or would have to.
fn check(uid: SaleUid, definition: &SaleDefinition) -> Result<(), Problem> {
    let limit = definition.per_user_limit;
    let name = definition.name.len();
    Mistakes::new()
        .require(definition.uid == uid, "/uid", "must be the one in the path")
        .require(
            (1..=63).contains(&name),
            "/name",
            "must have 1 to 63 characters",
        )
        .require(
            definition.generation >= 0,
            "/generation",
            "must not be negative",
        )
        .require(
            definition.starts < definition.ends,
            "/ends",
            "must be after starts",
        )
        .require(definition.stock.0 > 0, "/stock", "must be positive")
        .require(
            (1..=PER_USER_LIMIT_MAX).contains(&limit),
            "/perUserLimit",
            "must be 1 to 10",
        )
        .require(!definition.topic.is_empty(), "/topic", "must be named")
        .require(
            (1..=10_000).contains(&definition.partitions),
            "/partitions",
            "must be 1 to 10000",
        )
        .require(
            definition.claim_ttl_ms.is_none_or(|ttl| ttl > 0),
            "/claimTtlMs",
            "must be positive",
        )
        .require(
            definition.kind == SaleKind::CouponCampaign || definition.claim_ttl_ms.is_some(),
            "/claimTtlMs",
            "a time sale's claims end by it",
        )
        .require(
            definition
                .coupon
                .as_ref()
                .is_none_or(|coupon| coupon.valid_for_ms > 0),
            "/coupon/validForMs",
            "must be positive",
        )
        .require(
            definition.kind == SaleKind::TimeSale || definition.coupon.is_some(),
            "/coupon",
            "a campaign issues one",
        )
        .finish()
}

async fn books(
    State(internal): State<Internal>,
    Path(uid): Path<SaleUid>,
) -> Result<Json<Books>, Problem> {
    internal.read(uid).await.map(Json)
}

async fn recover(
    State(internal): State<Internal>,
    Path(uid): Path<SaleUid>,
    Json(request): Json<RecoveryRequest>,
) -> Result<StatusCode, Problem> {
    if !internal
        .store
        .request_recovery(uid, &request.reason)
        .await?
    {
        return Err(no_sale());
    }
    internal.sales.changed();
    Ok(StatusCode::ACCEPTED)
}

async fn close(
    State(internal): State<Internal>,
    Path(uid): Path<SaleUid>,
) -> Result<StatusCode, Problem> {
    if !internal.store.close_sale(uid).await? {
        return Err(no_sale());
    }
    internal.sales.changed();
    Ok(StatusCode::ACCEPTED)
}

/// Repeatable: the entries in Redis go first, the name is freed last.
async fn remove(
    State(internal): State<Internal>,
    Path(uid): Path<SaleUid>,
) -> Result<StatusCode, Problem> {
    let Some(sale) = internal.store.sale(uid).await? else {
        return Ok(StatusCode::NO_CONTENT);
    };
    if !sale.drained {
        return Err(NOT_DRAINED.problem("close the sale and wait until it is drained"));
    }
    internal.stock.remove_all(uid).await.map_err(|error| {
        tracing::warn!(%error, "a sale's entries are not removed");
        Problem::unavailable("Redis is not there")
    })?;
    internal.store.remove_sale(uid).await?;
    internal.sales.changed();
    Ok(StatusCode::NO_CONTENT)
}

fn no_sale() -> Problem {
    SALE_NOT_FOUND.problem("the ledger knows no living sale of this uid")
}

impl Internal {
    /// Has the gate take the smaller stock before the ledger does: it alone knows what is sold and not read yet. It
    /// must be the ledger's own gate, before and after.
    async fn shrink_gate(&self, definition: &SaleDefinition, epoch: Epoch) -> Result<(), Problem> {
        let away = |error: sale_stock::StockError| {
            tracing::warn!(%error, "the gate is not asked");
            Problem::unavailable("Redis is not there")
        };
        let ours = |snapshot: Snapshot| {
            let open = snapshot
                .gate
                .is_some_and(|gate| gate.unopened().is_none() && gate.epoch == epoch);
            if open { Ok(()) } else { Err(recovering()) }
        };
        ours(self.stock.snapshot(definition.uid).await.map_err(away)?)?;
        match self
            .stock
            .update_gate(definition.uid, &gate_terms(definition))
            .await
            .map_err(away)?
        {
            GateUpdate::Applied | GateUpdate::Newer => {}
            GateUpdate::Missing => return Err(recovering()),
            GateUpdate::BelowClaimed(claimed) => return Err(below(definition.stock, claimed)),
        }
        ours(self.stock.snapshot(definition.uid).await.map_err(away)?)
    }

    async fn read(&self, uid: SaleUid) -> Result<Books, Problem> {
        let sale = self.store.sale(uid).await?.ok_or_else(no_sale)?;
        // Positions before counts, and the ends last: nothing was appended in between where the lag is 0, so that the
        // counts are those of the positions.
        let positions = self.store.positions(uid).await?;
        let counts = self.store.counts(uid).await?.ok_or_else(no_sale)?;
        let (snapshot, ends) = tokio::join!(
            self.stock.snapshot(uid),
            steward::ends(&self.consumer, &sale)
        );
        let gate = gate_state(snapshot.as_ref().ok());
        let lag = ends.map(|ends| {
            let behind = |(partition, end): &(i32, i64)| {
                let read = positions
                    .iter()
                    .find(|position| position.partition == *partition);
                u64::try_from(end - read.map_or(0, |position| position.next_offset)).unwrap_or(0)
            };
            ends.iter().map(behind).sum()
        });
        Ok(Books {
            uid,
            generation: sale.definition.generation,
            epoch: sale.epoch,
            gate,
            recovering: is_recovering(&sale, gate),
            stock: StockBooks {
                total: sale.definition.stock,
                claimed: Stock(counts.active),
            },
            unreleased: counts.unreleased,
            unsettled: snapshot.map_or(0, |snapshot| snapshot.unsettled),
            lag,
            positions,
            closed: sale.closed,
            drained: sale.drained,
        })
    }
}

fn gate_state(snapshot: Option<&Snapshot>) -> GateState {
    let Some(snapshot) = snapshot else {
        return GateState::Unreachable;
    };
    match snapshot.gate {
        None => GateState::Missing,
        Some(gate) if !gate.own_run => GateState::Foreign,
        Some(gate) if !gate.open => GateState::Closed,
        Some(_) => GateState::Open,
    }
}

/// A sale that was open once and isn't, or is about to be put right. One that waits for its first opening is not
/// recovering, nor is a closed one.
fn is_recovering(sale: &SaleRow, gate: GateState) -> bool {
    let shut = matches!(
        gate,
        GateState::Closed | GateState::Missing | GateState::Foreign
    );
    !sale.closed && sale.opened_epoch > Epoch(0) && (sale.recovering() || shut)
}
