//! What brings a payment from one state to the next: the same for the guest's own request and for the settler that
//! finishes what a dead process, a lost answer or a webhook left behind.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::config::Config;
use crate::orders::{self, Answer, Orders};
use crate::payment::{DEPOSIT_OVERDUE, OVERDUE_AFTER, Payment, State, pause};
use crate::store::{Intended, Store, StoreError};
use crate::toss::{GatewayPayment, Outcome, Refusal, Standing, TRANSACTIONS_PAGE, Toss};

/// How much longer than the gateway's timeout a call counts as under way: the way back, and a slow machine.
const CALL_MARGIN: Duration = Duration::from_secs(5);
/// How long after a payment's capture its transaction may be dated, or before it.
const DATED_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// Pages of transactions that are looked through for a capture: a minute's payments of a busy shop.
const PAGES_MAX: usize = 20;

/// The times that matter here.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long a call of the gateway may be under way.
    pub call: Duration,
    /// How long `orders` may be asked.
    pub asking: Duration,
    /// The longest pause between two questions.
    pub pause_max: Duration,
    /// How often a virtual account is asked about.
    pub deposit_poll: Duration,
}

impl Times {
    /// From the settings.
    pub fn of(config: &Config) -> Self {
        Self {
            call: config.toss_timeout + CALL_MARGIN,
            asking: config.orders_timeout + CALL_MARGIN,
            pause_max: config.settle_pause_max,
            deposit_poll: config.deposit_poll,
        }
    }
}

/// What payments are made with. Clones share everything.
#[derive(Clone)]
pub struct Work {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    toss: Toss,
    orders: Orders,
    times: Times,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The database has the outcome, or when to ask again.
    Recorded,
    /// `orders` says no; the payment is forgotten.
    OrderRefused(orders::Refusal),
    /// `orders` can't be asked; the payment is forgotten, unless somebody else goes on with it.
    OrdersUnavailable,
    /// The gateway doesn't accept us.
    GatewayRefusesUs,
}

