//! The messages of the order saga: what `orders` asks of the other services, and what they answer.
//!
//! Every message is in an [`Envelope`] and is keyed by its order, so that the messages of one order keep their
//! sequence. A receiver handles each message id once in effect; asking for the same step of the same order again has
//! no further effect and gets the same answer.

use money::Krw;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Commands to `booking`.
pub const BOOKING_COMMANDS: &str = "quokka.booking.commands";
/// Commands to `promotions`.
pub const PROMOTIONS_COMMANDS: &str = "quokka.promotions.commands";
/// Commands to `payments`.
pub const PAYMENTS_COMMANDS: &str = "quokka.payments.commands";
/// Answers to `orders`.
pub const ORDER_REPLIES: &str = "quokka.orders.replies";
/// What hosts put into calendars, from `stays` to `booking`.
pub const CALENDAR: &str = "quokka.stays.calendar";
/// How many rooms are left, from `booking` to `stays`.
pub const AVAILABILITY: &str = "quokka.booking.availability";

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

/// A kind of room of a stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomTypeId(pub Uuid);

/// A message with what delivery needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<T> {
    /// Names the message: the same id is the same message, delivered again.
    pub id: Uuid,
    /// What it says.
    pub body: T,
}

/// What `booking` is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum BookingCommand {
    /// Hold one room for every night from check-in to the night before check-out: all of them or none.
    Hold {
        /// For which order.
        order_id: OrderId,
        /// Whose the booking will be.
        user_id: Uuid,
        /// Which room type.
        room_type_id: RoomTypeId,
        /// The first night, `YYYY-MM-DD`.
        check_in: String,
        /// The day of leaving, not a night.
        check_out: String,
        /// How many people.
        guests: u16,
        /// When the hold ends by itself, milliseconds since 1970: after the order's own expiry.
        expires_at_ms: i64,
    },
    /// Turn the hold into a booking.
    Confirm {
        /// Of which order.
        order_id: OrderId,
    },
    /// End the hold or the booking and free its nights, once.
    Release {
        /// Of which order.
        order_id: OrderId,
    },
}

impl BookingCommand {
    /// Whose it is.
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Hold { order_id, .. }
            | Self::Confirm { order_id }
            | Self::Release { order_id } => *order_id,
        }
    }
}

/// What `promotions` is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum DiscountCommand {
    /// Keep the claims for the order, so that they neither expire nor serve another order.
    Reserve {
        /// For which order.
        order_id: OrderId,
        /// Whose the claims must be.
        user_id: Uuid,
        /// The coupon and the time-sale claim, at least one.
        claim_ids: Vec<Uuid>,
    },
    /// The order is paid: the claims are used.
    Redeem {
        /// Which order.
        order_id: OrderId,
    },
    /// The order came to nothing: the claims are their guest's again (a coupon), or go back to stock when their time
    /// is over (a time sale).
    Release {
        /// Which order.
        order_id: OrderId,
    },
}

impl DiscountCommand {
    /// Whose it is.
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Reserve { order_id, .. }
            | Self::Redeem { order_id }
            | Self::Release { order_id } => *order_id,
        }
    }
}

/// What `payments` is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum PaymentCommand {
    /// Give money back, up to what was captured.
    Refund {
        /// Of which order.
        order_id: OrderId,
        /// Names the refund: asked again, it is the same one.
        refund_id: Uuid,
        /// How much.
        amount: Krw,
        /// Why, in the gateway's and the guest's sight.
        reason: String,
    },
}

