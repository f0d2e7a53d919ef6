//! What the service counts beyond its requests. The statics register themselves when they are first touched.

use std::sync::LazyLock;

use chassis::metrics::int_counter;
use prometheus::IntCounter;

/// A lost answer, or a stolen token.
pub(crate) static REFRESH_TOKENS_REUSED: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_users_refresh_tokens_reused_total",
        "Refresh tokens presented after they had been used; each ended its session.",
    )
});

/// Somebody guesses.
pub(crate) static SIGN_INS_SLOWED: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_users_sign_ins_slowed_total",
        "Sign-ins answered 429 because of wrong passwords before.",
    )
});

/// More people at once than passwords can be hashed for.
pub(crate) static HASHING_REFUSED: LazyLock<IntCounter> = LazyLock::new(|| {
    int_counter(
        "quokka_users_hashing_refused_total",
        "Requests answered 503 because too many passwords waited to be hashed.",
    )
});

/// Shows each of them from the start, as 0: a counter that appears with its first event has no rate for it.
pub(crate) fn register() {
    for metric in [&REFRESH_TOKENS_REUSED, &SIGN_INS_SLOWED, &HASHING_REFUSED] {
        LazyLock::force(metric);
    }
}
