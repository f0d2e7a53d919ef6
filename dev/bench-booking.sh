#!/usr/bin/env bash
# What a hold costs beside the bare update that it comes down to, and what an order costs from the wish to the booking, on
# servers of its own: the platform need not run, and should not, since it takes the same cores. Options go to
# `load bench-booking`: see `dev/bench-booking.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ${1:-} != --help ]]; then
  dev/quokka tools
  cargo build --quiet --release --locked -p load -p stays -p booking -p promotions -p orders -p payments
fi
exec cargo run --quiet --release --locked -p load -- bench-booking \
  --binaries "${CARGO_TARGET_DIR:-target}/release" "$@"
