#!/usr/bin/env bash
# What a claim costs, side by side with what it could, on servers of its own: the platform need not run, and should not,
# since it takes the same cores. Options go to `load bench-claims`: see `dev/bench-claims.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=lib/common.sh
. dev/lib/common.sh

[[ ${1:-} == --help ]] || dev/quokka tools
dev/quokka binaries >&2
release=$(target_folder)/release
exec "$release/load" bench-claims --binaries "$release" "$@"
