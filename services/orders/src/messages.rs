//! The saga's effects as messages to the other services.

use std::time::Duration;

use events::outbox::{Messages, OutboxError};
use events::saga::{
    BOOKING_COMMANDS, BookingCommand, DiscountCommand, OrderId, PAYMENTS_COMMANDS,
    PROMOTIONS_COMMANDS, PaymentCommand, RoomTypeId,
};
use money::Krw;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::saga::{Command, Effect, End, PaymentKey};
use crate::store::Order;

/// How long a hold outlives the last moment at which its order may turn out to be paid: longer than the confirmation
/// of a booking ever takes.
const HOLD_MARGIN: Duration = Duration::from_secs(600);

/// Names the refund of a payment: the same one, however often and by whichever replica it is asked for.
pub(crate) fn refund_id(order_id: Uuid, key: &PaymentKey) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"refund");
    hash.update(order_id.as_bytes());
    hash.update(key.as_str());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The messages of `effects`, in their order.
pub(crate) fn of(
    order: &Order,
    effects: &[Effect],
    settle_max: Duration,
) -> Result<Messages, OutboxError> {
    let mut messages = Messages::new();
    let key = order.order_id.to_string();
    let order_id = OrderId(order.order_id);
    for effect in effects {
        match effect {
            Effect::Ask(Command::HoldNights) => {
                messages.add(BOOKING_COMMANDS, &key, &hold(order, settle_max))?;
            }
            Effect::Ask(Command::ConfirmBooking) => {
                messages.add(
                    BOOKING_COMMANDS,
                    &key,
                    &BookingCommand::Confirm { order_id },
                )?;
            }
            Effect::Ask(Command::ReleaseNights) => {
                messages.add(
                    BOOKING_COMMANDS,
                    &key,
                    &BookingCommand::Release { order_id },
                )?;
            }
            Effect::Ask(Command::ReserveDiscount) => {
                let reserve = DiscountCommand::Reserve {
                    order_id,
                    user_id: order.user_id,
                    claim_ids: order.claim_ids.clone(),
                };
                messages.add(PROMOTIONS_COMMANDS, &key, &reserve)?;
            }
            Effect::Ask(Command::RedeemDiscount) => {
                let redeem = DiscountCommand::Redeem { order_id };
                messages.add(PROMOTIONS_COMMANDS, &key, &redeem)?;
            }
            Effect::Ask(Command::ReleaseDiscount) => {
                let release = DiscountCommand::Release { order_id };
                messages.add(PROMOTIONS_COMMANDS, &key, &release)?;
            }
            Effect::Refund {
                key: payment,
                amount,
            } => {
                messages.add(PAYMENTS_COMMANDS, &key, &refund(order, payment, *amount))?;
            }
            // The saga asks for refunds with their payment only.
            Effect::Ask(Command::Refund) => {}
        }
    }
    Ok(messages)
}

fn hold(order: &Order, settle_max: Duration) -> BookingCommand {
    let after_expiry = settle_max + HOLD_MARGIN;
    let after_ms = i64::try_from(after_expiry.as_millis()).unwrap_or(i64::MAX);
    BookingCommand::Hold {
        order_id: OrderId(order.order_id),
        user_id: order.user_id,
        room_type_id: RoomTypeId(order.room_type_id),
        check_in: order.dates.check_in.to_string(),
        check_out: order.dates.check_out.to_string(),
        guests: order.guests,
        expires_at_ms: order
            .saga
            .expires_at
            .as_millisecond()
            .saturating_add(after_ms),
    }
}

fn refund(order: &Order, payment: &PaymentKey, amount: Krw) -> PaymentCommand {
    let reason = match order.saga.end {
        Some(End::Cancelled) => "the guest cancelled the order",
        Some(End::Expired) => "the order had expired",
        Some(End::Failed) => "the booking could not be confirmed",
        None => "the payment was not the order's",
    };
    PaymentCommand::Refund {
        order_id: OrderId(order.order_id),
        refund_id: refund_id(order.order_id, payment),
        amount,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payments_refund_has_one_name() {
        let (order, key) = (Uuid::from_u128(7), PaymentKey::new("tgen_1"));
        assert_eq!(refund_id(order, &key), refund_id(order, &key));
        assert_ne!(
            refund_id(order, &key),
            refund_id(order, &PaymentKey::new("tgen_2"))
        );
        assert_ne!(refund_id(order, &key), refund_id(Uuid::from_u128(8), &key));
        assert_eq!(refund_id(order, &key).get_version_num(), 8);
    }
}
