#!/usr/bin/env bash
# The same storm under faults, one after another: processes killed, stores flushed and restarted. A checker reads what
# clients saw and what the stores hold. Then the proof that the checker can fail: platforms with planted bugs, in each
# of which it must find the violation that the bug leads to.
#
#   dev/chaos.sh [OPTIONS]            everything; with options, only the faults they name (they go to `load chaos`)
#   dev/chaos.sh --planted            only the planted bugs
#   dev/chaos.sh --help               the options
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

# BUG FAULT VIOLATION: without the rule, under the fault, the checker must find the violation.
PLANTED=(
  "dedupe nothing yes-without-row"
  "ack-before-append kafka-restarted yes-without-row"
  "no-fence redis-flushed-while-a-reader-hangs yes-without-row"
)

load() {
  cargo run --release --quiet --locked -p load -- "$@"
}

planted_bugs() {
  local entry bug fault violation failed=0
  # Whatever happens, the platform that is left has no bug in it.
  trap 'dev/quokka up' EXIT
  for entry in "${PLANTED[@]}"; do
    read -r bug fault violation <<<"$entry"
    say "Planted bug: $bug"
    PLANTED_BUG=$bug dev/quokka up >"$LOGS/planted-$bug.log" 2>&1 || {
      tail -n 30 "$LOGS/planted-$bug.log" >&2
      return 1
    }
    load chaos --calls 8000 --fault "$fault" --expect "$violation" || failed=1
  done
  return "$failed"
}

if [[ ${1:-} == --help ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  load chaos --help
  exit
fi
dev/quokka up
eval "$(dev/quokka env)"
status=0
[[ ${1:-} == --planted ]] || load chaos "$@" || status=1
if (($# == 0)) || [[ $1 == --planted ]]; then planted_bugs || status=1; fi
exit "$status"