impl Work {
    /// Puts them together.
    pub fn new(store: Store, toss: Toss, orders: Orders, times: Times) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                toss,
                orders,
                times,
            }),
        }
    }

    /// Where it is recorded.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The gateway.
    pub fn toss(&self) -> &Toss {
        &self.inner.toss
    }

    /// The times that matter.
    pub fn times(&self) -> Times {
        self.inner.times
    }

    /// From the guest's request: `orders` is asked, the intent recorded, the gateway called, the outcome recorded.
    pub async fn pay(&self, payment: &Payment) -> Result<Step, StoreError> {
        debug_assert_eq!(payment.state, State::Asking);
        let asked = self
            .inner
            .orders
            .begin_payment(
                payment.order_id,
                payment.user_id,
                &payment.payment_key,
                payment.amount,
            )
            .await;
        let pay_by = match asked {
            Ok(Answer::Pay { by }) => by,
            Ok(Answer::Refused(refusal)) => {
                self.store().abandon(payment.payment_id).await?;
                return Ok(Step::OrderRefused(refusal));
            }
            Err(error) => {
                // The order may be set aside for this payment by now: the settler asks again.
                tracing::warn!(%error, "a payment waits for orders");
                self.postpone(payment, false, false).await?;
                return Ok(Step::OrdersUnavailable);
            }
        };
        let call = self.times().call;
        match self.store().intend(payment, call, pay_by).await? {
            Intended::Yes => self.call(payment, false).await,
            Intended::AnotherFirst | Intended::Elsewhere => Ok(Step::Recorded),
        }
    }

    /// From what is known to what the gateway says: asks first, and calls again only when no call is under way.
    pub async fn settle(&self, payment: &Payment) -> Result<(), StoreError> {
        if payment.state == State::Asking {
            return self.pay(payment).await.map(drop);
        }
        let found = match self
            .inner
            .toss
            .payment(payment.order_id, &payment.payment_key)
            .await
        {
            Ok(found) => found,
            Err(unknown) => {
                tracing::warn!(payment = %payment.payment_id, %unknown, "a payment can't be asked about");
                // One whose outcome is known keeps its lease, and is asked about when it ends.
                return self.postpone(payment, false, false).await;
            }
        };
        let standing = found.as_ref().map(GatewayPayment::standing);
        match (payment.state, standing, found) {
            (State::Captured, Some(Standing::Captured), Some(gateway)) => {
                self.given_back(payment, &gateway).await
            }
            (State::Captured, _, Some(gateway)) if gateway.is_not_paid() => {
                self.reversed(payment, &gateway).await
            }
            (State::Captured, ..) => self.store().rest(payment.payment_id).await,
            (_, Some(Standing::Captured), Some(gateway)) => self.captured(payment, &gateway).await,
            (State::Refused, ..) => self.store().rest(payment.payment_id).await,
            (State::Intent, Some(Standing::WaitingForDeposit), Some(gateway)) => {
                self.waits(payment, &gateway).await
            }
            (State::Waiting, Some(Standing::WaitingForDeposit), _) if payment.overdue => {
                self.close(payment).await
            }
            (_, Some(Standing::Failed(code)), _) if !payment.call_under_way => self
                .store()
                .refuse(payment.payment_id, &code)
                .await
                .map(drop),
            (State::Intent, Some(Standing::NotYet) | None, _) if !payment.call_under_way => {
                self.call(payment, true).await.map(drop)
            }
            _ => self.postpone(payment, false, false).await,
        }
    }

    /// Calls the gateway and records what came of it.
    async fn call(&self, payment: &Payment, again: bool) -> Result<Step, StoreError> {
        if again {
            self.store()
                .call_again(payment.payment_id, self.times().call)
                .await?;
        }
        let outcome = self
            .inner
            .toss
            .confirm(
                &payment.payment_key,
                payment.order_id,
                payment.amount,
                payment.attempt,
            )
            .await;
        match outcome {
            Outcome::Done(gateway) => self.done(payment, &gateway).await,
            Outcome::Refused(refusal) if !again => self.refused(payment, &refusal).await,
            Outcome::Refused(refusal) => self.refused_again(payment, &refusal).await,
            Outcome::Unknown(unknown) => {
                tracing::warn!(payment = %payment.payment_id, %unknown, "a payment's outcome is to be asked for");
                // An answer that is kept under its key would come again: the next call is a new attempt. A payment can
                // be captured once only, whatever the key.
                self.postpone(payment, unknown.answered, !unknown.keep_key)
                    .await?;
                Ok(Step::Recorded)
            }
        }
    }

    async fn done(&self, payment: &Payment, gateway: &GatewayPayment) -> Result<Step, StoreError> {
        match gateway.standing() {
            Standing::Captured => self.captured(payment, gateway).await?,
            Standing::WaitingForDeposit => self.waits(payment, gateway).await?,
            Standing::Failed(code) => {
                self.store().refuse(payment.payment_id, &code).await?;
            }
            Standing::NotYet | Standing::Strange => self.postpone(payment, true, false).await?,
        }
        Ok(Step::Recorded)
    }

    async fn refused(&self, payment: &Payment, refusal: &Refusal) -> Result<Step, StoreError> {
        if refusal.ours {
            tracing::error!(payment = %payment.payment_id, code = refusal.code, "the gateway doesn't accept us");
        }
        self.store()
            .refuse(payment.payment_id, &refusal.code)
            .await?;
        Ok(if refusal.ours {
            Step::GatewayRefusesUs
        } else {
            Step::Recorded
        })
    }

    /// A refusal of a second call says nothing about the first: the gateway is asked before it is believed.
    async fn refused_again(
        &self,
        payment: &Payment,
        refusal: &Refusal,
    ) -> Result<Step, StoreError> {
        if refusal.ours {
            tracing::error!(payment = %payment.payment_id, code = refusal.code, "the gateway doesn't accept us");
            self.postpone(payment, true, false).await?;
            return Ok(Step::GatewayRefusesUs);
        }
        match self
            .inner
            .toss
            .payment(payment.order_id, &payment.payment_key)
            .await
        {
            Ok(Some(gateway)) if !matches!(gateway.standing(), Standing::NotYet) => {
                self.done(payment, &gateway).await
            }
            Ok(_) => self.refused(payment, refusal).await,
            Err(_) => {
                self.postpone(payment, true, false).await?;
                Ok(Step::Recorded)
            }
        }
    }

    async fn waits(&self, payment: &Payment, gateway: &GatewayPayment) -> Result<(), StoreError> {
        let poll = self.times().deposit_poll;
        self.store()
            .wait_for_deposit(payment.payment_id, gateway, poll)
            .await?;
        Ok(())
    }

    /// The order is over, and the guest hasn't paid: what would come now would only have to go back.
    async fn close(&self, payment: &Payment) -> Result<(), StoreError> {
        let closed = self
            .inner
            .toss
            .close(&payment.payment_key, payment.payment_id, payment.attempt)
            .await;
        match closed {
            Outcome::Done(gateway) => match gateway.standing() {
                Standing::Failed(_) => {
                    let code = DEPOSIT_OVERDUE;
                    self.store().refuse(payment.payment_id, code).await?;
                    Ok(())
                }
                Standing::Captured => self.captured(payment, &gateway).await,
                _ => self.postpone(payment, true, true).await,
            },
            // Somebody has just paid, or the gateway can't: it is asked again, and takes deposits until then.
            Outcome::Refused(refusal) => {
                tracing::warn!(payment = %payment.payment_id, code = refusal.code, "a virtual account can't be closed");
                self.postpone(payment, true, true).await
            }
            Outcome::Unknown(unknown) => {
                tracing::warn!(payment = %payment.payment_id, %unknown, "a virtual account is closed later");
                self.postpone(payment, unknown.answered, !unknown.keep_key)
                    .await
            }
        }
    }

    /// The gateway took a deposit back that the ledger has. Nobody here can say what that means for the order, so a
    /// person is told; should the deposit come again, that is over. Into a closed account none does.
    pub async fn reversed(
        &self,
        payment: &Payment,
        gateway: &GatewayPayment,
    ) -> Result<(), StoreError> {
        // That the account was closed is listed as a cancel, and evens the ledger out.
        self.post_refunds(payment, gateway).await?;
        let open = gateway.standing() == Standing::WaitingForDeposit;
        let again_after = open.then(|| self.times().deposit_poll);
        if self
            .store()
            .reversed(payment.payment_id, again_after)
            .await?
        {
            tracing::error!(payment = %payment.payment_id, "the gateway took a deposit back");
        }
        Ok(())
    }

    /// Records a capture, and what was given back of it.
    async fn captured(
        &self,
        payment: &Payment,
        gateway: &GatewayPayment,
    ) -> Result<(), StoreError> {
        if gateway.total_amount != payment.amount {
            // Never seen; `orders` compares what it is told and gives back what isn't the order's total.
            tracing::error!(payment = %payment.payment_id, "the gateway captured another amount than was asked for");
        }
        if payment.state != State::Intent {
            // A deposit: the order has gone on to wait, and is set aside again. If it is over, `orders` gives back.
            let asked = self
                .inner
                .orders
                .begin_payment(
                    payment.order_id,
                    payment.user_id,
                    &payment.payment_key,
                    payment.amount,
                )
                .await;
            if let Err(error) = asked {
                tracing::warn!(%error, "a deposit waits for orders");
                return self.postpone(payment, false, false).await;
            }
        }
        let key = match gateway.capture_key() {
            Some(key) => key.to_owned(),
            None => match self.look_for_capture(gateway).await {
                Some(key) => key,
                None => return self.postpone(payment, true, false).await,
            },
        };
        self.store().capture(payment, gateway, &key).await?;
        self.given_back(payment, gateway).await
    }

    /// The capture's transaction, where the payment itself names only a later one.
    async fn look_for_capture(&self, gateway: &GatewayPayment) -> Option<String> {
        let at = gateway.captured_at();
        let (start, end) = (
            at.checked_sub(DATED_WITHIN).ok()?,
            at.checked_add(DATED_WITHIN).ok()?,
        );
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = self
                .inner
                .toss
                .transactions(start, end, after.as_deref())
                .await
                .ok()?;
            let found = page.iter().find(|transaction| {
                transaction.is_capture() && transaction.payment_key == gateway.payment_key
            });
            if let Some(capture) = found {
                return Some(capture.transaction_key.clone());
            }
            after = (page.len() == TRANSACTIONS_PAGE)
                .then(|| page.last().map(|last| last.transaction_key.clone()))
                .flatten();
            after.as_ref()?;
        }
        None
    }

    /// Posts what was given back of a captured payment, by us or by somebody at the gateway.
    async fn given_back(
        &self,
        payment: &Payment,
        gateway: &GatewayPayment,
    ) -> Result<(), StoreError> {
        self.post_refunds(payment, gateway).await?;
        if gateway.is_held() {
            self.store().deposit_stands(payment.payment_id).await?;
        }
        self.store().rest(payment.payment_id).await
    }

    async fn post_refunds(
        &self,
        payment: &Payment,
        gateway: &GatewayPayment,
    ) -> Result<(), StoreError> {
        for cancel in gateway.refunds() {
            let posted = self.store().given_back(payment, cancel).await?;
            if posted && cancel.refund_id().is_none() {
                tracing::warn!(payment = %payment.payment_id, "money was given back at the gateway by somebody else");
            }
        }
        Ok(())
    }

    async fn postpone(
        &self,
        payment: &Payment,
        call_over: bool,
        next_attempt: bool,
    ) -> Result<(), StoreError> {
        let pause = match payment.state {
            State::Waiting => self.deposit_pause(payment),
            _ => pause(payment.asks, self.times().pause_max),
        };
        self.store()
            .postpone(payment.payment_id, pause, call_over, next_attempt)
            .await
    }

    /// A virtual account is asked about at the end of its order at the latest, so that it is closed then.
    fn deposit_pause(&self, payment: &Payment) -> Duration {
        let poll = self.times().deposit_poll;
        let pay_by = payment.pay_by.filter(|_| !payment.overdue);
        let left = pay_by.map(|by| by.duration_since(Timestamp::now()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
        left.map_or(poll, |left| poll.min(left + OVERDUE_AFTER))
    }

    /// The payment as it is recorded.
    pub async fn look(
        &self,
        order_id: Uuid,
        payment_key: &str,
    ) -> Result<Option<Payment>, StoreError> {
        self.store().payment(order_id, payment_key).await
    }

    /// How long a new payment has until the settler goes on with it.
    pub fn lease(&self) -> Duration {
        self.times().asking
    }
}
