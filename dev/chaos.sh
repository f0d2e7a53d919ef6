#!/usr/bin/env bash
# The same storm under faults, one after another: processes killed, stores flushed and restarted. A checker reads what
# clients saw and what the stores hold. Arguments go to the run: `dev/chaos.sh --help`.
set -euo pipefail
cd "$(dirname "$0")/.."

dev/quokka up
eval "$(dev/quokka env)"
exec cargo run --release --quiet --locked -p load -- chaos "$@"
