# Debian packages that the platform is made of. Sourced, never run.
#
# A package is installed only for a command that is missing, so a machine that already has one of another
# origin (Docker's own containerd, a newer PostgreSQL) keeps it. No service is started or enabled.

# COMMAND PACKAGE: the first path or command that exists makes the package unnecessary.
PACKAGES=(
  "etcd etcd-server"
  "containerd containerd"
  "runc runc"
  "/usr/lib/cni/ptp containernetworking-plugins"
  "redis-server redis-server"
  "redis-cli redis-tools"
  "iptables iptables"
  "conntrack conntrack"
  "openssl openssl"
  "ip iproute2"
  "setpriv util-linux"
  "ps procps"
  "curl curl"
  "jq jq"
  "/usr/lib/python3/dist-packages/yaml python3-yaml"
  "gcc build-essential"
  "cmake cmake"
  "make make"
  "shellcheck shellcheck"
)

missing_packages() {
  local entry command package
  for entry in "${PACKAGES[@]}"; do
    read -r command package <<<"$entry"
    [[ $command == /* && -e $command ]] || command -v "$command" >/dev/null || printf '%s\n' "$package"
  done
  /usr/bin/python3 -c 'import yaml' 2>/dev/null || printf '%s\n' python3-yaml
  postgres_bin >/dev/null || printf '%s\n' postgresql
}

# postgres_bin: the folder of the newest PostgreSQL on this machine, 15 or later.
postgres_bin() {
  local newest
  newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
  [[ -x $newest && $newest =~ /postgresql/([0-9]+)/ && ${BASH_REMATCH[1]} -ge 15 ]] || return 1
  dirname "$newest"
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    say "  Debian packages: all there"
    return
  fi
  need_root "installing ${missing[*]}"
  say "  Debian packages: installing ${missing[*]}"
  mkdir -p "$CACHE"
  local log=$CACHE/apt.log
  without_services apt_install "${missing[@]}" >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    die "apt-get could not install ${missing[*]} (whole output: $log)"
  }
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
}

# without_services COMMAND...: what it installs starts no service, now or at the next boot.
without_services() {
  local policy=/usr/sbin/policy-rc.d mine=0 status=0 before unit
  before=$(enabled_units)
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    mine=1
  fi
  # Called in a condition, so `set -e` is off inside: the status is what counts.
  ("$@") || status=$?
  ((mine)) && rm -f "$policy"
  for unit in $(comm -13 <(printf '%s\n' "$before") <(enabled_units)); do
    systemctl disable "$unit" || true
  done
  return "$status"
}

enabled_units() {
  command -v systemctl >/dev/null || return 0
  systemctl list-unit-files --state=enabled --no-legend 2>/dev/null | awk '{print $1}' |
    grep -E '^(etcd|containerd|redis|postgresql)' | sort || true
}
