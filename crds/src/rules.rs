//! Validation rules that the kinds share. Each runs in the API server, as CEL, when a resource is
//! applied; CEL there has no clock, so what holds "once a sale has started" is told by
//! `status.startedAt`, which the operator writes when the window opens.

use kube::core::{Reason, Rule};

/// Longest name of a resource: it becomes a label's value and a part of a topic's name.
pub(crate) fn name_fits() -> Rule {
    Rule::new("size(self.metadata.name) <= 63")
        .message("a sale's name has at most 63 characters")
        .reason(Reason::FieldValueInvalid)
}

pub(crate) fn ends_after_starts() -> Rule {
    Rule::new("self.ends > self.starts")
        .message("ends must be after starts")
        .reason(Reason::FieldValueInvalid)
        .field_path(".ends")
}

/// `field` of the spec can't change any more once the sale has started.
pub(crate) fn fixed_once_started(field: &str) -> Rule {
    fixed(field, format!("self.spec.{field} == oldSelf.spec.{field}"))
}

/// The same for a field that may be left out.
pub(crate) fn optional_fixed_once_started(field: &str) -> Rule {
    let (new, old) = (
        format!("self.spec.{field}"),
        format!("oldSelf.spec.{field}"),
    );
    fixed(
        field,
        format!("has({new}) == has({old}) && (!has({new}) || {new} == {old})"),
    )
}

fn fixed(field: &str, same: String) -> Rule {
    Rule::new(format!(
        "!has(oldSelf.status) || !has(oldSelf.status.startedAt) || ({same})"
    ))
    .message(format!("{field} is fixed once the sale has started").as_str())
    .reason(Reason::FieldValueForbidden)
    .field_path(format!(".spec.{field}"))
}

/// The stock, in `field` of the spec, may always grow; it shrinks only down to what is claimed.
pub(crate) fn covers_what_is_claimed(field: &str) -> Rule {
    Rule::new(format!(
        "self.spec.{field} >= oldSelf.spec.{field} || !has(oldSelf.status) || !has(oldSelf.status.stock) \
         || self.spec.{field} >= oldSelf.status.stock.claimed"
    ))
    .message(format!("{field} can't shrink below what is claimed").as_str())
    .reason(Reason::FieldValueForbidden)
    .field_path(format!(".spec.{field}"))
}

pub(crate) fn one_kind_of_discount() -> Rule {
    Rule::new("has(self.percent) != has(self.amount)")
        .message("a discount is exactly one of percent and amount")
        .reason(Reason::FieldValueInvalid)
}

pub(crate) fn percent() -> Rule {
    Rule::new("self >= 1 && self <= 99")
        .message("percent must be from 1 to 99")
        .reason(Reason::FieldValueInvalid)
}

/// An amount in whole won; the bound is far above any night's price.
pub(crate) fn amount(field: &str) -> Rule {
    Rule::new("self >= 1 && self <= 100000000")
        .message(format!("{field} must be from 1 to 100000000 won").as_str())
        .reason(Reason::FieldValueInvalid)
}

/// The bound is what one Redis server can hold as entries of one sale, with room to spare.
pub(crate) fn units(field: &str) -> Rule {
    Rule::new("self >= 1 && self <= 10000000")
        .message(format!("{field} must be from 1 to 10000000").as_str())
        .reason(Reason::FieldValueInvalid)
}

pub(crate) fn per_user_limit() -> Rule {
    Rule::new("self >= 1 && self <= 10")
        .message("perUserLimit must be from 1 to 10")
        .reason(Reason::FieldValueInvalid)
}

pub(crate) fn claims_per_second() -> Rule {
    Rule::new("self >= 1 && self <= 1000000")
        .message("claimsPerSecond must be from 1 to 1000000")
        .reason(Reason::FieldValueInvalid)
}

/// A duration within bounds, each written as Kubernetes writes durations.
pub(crate) fn duration_between(what: &str, min: &str, max: &str) -> Rule {
    Rule::new(format!(
        "duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"
    ))
    .message(format!("{what} must be from {min} to {max}").as_str())
    .reason(Reason::FieldValueInvalid)
}
