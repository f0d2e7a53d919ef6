#!/usr/bin/env bash
# The quick part of the tests: formatting, lints, unit tests and generated files. Needs no server.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

scripts() {
  local scripts=(dev/quokka dev/*.sh dev/lib/*.sh dev/api/*.sh charts/*.sh .ci/run) script
  for script in "${scripts[@]}"; do bash -n "$script"; done
  # Names that one file sets and another uses look unused; functions that a trap calls look unreachable.
  if command -v shellcheck >/dev/null; then
    shellcheck --shell=bash --exclude=SC1091,SC2034,SC2317,SC2153 "${scripts[@]}"
  fi
}

generated_files() {
  # The resources' YAML is checked by a unit test; the chart carries copies of it.
  diff -r <(cd crds && cat ./*.yaml) <(cd charts/quokka-operator/files/crds && cat ./*.yaml) || {
    echo "charts/quokka-operator/files/crds is stale: run make generate" >&2
    return 1
  }
}

step "Formatting" cargo fmt --all --check
step "Scripts" scripts
step "Clippy" cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
step "Unit tests" cargo test --quiet --workspace --lib --bins --locked
step "Generated files" generated_files
