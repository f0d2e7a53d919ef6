//! `POST /v1/payments/confirm`: the guest is back from the payment window, and the money is to be taken.

use std::time::Duration;

use axum::extract::State;
use chassis::auth::Caller;
use chassis::http::{Json, Mistakes};
use chassis::problem::Problem;
use chassis::refusals;
use chassis::telemetry;
use jiff::Timestamp;
use money::Krw;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Payments;
use super::problems::{
    AMOUNT_MISMATCH, ORDER_EXPIRED, ORDER_NOT_FOUND, ORDER_NOT_PAYABLE, PAYMENT_GATEWAY,
    PAYMENT_PENDING, PAYMENT_REFUSED, PAYMENT_UNKNOWN, amount_mismatch, order_not_found, unknown,
};
use crate::payment::{ANOTHER_PAYMENT, Payment, State as PaymentState};
use crate::store::{Begun, StoreError};
use crate::work::{Step, Work};

/// The gateway's keys have up to 200 characters.
const PAYMENT_KEY_MAX: usize = 200;
/// How often a payment that another request works on is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the payment window gave the guest.
#[derive(Deserialize, ToSchema)]
#[schema(as = PaymentConfirmation)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Confirm {
    #[schema(pattern = "^[!-~]{1,200}$")]
    payment_key: String,
    order_id: Uuid,
    /// The order's amount.
    #[schema(value_type = i64, minimum = 1)]
    amount: Krw,
}

/// A payment as its guest sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = Payment)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Confirmed {
    order_id: Uuid,
    payment_key: String,
    /// `CAPTURED`, or `WAITING_FOR_DEPOSIT` with the virtual account to pay into.
    #[schema(pattern = "^(CAPTURED|WAITING_FOR_DEPOSIT)$")]
    status: &'static str,
    amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    approved_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    virtual_account: Option<VirtualAccount>,
}

/// The account to pay into. What comes after `dueDate` is given back.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VirtualAccount {
    /// The bank, by the gateway's code.
    bank_code: Option<String>,
    account_number: Option<String>,
    /// The earlier of the gateway's own due date and the order's end.
    due_date: Option<Timestamp>,
}

impl Confirm {
    fn check(&self) -> Result<(), Problem> {
        let key = &self.payment_key;
        let is_key = (1..=PAYMENT_KEY_MAX).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic());
        Mistakes::new()
            .require(
                is_key,
                "/paymentKey",
                "give 1 to 200 visible ASCII characters",
            )
            .require(
                !self.amount.is_zero(),
                "/amount",
                "give an amount above zero",
            )
            .finish()
    }
}

refusals! {
    ConfirmRefusals: PAYMENT_REFUSED, ORDER_NOT_FOUND, ORDER_EXPIRED, ORDER_NOT_PAYABLE, PAYMENT_PENDING,
        AMOUNT_MISMATCH, PAYMENT_GATEWAY, PAYMENT_UNKNOWN
}

/// Takes the money of a payment that the guest has approved.
///
/// The same request again gets the same answer, or a better one: it never takes money twice.
#[utoipa::path(post, path = "/v1/payments/confirm", operation_id = "confirmPayment", tag = "Payments",
    security(("accessToken" = [])),
    request_body = Confirm,
    responses((status = 200, description = "The payment as it stands.", body = Confirmed), ConfirmRefusals))]
