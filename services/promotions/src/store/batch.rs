//! One transaction for a batch of records of one sale: look, apply, write, and move the positions on.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::{ClaimTaken, SaleEvent};
use sale_stock::books::SaleKind;
use sale_stock::{ClaimId, EntryRef, Epoch, SaleUid, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Doing, Store, StoreError,
    claims::{entry, slot},
    count, instant, locks, sales,
};
use crate::ledger::core::{
    self, Applied, Dropped, Effect, End, Known, LogPosition, Progress, State,
};

/// What stands at a position; `None` is unreadable, or another sale's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// Where.
    pub at: LogPosition,
    /// What.
    pub event: Option<SaleEvent>,
}

/// What a committed batch came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Redis is to mark these recorded.
    pub marks: Vec<EntryRef>,
    /// Redis is to give these units back: voided, or ended.
    pub releases: Vec<EntryRef>,
    /// Of them, those whose release the ledger is to be told.
    pub ended: Vec<EntryRef>,
    /// Claims recorded.
    pub recorded: u32,
    /// Claims left out, and why.
    pub dropped: BTreeMap<Dropped, u32>,
    /// Where to read on, for partitions in which records are missing.
    pub gaps: BTreeMap<i32, i64>,
    /// Where each partition of the batch stands now.
    pub positions: BTreeMap<i32, i64>,
}

impl Store {
    /// Applies records of a sale's log, in their order, and commits; `None` if there is no such living sale. May be
    /// called with the same records any number of times, by any number of processes.
    pub async fn apply_batch(
        &self,
        uid: SaleUid,
        records: &[BatchRecord],
    ) -> Result<Option<BatchOutcome>, StoreError> {
        let doing = "apply a batch of the log";
        let mut tx = self.pool.begin().await.doing(doing)?;
        let Some((terms, mut state)) = load(&mut tx, uid, records).await? else {
            return Ok(None);
        };
        let before = state.positions.clone();
        let claimed_before = i64::from(state.claimed);
        let mut outcome = BatchOutcome::default();
        let mut writes = Writes::default();
        for record in records {
            match core::apply(&mut state, record.at, record.event.as_ref()) {
                Applied::Now(effects) => {
                    for effect in effects {
                        writes.add(effect, &mut outcome);
                    }
                }
                Applied::Before => {}
                Applied::Gap { expected } => {
                    outcome.gaps.insert(record.at.partition, expected);
                }
            }
        }
        for record in records {
            let partition = record.at.partition;
            outcome.positions.insert(
                partition,
                state
                    .positions
                    .get(&partition)
                    .map_or(0, |at| at.next_offset),
            );
        }
        if before == state.positions {
            return Ok(Some(outcome));
        }
        writes.write(&mut tx, uid, &terms).await?;
        write_positions(&mut tx, uid, &before, &state.positions).await?;
        // The guard against overselling is the column's check: claimed <= stock.
        sqlx::query!(
            "UPDATE sales SET claimed = claimed + $2, last_seq = greatest(last_seq, $3) WHERE uid = $1",
            uid.0,
            i64::from(state.claimed) - claimed_before,
            writes.last_sequence,
        )
        .execute(&mut *tx)
        .await
        .doing(doing)?;
        tx.commit().await.doing(doing)?;
        Ok(Some(outcome))
    }
}

/// What of a sale decides how its claims are written.
struct Terms {
    kind: SaleKind,
    claim_ttl_ms: Option<i64>,
    coupon_valid_ms: Option<i64>,
    now: OffsetDateTime,
}

impl Terms {
    fn status(&self) -> &'static str {
        match self.kind {
            SaleKind::TimeSale => "ACCEPTED",
            SaleKind::CouponCampaign => "ISSUED",
        }
    }

    /// A hold lasts from when it was recorded, by the database's clock, which also ends it, and not less than the guest
    /// was told, which counts from the claim by Redis's: whichever is ahead, it is never shorter than promised. A
    /// coupon's validity counts from the claim.
    fn expires(&self, claim: &ClaimTaken) -> Option<OffsetDateTime> {
        let claimed = instant(claim.at.0);
        let (from, millis) = match self.kind {
            SaleKind::TimeSale => (self.now.max(claimed), self.claim_ttl_ms?),
            SaleKind::CouponCampaign => (claimed, self.coupon_valid_ms?),
        };
        from.checked_add(time::Duration::milliseconds(millis))
    }
}

