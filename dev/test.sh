#!/usr/bin/env bash
# Every test there is, from formatting to the end-to-end run on the one-node cluster. `.ci/run` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh
# The parts count from the same start.
export QUOKKA_STARTED=$STARTED

# The quick tests come before what takes long to fail.
step "Debian packages and tools" dev/quokka tools checks
step "Quick tests" dev/check.sh
# A test that hangs must fail: it has half an hour, building included.
step "Integration tests on real Redis, Kafka, PostgreSQL and kube-apiserver" \
  timeout --foreground --kill-after=30 1800 cargo test --quiet --workspace --locked --no-fail-fast
step "Planted bugs are found" \
  timeout --foreground --kill-after=30 900 cargo test --quiet --workspace --locked --features promotions/planted-bugs --test it planted
step "Checked SQL is fresh" dev/sqlx-prepare.sh --check
step "Charts" charts/check.sh
# With debug builds: their libraries are there from the tests, and what overflows panics. `make e2e` takes release builds.
step "End to end" env QUOKKA_PROFILE=dev dev/e2e.sh
say "All tests passed"