/// What `orders` is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum OrderReply {
    /// The nights are held.
    Held {
        /// For which order.
        order_id: OrderId,
    },
    /// They can't be: nothing is held.
    HoldRefused {
        /// For which order.
        order_id: OrderId,
        /// Why, as a stable code such as `UNAVAILABLE`.
        code: String,
    },
    /// The hold became a booking.
    BookingConfirmed {
        /// For which order.
        order_id: OrderId,
        /// The booking.
        booking_id: Uuid,
    },
    /// The hold was gone: there is no booking.
    BookingRefused {
        /// For which order.
        order_id: OrderId,
    },
    /// The nights are free again.
    NightsReleased {
        /// Of which order.
        order_id: OrderId,
    },
    /// The claims are kept for the order.
    DiscountReserved {
        /// For which order.
        order_id: OrderId,
    },
    /// They can't be: none is kept.
    DiscountRefused {
        /// For which order.
        order_id: OrderId,
        /// Why, as a stable code.
        code: String,
    },
    /// The claims are used.
    DiscountRedeemed {
        /// By which order.
        order_id: OrderId,
    },
    /// The claims are no longer kept for the order.
    DiscountReleased {
        /// By which order.
        order_id: OrderId,
    },
    /// Money was captured.
    PaymentCaptured {
        /// For which order.
        order_id: OrderId,
        /// The gateway's name of the payment.
        payment_key: String,
        /// How much.
        amount: Krw,
    },
    /// The gateway refused: no money was taken.
    PaymentRefused {
        /// For which order.
        order_id: OrderId,
        /// The gateway's name of the payment.
        payment_key: String,
        /// The gateway's code.
        code: String,
    },
    /// Nothing was captured yet: a virtual account was issued, and waits for the guest's deposit.
    DepositAwaited {
        /// For which order.
        order_id: OrderId,
        /// The gateway's name of the payment.
        payment_key: String,
        /// At which bank the account is, by the gateway's code.
        bank_code: Option<String>,
        /// The account's number.
        account_number: Option<String>,
        /// Until when the gateway takes deposits, milliseconds since 1970.
        due_at_ms: Option<i64>,
    },
    /// Money was given back.
    PaymentRefunded {
        /// Of which order.
        order_id: OrderId,
        /// Which refund.
        refund_id: Uuid,
        /// How much.
        amount: Krw,
    },
    /// Money was not given back, and won't be without a person. Should it go back after all, that is told as well.
    PaymentRefundRefused {
        /// Of which order.
        order_id: OrderId,
        /// Which refund.
        refund_id: Uuid,
        /// Why: the gateway's code, or that there isn't so much to give back.
        code: String,
    },
}

impl OrderReply {
    /// Whose it is.
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Held { order_id }
            | Self::HoldRefused { order_id, .. }
            | Self::BookingConfirmed { order_id, .. }
            | Self::BookingRefused { order_id }
            | Self::NightsReleased { order_id }
            | Self::DiscountReserved { order_id }
            | Self::DiscountRefused { order_id, .. }
            | Self::DiscountRedeemed { order_id }
            | Self::DiscountReleased { order_id }
            | Self::PaymentCaptured { order_id, .. }
            | Self::PaymentRefused { order_id, .. }
            | Self::DepositAwaited { order_id, .. }
            | Self::PaymentRefunded { order_id, .. }
            | Self::PaymentRefundRefused { order_id, .. } => *order_id,
        }
    }
}

/// One night of a room type as its host offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CalendarNight {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// How many rooms are offered.
    pub allotment: u32,
}

/// A part of a calendar. Keyed by the room type; a later version wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CalendarChanged {
    /// Whose.
    pub room_type_id: RoomTypeId,
    /// The stay it belongs to.
    pub stay_id: Uuid,
    /// Grows with each change of the room type's calendar.
    pub version: i64,
    /// The nights that changed.
    pub nights: Vec<CalendarNight>,
}

/// Rooms left. Keyed by the room type; a later version wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AvailabilityChanged {
    /// Whose.
    pub room_type_id: RoomTypeId,
    /// Grows with each change of the room type's nights.
    pub version: i64,
    /// The nights that changed: date and how many rooms are left.
    pub nights: Vec<RoomsLeft>,
}

/// How many rooms are left of a night.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomsLeft {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// How many.
    pub left: u32,
}
