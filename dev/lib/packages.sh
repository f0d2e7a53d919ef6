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
  # What a Python environment is made with; Debian keeps it apart from Python.
  python3 -c 'import ensurepip, venv' 2>/dev/null || printf '%s\n' python3-venv
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
  if ((${#missing[@]} == 0)) && [[ -z $(dpkg --audit 2>/dev/null) ]]; then
    say "  Debian packages: all there"
    return
  fi
  need_root "installing Debian packages"
  say "  Debian packages: installing ${missing[*]:-what an interrupted installation left}"
  mkdir -p "$CACHE"
  local log=$CACHE/apt.log
  without_services apt_install "${missing[@]}" >"$log" 2>&1 || {
    tail -n 30 "$log" >&2
    die "apt-get could not install ${missing[*]} (whole output: $log)"
  }
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  # An installation that was killed in the middle blocks every later one until it is finished.
  dpkg --configure -a
  apt-get update -q
  apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300 "$@"
}

# Debian's way to keep packages from starting services, marked so that one left by a killed run is known as ours.
SERVICE_POLICY=/usr/sbin/policy-rc.d
SERVICE_POLICY_MARK='# Made by Quokka while it installs packages.'

# without_services COMMAND...: what it installs starts no service, now or at the next boot.
without_services() {
  local status=0 before unit
  before=$(enabled_units)
  service_policy_down
  if [[ ! -e $SERVICE_POLICY ]]; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$SERVICE_POLICY_MARK" >"$SERVICE_POLICY"
    chmod 755 "$SERVICE_POLICY"
  fi
  # Called in a condition, so `set -e` is off inside: the status is what counts.
  ("$@") || status=$?
  service_policy_down
  for unit in $(comm -13 <(printf '%s\n' "$before") <(enabled_units)); do
    systemctl disable "$unit" || true
  done
  return "$status"
}

# service_policy_down: removes the policy if it is ours, this run's or one's that was killed.
service_policy_down() {
  ! grep -qxF "$SERVICE_POLICY_MARK" "$SERVICE_POLICY" 2>/dev/null || rm -f "$SERVICE_POLICY"
}

enabled_units() {
  command -v systemctl >/dev/null || return 0
  systemctl list-unit-files --state=enabled --no-legend 2>/dev/null | awk '{print $1}' |
    grep -E '^(etcd|containerd|redis|postgresql)' | sort || true
}
