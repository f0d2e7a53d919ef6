//! The service's own metrics.

use std::sync::LazyLock;

use chassis::metrics::{int_counter, int_counter_vec};
use events::saga::OrderReply;
use prometheus::{IntCounter, IntCounterVec};

static ANSWERS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    int_counter_vec(
        "quokka_booking_answers_total",
        "Answers to orders' commands. One whose transaction is done again counts again.",
        &["answer"],
    )
});

/// Holds that ended by themselves.
pub(crate) static EXPIRED: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_booking_holds_expired_total",
        "Holds that ended because their time was over.",
    )
});

/// Nights that a host lowered below what is reserved.
pub(crate) static OVERCOMMITTED: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_booking_overcommitted_nights_total",
        "Nights of which a host has offered fewer rooms than were reserved; what was reserved stays.",
    )
});

/// Shows all of them from the start.
pub(crate) fn register() {
    LazyLock::force(&ANSWERS);
    LazyLock::force(&EXPIRED);
    LazyLock::force(&OVERCOMMITTED);
}

/// Counts an answer.
pub(crate) fn answered(reply: &OrderReply) {
    let answer = match reply {
        OrderReply::Held { .. } => "held",
        OrderReply::HoldRefused { .. } => "hold_refused",
        OrderReply::BookingConfirmed { .. } => "booking_confirmed",
        OrderReply::BookingRefused { .. } => "booking_refused",
        OrderReply::NightsReleased { .. } => "nights_released",
        _ => return,
    };
    ANSWERS.with_label_values(&[answer]).inc();
}
