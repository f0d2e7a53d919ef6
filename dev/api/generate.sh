#!/usr/bin/env bash
# Writes the API's OpenAPI document from the code: each service's part beside it, and the whole, which is the gateway's.
set -euo pipefail
cd "$(dirname "$0")/../.."

SERVICES=(users promotions stays booking orders payments)

# write PACKAGE FILE: what the package's program prints, in the place of the file once it is whole.
write() {
  cargo run --quiet -p "$1" --bin "$1" -- openapi >"$2.new"
  mv "$2.new" "$2"
}

for service in "${SERVICES[@]}"; do
  write "$service" "services/$service/openapi.json"
done
write gateway docs/openapi.json
