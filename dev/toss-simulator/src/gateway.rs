//! The gateway's books: payments, their rules and transactions. Plain state, no I/O.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::model::{
    Cancel, Card, EasyPay, Failure, Means, Payment, Receipt, RefundAccount, Status, Transaction,
    Transfer, VirtualAccount, time_text,
};
use crate::refusal::Refusal;
use crate::settlements::{Asked, Settlement, date, settle};

/// The shop that everything belongs to.
const SHOP: &str = "quokka-sim";
/// How long a virtual account takes deposits.
const DEPOSIT_WITHIN: Duration = Duration::from_secs(7 * 86_400);
/// Transactions kept for each payment kept: one capture and some refunds.
const TRANSACTIONS_PER_PAYMENT: usize = 4;

/// A payment that somebody authenticated in the window.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// The shop's order: 6 to 64 of letters, digits, `_` and `-`.
    pub order_id: String,
    /// What the order is called in the window.
    pub order_name: String,
    /// In won, above zero.
    pub amount: i64,
    /// How it will be paid.
    pub means: Means,
    /// Where a deposit goes back to; only for virtual accounts.
    pub refund_account: Option<RefundAccount>,
    /// The code with which its confirm is refused: a card that is no good.
    pub refuse: Option<String>,
}

/// The body of a cancel.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CancelRequest {
    cancel_reason: Option<String>,
    cancel_amount: Option<i64>,
    refund_receive_account: Option<RefundReceiver>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefundReceiver {
    bank: String,
    account_number: String,
    holder_name: String,
}

impl RefundReceiver {
    fn is_whole(&self) -> bool {
        ![&self.bank, &self.account_number, &self.holder_name]
            .into_iter()
            .any(String::is_empty)
    }
}

struct Kept {
    payment: Payment,
    means: Means,
    authenticated_at: Timestamp,
    approved: Option<Timestamp>,
    deposit_until: Option<Timestamp>,
    refund_account: Option<RefundAccount>,
    refuse: Option<String>,
}

/// Everything that happened, the oldest forgotten when there is too much.
pub(crate) struct Gateway {
    payments: HashMap<String, Kept>,
    by_order: HashMap<String, String>,
    oldest_first: VecDeque<String>,
    transactions: VecDeque<Transaction>,
    payments_max: usize,
    session_ttl: Duration,
}

impl Gateway {
    pub(crate) fn new(payments_max: usize, session_ttl: Duration) -> Self {
        Self {
            payments: HashMap::new(),
            by_order: HashMap::new(),
            oldest_first: VecDeque::new(),
            transactions: VecDeque::new(),
            payments_max,
            session_ttl,
        }
    }

    pub(crate) fn payments(&self) -> usize {
        self.payments.len()
    }

    /// A payment whose time is set back, as if everything of it had happened earlier.
    pub(crate) fn age(&mut self, payment_key: &str, by: Duration) -> Result<Payment, Refusal> {
        self.kept(payment_key)?;
        // By its field, so that the transactions can be changed beside it.
        let Some(kept) = self.payments.get_mut(payment_key) else {
            return Err(Refusal::new("NOT_FOUND_PAYMENT"));
        };
        kept.authenticated_at = kept
            .authenticated_at
            .checked_sub(by)
            .unwrap_or(Timestamp::MIN);
        kept.deposit_until = kept
            .deposit_until
            .map(|until| until.checked_sub(by).unwrap_or(Timestamp::MIN));
        if let Some(approved) = kept.approved {
            kept.approve(approved.checked_sub(by).unwrap_or(Timestamp::MIN));
        }
        let own = |transaction: &&mut Transaction| transaction.payment_key == payment_key;
        for transaction in self.transactions.iter_mut().filter(own) {
            let at = transaction.at.checked_sub(by).unwrap_or(Timestamp::MIN);
            transaction.at = at;
            transaction.transaction_at = time_text(at);
            if let Some(approved_at) = &kept.payment.approved_at {
                transaction.approved_at.clone_from(approved_at);
            }
            let key = &transaction.transaction_key;
            let cancels = kept.payment.cancels.iter_mut().flatten();
            for cancel in cancels.filter(|cancel| &cancel.transaction_key == key) {
                cancel.canceled_at = time_text(at);
                transaction.cancel = Some(cancel.clone());
            }
        }
        self.by_key(payment_key)
    }

