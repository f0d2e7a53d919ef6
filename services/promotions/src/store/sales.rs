//! The sales: what was declared, and where each stands.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sale_stock::books::{PartitionPosition, SaleDefinition, SaleKind};
use sale_stock::{Epoch, GateTerms, SaleUid, Sequence, Stock};

use uuid::Uuid;

use super::{Doing, Store, StoreError, count};

/// A living sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleRow {
    /// As declared; its stock is what the ledger admits.
    pub definition: SaleDefinition,
    /// Partitions that the topic is known to have.
    pub partitions: u32,
    /// The epoch given out last.
    pub epoch: Epoch,
    /// The epoch whose gate was written last.
    pub opened_epoch: Epoch,
    /// Active claims.
    pub claimed: u32,
    /// The highest sequence number recorded.
    pub last_sequence: Sequence,
    /// Someone asked for a recovery.
    pub recovery_requested: bool,
    /// Who recovers, while his lease lasts.
    pub recoverer: Option<String>,
    /// Closed for good.
    pub closed: bool,
    /// Closed, and nothing is pending any more.
    pub drained: bool,
}

impl SaleRow {
    /// The sale.
    pub fn uid(&self) -> SaleUid {
        self.definition.uid
    }

    /// What the gate is to enforce.
    pub fn terms(&self) -> GateTerms {
        gate_terms(&self.definition)
    }

    /// A recovery is under way, or asked for.
    pub fn recovering(&self) -> bool {
        self.recovery_requested || self.opened_epoch < self.epoch
    }
}

/// What of a definition the gate is to enforce.
pub(crate) fn gate_terms(definition: &SaleDefinition) -> GateTerms {
    GateTerms {
        generation: definition.generation,
        starts: definition.starts.into(),
        ends: definition.ends.into(),
        stock: definition.stock,
        per_user_limit: definition.per_user_limit,
        paused: definition.paused,
    }
}

/// What declaring a sale came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The definition holds, or an equal or later one did already.
    Applied,
    /// Another living sale has the name.
    NameTaken,
    /// The stock would fall below the claims.
    BelowClaimed(Stock),
    /// The window has begun, and a term that guests claim under would change: this one.
    TermsFixed(&'static str),
    /// The stock shrinks, and the gate has to be asked first. Nothing was changed.
    ShrinkGateFirst(Epoch),
    /// The sale is closed or removed.
    Closed,
}

/// What the ledger holds of a sale, at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Active claims.
    pub active: u32,
    /// Ended claims whose entries may still stand in Redis.
    pub unreleased: u32,
}

struct RawSale {
    uid: Uuid,
    definition: serde_json::Value,
    partitions: i32,
    epoch: i64,
    opened_epoch: i64,
    claimed: i64,
    last_seq: i64,
    recovery_requested: bool,
    recoverer: Option<String>,
    closed: bool,
    drained: bool,
}

impl TryFrom<RawSale> for SaleRow {
    type Error = StoreError;

    fn try_from(raw: RawSale) -> Result<Self, StoreError> {
        Ok(Self {
            definition: definition(raw.uid, raw.definition)?,
            partitions: raw.partitions.unsigned_abs(),
            epoch: Epoch(raw.epoch.unsigned_abs()),
            opened_epoch: Epoch(raw.opened_epoch.unsigned_abs()),
            claimed: count(raw.claimed),
            last_sequence: Sequence(raw.last_seq.unsigned_abs()),
            recovery_requested: raw.recovery_requested,
            recoverer: raw.recoverer,
            closed: raw.closed,
            drained: raw.drained,
        })
    }
}

/// Reads a definition as it is kept. What a later version added is passed over; one that can't be read at all is one
/// sale's trouble, and told once.
pub(super) fn definition(uid: Uuid, kept: serde_json::Value) -> Result<SaleDefinition, StoreError> {
    static TOLD: Mutex<BTreeSet<Uuid>> = Mutex::new(BTreeSet::new());
    let read = serde_json::from_value(kept)
        .map_err(|error| sqlx::Error::Decode(error.into()))
        .doing("read the definition of a sale");
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    match &read {
        Ok(_) => {
            told.remove(&uid);
        }
        Err(error) if told.insert(uid) => {
            tracing::error!(sale = %uid, %error, "a sale is left out");
        }
        Err(_) => {}
    }
    read
}

