//! The role that the chart gives is the one that these tests run under.

use serde_json::Value;

/// The rules of the chart's role, read out of its template.
fn chart_rules() -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../charts/quokka-operator/templates/role.yaml"
    );
    let template = std::fs::read_to_string(path).unwrap();
    let (_, rules) = template.split_once("\nrules:\n").unwrap();
    let (rules, _) = rules.split_once("\n---").unwrap();
    serde_norway::from_str(rules).unwrap()
}

#[test]
fn the_chart_grants_what_is_used_and_no_more() {
    let granted: Value = chart_rules().into();
    assert_eq!(granted, crate::world::rules());
}
