#!/usr/bin/env bash
# How many holds a second booking takes, beside the bare `UPDATE room_nights SET reserved = reserved + 1` by pgbench, in
# turns on a PostgreSQL of its own with its default durability (fsync). Nothing else should run meanwhile.
#
#   dev/bench-booking.sh          BENCH_ROUND_SECONDS=10 BENCH_ROUNDS=3 BENCH_PROFILE=bench
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -n 1 || true)
if [[ -z "$bin" || ! -x "$bin/pgbench" ]]; then
  echo "bench-booking: PostgreSQL's programs are not under /usr/lib/postgresql: run 'make tools'" >&2
  exit 1
fi
cargo bench --quiet --locked -p booking --bench holds --no-run --profile "${BENCH_PROFILE:-bench}"

work=$(mktemp -d)
# PostgreSQL refuses to run as root: as root, everything of it runs as the account that Debian's package made.
as=()
if [[ $(id -u) -eq 0 ]]; then
  as=(runuser -u postgres --)
  chown postgres "$work"
fi
cleanup() {
  (cd / && "${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop) >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT
(
  cd /
  "${as[@]}" "$bin/initdb" -D "$work/data" -A trust -U postgres >"$work/initdb.log"
  "${as[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/postgres.log" -w -t 30 start \
    -o "-c listen_addresses= -c unix_socket_directories=$work -c max_wal_size=4GB" >/dev/null
)
chmod 755 "$work"

BENCH_DATABASE_URL="postgres://postgres@localhost/postgres?host=$work" BENCH_PGBENCH="$bin/pgbench" \
  cargo bench --quiet --locked -p booking --bench holds --profile "${BENCH_PROFILE:-bench}"
