//! The YAML of the custom resource definitions.

use kube::CustomResourceExt;

use crate::{CouponCampaign, TimeSale};

/// Goes on top of every generated file.
const HEADER: &str = "# Generated from the types in crds/src by `make generate`; change those.\n";

/// The name of each generated file in `crds/`, with its contents.
///
/// # Errors
///
/// A definition that can't be written as YAML.
pub fn manifests() -> Result<Vec<(&'static str, String)>, serde_norway::Error> {
    Ok(vec![
        (
            "timesales.yaml",
            format!("{HEADER}{}", serde_norway::to_string(&TimeSale::crd())?),
        ),
        (
            "couponcampaigns.yaml",
            format!(
                "{HEADER}{}",
                serde_norway::to_string(&CouponCampaign::crd())?
            ),
        ),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::manifests;

    #[test]
    fn the_committed_yaml_is_fresh() {
        for (file, yaml) in manifests().unwrap() {
            let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
            let committed = std::fs::read_to_string(&path).unwrap();
            assert!(
                committed == yaml,
                "{file} is not what the types say; run `make generate`"
            );
        }
    }
}
