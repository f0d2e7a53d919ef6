#!/usr/bin/env bash
# Writes the API's OpenAPI document from the code: each service's part beside it, and the whole, which is the gateway's.
set -euo pipefail
cd "$(dirname "$0")/../.."

SERVICES=(users promotions stays booking orders payments)

# write PROGRAM FILE: what it prints, in the place of the file once it is whole.
write() {
  "$programs/$1" openapi >"$2.new"
  mv "$2.new" "$2"
}

# Everything at once: which features a library is built with depends on who is built beside it.
build() {
  cargo build --quiet --workspace --bins
}
programs=${CARGO_TARGET_DIR:-target}/debug

build
for service in "${SERVICES[@]}"; do
  write "$service" "services/$service/openapi.json"
done
# The gateway has the parts in it.
build
write gateway docs/openapi.json
