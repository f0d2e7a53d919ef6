#!/usr/bin/env bash
# What a claim costs, side by side with what it could, on servers of its own: the platform need not run, and should not,
# since it takes the same cores. Options go to `load bench-claims`: see `dev/bench-claims.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ${1:-} != --help ]]; then
  dev/quokka tools
  cargo build --quiet --release --locked -p load -p promotions -p gateway
fi
exec cargo run --quiet --release --locked -p load -- bench-claims \
  --binaries "${CARGO_TARGET_DIR:-target}/release" "$@"
