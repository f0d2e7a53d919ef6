#!/usr/bin/env bash
# Writes every generated file anew: the resources' YAML, the charts' copies and READMEs, the API's document, sqlx's
# offline data.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

step "Custom resources" cargo run --quiet -p quokka-crds -- crds
cp crds/*.yaml charts/quokka-operator/files/crds/
cp manifests/dashboards/*.json charts/quokka/files/dashboards/
step "Charts' READMEs" charts/docs.sh
step "The API's document" dev/api/generate.sh
step "Checked SQL" dev/sqlx-prepare.sh