/// Locks the sale, and the claims that may end, and reads what the records name.
async fn load(
    tx: &mut PgConnection,
    uid: SaleUid,
    records: &[BatchRecord],
) -> Result<Option<(Terms, State)>, StoreError> {
    let doing = "load what a batch of the log names";
    let sale = sqlx::query!(
        r#"SELECT kind, stock, slots, claimed, claim_ttl_ms, coupon_valid_ms, now() AS "now!"
        FROM sales WHERE uid = $1 AND removed_at IS NULL FOR UPDATE"#,
        uid.0
    )
    .fetch_optional(&mut *tx)
    .await
    .doing(doing)?;
    let Some(sale) = sale else {
        return Ok(None);
    };
    let terms = Terms {
        kind: sales::kind(&sale.kind),
        claim_ttl_ms: sale.claim_ttl_ms,
        coupon_valid_ms: sale.coupon_valid_ms,
        now: sale.now,
    };
    let returnable = terms.kind == SaleKind::TimeSale;
    let mut state = State::new(count(sale.stock), slot(sale.slots).0, returnable);
    state.claimed = count(sale.claimed);
    let positions = sqlx::query!(
        "SELECT partition, next_offset, epoch FROM positions WHERE sale_uid = $1",
        uid.0
    )
    .fetch_all(&mut *tx)
    .await
    .doing(doing)?;
    for row in positions {
        let epoch = Epoch(row.epoch.unsigned_abs());
        state.positions.insert(
            row.partition,
            Progress {
                next_offset: row.next_offset,
                epoch,
            },
        );
    }
    let (claims, users) = named(records);
    if claims.is_empty() {
        return Ok(Some((terms, state)));
    }
    // Orders take claims without the sale's lock: one that is read as returnable must stay so until it has ended. What
    // else is read of claims, that they are active and in which slot, no order changes.
    locks::claims(tx, &returned(records)).await?;
    // Whatever a record may meet: the claims it names, and what is active for the users who claim.
    let known = sqlx::query!(
        r#"SELECT claim_id, user_id, slot, status, ended_at IS NOT NULL AS "ended!" FROM claims
        WHERE sale_uid = $1 AND (claim_id = ANY($2) OR (ended_at IS NULL AND user_id = ANY($3)))"#,
        uid.0,
        &claims,
        &users,
    )
    .fetch_all(&mut *tx)
    .await
    .doing(doing)?;
    for row in known {
        state.remember(Known {
            entry: entry(row.user_id, row.slot, row.claim_id),
            returnable: row.status == "ACCEPTED",
            ended: row.ended,
        });
    }
    let voided = sqlx::query!(
        "SELECT claim_id FROM voided_claims WHERE sale_uid = $1 AND claim_id = ANY($2)",
        uid.0,
        &claims
    )
    .fetch_all(&mut *tx)
    .await
    .doing(doing)?;
    state
        .voided
        .extend(voided.into_iter().map(|row| ClaimId(row.claim_id)));
    Ok(Some((terms, state)))
}

/// The claims that the records name, and the users who claim.
fn named(records: &[BatchRecord]) -> (Vec<Uuid>, Vec<Uuid>) {
    let (mut claims, mut users) = (Vec::new(), Vec::new());
    for event in records.iter().filter_map(|record| record.event.as_ref()) {
        match event {
            SaleEvent::Claims { claims: taken, .. } => {
                claims.extend(taken.iter().map(|claim| claim.claim.0));
                users.extend(taken.iter().map(|claim| claim.user.0));
            }
            SaleEvent::Voids { voids, .. } => claims.extend(voids.iter().map(|void| void.claim.0)),
            SaleEvent::Returns(returns) => {
                claims.extend(returns.iter().map(|returned| returned.claim.0))
            }
            SaleEvent::Fence(_) => {}
        }
    }
    users.sort_unstable();
    users.dedup();
    (claims, users)
}

/// The claims that the records give back.
fn returned(records: &[BatchRecord]) -> Vec<Uuid> {
    let events = records.iter().filter_map(|record| record.event.as_ref());
    let returns = events.filter_map(|event| match event {
        SaleEvent::Returns(returns) => Some(returns),
        SaleEvent::Claims { .. } | SaleEvent::Voids { .. } | SaleEvent::Fence(_) => None,
    });
    returns.flatten().map(|returned| returned.claim.0).collect()
}

/// The rows that a batch writes, each once: a claim that is taken and given back within a batch is inserted as ended.
#[derive(Default)]
struct Writes {
    inserted: Vec<(ClaimTaken, LogPosition)>,
    ended: HashMap<ClaimId, End>,
    voided: Vec<(ClaimId, Epoch)>,
    refused: Vec<(ClaimId, UserId, Dropped, LogPosition)>,
    last_sequence: i64,
}