impl Store {
    /// Every living sale, as far as its definition can be read.
    pub async fn sales(&self) -> Result<Vec<SaleRow>, StoreError> {
        let rows = sqlx::query_as!(
            RawSale,
            r#"SELECT uid, definition, partitions, epoch, opened_epoch,
                claimed, last_seq, recovery_requested_at IS NOT NULL AS "recovery_requested!",
                CASE WHEN recovery_lease_until > now() THEN recovery_owner END AS recoverer,
                closed_at IS NOT NULL AS "closed!", drained_at IS NOT NULL AS "drained!"
            FROM sales WHERE removed_at IS NULL ORDER BY name"#
        )
        .fetch_all(&self.pool)
        .await
        .doing("list the sales")?;
        let readable = rows
            .into_iter()
            .filter_map(|raw| SaleRow::try_from(raw).ok());
        Ok(readable.collect())
    }

    /// One sale, removed or not.
    pub async fn sale(&self, uid: SaleUid) -> Result<Option<SaleRow>, StoreError> {
        let row = sqlx::query_as!(
            RawSale,
            r#"SELECT uid, definition, partitions, epoch, opened_epoch,
                claimed, last_seq, recovery_requested_at IS NOT NULL AS "recovery_requested!",
                CASE WHEN recovery_lease_until > now() THEN recovery_owner END AS recoverer,
                closed_at IS NOT NULL AS "closed!", drained_at IS NOT NULL AS "drained!"
            FROM sales WHERE uid = $1"#,
            uid.0
        )
        .fetch_optional(&self.pool)
        .await
        .doing("read a sale")?;
        row.map(SaleRow::try_from).transpose()
    }

    /// Declares a sale. A stock that shrinks below what the ledger admits now needs the gate's consent first, since
    /// the gate may have sold what the ledger hasn't read yet; `consented` is the epoch whose gate gave it.
    pub async fn put_sale(
        &self,
        definition: &SaleDefinition,
        consented: Option<Epoch>,
    ) -> Result<PutOutcome, StoreError> {
        let doing = "declare a sale";
        let mut tx = self.pool.begin().await.doing(doing)?;
        let row = sqlx::query!(
            r#"SELECT kind, topic, generation, stock, claimed, epoch,
                closed_at IS NOT NULL OR removed_at IS NOT NULL AS "over!", definition,
                epoch > 0 AND (definition->>'starts')::timestamptz <= now() AS "begun!"
            FROM sales WHERE uid = $1 FOR UPDATE"#,
            definition.uid.0
        )
        .fetch_optional(&mut *tx)
        .await
        .doing(doing)?;
        let Some(row) = row else {
            let inserted = insert(&mut tx, definition).await?;
            tx.commit().await.doing(doing)?;
            return if inserted {
                Ok(PutOutcome::Applied)
            } else if self.sale(definition.uid).await?.is_some() {
                // Declared twice at once for the first time: it is there now.
                Box::pin(self.put_sale(definition, consented)).await
            } else {
                Ok(PutOutcome::NameTaken)
            };
        };
        if row.generation >= definition.generation {
            return Ok(PutOutcome::Applied);
        }
        if row.over {
            return Ok(PutOutcome::Closed);
        }
        if row.kind != definition.kind.as_str() || row.topic != definition.topic {
            return Ok(PutOutcome::NameTaken);
        }
        // Terms that can't be read hold nobody to them, and this may be what mends them.
        if row.begun
            && let Ok(held) = self::definition(definition.uid.0, row.definition)
            && let Some(term) = changed_term(&held, definition)
        {
            return Ok(PutOutcome::TermsFixed(term));
        }
        let stock = i64::from(definition.stock.0);
        if stock < row.claimed {
            return Ok(PutOutcome::BelowClaimed(Stock(count(row.claimed))));
        }
        // A sale that was never opened has no gate that could have sold anything.
        let epoch = Epoch(row.epoch.unsigned_abs());
        if stock < row.stock && epoch > Epoch(0) && consented != Some(epoch) {
            return Ok(PutOutcome::ShrinkGateFirst(epoch));
        }
        update(&mut tx, definition).await?;
        tx.commit().await.doing(doing)?;
        Ok(PutOutcome::Applied)
    }

