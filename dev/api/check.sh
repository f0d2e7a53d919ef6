#!/usr/bin/env bash
# Holds the API of the platform that runs against its own document: schemathesis asks every operation, rightly and
# wrongly, and looks whether each answer is one that the document has, and none of them a mistake of ours. It asks the
# same each time, for a minute at most. Options go to `st run`: --max-time 600 asks on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../lib/common.sh
. dev/lib/common.sh

SECONDS_MAX=60

st=$CACHE/schemathesis/bin/st
[[ -x $st ]] || dev/quokka tools checks
eval "$(dev/quokka env)"
api=http://127.0.0.1:$GATEWAY_NODE_PORT

# Somebody of its own, who is a host as well, so that what hosts do is tried too.
post() {
  curl -sSf -m 20 "$api$1" -H 'content-type: application/json' -d "$2"
}
email=api-check-$(openssl rand -hex 8)@example.com
password=$(openssl rand -hex 16)
user=$(post /v1/users "{\"email\":\"$email\",\"password\":\"$password\",\"name\":\"API check\"}" | jq -r .userId)
"$(find /usr/lib/postgresql/*/bin -maxdepth 0 | sort -V | tail -n 1)/psql" -X -q -d "$QUOKKA_USERS_DATABASE_URL" \
  -c "UPDATE users SET roles = '{guest,host}' WHERE user_id = '$user'"
QUOKKA_TOKEN=$(post /v1/sessions "{\"email\":\"$email\",\"password\":\"$password\"}" | jq -r .accessToken)
export QUOKKA_TOKEN

# Its notes and the requests that it remembers are no part of the project.
work=$(mktemp -d)
trap 'rm -rf "$work"; tell_failed_step' EXIT
config=$PWD/dev/api/schemathesis.toml
cd "$work"
"$st" --config-file "$config" run "$api/openapi.json" --max-time "$SECONDS_MAX" "$@"