impl Writes {
    fn add(&mut self, effect: Effect, outcome: &mut BatchOutcome) {
        match effect {
            Effect::Record { claim, at } => {
                outcome.recorded += 1;
                self.last_sequence = self.last_sequence.max(claim.sequence.0.cast_signed());
                self.inserted.push((claim, at));
            }
            Effect::End { entry, end } => {
                outcome.ended.push(entry);
                self.ended.insert(entry.claim, end);
            }
            Effect::Void { claim, epoch } => self.voided.push((claim, epoch)),
            Effect::Drop {
                claim,
                user,
                reason,
                at,
            } => {
                *outcome.dropped.entry(reason).or_default() += 1;
                if matches!(reason, Dropped::Limit | Dropped::Stock) {
                    self.refused.push((claim, user, reason, at));
                }
            }
            Effect::Mark(entry) => outcome.marks.push(entry),
            Effect::Release(entry) => outcome.releases.push(entry),
        }
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        uid: SaleUid,
        terms: &Terms,
    ) -> Result<(), StoreError> {
        // Ends first: a slot is freed before the next claim takes it.
        self.end(tx, terms).await?;
        self.insert(tx, uid, terms).await?;
        self.void(tx, uid).await?;
        self.refuse(tx, uid).await
    }

    async fn end(&self, tx: &mut PgConnection, terms: &Terms) -> Result<(), StoreError> {
        // A return only: an expiry does not come by the log. What the batch itself has taken is inserted as ended.
        let taken: HashSet<ClaimId> = self.inserted.iter().map(|(claim, _)| claim.claim).collect();
        let before = self.ended.keys().filter(|claim| !taken.contains(claim));
        let claims: Vec<Uuid> = before.map(|claim| claim.0).collect();
        if claims.is_empty() {
            return Ok(());
        }
        let doing = "end returned claims";
        // The compare and set. Each of them is one unit less in the sale's count.
        let done = sqlx::query!(
            "UPDATE claims SET status = 'RETURNED', ended_at = $2
            WHERE claim_id = ANY($1) AND status = 'ACCEPTED'",
            &claims,
            terms.now,
        )
        .execute(tx)
        .await
        .doing(doing)?;
        if done.rows_affected() == claims.len() as u64 {
            Ok(())
        } else {
            // Somebody has changed claims without their locks.
            let reason = format!("{} of {} claims ended", done.rows_affected(), claims.len());
            Err(sqlx::Error::Protocol(reason)).doing(doing)
        }
    }

