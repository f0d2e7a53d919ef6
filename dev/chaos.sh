#!/usr/bin/env bash
# The same storms under faults, one after another: processes killed, stores flushed and restarted, a payment gateway that
# misbehaves. A checker reads what clients saw and what the stores hold. Then the proof that the checker can fail:
# platforms with planted bugs, in each of which it must find the violation that the bug leads to.
#
#   dev/chaos.sh                      everything
#   dev/chaos.sh --claims [OPTIONS]   only claims; the options go to `load chaos`
#   dev/chaos.sh --orders [OPTIONS]   only orders; the options go to `load chaos-orders`
#   dev/chaos.sh --planted [BUG...]   only the planted bugs, or these of them
#   dev/chaos.sh --help               the options
#
# It runs with the times of tests (dev/values/test-times.yaml), and sets them back when it ends.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

# BUG VIOLATION COMMAND...: without the rule, under the fault, the checker must find the violation.
PLANTED=(
  "dedupe yes-without-row chaos --calls 8000 --fault nothing"
  "ack-before-append yes-without-row chaos --calls 8000 --fault kafka-restarted"
  "no-fence yes-without-row chaos --calls 8000 --fault redis-flushed-while-a-reader-hangs"
  "skip-compensation ended chaos-orders --order-fault nothing"
  "no-dedupe nights-are-held chaos-orders --order-fault kafka-restarted"
  "blind-expiry ended chaos-orders --order-fault expiry-race --races 200"
)

load() {
  "$(binaries_folder)/load" "$@"
}

# planted_bugs [BUG...]
planted_bugs() {
  local entry bug violation run failed=0
  for entry in "${PLANTED[@]}"; do
    read -r bug violation run <<<"$entry"
    (($# == 0)) || [[ " $* " == *" $bug "* ]] || continue
    say "Planted bug: $bug"
    PLANTED_BUG=$bug dev/quokka up >"$LOGS/planted-$bug.log" 2>&1 || {
      tail -n 30 "$LOGS/planted-$bug.log" >&2
      return 1
    }
    # shellcheck disable=SC2086 # words on purpose
    load $run --expect "$violation" || failed=1
  done
  return "$failed"
}

if [[ ${1:-} == --help ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  dev/quokka binaries >&2
  load chaos --help
  load chaos-orders --help
  exit
fi
# set_back: whatever happens, the platform that is left has no bug in it, and the times that `make up` gives it.
set_back() {
  local status=$?
  say "Setting the platform back"
  TEST_TIMES='' dev/quokka up >"$LOGS/set-back.log" 2>&1 || {
    tail -n 20 "$LOGS/set-back.log" >&2
    status=1
  }
  exit "$status"
}
export TEST_TIMES=1
part=${1:-}
(($# == 0)) || shift
case $part in
  '' | --claims | --orders | --planted) ;;
  *) die "dev/chaos.sh has no option $part: see dev/chaos.sh --help" ;;
esac
trap set_back EXIT
dev/quokka up
eval "$(dev/quokka env)"
status=0
[[ $part != '' && $part != --claims ]] || load chaos "$@" || status=1
[[ $part != '' && $part != --orders ]] || load chaos-orders "$@" || status=1
[[ $part != '' && $part != --planted ]] || planted_bugs "$@" || status=1
exit "$status"
