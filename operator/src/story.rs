//! What happened to a sale, told as Kubernetes events.
//!
//! A happening has a name that follows from what happened, so that telling it again, after a crash or by the next
//! leader, is telling it once.

use jiff::Timestamp;
use quokka_crds::{Phase, SaleStatus};

use crate::{
    cleanup::{RELEASE, Unfinished},
    reasons::{self, condition, event},
    sale::Sale,
};

/// One event to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// One of the reasons of events.
    pub reason: &'static str,
    /// What was done or noticed.
    pub action: &'static str,
    /// For people.
    pub note: String,
    /// Something that somebody should look at.
    pub warning: bool,
    /// What tells this happening from others of the same reason in the life of the same resource.
    pub occasion: String,
}

impl Happening {
    pub(crate) fn new(
        reason: &'static str,
        action: &'static str,
        occasion: impl ToString,
        note: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            action,
            note: note.into(),
            warning: false,
            occasion: occasion.to_string(),
        }
    }

    pub(crate) fn warning(self) -> Self {
        Self {
            warning: true,
            ..self
        }
    }

    pub(crate) fn cleanup_stuck(unfinished: &Unfinished) -> Self {
        let note =
            format!("{unfinished}; annotate the resource with {RELEASE}=true to let go of it");
        Self::removal(event::CLEANUP_STUCK, note).warning()
    }

    /// Of a deletion, which happens once.
    pub(crate) fn removal(reason: &'static str, note: impl Into<String>) -> Self {
        Self::new(reason, "Remove", "deleted", note)
    }

    pub(crate) fn drift_found(note: &str, now: Timestamp) -> Self {
        Self::new(event::DRIFT_FOUND, "AskForRecovery", now.as_second(), note).warning()
    }
}

/// What happened between two statuses of a sale.
pub(crate) fn tell(sale: &Sale, before: &SaleStatus, after: &SaleStatus) -> Vec<Happening> {
    let mut told = Vec::new();
    if let Some(phase) = after.phase
        && before.phase != Some(phase)
    {
        told.extend(phase_change(sale, before, after, phase));
    }
    told.extend(refusal(before, after));
    told
}

fn phase_change(
    sale: &Sale,
    before: &SaleStatus,
    after: &SaleStatus,
    phase: Phase,
) -> Vec<Happening> {
    let definition = &sale.definition;
    let (starts, ends) = (
        definition.starts.as_millisecond(),
        definition.ends.as_millisecond(),
    );
    let generation = definition.generation;
    let epoch = after.epoch.unwrap_or_default();
    let total = after.stock.as_ref().map_or(0, |stock| stock.total);
    let mut told = Vec::new();
    match before.phase {
        Some(Phase::Recovering) => {
            told.push(Happening::new(
                event::RECOVERED,
                "Open",
                epoch,
                "the stock was rebuilt from the ledger",
            ));
        }
        Some(Phase::Paused) if phase != Phase::Ended => {
            told.push(Happening::new(
                event::RESUMED,
                "Open",
                generation,
                "claims go on",
            ));
        }
        _ => {}
    }
    // Told when it was found open for the first time, also where the first look already finds it sold out.
    if before.started_at.is_none() && matches!(phase, Phase::Active | Phase::SoldOut) {
        told.push(Happening::new(
            event::OPENED,
            "Open",
            starts,
            format!("{} units are for sale", definition.stock),
        ));
    }
    told.extend(match (before.phase, phase) {
        (_, Phase::Scheduled) => Some(Happening::new(
            event::SCHEDULED,
            "Schedule",
            starts,
            format!("starts at {}", definition.starts),
        )),
        (_, Phase::Warming) => Some(Happening::new(
            event::WARMING,
            "WarmUp",
            starts,
            "the start is near",
        )),
        (_, Phase::SoldOut) => Some(Happening::new(
            event::SOLD_OUT,
            "Measure",
            generation,
            format!("all {total} units are claimed"),
        )),
        (Some(Phase::SoldOut), Phase::Active) => Some(Happening::new(
            event::BACK_IN_STOCK,
            "Measure",
            generation,
            "units are for sale again",
        )),
        (_, Phase::Active) => None,
        (_, Phase::Paused) => Some(Happening::new(
            event::PAUSED,
            "Pause",
            generation,
            "claims are stopped by spec.paused",
        )),
        (_, Phase::Recovering) => Some(
            Happening::new(
                event::RECOVERING,
                "Recover",
                epoch,
                "claims are stopped until the stock is rebuilt from the ledger",
            )
            .warning(),
        ),
        (_, Phase::Ended) => {
            let claimed = after.stock.as_ref().map_or(0, |stock| stock.claimed);
            Some(Happening::new(
                event::ENDED,
                "Close",
                ends,
                format!("{claimed} units were claimed"),
            ))
        }
    });
    told
}

/// A definition that can't be made real, told once for each generation of the spec and reason.
pub(crate) fn refusal(before: &SaleStatus, after: &SaleStatus) -> Option<Happening> {
    let refusals = [
        reasons::NAME_TAKEN,
        reasons::STOCK_BELOW_CLAIMED,
        reasons::DEFINITION_REFUSED,
        reasons::SPEC_REFUSED,
        reasons::TOPIC_FOREIGN,
        reasons::TOPIC_REFUSED,
    ];
    let refused = |status: &SaleStatus| {
        let is = status
            .conditions
            .iter()
            .find(|is| is.type_ == condition::READY)?;
        let reason = refusals.into_iter().find(|reason| *reason == is.reason)?;
        Some((
            reason,
            is.observed_generation.unwrap_or_default(),
            is.message.clone(),
        ))
    };
    let (reason, generation, message) = refused(after)?;
    if refused(before).is_some_and(|(was, at, _)| (was, at) == (reason, generation)) {
        return None;
    }
    let occasion = format!("{generation}.{}", reason.to_ascii_lowercase());
    Some(Happening::new(event::SPEC_REFUSED, "Declare", occasion, message).warning())
}
