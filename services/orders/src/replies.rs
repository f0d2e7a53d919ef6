//! What other services answer.

use std::sync::Arc;

use events::inbox::Handler;
use events::saga::OrderReply;
use jiff::Timestamp;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::desk::Desk;
use crate::saga::{Event, PaymentKey, Verdict};
use crate::store::{Deposit, Order};
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
        let deposit = deposit_of(&reply);
        let Some(event) = event_of(reply, &order) else {
            tracing::info!(%order_id, "an answer to a refund that is not of the order's own payment");
            return Ok(());
        };
        let now = store::now(tx).await?;
        let (verdict, counted) = self.desk.happens(tx, &mut order, now, &event).await?;
        match (&event, &order.deposit) {
            (Event::DepositAwaited { .. }, _) if verdict == Verdict::Changed => {
                store::set_deposit(tx, order_id, deposit.as_ref()).await?;
            }
            // It was closed, or its time at the gateway is over.
            (Event::PaymentRefused { key, .. }, Some(known))
                if known.payment_key == key.as_str() =>
            {
                store::set_deposit(tx, order_id, None).await?;
            }
            _ => {}
        }
        // The commit is the inbox's: an answer whose commit fails is counted again with its second try.
        counted.count();
        Ok(())
    }
}

fn deposit_of(reply: &OrderReply) -> Option<Deposit> {
    let OrderReply::DepositAwaited {
        payment_key,
        bank_code,
        account_number,
        due_at_ms,
        ..
    } = reply
    else {
        return None;
    };
    Some(Deposit {
        payment_key: payment_key.clone(),
        bank_code: bank_code.clone(),
        account_number: account_number.clone(),
        due_at: due_at_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
    })
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
        OrderReply::DepositAwaited { payment_key, .. } => Event::DepositAwaited {
            key: PaymentKey::new(&payment_key),
        },
        OrderReply::PaymentRefunded {
            refund_id, amount, ..
        } => {
            let key = own_payment(order, refund_id)?;
            Event::PaymentRefunded { key, amount }
        }
        OrderReply::PaymentRefundRefused {
            refund_id, code, ..
        } => {
            let key = own_payment(order, refund_id)?;
            tracing::error!(order_id = %order.order_id, code, "a refund was refused: a person must see to it");
            Event::PaymentRefundRefused { key, code }
        }
    })
}

/// The order's payment, if the refund is of it.
fn own_payment(order: &Order, refund_id: Uuid) -> Option<PaymentKey> {
    let key = order.saga.money.payment_key.clone();
    key.filter(|key| messages::refund_id(order.order_id, key) == refund_id)
}
