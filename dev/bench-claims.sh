#!/usr/bin/env bash
# What a claim costs, side by side with what it could, on servers of its own: the platform need not run, and should not,
# since it takes the same cores. Options go to `load bench-claims`: see `dev/bench-claims.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Whatever the platform runs: of debug builds a benchmark would say nothing.
export QUOKKA_PROFILE=release
# shellcheck source=lib/common.sh
. dev/lib/common.sh

[[ ${1:-} == --help ]] || dev/quokka tools
dev/quokka binaries >&2
release=$(binaries_folder)
exec "$release/load" bench-claims --binaries "$release" "$@"
