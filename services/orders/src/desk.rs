//! Where orders are made and everything that happens to them is decided.
//!
//! Whatever happens, happens in one transaction: the order's row is locked, the saga takes its step, and its new state,
//! its history and the messages to other services are committed together or not at all.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use money::Krw;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::config::Times;
use crate::peers::{PeerError, Peers};
use crate::pricing::{ClaimKind, ClaimedDiscount, Price, PricingError, Quote, price};
use crate::saga::{Event, PaymentKey, Phase, Refusal, STEPS, Saga, Stepped, Verdict, step};
use crate::stay::Wish;
use crate::store::{HistoryEntry, Order};
use crate::{messages, metrics, refunds, store};

/// The most that the pause between reminders grows to, as a power of two of the first.
const REMIND_DOUBLINGS_MAX: u32 = 7;

/// Why something that a guest or another service asked for isn't done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// A peer has no answer, or says no.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The guest has no such coupon to use.
    #[error("no such coupon")]
    NoCoupon,
    /// The guest has no such claim to use.
    #[error("no such claim")]
    NoClaim,
    /// There is no price for this.
    #[error(transparent)]
    Pricing(#[from] PricingError),
    /// The key was used for another order.
    #[error("the key was used for another order")]
    KeyReused,
    /// The guest has no such order.
    #[error("no such order")]
    NoOrder,
    /// The saga says no.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The stay has begun.
    #[error("the stay has begun")]
    StayBegun,
    /// The database.
    #[error("database: {0}")]
    Store(#[from] sqlx::Error),
}

/// What is to be counted once the transaction has committed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[must_use]
pub(crate) struct Counted {
    outcome: Option<&'static str>,
    first_outcome_after: Option<Duration>,
    reminded: bool,
}

impl Counted {
    pub(crate) fn count(self) {
        if let Some(outcome) = self.outcome {
            metrics::SAGAS.with_label_values(&[outcome]).inc();
        }
        if let Some(duration) = self.first_outcome_after {
            metrics::DURATION.observe(duration.as_secs_f64());
        }
        if self.reminded {
            metrics::REMINDERS.inc();
        }
    }
}

/// Makes orders and lets things happen to them.
#[derive(Debug)]
pub struct Desk {
    pool: PgPool,
    peers: Peers,
    times: Times,
}

impl Desk {
    /// A desk with its orders in the database of `pool`.
    pub fn new(pool: PgPool, peers: Peers, times: Times) -> Self {
        Self { pool, peers, times }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Makes an order, once for each key of a guest.
    pub async fn place(
        &self,
        user_id: Uuid,
        request_key: [u8; 32],
        wish: &Wish,
    ) -> Result<Order, DeskError> {
        if let Some(known) = store::by_request(&self.pool, user_id, &request_key).await? {
            return same(known, wish);
        }
        let (quote, sale, coupon) = tokio::try_join!(
            async { Ok::<_, DeskError>(self.peers.quote(wish).await?) },
            self.claimed(user_id, wish.time_sale_claim_id, ClaimKind::TimeSale),
            self.claimed(user_id, wish.coupon_id, ClaimKind::Coupon),
        )?;
        let price = price(&quote, wish.dates, sale.as_ref(), coupon.as_ref())?;

        let mut tx = self.pool.begin().await?;
        let now = store::now(&mut tx).await?;
        let mut order = new_order(user_id, wish, quote, price, now, self.times.payment_window);
        if !store::insert(&mut tx, &order, &request_key).await? {
            tx.rollback().await?;
            let known = store::by_request(&self.pool, user_id, &request_key).await?;
            return known.map_or(Err(DeskError::KeyReused), |known| same(known, wish));
        }
        let (_, counted) = self
            .happens(&mut tx, &mut order, now, &Event::Placed)
            .await?;
        tx.commit().await?;
        counted.count();
        Ok(order)
    }

    async fn claimed(
        &self,
        user_id: Uuid,
        claim_id: Option<Uuid>,
        kind: ClaimKind,
    ) -> Result<Option<ClaimedDiscount>, DeskError> {
        let Some(claim_id) = claim_id else {
            return Ok(None);
        };
        let found = self.peers.discount(user_id, claim_id).await?;
        let missing = match kind {
            ClaimKind::Coupon => DeskError::NoCoupon,
            ClaimKind::TimeSale => DeskError::NoClaim,
        };
        found
            .filter(|claim| claim.kind == kind && claim.claim_id == claim_id)
            .map(Some)
            .ok_or(missing)
    }

    /// A guest's order with its history.
    pub async fn show(
        &self,
        user_id: Uuid,
        order_id: Uuid,
    ) -> Result<(Order, Vec<HistoryEntry>), DeskError> {
        store::find(&self.pool, user_id, order_id)
            .await?
            .ok_or(DeskError::NoOrder)
    }

    /// A guest's orders, latest first.
    pub async fn list(
        &self,
        user_id: Uuid,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Order>, DeskError> {
        Ok(store::list(&self.pool, user_id, before, limit).await?)
    }

    /// Cancels a guest's order; asked again, it is the same cancellation.
    pub async fn cancel(&self, user_id: Uuid, order_id: Uuid) -> Result<Order, DeskError> {
        self.decide(user_id, order_id, |order, now| {
            let refund = if order.saga.phase() == Phase::Confirmed {
                let paid = order.saga.money.captured;
                refunds::refund(paid, order.policy, order.dates.check_in, now)
                    .ok_or(DeskError::StayBegun)?
            } else {
                Krw::ZERO
            };
            Ok(Event::CancelAsked { refund })
        })
        .await
    }

    /// Lets a guest's payment begin, or not: the one decision between it and the order's expiry.
    pub async fn pay(
        &self,
        user_id: Uuid,
        order_id: Uuid,
        key: &PaymentKey,
        amount: Krw,
    ) -> Result<Order, DeskError> {
        let settle_max = self.times.settle_max;
        self.decide(user_id, order_id, |_, now| {
            Ok(Event::PaymentAsked {
                key: key.clone(),
                amount,
                settled_by: later(now, settle_max),
            })
        })
        .await
    }

    /// Lets something happen to a guest's order that the saga may refuse.
    async fn decide(
        &self,
        user_id: Uuid,
        order_id: Uuid,
        event: impl FnOnce(&Order, Timestamp) -> Result<Event, DeskError>,
    ) -> Result<Order, DeskError> {
        let mut tx = self.pool.begin().await?;
        let mut order = store::lock(&mut tx, order_id)
            .await?
            .filter(|order| order.user_id == user_id)
            .ok_or(DeskError::NoOrder)?;
        let now = store::now(&mut tx).await?;
        let event = event(&order, now)?;
        let (verdict, counted) = self.happens(&mut tx, &mut order, now, &event).await?;
        if let Verdict::Refused(refusal) = verdict {
            return Err(DeskError::Refused(refusal));
        }
        tx.commit().await?;
        counted.count();
        Ok(order)
    }

    /// The saga's step with all that belongs to it. To be called with the order's row locked, or just inserted.
    pub(crate) async fn happens(
        &self,
        connection: &mut PgConnection,
        order: &mut Order,
        now: Timestamp,
        event: &Event,
    ) -> Result<(Verdict, Counted), sqlx::Error> {
        let before = order.saga.phase();
        let Stepped {
            saga,
            effects,
            verdict,
        } = step(order.saga.clone(), now, event);
        order.saga = saga;
        let after = order.saga.phase();
        let changed = match verdict {
            Verdict::Changed => true,
            Verdict::Reminded => false,
            // It must be looked at later, or it would be due for ever.
            Verdict::Unchanged if *event == Event::Due => false,
            Verdict::Unchanged | Verdict::Refused(_) => return Ok((verdict, Counted::default())),
        };
        order.reminders = if changed { 0 } else { order.reminders + 1 };
        let counted = counted(order, before, after, now, verdict);
        let due_at = order.saga.due_at(self.remind_at(order.reminders, now));
        store::save(connection, order, now, due_at).await?;
        if changed {
            let entry = HistoryEntry {
                at: now,
                event: event.name().to_owned(),
                from_phase: before.as_str().to_owned(),
                to_phase: after.as_str().to_owned(),
                detail: event.detail(),
            };
            store::note(connection, order.order_id, &entry).await?;
        }
        messages::of(order, &effects, self.times.settle_max)?
            .put(connection)
            .await?;
        Ok((verdict, counted))
    }

    fn remind_at(&self, reminders: u32, now: Timestamp) -> Timestamp {
        let doublings = reminders.min(REMIND_DOUBLINGS_MAX);
        later(now, self.times.remind_after * 2_u32.pow(doublings))
    }
}

/// Notes when an order first came to an outcome, and says what is to be counted of it.
fn counted(
    order: &mut Order,
    before: Phase,
    after: Phase,
    now: Timestamp,
    verdict: Verdict,
) -> Counted {
    let first = order.confirmed_at.is_none() && order.ended_at.is_none();
    let outcome = match after {
        Phase::Confirmed if before != after => {
            order.confirmed_at = Some(now);
            Some("confirmed")
        }
        Phase::Ended(end) | Phase::RefundRefused(end) if order.ended_at.is_none() => {
            order.ended_at = Some(now);
            Some(match end {
                crate::saga::End::Cancelled => "cancelled",
                crate::saga::End::Expired => "expired",
                crate::saga::End::Failed => "failed",
            })
        }
        _ => None,
    };
    let took = now.duration_since(order.created_at);
    Counted {
        outcome,
        first_outcome_after: (outcome.is_some() && first)
            .then(|| took.try_into().unwrap_or(Duration::ZERO)),
        reminded: verdict == Verdict::Reminded,
    }
}

fn new_order(
    user_id: Uuid,
    wish: &Wish,
    quote: Quote,
    price: Price,
    now: Timestamp,
    payment_window: Duration,
) -> Order {
    debug_assert_eq!(
        STEPS.len(),
        5,
        "the table of orders has a column for each step"
    );
    let claim_ids = price.claim_ids();
    let expires_at = later(now, payment_window);
    Order {
        order_id: Uuid::now_v7(),
        user_id,
        room_type_id: wish.room_type_id,
        stay_id: quote.stay_id,
        host_id: quote.host_id,
        stay_name: quote.name,
        region: quote.region,
        dates: wish.dates,
        guests: wish.guests,
        policy: quote.cancellation,
        coupon_id: wish.coupon_id,
        sale_claim_id: wish.time_sale_claim_id,
        saga: Saga::new(price.amount, expires_at, !claim_ids.is_empty()),
        claim_ids,
        price,
        deposit: None,
        reminders: 0,
        created_at: now,
        confirmed_at: None,
        ended_at: None,
    }
}

/// The order that was made before, if it is for the same wish.
fn same(known: Order, wish: &Wish) -> Result<Order, DeskError> {
    let same = known.room_type_id == wish.room_type_id
        && known.dates == wish.dates
        && known.guests == wish.guests
        && known.coupon_id == wish.coupon_id
        && known.sale_claim_id == wish.time_sale_claim_id;
    if same {
        Ok(known)
    } else {
        Err(DeskError::KeyReused)
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| now.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}
