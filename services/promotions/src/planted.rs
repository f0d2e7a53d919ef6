//! Bugs on purpose. Test builds (feature `planted-bugs`) leave out the rule that `QUOKKA_PLANTED_BUG` names, to
//! show that the checkers notice.

/// Whether the rule is to be broken. Always false in normal builds.
#[cfg(feature = "planted-bugs")]
pub fn planted(rule: &str) -> bool {
    use std::sync::LazyLock;
    static BUG: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("QUOKKA_PLANTED_BUG").ok());
    BUG.as_deref() == Some(rule)
}

/// Whether the rule is to be broken. Always false in normal builds.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_rule: &str) -> bool {
    false
}
