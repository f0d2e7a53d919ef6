//! Schemas that can't be derived from a Rust type alone.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Narrower than the API server's own `date-time`, which lets in forms that other readers refuse, such as an offset of
/// 60 minutes or of 24 hours; one such object would break every watch.
const TIMESTAMP: &str = concat!(
    r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?",
    r"(Z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])$",
);

/// A time as RFC 3339 writes it.
pub(crate) fn timestamp(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "pattern": TIMESTAMP, "maxLength": 35 })
}

/// A calendar date, `2026-12-05`.
pub(crate) fn date(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date", "pattern": "^20[0-9]{2}-[0-9]{2}-[0-9]{2}$", "maxLength": 10 })
}

/// Ids of stays or room types: a set without repetition.
pub(crate) fn ids(_: &mut SchemaGenerator) -> Schema {
    set(
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9-]*$", "maxLength": 64 }),
        1,
    )
}

/// Names of regions, such as `jeju`: a set without repetition that says something.
pub(crate) fn regions(_: &mut SchemaGenerator) -> Schema {
    set(region(), 1)
}

/// Names of regions; none means every region.
pub(crate) fn regions_or_all(_: &mut SchemaGenerator) -> Schema {
    set(region(), 0)
}

fn region() -> Schema {
    json_schema!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63 })
}

/// The bound of 100 items keeps the cost of comparing two such sets in a rule known and small.
fn set(items: Schema, min_items: u32) -> Schema {
    json_schema!({
        "type": "array",
        "items": items,
        "minItems": min_items,
        "maxItems": 100,
        "x-kubernetes-list-type": "set",
    })
}
