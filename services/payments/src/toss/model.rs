//! The gateway's objects, as far as they matter. Unknown fields are ignored, and anything may be missing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A payment as the gateway has it. It has personal data and a secret, and so no `Debug`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPayment {
    /// Its name.
    pub payment_key: String,
    /// The order it belongs to.
    pub order_id: String,
    /// `DONE` and so on.
    pub status: String,
    /// In won.
    pub total_amount: i64,
    /// What is left of it.
    #[serde(default)]
    pub balance_amount: i64,
    /// In Korean.
    #[serde(default)]
    pub method: Option<String>,
    /// When it was captured.
    #[serde(default)]
    pub approved_at: Option<String>,
    /// The newest movement of money.
    #[serde(default)]
    pub last_transaction_key: Option<String>,
    /// What true webhooks know.
    #[serde(default)]
    pub secret: Option<String>,
    /// Why it was refused.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// What was given back.
    #[serde(default)]
    pub cancels: Option<Vec<Cancel>>,
    /// The provider of an easy payment.
    #[serde(default)]
    pub easy_pay: Option<EasyPay>,
    /// Where the deposit goes.
    #[serde(default)]
    pub virtual_account: Option<VirtualAccount>,
}

/// Why a payment was refused.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// The gateway's code.
    pub code: String,
}

/// Money given back.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// In won.
    pub cancel_amount: i64,
    /// With the refund's id, if it is one of ours.
    #[serde(default)]
    pub cancel_reason: Option<String>,
    /// When.
    #[serde(default)]
    pub canceled_at: Option<String>,
    /// The movement of money; none for what never moved.
    #[serde(default)]
    pub transaction_key: Option<String>,
    /// `DONE` when the money has moved.
    #[serde(default)]
    pub cancel_status: Option<String>,
}

/// An easy payment.
#[derive(Debug, Clone, Deserialize)]
pub struct EasyPay {
    /// In Korean.
    #[serde(default)]
    pub provider: Option<String>,
}

/// A virtual account.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualAccount {
    /// Where the money goes.
    #[serde(default)]
    pub account_number: Option<String>,
    /// At which bank.
    #[serde(default)]
    pub bank_code: Option<String>,
    /// Until when.
    #[serde(default)]
    pub due_date: Option<String>,
    /// Where it would go back to.
    #[serde(default)]
    pub refund_receive_account: Option<RefundAccount>,
}

/// Where money of a virtual account goes back to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundAccount {
    /// Which bank.
    pub bank_code: String,
    /// Which account.
    pub account_number: String,
    /// Whose.
    pub holder_name: String,
}

/// A movement of money.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// Its name.
    pub transaction_key: String,
    /// Of which payment.
    pub payment_key: String,
    /// The payment's status after it.
    pub status: String,
    /// In won; the sign of a cancel isn't documented.
    pub amount: i64,
}

impl Transaction {
    /// Whether money moved; a virtual account that waits is listed too.
    pub fn moved(&self) -> bool {
        self.is_capture() || matches!(self.status.as_str(), "CANCELED" | "PARTIAL_CANCELED")
    }

    /// Whether it took money rather than gave it back.
    pub fn is_capture(&self) -> bool {
        self.status == "DONE"
    }
}

/// Where a payment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Money was taken; some of it may have been given back since.
    Captured,
    /// A virtual account waits.
    WaitingForDeposit,
    /// Nothing has happened yet, and something may.
    NotYet,
    /// Nothing was taken, and nothing will be.
    Failed(String),
    /// A status that isn't known here.
    Strange,
}

impl GatewayPayment {
    /// Where it stands.
    pub fn standing(&self) -> Standing {
        match self.status.as_str() {
            "DONE" | "PARTIAL_CANCELED" => Standing::Captured,
            "CANCELED" if self.approved_at.is_some() => Standing::Captured,
            "CANCELED" => Standing::Failed("CANCELED".to_owned()),
            "WAITING_FOR_DEPOSIT" => Standing::WaitingForDeposit,
            "READY" | "IN_PROGRESS" => Standing::NotYet,
            "EXPIRED" => Standing::Failed("EXPIRED".to_owned()),
            "ABORTED" => Standing::Failed(
                self.failure
                    .as_ref()
                    .map_or_else(|| "ABORTED".to_owned(), |failure| failure.code.clone()),
            ),
            _ => Standing::Strange,
        }
    }

    /// Whether money of it is there, all or some. What was cancelled whole may never have been paid.
    pub fn is_held(&self) -> bool {
        matches!(self.status.as_str(), "DONE" | "PARTIAL_CANCELED")
    }

    /// Whether it waits for its deposit or came to nothing: of one that was captured, the deposit was taken back.
    pub fn is_not_paid(&self) -> bool {
        matches!(
            self.standing(),
            Standing::WaitingForDeposit | Standing::Failed(_)
        )
    }

    /// The movements that gave money back.
    pub fn refunds(&self) -> impl Iterator<Item = &Cancel> {
        self.cancels
            .iter()
            .flatten()
            .filter(|cancel| cancel.transaction_key.is_some() && cancel.is_done())
    }

