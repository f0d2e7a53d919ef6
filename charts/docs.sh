#!/usr/bin/env bash
# Writes each chart's README from the comments in its values.
set -euo pipefail
export PATH="${QUOKKA_CACHE:-$HOME/.cache/quokka}/bin:$PATH"
exec helm-docs --log-level warning --chart-search-root "$(dirname "$0")"
