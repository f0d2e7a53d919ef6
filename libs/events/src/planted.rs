//! Bugs on purpose. Test builds (feature `planted-bugs`) leave out what `QUOKKA_PLANTED_BUG` names, to show that whoever
//! checks the books notices.

/// Whether the bug is there. Always false in normal builds.
#[cfg(feature = "planted-bugs")]
pub fn planted(bug: &str) -> bool {
    use std::sync::LazyLock;
    static BUG: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("QUOKKA_PLANTED_BUG").ok());
    BUG.as_deref() == Some(bug)
}

/// Whether the bug is there. Always false in normal builds.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_bug: &str) -> bool {
    false
}
