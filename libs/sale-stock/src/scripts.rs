//! The scripts by name, with the digests that call them.

use redis::Script;

/// Every script, with its digest worked out once.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) claim: Source,
    pub(crate) give_back: Source,
    pub(crate) settle: Source,
    pub(crate) begin_ending: Source,
    pub(crate) take_stale: Source,
    pub(crate) close_gate: Source,
    pub(crate) write_gate: Source,
    pub(crate) update_gate: Source,
    pub(crate) snapshot: Source,
}

/// One script.
#[derive(Debug)]
pub(crate) struct Source {
    /// For spans.
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) digest: String,
}

impl Source {
    fn new(name: &'static str, text: &str) -> Self {
        let text = planted(text);
        let digest = Script::new(&text).get_hash().to_owned();
        Self { name, text, digest }
    }
}

macro_rules! scripts {
    ($($name:ident),*) => {
        impl Scripts {
            pub(crate) fn new() -> Self {
                Self { $($name: Source::new(
                    stringify!($name),
                    include_str!(concat!("scripts/", stringify!($name), ".lua")),
                )),* }
            }

            pub(crate) fn all(&self) -> impl Iterator<Item = &Source> {
                [$(&self.$name),*].into_iter()
            }
        }
    };
}

scripts!(
    claim,
    give_back,
    settle,
    begin_ending,
    take_stale,
    close_gate,
    write_gate,
    update_gate,
    snapshot
);

/// Test builds leave out the lines of the rule that `QUOKKA_PLANTED_BUG` names.
#[cfg(feature = "planted-bugs")]
fn planted(text: &str) -> String {
    match std::env::var("QUOKKA_PLANTED_BUG") {
        Ok(rule) => without(text, &rule),
        Err(_) => text.to_owned(),
    }
}

#[cfg(not(feature = "planted-bugs"))]
fn planted(text: &str) -> String {
    text.to_owned()
}

/// The script without the lines that keep a rule.
#[cfg(any(test, feature = "planted-bugs"))]
fn without(text: &str, rule: &str) -> String {
    let tag = format!("-- rule: {rule}");
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_end().ends_with(&tag))
        .collect();
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_planted_against_has_its_line_in_the_scripts() {
        let scripts = Scripts::new();
        for (script, rule) in [
            (&scripts.claim, "r1"),
            (&scripts.claim, "dedupe"),
            (&scripts.take_stale, "r1"),
            (&scripts.take_stale, "r6"),
            (&scripts.write_gate, "validity"),
        ] {
            let left = without(&script.text, rule).lines().count();
            assert_eq!(
                left + 1,
                script.text.lines().count(),
                "{rule} in {}",
                script.name
            );
        }
    }
}
