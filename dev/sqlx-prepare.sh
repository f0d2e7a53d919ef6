#!/usr/bin/env bash
# Writes the offline data of sqlx's checked queries (services/<name>/.sqlx), so that a build needs no database.
#
#   dev/sqlx-prepare.sh [--check] [package...]       default: every package with a migrations folder
#
# It starts a throw-away PostgreSQL, applies the package's migrations and compiles the package against it: sqlx's own
# macros write the files (SQLX_OFFLINE_DIR), so sqlx-cli is not needed. With --check nothing is changed, and the exit
# status says whether the committed files are the ones that would be written.
set -euo pipefail
cd "$(dirname "$0")/.."

check=false
if [[ "${1:-}" == --check ]]; then
  check=true
  shift
fi
packages=("$@")
if [[ ${#packages[@]} -eq 0 ]]; then
  for migrations in services/*/migrations; do
    packages+=("$(basename "$(dirname "$migrations")")")
  done
fi

bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -n 1 || true)
if [[ -z "$bin" ]]; then
  echo "sqlx-prepare: PostgreSQL's programs are not under /usr/lib/postgresql: run 'make tools'" >&2
  exit 1
fi

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

# A Unix socket in a folder of its own: no port to collide on.
(
  cd /
  "${as[@]}" "$bin/initdb" -D "$work/data" -A trust -U postgres --no-sync >"$work/initdb.log"
  "${as[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/postgres.log" -w -t 30 start \
    -o "-c listen_addresses= -c unix_socket_directories=$work -c fsync=off" >/dev/null
)
chmod 755 "$work"

stale=0
for package in "${packages[@]}"; do
  folder="services/$package"
  database="prepare_$package"
  url="postgres://postgres@localhost/$database?host=$work"
  psql=("$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$work" -U postgres)
  "${psql[@]}" -d postgres -c "CREATE DATABASE $database"
  for migration in "$folder"/migrations/*.sql; do
    "${psql[@]}" -d "$database" -1 -f "$migration"
  done

  fresh="$work/offline-$package"
  mkdir "$fresh"
  # The macros run only where the compiler does: what holds a query is made to look changed.
  grep -rlE 'query(_as|_scalar)?!' "$folder" --include='*.rs' | xargs -r touch
  DATABASE_URL="$url" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" \
    cargo check --quiet -p "$package" --all-targets

  if diff -rq "$fresh" "$folder/.sqlx" >"$work/diff" 2>&1; then
    echo "sqlx-prepare: $folder/.sqlx is fresh ($(find "$fresh" -name '*.json' | wc -l) queries)"
  elif $check; then
    echo "sqlx-prepare: $folder/.sqlx is stale; run dev/sqlx-prepare.sh $package" >&2
    sed "s|$fresh|fresh|g" "$work/diff" >&2
    stale=1
  else
    mkdir -p "$folder/.sqlx"
    find "$folder/.sqlx" -name 'query-*.json' -delete
    find "$fresh" -name '*.json' -exec cp {} "$folder/.sqlx/" \;
    echo "sqlx-prepare: wrote $(find "$fresh" -name '*.json' | wc -l) queries to $folder/.sqlx"
  fi
done
exit "$stale"
