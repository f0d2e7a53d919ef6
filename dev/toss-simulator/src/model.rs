//! What the gateway's API shows, in the gateway's own words and field names.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde::Serialize;

/// Where a payment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The window is open.
    Ready,
    /// Authenticated, to be confirmed.
    InProgress,
    /// A virtual account was issued; no money yet.
    WaitingForDeposit,
    /// Captured.
    Done,
    /// Given back at once, or never captured.
    Canceled,
    /// Given back in part, or whole in parts.
    PartialCanceled,
    /// Refused.
    Aborted,
    /// Not confirmed, or not deposited, in time.
    Expired,
}

/// The means of payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Means {
    /// A card.
    Card,
    /// An easy payment of a provider, with this much of it from points.
    EasyPay {
        /// The provider's name in Korean.
        provider: String,
        /// Paid from points.
        discount: i64,
        /// True if the rest is paid by a card of the wallet rather than by its own money.
        by_card: bool,
    },
    /// A virtual account that waits for a deposit.
    VirtualAccount,
    /// A transfer from a bank account.
    Transfer,
}

impl Means {
    /// The gateway's name of the means.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Card => "카드",
            Self::EasyPay { .. } => "간편결제",
            Self::VirtualAccount => "가상계좌",
            Self::Transfer => "계좌이체",
        }
    }
}

/// The payment object.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the names are the gateway's, and explained in its reference"
)]
pub struct Payment {
    pub version: &'static str,
    pub payment_key: String,
    pub r#type: &'static str,
    pub order_id: String,
    pub order_name: String,
    pub m_id: &'static str,
    pub currency: &'static str,
    pub country: &'static str,
    pub method: Option<&'static str>,
    pub total_amount: i64,
    pub balance_amount: i64,
    pub supplied_amount: i64,
    pub vat: i64,
    pub tax_free_amount: i64,
    pub status: Status,
    pub requested_at: String,
    pub approved_at: Option<String>,
    pub last_transaction_key: Option<String>,
    pub is_partial_cancelable: bool,
    pub secret: Option<String>,
    pub failure: Option<Failure>,
    pub cancels: Option<Vec<Cancel>>,
    pub card: Option<Card>,
    pub virtual_account: Option<VirtualAccount>,
    pub easy_pay: Option<EasyPay>,
    pub transfer: Option<Transfer>,
    pub receipt: Option<Receipt>,
}

/// Why a payment was refused.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Failure {
    pub code: String,
    pub message: String,
}

/// Money given back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Cancel {
    pub cancel_amount: i64,
    pub cancel_reason: String,
    pub tax_free_amount: i64,
    pub refundable_amount: i64,
    pub canceled_at: String,
    pub transaction_key: String,
    pub receipt_key: Option<String>,
    pub cancel_status: &'static str,
}

/// The card's part.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Card {
    pub amount: i64,
    pub issuer_code: &'static str,
    pub acquirer_code: Option<&'static str>,
    pub number: &'static str,
    pub installment_plan_months: u8,
    pub approve_no: &'static str,
    pub card_type: &'static str,
    pub owner_type: &'static str,
    pub acquire_status: &'static str,
    pub is_interest_free: bool,
}

/// A virtual account.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct VirtualAccount {
    pub account_number: String,
    pub account_type: &'static str,
    pub bank_code: &'static str,
    pub customer_name: &'static str,
    pub due_date: String,
    pub refund_status: &'static str,
    pub expired: bool,
    pub settlement_status: &'static str,
    pub refund_receive_account: Option<RefundAccount>,
}

/// Where money of a virtual account goes back to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct RefundAccount {
    pub bank_code: String,
    pub account_number: String,
    pub holder_name: String,
}

/// What an easy payment paid besides a card.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct EasyPay {
    pub provider: String,
    pub amount: i64,
    pub discount_amount: i64,
}

/// A transfer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Transfer {
    pub bank_code: &'static str,
    pub settlement_status: &'static str,
}

/// Where the receipt is.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Receipt {
    pub url: String,
}

/// A movement of money, as `GET /v1/transactions` lists it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the gateway's names")]
pub struct Transaction {
    pub m_id: &'static str,
    pub transaction_key: String,
    pub payment_key: String,
    pub order_id: String,
    pub method: &'static str,
    pub customer_key: Option<String>,
    pub use_escrow: bool,
    pub receipt_url: String,
    pub status: Status,
    pub transaction_at: String,
    pub currency: &'static str,
    pub amount: i64,
    #[serde(skip)]
    pub(crate) at: Timestamp,
    /// When the money came that this is about.
    #[serde(skip)]
    pub(crate) approved_at: String,
    /// What was given back, if it is no capture.
    #[serde(skip)]
    pub(crate) cancel: Option<Cancel>,
}

/// Korea has had no other offset since 1988.
pub(crate) const SEOUL: Offset = jiff::tz::offset(9);

/// A time as the gateway writes it.
pub(crate) fn time_text(at: Timestamp) -> String {
    at.to_zoned(TimeZone::fixed(SEOUL))
        .strftime("%Y-%m-%dT%H:%M:%S%:z")
        .to_string()
}
