//! What other services answer.

use std::sync::Arc;

use events::inbox::Handler;
use events::saga::OrderReply;
use sqlx::{Postgres, Transaction};

use crate::desk::Desk;
use crate::saga::{Event, PaymentKey};
use crate::store::Order;
use crate::{messages, store};

/// Most answers of one transaction: what it saves is commits, what it costs is how long orders stay locked. An answer
/// locks one order, and those of an order are in one partition, so that no two transactions wait for each other.
const BATCH_MAX: usize = 50;

/// Has answers happen to their orders.
pub(crate) struct Replies {
    pub(crate) desk: Arc<Desk>,
}

impl Handler for Replies {
    type Message = OrderReply;

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        reply: OrderReply,
    ) -> Result<(), sqlx::Error> {
        let order_id = reply.order_id().0;
        let Some(mut order) = store::lock(tx, order_id).await? else {
            // Nothing that a second try could mend.
            tracing::warn!(%order_id, "an answer to an order that is not here");
            return Ok(());
        };
        let Some(event) = event_of(reply, &order) else {
            tracing::info!(%order_id, "a refund that is not of the order's own payment is done");
            return Ok(());
        };
        let now = store::now(tx).await?;
        let (_, counted) = self.desk.happens(tx, &mut order, now, &event).await?;
        // The commit is the inbox's: an answer whose commit fails is counted again with its second try.
        counted.count();
        Ok(())
    }
}

/// `None` for a refund of a payment that never was the order's.
fn event_of(reply: OrderReply, order: &Order) -> Option<Event> {
    Some(match reply {
        OrderReply::Held { .. } => Event::Held,
        OrderReply::HoldRefused { code, .. } => Event::HoldRefused(code),
        OrderReply::BookingConfirmed { booking_id, .. } => Event::BookingConfirmed(booking_id),
        OrderReply::BookingRefused { .. } => Event::BookingRefused,
        OrderReply::NightsReleased { .. } => Event::NightsReleased,
        OrderReply::DiscountReserved { .. } => Event::DiscountReserved,
        OrderReply::DiscountRefused { code, .. } => Event::DiscountRefused(code),
        OrderReply::DiscountRedeemed { .. } => Event::DiscountRedeemed,
        OrderReply::DiscountReleased { .. } => Event::DiscountReleased,
        OrderReply::PaymentCaptured {
            payment_key,
            amount,
            ..
        } => Event::PaymentCaptured {
            key: PaymentKey::new(&payment_key),
            amount,
        },
        OrderReply::PaymentRefused {
            payment_key, code, ..
        } => Event::PaymentRefused {
            key: PaymentKey::new(&payment_key),
            code,
        },
        OrderReply::PaymentRefunded {
            refund_id, amount, ..
        } => {
            let key = order.saga.money.payment_key.clone();
            let key = key.filter(|key| messages::refund_id(order.order_id, key) == refund_id)?;
            Event::PaymentRefunded { key, amount }
        }
    })
}
