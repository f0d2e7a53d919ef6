//! Orders as guests read them.

use jiff::Timestamp;
use jiff::civil::Date;
use money::Krw;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::pricing::{Lowered, PricedNight};
use crate::refunds::Policy;
use crate::saga::{Phase, Progress, StepName};
use crate::store::{HistoryEntry, Order};

/// An order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderBody {
    order_id: Uuid,
    #[schema(pattern = "^(PENDING|AWAITING_PAYMENT|CONFIRMED|CANCELLED|EXPIRED|FAILED)$")]
    status: &'static str,
    /// What is to be paid.
    amount: Krw,
    /// Without any discount.
    original_amount: Krw,
    discounts: Vec<Lowered>,
    /// Until when it can be paid.
    expires_at: Timestamp,
    created_at: Timestamp,
    room_type_id: Uuid,
    stay_id: Uuid,
    stay_name: String,
    region: String,
    check_in: Date,
    check_out: Date,
    guests: u16,
    cancellation: Policy,
    nights: Vec<PricedNight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    booking_id: Option<Uuid>,
    payment: PaymentBody,
    /// Of an order that came to nothing: what goes back of what was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refund: Option<RefundBody>,
}

/// What is known of its money. A guest whose payment went through must not be led to pay again while the order still
/// awaits its confirmation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderPayment)]
#[serde(rename_all = "camelCase")]
struct PaymentBody {
    /// With `WAITING_FOR_DEPOSIT`, `virtualAccount` says where to pay. `REFUND_DELAYED`: the payment gateway refused to give
    /// the money back, and a person sees to it.
    #[schema(
        pattern = "^(NONE|WAITING_FOR_DEPOSIT|IN_PROGRESS|CAPTURED|REFUNDING|REFUND_DELAYED|REFUNDED|NOT_NEEDED)$"
    )]
    status: &'static str,
    captured: Krw,
    /// Where to pay, while a deposit is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    virtual_account: Option<VirtualAccountBody>,
}

/// The account to pay into. What comes after `dueDate` is given back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderVirtualAccount)]
#[serde(rename_all = "camelCase")]
struct VirtualAccountBody {
    /// The bank, by the payment gateway's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bank_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    account_number: Option<String>,
    /// The earlier of the account's own due date and the order's end.
    due_date: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderRefund)]
#[serde(rename_all = "camelCase")]
struct RefundBody {
    amount: Krw,
    /// How much of it has gone back.
    refunded: Krw,
}

/// An order with all that happened to it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderWithHistory {
    #[serde(flatten)]
    order: OrderBody,
    history: Vec<EntryBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderHistoryEntry)]
#[serde(rename_all = "camelCase")]
struct EntryBody {
    at: Timestamp,
    event: String,
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

impl From<Order> for OrderBody {
    fn from(order: Order) -> Self {
        let saga = &order.saga;
        let waits = saga.phase() == Phase::AwaitingPayment;
        let virtual_account = order
            .deposit
            .filter(|_| waits)
            .map(|to| VirtualAccountBody {
                bank_code: to.bank_code,
                account_number: to.account_number,
                due_date: saga.expires_at.min(to.due_at.unwrap_or(Timestamp::MAX)),
            });
        let payment = match saga.steps[StepName::TakePayment] {
            Progress::Todo if virtual_account.is_some() => "WAITING_FOR_DEPOSIT",
            Progress::Todo | Progress::Refused => "NONE",
            Progress::Skipped => "NOT_NEEDED",
            Progress::Asked => "IN_PROGRESS",
            Progress::Done => "CAPTURED",
            Progress::Undoing => "REFUNDING",
            Progress::UndoRefused => "REFUND_DELAYED",
            Progress::Undone if saga.money.refunded.is_zero() => "CAPTURED",
            Progress::Undone => "REFUNDED",
        };
        Self {
            order_id: order.order_id,
            status: saga.phase().status(),
            amount: saga.total,
            original_amount: order.price.original_amount,
            discounts: order.price.discounts,
            expires_at: saga.expires_at,
            created_at: order.created_at,
            room_type_id: order.room_type_id,
            stay_id: order.stay_id,
            stay_name: order.stay_name,
            region: order.region,
            check_in: order.dates.check_in,
            check_out: order.dates.check_out,
            guests: order.guests,
            cancellation: order.policy,
            nights: order.price.nights,
            booking_id: saga.booking,
            payment: PaymentBody {
                status: payment,
                captured: saga.money.captured,
                virtual_account,
            },
            refund: saga.end.map(|_| RefundBody {
                amount: saga.money.refund_due,
                refunded: saga.money.refunded,
            }),
        }
    }
}

impl OrderWithHistory {
    pub(super) fn new(order: Order, history: Vec<HistoryEntry>) -> Self {
        Self {
            order: order.into(),
            history: history
                .into_iter()
                .map(|entry| EntryBody {
                    at: entry.at,
                    event: entry.event,
                    from: entry.from_phase,
                    to: entry.to_phase,
                    detail: entry.detail,
                })
                .collect(),
        }
    }
}
