//! What the guests saw: every call with its outcome and the time between which its effect lies.

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::http::{Answer, NoAnswer};

/// What one claim call came to, as its guest saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A yes, with the claim it named.
    Claimed(Uuid),
    /// The claim was given back, and the platform has confirmed it.
    GivenBack(Uuid),
    /// A no that says that nothing was taken.
    Refused(Refusal),
    /// Nobody knows: no answer, or one that says so.
    Unknown,
    /// An answer that the contract does not allow.
    Broken(String),
}

/// The refusals of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Refusal {
    SoldOut,
    NotStarted,
    Ended,
    Paused,
    Recovering,
    /// The platform answered that it can't serve now, before anything was taken.
    NotServed,
}

/// One call of one guest.
#[derive(Clone, Debug)]
pub(crate) struct ClaimCall {
    pub(crate) user: Uuid,
    pub(crate) sent: Timestamp,
    pub(crate) answered: Timestamp,
    pub(crate) outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimBody {
    claim_id: Uuid,
}

/// Reads a claim's answer by the contract.
pub(crate) fn outcome_of(answer: Result<Answer, NoAnswer>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::NotSent) => return Outcome::Refused(Refusal::NotServed),
        Err(NoAnswer::Unknown) => return Outcome::Unknown,
    };
    match answer.status.as_u16() {
        200 | 201 => match serde_json::from_slice::<ClaimBody>(&answer.body) {
            Ok(claim) => Outcome::Claimed(claim.claim_id),
            Err(error) => Outcome::Broken(format!("{} without a claim: {error}", answer.status)),
        },
        status @ (409 | 429 | 502 | 503 | 504) => match (status, answer.code().as_str()) {
            (409, "SOLD_OUT") => Outcome::Refused(Refusal::SoldOut),
            (409, "NOT_STARTED") => Outcome::Refused(Refusal::NotStarted),
            (409, "ENDED") => Outcome::Refused(Refusal::Ended),
            (409, "PAUSED") => Outcome::Refused(Refusal::Paused),
            (503, "RECOVERING") => Outcome::Refused(Refusal::Recovering),
            (409 | 429, code) => Outcome::Broken(format!("{status} {code}")),
            // Any other 5xx may have been said after a unit was taken.
            _ => Outcome::Unknown,
        },
        status => Outcome::Broken(format!(
            "{status} {}",
            String::from_utf8_lossy(&answer.body)
        )),
    }
}

/// How often each outcome was seen, for the reader of a run.
pub(crate) fn summary(calls: &[ClaimCall]) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for call in calls {
        let name = match &call.outcome {
            Outcome::Claimed(_) => "yes".to_owned(),
            Outcome::GivenBack(_) => "given back".to_owned(),
            Outcome::Refused(refusal) => format!("{refusal:?}"),
            Outcome::Unknown => "unknown".to_owned(),
            Outcome::Broken(what) => format!("BROKEN {what}"),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}
