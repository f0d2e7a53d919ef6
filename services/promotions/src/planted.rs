//! Bugs on purpose. Test builds (feature `planted-bugs`) leave out the rule that `QUOKKA_PLANTED_BUG` names, to
//! show that the checkers notice.

/// Every rule that can be left out: those of the claim protocol, and what else it stands on. `r1`, `r6`, `dedupe` and
/// `validity` are lines of the scripts; `no-fence` is r5, r8 and r9 at once.
#[cfg(feature = "planted-bugs")]
pub const RULES: [&str; 13] = [
    "r1",
    "r2",
    "r3",
    "r4",
    "r5",
    "r6",
    "r7",
    "r8",
    "r9",
    "dedupe",
    "validity",
    "ack-before-append",
    "no-fence",
];

/// Whether the rule is to be broken. Always false in normal builds.
///
/// # Panics
/// If `QUOKKA_PLANTED_BUG` names no rule: a proof by a bug that isn't there would be none.
#[cfg(feature = "planted-bugs")]
pub fn planted(rule: &str) -> bool {
    use std::sync::LazyLock;
    static BUG: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("QUOKKA_PLANTED_BUG").ok());
    let bug = BUG.as_deref();
    assert!(
        bug.is_none_or(|bug| RULES.contains(&bug)),
        "no rule is named {bug:?}"
    );
    bug == Some(rule)
}

/// Whether the rule is to be broken. Always false in normal builds.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_rule: &str) -> bool {
    false
}