    /// Somebody went through the window.
    pub(crate) fn authenticate(&mut self, new: NewSession) -> Result<Payment, Refusal> {
        if !is_order_id(&new.order_id) || new.amount <= 0 {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        if let Means::EasyPay { discount, .. } = &new.means
            && !(0..=new.amount).contains(discount)
        {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        while self.payments.len() >= self.payments_max {
            self.forget_oldest();
        }
        let now = Timestamp::now();
        let payment_key = format!("tsim_{}", Uuid::now_v7().simple());
        let vat = new.amount / 11;
        let payment = Payment {
            version: "2022-11-16",
            payment_key: payment_key.clone(),
            r#type: "NORMAL",
            order_id: new.order_id.clone(),
            order_name: new.order_name,
            m_id: SHOP,
            currency: "KRW",
            country: "KR",
            method: Some(new.means.method()),
            total_amount: new.amount,
            balance_amount: new.amount,
            supplied_amount: new.amount - vat,
            vat,
            tax_free_amount: 0,
            status: Status::InProgress,
            requested_at: time_text(now),
            approved_at: None,
            last_transaction_key: None,
            is_partial_cancelable: true,
            secret: Some(format!("ps_{}", Uuid::new_v4().simple())),
            failure: None,
            cancels: None,
            card: None,
            virtual_account: None,
            easy_pay: None,
            transfer: None,
            receipt: None,
        };
        let kept = Kept {
            payment: payment.clone(),
            means: new.means,
            authenticated_at: now,
            approved: None,
            deposit_until: None,
            refund_account: new.refund_account,
            refuse: new.refuse,
        };
        self.by_order.insert(new.order_id, payment_key.clone());
        self.oldest_first.push_back(payment_key.clone());
        self.payments.insert(payment_key, kept);
        Ok(payment)
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.oldest_first.pop_front() else {
            return;
        };
        if let Some(kept) = self.payments.remove(&key)
            && self.by_order.get(&kept.payment.order_id) == Some(&key)
        {
            self.by_order.remove(&kept.payment.order_id);
        }
    }

    fn kept(&mut self, payment_key: &str) -> Result<&mut Kept, Refusal> {
        let ttl = self.session_ttl;
        let kept = self
            .payments
            .get_mut(payment_key)
            .ok_or_else(|| Refusal::new("NOT_FOUND_PAYMENT"))?;
        kept.grow_old(ttl);
        Ok(kept)
    }

    /// A payment by its key.
    pub(crate) fn by_key(&mut self, payment_key: &str) -> Result<Payment, Refusal> {
        self.kept(payment_key).map(|kept| kept.payment.clone())
    }

    /// The newest payment of an order.
    pub(crate) fn by_order(&mut self, order_id: &str) -> Result<Payment, Refusal> {
        let key = self
            .by_order
            .get(order_id)
            .cloned()
            .ok_or_else(|| Refusal::new("NOT_FOUND_PAYMENT"))?;
        self.by_key(&key)
    }

    /// Captures, or issues the virtual account. `refuse` is a code to refuse it with, whatever the session says.
    pub(crate) fn confirm(
        &mut self,
        payment_key: &str,
        order_id: &str,
        amount: i64,
        refuse: Option<&str>,
    ) -> Result<Payment, Refusal> {
        let kept = self.kept(payment_key)?;
        let payment = &mut kept.payment;
        match payment.status {
            Status::InProgress => {}
            Status::Ready | Status::Expired | Status::Aborted => {
                return Err(Refusal::new("NOT_FOUND_PAYMENT_SESSION"));
            }
            _ => return Err(Refusal::new("ALREADY_PROCESSED_PAYMENT")),
        }
        if payment.order_id != order_id || payment.total_amount != amount {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        if let Some(code) = refuse.or(kept.refuse.as_deref()) {
            payment.status = Status::Aborted;
            let refusal = Refusal::new(code);
            payment.failure = Some(Failure {
                code: code.to_owned(),
                message: format!("simulated: {code}"),
            });
            return Err(refusal);
        }
        kept.show_means();
        if kept.means == Means::VirtualAccount {
            let until = kept.issue_account();
            kept.deposit_until = Some(until);
            return Ok(kept.payment.clone());
        }
        let transaction = kept.capture();
        let payment = kept.payment.clone();
        self.keep(transaction);
        Ok(payment)
    }

    /// Money arrives at a virtual account.
    pub(crate) fn deposit(&mut self, payment_key: &str) -> Result<Payment, Refusal> {
        let kept = self.kept(payment_key)?;
        if kept.payment.status != Status::WaitingForDeposit {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        let transaction = kept.capture();
        let payment = kept.payment.clone();
        self.keep(transaction);
        Ok(payment)
    }

    /// The bank takes a deposit back: the account waits again.
    pub(crate) fn reverse_deposit(&mut self, payment_key: &str) -> Result<Payment, Refusal> {
        let kept = self.kept(payment_key)?;
        let is_deposit = kept.means == Means::VirtualAccount;
        if !is_deposit || kept.payment.status != Status::Done {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        let transaction = kept.reverse();
        let payment = kept.payment.clone();
        self.keep(transaction);
        Ok(payment)
    }

    /// Gives money back.
    pub(crate) fn cancel(
        &mut self,
        payment_key: &str,
        request: &CancelRequest,
    ) -> Result<Payment, Refusal> {
        let kept = self.kept(payment_key)?;
        let payment = &mut kept.payment;
        let reason = request.cancel_reason.clone().unwrap_or_default();
        if reason.is_empty() || reason.chars().count() > 200 {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        if payment.status == Status::WaitingForDeposit {
            // Nothing moves, and yet it is listed like any other cancel.
            let transaction = kept.give_back(kept.payment.balance_amount, reason);
            let payment = kept.payment.clone();
            self.keep(transaction);
            return Ok(payment);
        }
        if !matches!(
            payment.status,
            Status::Done | Status::PartialCanceled | Status::Canceled
        ) {
            return Err(Refusal::new("NOT_CANCELABLE_PAYMENT"));
        }
        if payment.balance_amount == 0 {
            return Err(Refusal::new("ALREADY_CANCELED_PAYMENT"));
        }
        let amount = request.cancel_amount.unwrap_or(payment.balance_amount);
        if amount <= 0 || amount > payment.balance_amount {
            return Err(Refusal::new("NOT_CANCELABLE_AMOUNT"));
        }
        let receiver = request.refund_receive_account.as_ref();
        if kept.means == Means::VirtualAccount && !receiver.is_some_and(RefundReceiver::is_whole) {
            return Err(Refusal::new("INVALID_REQUEST"));
        }
        let transaction = kept.give_back(amount, reason);
        let payment = kept.payment.clone();
        self.keep(transaction);
        Ok(payment)
    }

    fn keep(&mut self, transaction: Transaction) {
        while self.transactions.len() >= self.payments_max * TRANSACTIONS_PER_PAYMENT {
            self.transactions.pop_front();
        }
        self.transactions.push_back(transaction);
    }

    /// The transactions from `start` up to, but not at, `end`, after the one named `after`.
    pub(crate) fn transactions(
        &self,
        start: Timestamp,
        end: Timestamp,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Transaction> {
        let mut found = self
            .transactions
            .iter()
            .filter(|transaction| (start..end).contains(&transaction.at));
        if let Some(after) = after {
            for transaction in found.by_ref() {
                if transaction.transaction_key == after {
                    break;
                }
            }
        }
        found.take(limit).cloned().collect()
    }

    /// What was settled by now, in these dates, the oldest first.
    pub(crate) fn settlements(&self, asked: &Asked) -> Vec<Settlement> {
        let today = date(Timestamp::now());
        let all = self.transactions.iter();
        asked.page_of(all.filter_map(|transaction| settle(transaction, today)))
    }
}

impl Kept {
    /// What time does to a payment.
    fn grow_old(&mut self, session_ttl: Duration) {
        let now = Timestamp::now();
        let age = now.duration_since(self.authenticated_at);
        let session_over = self.payment.status == Status::InProgress && age >= signed(session_ttl);
        let deposit_over = self.payment.status == Status::WaitingForDeposit
            && self.deposit_until.is_some_and(|until| until <= now);
        if session_over || deposit_over {
            self.payment.status = Status::Expired;
            if let Some(account) = &mut self.payment.virtual_account {
                account.expired = true;
            }
        }
    }

    fn show_means(&mut self) {
        let total = self.payment.total_amount;
        match &self.means {
            Means::Card => self.payment.card = Some(card(total)),
            Means::EasyPay {
                provider,
                discount,
                by_card,
            } => {
                let rest = total - discount;
                self.payment.easy_pay = Some(EasyPay {
                    provider: provider.clone(),
                    amount: if *by_card { 0 } else { rest },
                    discount_amount: *discount,
                });
                self.payment.card = by_card.then(|| card(rest));
            }
            Means::VirtualAccount => {}
            Means::Transfer => {
                self.payment.transfer = Some(Transfer {
                    bank_code: "88",
                    settlement_status: "INCOMPLETED",
                });
            }
        }
    }

    fn issue_account(&mut self) -> Timestamp {
        let until = Timestamp::now()
            .checked_add(signed(DEPOSIT_WITHIN))
            .unwrap_or(Timestamp::MAX);
        let digits = Uuid::new_v4().as_u128() % 100_000_000_000_000;
        self.payment.virtual_account = Some(VirtualAccount {
            account_number: format!("X{digits:014}"),
            account_type: "일반",
            bank_code: "20",
            customer_name: "시뮬레이터",
            due_date: time_text(until),
            refund_status: "NONE",
            expired: false,
            settlement_status: "INCOMPLETED",
            refund_receive_account: self.refund_account.clone(),
        });
        self.payment.status = Status::WaitingForDeposit;
        until
    }

    fn approve(&mut self, at: Timestamp) {
        self.approved = Some(at);
        self.payment.approved_at = Some(time_text(at));
    }

    fn capture(&mut self) -> Transaction {
        let now = Timestamp::now();
        let key = transaction_key();
        self.payment.status = Status::Done;
        self.approve(now);
        self.payment.last_transaction_key = Some(key.clone());
        self.payment.receipt = Some(Receipt {
            url: format!("https://simulator.invalid/receipts/{key}"),
        });
        self.transaction(key, now, self.payment.total_amount, None)
    }

    fn reverse(&mut self) -> Transaction {
        let key = transaction_key();
        self.payment.status = Status::WaitingForDeposit;
        let approved_at = self.payment.approved_at.take().unwrap_or_default();
        self.approved = None;
        self.payment.last_transaction_key = Some(key.clone());
        let now = Timestamp::now();
        Transaction {
            approved_at,
            ..self.transaction(key, now, self.payment.total_amount, None)
        }
    }

    fn give_back(&mut self, amount: i64, reason: String) -> Transaction {
        let now = Timestamp::now();
        let key = transaction_key();
        let payment = &mut self.payment;
        let first = payment.cancels.is_none();
        payment.balance_amount -= amount;
        payment.status = if first && payment.balance_amount == 0 {
            Status::Canceled
        } else {
            Status::PartialCanceled
        };
        payment.last_transaction_key = Some(key.clone());
        let cancel = Cancel {
            cancel_amount: amount,
            cancel_reason: reason,
            tax_free_amount: 0,
            refundable_amount: payment.balance_amount,
            canceled_at: time_text(now),
            transaction_key: key.clone(),
            receipt_key: None,
            cancel_status: "DONE",
        };
        let cancels = payment.cancels.get_or_insert_default();
        cancels.push(cancel.clone());
        self.transaction(key, now, amount, Some(cancel))
    }

    fn transaction(
        &self,
        key: String,
        at: Timestamp,
        amount: i64,
        cancel: Option<Cancel>,
    ) -> Transaction {
        Transaction {
            m_id: SHOP,
            receipt_url: format!("https://simulator.invalid/receipts/{key}"),
            transaction_key: key,
            payment_key: self.payment.payment_key.clone(),
            order_id: self.payment.order_id.clone(),
            method: self.means.method(),
            customer_key: None,
            use_escrow: false,
            status: self.payment.status,
            transaction_at: time_text(at),
            currency: "KRW",
            amount,
            at,
            approved_at: self.payment.approved_at.clone().unwrap_or_default(),
            cancel,
        }
    }
}

fn card(amount: i64) -> Card {
    Card {
        amount,
        issuer_code: "61",
        acquirer_code: Some("31"),
        number: "00000000****000*",
        installment_plan_months: 0,
        approve_no: "00000000",
        card_type: "신용",
        owner_type: "개인",
        acquire_status: "READY",
        is_interest_free: false,
    }
}

fn transaction_key() -> String {
    Uuid::now_v7().simple().to_string().to_uppercase()
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

fn is_order_id(text: &str) -> bool {
    (6..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