    async fn insert(
        &self,
        tx: &mut PgConnection,
        uid: SaleUid,
        terms: &Terms,
    ) -> Result<(), StoreError> {
        if self.inserted.is_empty() {
            return Ok(());
        }
        let rows = &self.inserted;
        let ended = |claim: &ClaimTaken| self.ended.contains_key(&claim.claim);
        let ids: Vec<Uuid> = rows.iter().map(|(claim, _)| claim.claim.0).collect();
        let users: Vec<Uuid> = rows.iter().map(|(claim, _)| claim.user.0).collect();
        let slots: Vec<i16> = rows
            .iter()
            .map(|(claim, _)| i16::from(claim.slot.0))
            .collect();
        let keys: Vec<i64> = rows.iter().map(|(claim, _)| claim.key.as_i64()).collect();
        let sequences: Vec<i64> = rows
            .iter()
            .map(|(claim, _)| claim.sequence.0.cast_signed())
            .collect();
        let claimed: Vec<OffsetDateTime> =
            rows.iter().map(|(claim, _)| instant(claim.at.0)).collect();
        let expires: Vec<Option<OffsetDateTime>> =
            rows.iter().map(|(claim, _)| terms.expires(claim)).collect();
        let ends: Vec<bool> = rows.iter().map(|(claim, _)| ended(claim)).collect();
        let partitions: Vec<i32> = rows.iter().map(|(_, at)| at.partition).collect();
        let offsets: Vec<i64> = rows.iter().map(|(_, at)| at.offset).collect();
        // The guard of the limit is the unique index on active slots; it never meets a conflict that the core let by.
        sqlx::query!(
            "INSERT INTO claims (claim_id, sale_uid, user_id, slot, key_hash, seq, status, claimed_at, recorded_at,
                expires_at, ended_at, log_partition, log_offset)
            SELECT claim_id, $1, user_id, slot, key_hash, seq, CASE WHEN ended THEN 'RETURNED' ELSE $2 END,
                claimed_at, $3::timestamptz, expires_at, CASE WHEN ended THEN $3::timestamptz END, log_partition, log_offset
            FROM unnest($4::uuid[], $5::uuid[], $6::smallint[], $7::bigint[], $8::bigint[], $9::timestamptz[],
                $10::timestamptz[], $11::boolean[], $12::integer[], $13::bigint[])
                AS t (claim_id, user_id, slot, key_hash, seq, claimed_at, expires_at, ended, log_partition, log_offset)",
            uid.0,
            terms.status(),
            terms.now,
            &ids,
            &users,
            &slots,
            &keys,
            &sequences,
            &claimed,
            &expires as _,
            &ends,
            &partitions,
            &offsets,
        )
        .execute(tx)
        .await
        .doing("record claims")?;
        Ok(())
    }

    async fn void(&self, tx: &mut PgConnection, uid: SaleUid) -> Result<(), StoreError> {
        if self.voided.is_empty() {
            return Ok(());
        }
        let claims: Vec<Uuid> = self.voided.iter().map(|(claim, _)| claim.0).collect();
        let epochs: Vec<i64> = self
            .voided
            .iter()
            .map(|(_, epoch)| epoch.0.cast_signed())
            .collect();
        sqlx::query!(
            "INSERT INTO voided_claims (sale_uid, claim_id, epoch)
            SELECT $1, claim_id, epoch FROM unnest($2::uuid[], $3::bigint[]) AS t (claim_id, epoch)
            ON CONFLICT (sale_uid, claim_id) DO NOTHING",
            uid.0,
            &claims,
            &epochs,
        )
        .execute(tx)
        .await
        .doing("note voided claims")?;
        Ok(())
    }

    async fn refuse(&self, tx: &mut PgConnection, uid: SaleUid) -> Result<(), StoreError> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let claims: Vec<Uuid> = self.refused.iter().map(|(claim, ..)| claim.0).collect();
        let users: Vec<Uuid> = self.refused.iter().map(|(_, user, ..)| user.0).collect();
        let reasons: Vec<String> = self
            .refused
            .iter()
            .map(|(_, _, reason, _)| {
                if *reason == Dropped::Stock {
                    "STOCK"
                } else {
                    "LIMIT"
                }
                .to_owned()
            })
            .collect();
        let partitions: Vec<i32> = self.refused.iter().map(|(.., at)| at.partition).collect();
        let offsets: Vec<i64> = self.refused.iter().map(|(.., at)| at.offset).collect();
        sqlx::query!(
            "INSERT INTO refused_claims (sale_uid, claim_id, user_id, reason, log_partition, log_offset)
            SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::integer[], $6::bigint[])
            ON CONFLICT (sale_uid, claim_id) DO NOTHING",
            uid.0,
            &claims,
            &users,
            &reasons,
            &partitions,
            &offsets,
        )
        .execute(tx)
        .await
        .doing("note refused claims")?;
        Ok(())
    }
}

async fn write_positions(
    tx: &mut PgConnection,
    uid: SaleUid,
    before: &BTreeMap<i32, Progress>,
    after: &BTreeMap<i32, Progress>,
) -> Result<(), StoreError> {
    let moved: Vec<_> = after
        .iter()
        .filter(|(partition, progress)| before.get(*partition) != Some(*progress))
        .collect();
    let partitions: Vec<i32> = moved.iter().map(|(partition, _)| **partition).collect();
    let offsets: Vec<i64> = moved
        .iter()
        .map(|(_, progress)| progress.next_offset)
        .collect();
    let epochs: Vec<i64> = moved
        .iter()
        .map(|(_, progress)| progress.epoch.0.cast_signed())
        .collect();
    // Under the sale's lock, so that nobody else can have moved them since they were read.
    sqlx::query!(
        "INSERT INTO positions (sale_uid, partition, next_offset, epoch)
        SELECT $1, * FROM unnest($2::integer[], $3::bigint[], $4::bigint[])
        ON CONFLICT (sale_uid, partition) DO UPDATE SET next_offset = excluded.next_offset, epoch = excluded.epoch",
        uid.0,
        &partitions,
        &offsets,
        &epochs,
    )
    .execute(tx)
    .await
    .doing("move a sale's positions")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sale_stock::{KeyHash, Sequence, Slot, UnixMillis};

    use super::*;

    #[test]
    fn a_hold_is_never_shorter_than_promised_whichever_clock_is_ahead() {
        let terms = |now| Terms {
            kind: SaleKind::TimeSale,
            claim_ttl_ms: Some(600_000),
            coupon_valid_ms: None,
            now: instant(now),
        };
        let claim = ClaimTaken {
            user: UserId(Uuid::nil()),
            claim: ClaimId(Uuid::nil()),
            sequence: Sequence(1),
            slot: Slot(0),
            key: KeyHash::NONE,
            at: UnixMillis(5_000_000),
        };
        let recorded_later = terms(5_003_000).expires(&claim);
        assert_eq!(recorded_later, Some(instant(5_603_000)));
        let redis_ahead = terms(4_800_000).expires(&claim);
        assert_eq!(redis_ahead, Some(instant(5_600_000)));
    }
}