    /// The key of the capture, if it can be told from the payment alone: once money was given back, it can't.
    pub fn capture_key(&self) -> Option<&str> {
        let key = self.last_transaction_key.as_deref()?;
        let of_a_refund = self
            .cancels
            .iter()
            .flatten()
            .any(|cancel| cancel.transaction_key.as_deref() == Some(key));
        (!of_a_refund).then_some(key)
    }

    /// The provider of an easy payment, as a stable name.
    pub fn provider(&self) -> Option<&'static str> {
        provider_of(self.easy_pay.as_ref()?.provider.as_deref()?)
    }
}

impl Cancel {
    /// Whether the money has moved.
    fn is_done(&self) -> bool {
        self.cancel_status
            .as_deref()
            .is_none_or(|status| status == "DONE")
    }

    /// The refund of ours that it is.
    pub fn refund_id(&self) -> Option<Uuid> {
        let reason = self.cancel_reason.as_deref()?.trim_end();
        let (_, id) = reason.strip_suffix(']')?.rsplit_once('[')?;
        id.parse().ok()
    }

    /// When it was, or now.
    pub fn at(&self) -> Timestamp {
        time_of(self.canceled_at.as_deref())
    }
}

impl GatewayPayment {
    /// When it was captured, or now.
    pub fn captured_at(&self) -> Timestamp {
        time_of(self.approved_at.as_deref())
    }
}

fn time_of(text: Option<&str>) -> Timestamp {
    text.and_then(|text| text.parse().ok())
        .unwrap_or_else(Timestamp::now)
}

/// The stable name of a virtual account.
pub const VIRTUAL_ACCOUNT: &str = "VIRTUAL_ACCOUNT";

/// A means of payment, as a stable name.
pub fn means_of(method: Option<&str>) -> &'static str {
    match method {
        Some("카드") => "CARD",
        Some("가상계좌") => VIRTUAL_ACCOUNT,
        Some("간편결제") => "EASY_PAY",
        Some("휴대폰") => "MOBILE_PHONE",
        Some("계좌이체") => "TRANSFER",
        Some("문화상품권" | "도서문화상품권" | "게임문화상품권") => {
            "GIFT_CERTIFICATE"
        }
        _ => "OTHER",
    }
}

fn provider_of(provider: &str) -> Option<&'static str> {
    Some(match provider {
        "토스페이" => "TOSSPAY",
        "네이버페이" => "NAVERPAY",
        "카카오페이" => "KAKAOPAY",
        "삼성페이" => "SAMSUNGPAY",
        "애플페이" => "APPLEPAY",
        "엘페이" => "LPAY",
        "페이코" => "PAYCO",
        "SSG페이" => "SSGPAY",
        _ => return None,
    })
}

/// The code of an error's body.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        code: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    // It goes into logs and answers: nothing but a code may.
    let is_code = (1..=80).contains(&body.code.len())
        && body
            .code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    is_code.then_some(body.code)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payment(more: serde_json::Value) -> GatewayPayment {
        let mut all = json!({
            "paymentKey": "k", "orderId": "o", "status": "DONE", "totalAmount": 100, "unheardOf": [1],
        });
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_cancel_of_what_was_never_captured_is_a_failure() {
        let never = payment(json!({"status": "CANCELED"}));
        assert_eq!(never.standing(), Standing::Failed("CANCELED".to_owned()));
        let once =
            payment(json!({"status": "CANCELED", "approvedAt": "2026-12-01T12:00:00+09:00"}));
        assert_eq!(once.standing(), Standing::Captured);
    }

    #[test]
    fn a_refund_is_found_by_its_reason() {
        let id = Uuid::from_u128(7);
        let cancel: Cancel = serde_json::from_value(
            json!({"cancelAmount": 5, "cancelReason": format!("late [{id}]")}),
        )
        .unwrap();
        assert_eq!(cancel.refund_id(), Some(id));
        let theirs: Cancel =
            serde_json::from_value(json!({"cancelAmount": 5, "cancelReason": "by phone"})).unwrap();
        assert_eq!(theirs.refund_id(), None);
    }

    #[test]
    fn the_captures_key_is_not_taken_from_a_refund() {
        let refunded = payment(json!({
            "lastTransactionKey": "r", "cancels": [{"cancelAmount": 5, "transactionKey": "r"}],
        }));
        assert_eq!(refunded.capture_key(), None);
        assert_eq!(
            payment(json!({"lastTransactionKey": "c"})).capture_key(),
            Some("c")
        );
    }

    #[test]
    fn what_is_no_code_is_not_passed_on() {
        assert_eq!(
            error_code(br#"{"code":"FDS_ERROR","message":"x"}"#).as_deref(),
            Some("FDS_ERROR")
        );
        assert_eq!(error_code(br#"{"code":"Kim 010-1234"}"#), None);
        assert_eq!(error_code(b"<html>"), None);
    }
}
