//! Refunds: asked for by `orders`, promised at once or not at all, and worked on until the gateway has done them.

use events::inbox::Handler;
use events::saga::PaymentCommand;
use sqlx::{Postgres, Transaction};

use crate::metrics::REFUNDS;
use crate::payment::{OpenRefund, pause};
use crate::store::{self, StoreError};
use crate::toss::{GatewayPayment, Outcome, RefundCall};
use crate::work::Work;

/// After how many questions without a trace of the refund at the gateway it is called for under a new key: its answer
/// may be an error that is kept with the old one. By then, minutes have passed since the last call.
const ASKS_PER_ATTEMPT: i32 = 8;

/// Handles the commands of `orders`.
#[derive(Debug, Clone, Copy)]
pub struct Commands;

impl Handler for Commands {
    type Message = PaymentCommand;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        message: PaymentCommand,
    ) -> Result<(), sqlx::Error> {
        let PaymentCommand::Refund {
            order_id,
            refund_id,
            amount,
            reason,
        } = message;
        let accepted =
            store::accept_refund(tx, order_id.0, refund_id, amount.get(), &reason).await?;
        match accepted {
            store::Accepted::Refused(code) => {
                REFUNDS.with_label_values(&["refused"]).inc();
                tracing::error!(order = %order_id.0, refund = %refund_id, code, "a refund can't be made");
            }
            store::Accepted::GivenBack => REFUNDS.with_label_values(&["done"]).inc(),
            store::Accepted::Promised | store::Accepted::Known => {}
        }
        Ok(())
    }
}

impl Work {
    /// Brings a refund on: asks whether it is done, and calls for it if it isn't and no call is under way.
    pub async fn refund(&self, refund: &OpenRefund) -> Result<(), StoreError> {
        // The first time nobody has called for it.
        if refund.asks > 1 {
            let payment = &refund.payment;
            match self
                .toss()
                .payment(payment.order_id, &payment.payment_key)
                .await
            {
                Ok(Some(gateway)) if self.is_done(refund, &gateway).await? => return Ok(()),
                Ok(_) => {}
                Err(unknown) => {
                    tracing::warn!(refund = %refund.refund_id, %unknown, "a refund can't be asked about");
                    return self.later(refund, false, false).await;
                }
            }
        }
        if refund.call_under_way {
            return self.later(refund, false, false).await;
        }
        self.store()
            .call_refund(refund.refund_id, self.times().call)
            .await?;
        let call = RefundCall {
            refund_id: refund.refund_id,
            amount: refund.amount,
            reason: &refund.reason,
            attempt: refund.attempt,
            account: refund.payment.refund_account.as_ref(),
        };
        match self.toss().cancel(&refund.payment.payment_key, &call).await {
            Outcome::Done(gateway) => {
                if self.is_done(refund, &gateway).await? {
                    return Ok(());
                }
                self.later(refund, true, false).await
            }
            Outcome::Refused(refusal) if refusal.ours => {
                tracing::error!(refund = %refund.refund_id, code = refusal.code, "the gateway doesn't accept us");
                self.later(refund, true, false).await
            }
            Outcome::Refused(refusal) => self.refund_refused(refund, &refusal.code).await,
            Outcome::Unknown(unknown) => {
                tracing::warn!(refund = %refund.refund_id, %unknown, "a refund's outcome is to be asked for");
                let next_attempt = !unknown.keep_key && refund.asks % ASKS_PER_ATTEMPT == 0;
                self.later(refund, unknown.answered, next_attempt).await
            }
        }
    }

    /// A refusal may come after an earlier call that did it: the gateway is asked before it is believed.
    async fn refund_refused(&self, refund: &OpenRefund, code: &str) -> Result<(), StoreError> {
        let payment = &refund.payment;
        let found = match self
            .toss()
            .payment(payment.order_id, &payment.payment_key)
            .await
        {
            Ok(found) => found,
            Err(_) => return self.later(refund, true, false).await,
        };
        if let Some(gateway) = &found
            && self.is_done(refund, gateway).await?
        {
            return Ok(());
        }
        tracing::error!(refund = %refund.refund_id, code, "the gateway refuses a refund");
        self.store().refuse_refund(refund.refund_id, code).await?;
        match found {
            // Nothing is owed of a deposit that was taken back.
            Some(gateway) if gateway.is_not_paid() => self.reversed(payment, &gateway).await,
            _ => Ok(()),
        }
    }

    /// Posts what the gateway has given back, and says whether the refund is part of it.
    async fn is_done(
        &self,
        refund: &OpenRefund,
        gateway: &GatewayPayment,
    ) -> Result<bool, StoreError> {
        let done = gateway
            .refunds()
            .find(|cancel| cancel.refund_id() == Some(refund.refund_id));
        let Some(cancel) = done else { return Ok(false) };
        self.store().given_back(&refund.payment, cancel).await?;
        Ok(true)
    }

    async fn later(
        &self,
        refund: &OpenRefund,
        call_over: bool,
        next_attempt: bool,
    ) -> Result<(), StoreError> {
        let pause = pause(refund.asks - 1, self.times().pause_max);
        self.store()
            .postpone_refund(refund.refund_id, pause, call_over, next_attempt)
            .await
    }
}
