#!/usr/bin/env bash
# What the search index is worth: searches a second and their p99 by the index and by PostgreSQL alone, the same queries
# on the same 50,000 stays with a year of nights, on servers of its own. The answers are compared first. The platform need
# not run, and should not, since it takes the same cores. PostgreSQL's data take about 4 GB where temporary files are.
# Options go to the bench: see `dev/bench-search.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec cargo bench --quiet --locked -p stays --bench search -- "$@"
