#!/usr/bin/env bash
# The end-to-end run on the one-node cluster, through the gateway. Prints its figures; fails when something that must
# hold does not. Options go to `load e2e`: see `dev/e2e.sh --help`.
#
# It runs with the times of tests (dev/values/test-times.yaml), and sets them back when it ends. A run that could not is
# put right by the next `make up`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

load() {
  "$(binaries_folder)/load" e2e "$@"
}

if [[ ${1:-} == --help ]]; then
  dev/quokka binaries >&2
  load --help
  exit
fi
# set_back: what the platform's users find is what `make up` gives them.
set_back() {
  local status=$?
  # Nobody uses it afterwards.
  [[ ${CI:-} != true ]] || exit "$status"
  say "Setting the times of tests back"
  SKIP_BUILD=1 dev/quokka up >"$LOGS/set-back.log" 2>&1 || {
    tail -n 20 "$LOGS/set-back.log" >&2
    status=1
  }
  exit "$status"
}
trap set_back EXIT
TEST_TIMES=1 dev/quokka up
eval "$(dev/quokka env)"
# The chart's own test: one guest's way, from within the cluster.
helm --namespace "$NAMESPACE" test quokka --logs --hide-notes --timeout 2m
# Options ask for a part of the load alone.
(($# > 0)) || step "The API is as its document says" dev/api/check.sh
load "$@"
