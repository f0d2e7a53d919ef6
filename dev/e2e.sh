#!/usr/bin/env bash
# The end-to-end run on the one-node cluster, through the gateway. Prints its figures; fails when something that must
# hold does not. Options go to `load e2e`: see `dev/e2e.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ ${1:-} == --help ]] || dev/quokka up
eval "$(dev/quokka env)"
# The chart's own test: one guest's way, from within the cluster.
[[ ${1:-} == --help ]] ||
  helm --namespace "${QUOKKA_NAMESPACE:-quokka}" test quokka --logs --hide-notes --timeout 2m
exec cargo run --quiet --release --locked -p load -- e2e "$@"
