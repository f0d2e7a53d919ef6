#!/usr/bin/env bash
# Writes every generated file anew: the resources' YAML, the charts' copies and READMEs, sqlx's offline data.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

step "Custom resources" cargo run --quiet -p quokka-crds -- crds
cp crds/*.yaml charts/quokka-operator/files/crds/
cp manifests/dashboards/*.json charts/quokka/files/dashboards/
step "Charts' READMEs" charts/docs.sh
step "Checked SQL" dev/sqlx-prepare.sh
