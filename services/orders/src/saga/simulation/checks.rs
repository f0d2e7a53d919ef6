//! What must be true: Saga, Room nights, Coupons and Payments.

use super::super::Phase;
use super::services::{ALLOTMENT, Kept};
use super::world::{Order, World};

impl World {
    /// What must hold at every moment.
    pub(super) fn look(&self) -> Result<(), String> {
        let nights = &self.booking.reserved;
        if nights
            .iter()
            .any(|reserved| !(0..=ALLOTMENT).contains(reserved))
        {
            return Err(format!("rooms reserved: {nights:?} of {ALLOTMENT}"));
        }
        let claims = &self.promotions.serves;
        if claims.iter().any(|orders| *orders > 1) {
            return Err(format!("orders served by each claim: {claims:?}"));
        }
        for (index, Order { payments, .. }) in self.orders.iter().enumerate() {
            let (captured, refunded) = (payments.captured, payments.refunded);
            if refunded > captured {
                return Err(format!("order {index}: {refunded} refunded of {captured}"));
            }
        }
        Ok(())
    }

    pub(super) fn look_at_rest(&self) -> Result<(), String> {
        self.look()?;
        let stands = |held: Kept| matches!(held, Kept::Loosely | Kept::Firmly);
        for (night, reserved) in self.booking.reserved.iter().enumerate() {
            let covers =
                |order: &&Order| (order.nights.first..order.nights.after_last).contains(&night);
            let held = self
                .orders
                .iter()
                .filter(covers)
                .filter(|order| stands(order.nights.held));
            if held.count() as i64 != *reserved {
                return Err(format!(
                    "night {night}: {reserved} reserved, but not by orders"
                ));
            }
        }
        for (index, order) in self.orders.iter().enumerate() {
            let phase = order.saga.phase();
            let (booked, claim) = (order.nights.held, order.discount);
            let net = order.payments.captured - order.payments.refunded;
            let total = order.saga.total.get();
            let well = match phase {
                Phase::Confirmed => {
                    booked == Kept::Firmly
                        && (claim.claim.is_none() || claim.held == Kept::Firmly)
                        && net == total
                        && order.payments.captured == total
                }
                Phase::Ended(_) => !stands(booked) && !stands(claim.held) && net == order.kept,
                // What is still to go back is what the gateway refused, and not a won more.
                Phase::RefundRefused(_) => {
                    let refused = order.payments.refused.as_ref();
                    let refused = refused.map_or(0, |(_, amount)| amount.get());
                    !stands(booked)
                        && !stands(claim.held)
                        && refused > 0
                        && net == order.kept + refused
                }
                _ => false,
            };
            if !well {
                return Err(format!(
                    "order {index}: {phase}, its nights {booked:?}, its claim {claim:?}, {net} of {total} taken"
                ));
            }
        }
        Ok(())
    }
}
