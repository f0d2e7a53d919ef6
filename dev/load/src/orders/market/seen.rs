//! What the guests of a market saw: each order, payment and cancellation as it was answered.

use jiff::Timestamp;
use uuid::Uuid;

use crate::history::ClaimCall;

/// What an order was asked for with.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) room_type: Uuid,
    /// The first night, as days from the market's first.
    pub(crate) first_night: i32,
    pub(crate) nights: i32,
    pub(crate) coupon: Option<Uuid>,
    pub(crate) sale_claim: Option<Uuid>,
}

/// What became of the wish for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// There is an order, for so many won.
    Order { order: Uuid, amount: i64 },
    /// There is none, by the code.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// An order that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct OrderCall {
    pub(crate) user: Uuid,
    pub(crate) wish: Wish,
    pub(crate) placed: Placed,
}

/// What became of the wish to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Paid {
    /// The money was taken.
    Captured,
    /// None was, by the code.
    NotTaken(String),
    /// Nobody knows.
    Unknown,
}

/// A payment that was to be confirmed.
#[derive(Clone, Debug)]
pub(crate) struct PaymentCall {
    pub(crate) order: Uuid,
    pub(crate) key: String,
    pub(crate) paid: Paid,
}

/// An order that was told to be of a status which nothing takes back, cancellations confirmed included.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) order: Uuid,
    pub(crate) status: String,
}

/// A claim that was acknowledged and then not found when it was first used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotFound {
    pub(crate) claim: Uuid,
    pub(crate) answered: Timestamp,
}

/// Everything that guests saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) orders: Vec<OrderCall>,
    pub(crate) payments: Vec<PaymentCall>,
    pub(crate) told: Vec<Told>,
    pub(crate) coupons: Vec<ClaimCall>,
    pub(crate) sales: Vec<ClaimCall>,
    pub(crate) not_found: Vec<NotFound>,
    /// Answers that the contract doesn't allow.
    pub(crate) broken: Vec<String>,
}

impl Seen {
    /// Both together.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.orders.extend(other.orders);
        self.payments.extend(other.payments);
        self.told.extend(other.told);
        self.coupons.extend(other.coupons);
        self.sales.extend(other.sales);
        self.not_found.extend(other.not_found);
        self.broken.extend(other.broken);
        self
    }
}