    /// What the ledger holds of a sale; `None` if it doesn't know the sale.
    pub async fn counts(&self, uid: SaleUid) -> Result<Option<LedgerCounts>, StoreError> {
        // One statement, so one instant.
        let row = sqlx::query!(
            r#"SELECT claimed, (
                SELECT count(*) FROM claims c
                WHERE c.sale_uid = s.uid AND c.ended_at IS NOT NULL AND c.released_at IS NULL
            ) AS "unreleased!"
            FROM sales s WHERE uid = $1"#,
            uid.0
        )
        .fetch_optional(&self.pool)
        .await
        .doing("count a sale's claims")?;
        Ok(row.map(|row| LedgerCounts {
            active: count(row.claimed),
            unreleased: count(row.unreleased),
        }))
    }

    /// How far the sale's log has been applied.
    pub async fn positions(&self, uid: SaleUid) -> Result<Vec<PartitionPosition>, StoreError> {
        let rows = sqlx::query!(
            "SELECT partition, next_offset, epoch FROM positions WHERE sale_uid = $1 ORDER BY partition",
            uid.0
        )
        .fetch_all(&self.pool)
        .await
        .doing("read a sale's positions")?;
        Ok(rows
            .into_iter()
            .map(|row| PartitionPosition {
                partition: row.partition,
                next_offset: row.next_offset,
                epoch: Epoch(row.epoch.unsigned_abs()),
            })
            .collect())
    }

    /// Closes a sale for good; `false` if there is no such living sale.
    pub async fn close_sale(&self, uid: SaleUid) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE sales SET closed_at = coalesce(closed_at, now()) WHERE uid = $1 AND removed_at IS NULL",
            uid.0
        )
        .execute(&self.pool)
        .await
        .doing("close a sale")?;
        Ok(done.rows_affected() > 0)
    }

    /// Frees a drained sale's name. Its claims stay: coupons stay valid.
    pub async fn remove_sale(&self, uid: SaleUid) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE sales SET removed_at = coalesce(removed_at, now()) WHERE uid = $1 AND drained_at IS NOT NULL",
            uid.0
        )
        .execute(&self.pool)
        .await
        .doing("remove a sale")?;
        Ok(done.rows_affected() > 0)
    }
}

/// A term that is fixed once guests can claim under it, and differs. The resource's own rules say the same, but go by a
/// status that is written only while an operator runs.
fn changed_term(held: &SaleDefinition, declared: &SaleDefinition) -> Option<&'static str> {
    [
        ("starts", held.starts == declared.starts),
        ("discount", held.discount == declared.discount),
        ("target", held.target == declared.target),
        ("stayDates", held.stay_dates == declared.stay_dates),
        ("coupon", held.coupon == declared.coupon),
        ("claimTtl", held.claim_ttl_ms == declared.claim_ttl_ms),
        (
            "perUserLimit",
            held.per_user_limit == declared.per_user_limit,
        ),
    ]
    .into_iter()
    .find_map(|(term, same)| (!same).then_some(term))
}

/// `false` if the name is another's, or the sale is there by now.
async fn insert(
    tx: &mut sqlx::PgConnection,
    definition: &SaleDefinition,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO sales (uid, name, kind, definition, generation, stock, slots, claim_ttl_ms, coupon_valid_ms,
            topic, partitions)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT DO NOTHING",
        definition.uid.0,
        definition.name,
        definition.kind.as_str(),
        sqlx::types::Json(definition) as _,
        definition.generation,
        i64::from(definition.stock.0),
        i16::from(definition.per_user_limit),
        definition.claim_ttl_ms,
        definition.coupon.as_ref().map(|coupon| coupon.valid_for_ms),
        definition.topic,
        partitions(definition),
    )
    .execute(tx)
    .await
    .doing("insert a sale")?;
    Ok(done.rows_affected() > 0)
}

/// The topic and the kind stay; partitions and the ledger's own limit only grow.
async fn update(
    tx: &mut sqlx::PgConnection,
    definition: &SaleDefinition,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE sales SET definition = $2, generation = $3, stock = $4, slots = greatest(slots, $5),
            claim_ttl_ms = $6, coupon_valid_ms = $7, partitions = greatest(partitions, $8)
        WHERE uid = $1",
        definition.uid.0,
        sqlx::types::Json(definition) as _,
        definition.generation,
        i64::from(definition.stock.0),
        i16::from(definition.per_user_limit),
        definition.claim_ttl_ms,
        definition.coupon.as_ref().map(|coupon| coupon.valid_for_ms),
        partitions(definition),
    )
    .execute(tx)
    .await
    .doing("update a sale")?;
    Ok(())
}

fn partitions(definition: &SaleDefinition) -> i32 {
    i32::try_from(definition.partitions).unwrap_or(i32::MAX)
}

/// A kind as the database has it.
pub(super) fn kind(text: &str) -> SaleKind {
    if text == SaleKind::CouponCampaign.as_str() {
        SaleKind::CouponCampaign
    } else {
        SaleKind::TimeSale
    }
}
