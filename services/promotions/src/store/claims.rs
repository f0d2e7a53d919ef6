//! Claims as guests read them.

use events::saga::OrderId;
use jiff::Timestamp;
use sale_stock::books::{SaleDefinition, SaleKind};
use sale_stock::{
    ClaimId, EntryRef, KeyHash, RebuiltEntry, SaleUid, Sequence, Slot, UnixMillis, UserId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Doing, Store, StoreError, sales, timestamp};

/// Where a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimStatus {
    /// A unit of a time sale is held.
    Accepted,
    /// A coupon is there to be used.
    Issued,
    /// An order keeps it. Guests read it as what it was: see [`ClaimStatus::told`].
    Reserved,
    /// It paid for an order.
    Used,
    /// Its user gave it back.
    Returned,
    /// It was not used in time.
    Expired,
}

impl ClaimStatus {
    /// As in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Issued => "ISSUED",
            Self::Reserved => "RESERVED",
            Self::Used => "USED",
            Self::Returned => "RETURNED",
            Self::Expired => "EXPIRED",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "ACCEPTED" => Self::Accepted,
            "ISSUED" => Self::Issued,
            "RESERVED" => Self::Reserved,
            "USED" => Self::Used,
            "RETURNED" => Self::Returned,
            // The column's check leaves nothing else.
            _ => Self::Expired,
        }
    }

    /// Of a recorded claim of this kind that is its guest's to use.
    pub fn free(kind: SaleKind) -> Self {
        match kind {
            SaleKind::TimeSale => Self::Accepted,
            SaleKind::CouponCampaign => Self::Issued,
        }
    }

    /// As guests read it: a claim that an order keeps is held until the order has used it.
    pub fn told(self, kind: SaleKind) -> Self {
        match self {
            Self::Reserved => Self::free(kind),
            other => other,
        }
    }
}

/// A claim in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// Which.
    pub claim: ClaimId,
    /// Of which sale.
    pub sale: SaleUid,
    /// The sale's name.
    pub sale_name: String,
    /// The sale's kind.
    pub kind: SaleKind,
    /// Whose.
    pub user: UserId,
    /// Its number within the sale.
    pub sequence: Sequence,
    /// Where it stands.
    pub status: ClaimStatus,
    /// The order that keeps or has used it.
    pub order: Option<OrderId>,
    /// When the unit was taken, by Redis's clock.
    pub claimed_at: Timestamp,
    /// Time sales: when the unit goes back. Coupons: when the coupon ends.
    pub expires_at: Option<Timestamp>,
    /// The topic of the sale's log.
    pub topic: String,
    /// The partitions of the topic.
    pub partitions: u32,
}

/// A coupon of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponRow {
    /// The claim that it is.
    pub claim: ClaimId,
    /// The campaign's name.
    pub campaign: String,
    /// The campaign as declared: discount and terms.
    pub definition: SaleDefinition,
    /// Where it stands.
    pub status: ClaimStatus,
    /// The order that keeps or has used it.
    pub order: Option<OrderId>,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// A claim of a user, whatever has become of it. A coupon whose time is over reads as expired: nothing goes back
    /// to stock, so nothing has to run for it.
    pub async fn claim_of(
        &self,
        user: UserId,
        claim: ClaimId,
    ) -> Result<Option<ClaimRow>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT c.sale_uid, s.name, s.kind, c.seq, c.claimed_at, c.expires_at, s.topic, s.partitions, c.order_id,
                CASE WHEN c.status = 'ISSUED' AND c.expires_at <= now() THEN 'EXPIRED' ELSE c.status END AS "status!"
            FROM claims c JOIN sales s ON s.uid = c.sale_uid
            WHERE c.claim_id = $1 AND c.user_id = $2"#,
            claim.0,
            user.0,
        )
        .fetch_optional(&self.pool)
        .await
        .doing("read a claim")?;
        Ok(row.map(|row| ClaimRow {
            claim,
            sale: SaleUid(row.sale_uid),
            sale_name: row.name,
            kind: sales::kind(&row.kind),
            user,
            sequence: Sequence(row.seq.unsigned_abs()),
            status: ClaimStatus::parse(&row.status),
            order: row.order_id.map(OrderId),
            claimed_at: timestamp(row.claimed_at),
            expires_at: row.expires_at.map(timestamp),
            topic: row.topic,
            partitions: row.partitions.unsigned_abs(),
        }))
    }

    /// The active claim of a user in a sale, as a repeat of his request finds it: the one of this key, else the latest.
    pub async fn active_claim(
        &self,
        sale: SaleUid,
        user: UserId,
        key: KeyHash,
    ) -> Result<Option<RebuiltEntry>, StoreError> {
        let row = sqlx::query!(
            "SELECT claim_id, slot, key_hash, seq, claimed_at FROM claims
            WHERE sale_uid = $1 AND user_id = $2 AND ended_at IS NULL
            ORDER BY key_hash = $3 DESC, seq DESC LIMIT 1",
            sale.0,
            user.0,
            key.as_i64(),
        )
        .fetch_optional(&self.pool)
        .await
        .doing("look for a user's claim")?;
        Ok(row.map(|row| RebuiltEntry {
            entry: entry(user.0, row.slot, row.claim_id),
            sequence: Sequence(row.seq.unsigned_abs()),
            key: KeyHash::from_i64(row.key_hash),
            claimed_at: UnixMillis(timestamp(row.claimed_at).as_millisecond()),
        }))
    }

    /// A user's coupons, the newest first, from before the given one.
    pub async fn coupons_of(
        &self,
        user: UserId,
        before: Option<ClaimId>,
        limit: u32,
    ) -> Result<Vec<CouponRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT c.claim_id, s.uid, s.name, s.definition,
                c.claimed_at, c.expires_at, c.order_id,
                CASE WHEN c.status = 'ISSUED' AND c.expires_at <= now() THEN 'EXPIRED' ELSE c.status END AS "status!"
            FROM claims c JOIN sales s ON s.uid = c.sale_uid
            WHERE c.user_id = $1 AND s.kind = 'COUPON_CAMPAIGN' AND ($2::uuid IS NULL OR c.claim_id < $2)
            ORDER BY c.claim_id DESC LIMIT $3"#,
            user.0,
            before.map(|claim| claim.0),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await
        .doing("list a user's coupons")?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let definition = sales::definition(row.uid, row.definition).ok()?;
                Some(CouponRow {
                    claim: ClaimId(row.claim_id),
                    campaign: row.name,
                    definition,
                    status: ClaimStatus::parse(&row.status),
                    order: row.order_id.map(OrderId),
                    claimed_at: timestamp(row.claimed_at),
                    expires_at: row.expires_at.map(timestamp),
                })
            })
            .collect())
    }
}

/// The entry of a claim's row.
pub(super) fn entry(user: Uuid, at: i16, claim: Uuid) -> EntryRef {
    EntryRef {
        user: UserId(user),
        slot: slot(at),
        claim: ClaimId(claim),
    }
}

/// The column's check keeps it within 0 to 9.
pub(super) fn slot(value: i16) -> Slot {
    Slot(u8::try_from(value).unwrap_or(u8::MAX))
}