pub(crate) async fn confirm(
    State(work): State<Work>,
    State(payments): State<Payments>,
    caller: Caller,
    Json(request): Json<Confirm>,
) -> Result<Json<Confirmed>, Problem> {
    request.check()?;
    let deadline = Instant::now() + payments.wait;
    let Ok(room) = payments.room.clone().try_acquire_owned() else {
        return Err(Problem::unavailable("too many payments at once"));
    };
    let begun = work
        .store()
        .begin(
            request.order_id,
            caller.user_id,
            &request.payment_key,
            request.amount.get(),
            work.lease(),
        )
        .await?;
    let payment = match begun {
        Begun::Known(payment) => {
            drop(room);
            check_same(&payment, &caller, &request)?;
            return settled(&work, payment, deadline).await;
        }
        Begun::New(payment) => payment,
    };
    let (tell, told) = oneshot::channel::<Result<Step, StoreError>>();
    let (paying, worker) = (payment.clone(), work.clone());
    // It goes on when the guest goes away: an answer must not be lost for a closed browser.
    payments.tasks.spawn(telemetry::propagate(async move {
        let step = worker.pay(&paying).await;
        drop(room);
        if let Err(Err(error)) = tell.send(step) {
            tracing::warn!(payment = %paying.payment_id, %error, "a payment is left to the settler");
        }
    }));
    match timeout_at(deadline, told).await {
        Ok(Ok(Ok(Step::Recorded))) => settled(&work, payment, deadline).await,
        Ok(Ok(Ok(Step::OrderRefused(refusal)))) => Err(refusal.into()),
        Ok(Ok(Ok(Step::OrdersUnavailable))) => Err(unknown()),
        Ok(Ok(Ok(Step::GatewayRefusesUs))) => Err(gateway_refuses_us()),
        Ok(Ok(Err(error))) => {
            tracing::warn!(payment = %payment.payment_id, %error, "a payment is left to the settler");
            Err(unknown())
        }
        // Too late, or the task is gone with the process.
        Ok(Err(_)) | Err(_) => Err(unknown()),
    }
}

/// The payment is known: it must be this guest's, and for this much.
fn check_same(payment: &Payment, caller: &Caller, request: &Confirm) -> Result<(), Problem> {
    if payment.user_id != caller.user_id {
        return Err(order_not_found());
    }
    if payment.amount != request.amount.get() {
        return Err(amount_mismatch());
    }
    Ok(())
}

/// What is recorded of a payment, as soon as its outcome is.
async fn settled(
    work: &Work,
    payment: Payment,
    deadline: Instant,
) -> Result<Json<Confirmed>, Problem> {
    loop {
        let now = work.look(payment.order_id, &payment.payment_key).await?;
        // Gone: `orders` said no to somebody who asked at the same time.
        let Some(now) = now else {
            return Err(unknown());
        };
        match now.state {
            PaymentState::Captured => return Ok(Json(shown(now, "CAPTURED"))),
            PaymentState::Waiting => return Ok(Json(shown(now, "WAITING_FOR_DEPOSIT"))),
            PaymentState::Refused => return Err(refused(&now)),
            // Another request, or the settler, is at it.
            PaymentState::Asking | PaymentState::Intent => {}
        }
        if Instant::now() + LOOK_EVERY >= deadline {
            return Err(unknown());
        }
        sleep(LOOK_EVERY).await;
    }
}

fn shown(payment: Payment, status: &'static str) -> Confirmed {
    let due_date = payment.deposit_by();
    let virtual_account = payment
        .deposit_to
        .filter(|_| payment.state == PaymentState::Waiting)
        .map(|to| VirtualAccount {
            bank_code: to.bank_code,
            account_number: to.account_number,
            due_date,
        });
    Confirmed {
        order_id: payment.order_id,
        payment_key: payment.payment_key,
        status,
        amount: payment.captured.unwrap_or(payment.amount),
        method: payment.method,
        provider: payment.provider,
        approved_at: payment.approved_at,
        virtual_account,
    }
}

fn refused(payment: &Payment) -> Problem {
    let code = payment.refusal.as_deref().unwrap_or("UNKNOWN");
    match code {
        ANOTHER_PAYMENT => PAYMENT_PENDING.problem("no money was taken by this one"),
        "UNAUTHORIZED_KEY"
        | "INVALID_API_KEY"
        | "FORBIDDEN_REQUEST"
        | "INVALID_IDEMPOTENCY_KEY" => gateway_refuses_us(),
        code => PAYMENT_REFUSED.problem(format!("the gateway says {code}; no money was taken")),
    }
}

fn gateway_refuses_us() -> Problem {
    PAYMENT_GATEWAY.problem("no money was taken; try again later")
}
