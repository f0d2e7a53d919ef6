# What every part of the local platform shares: where things are, which addresses and ports they take,
# and how progress is shown. Sourced, never run.
#
# Nothing here touches a server that the user runs: every port, data folder and socket is the platform's own.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# What is worth keeping between runs (tools, base packages) and what belongs to one running platform.
CACHE=${QUOKKA_CACHE:-$HOME/.cache/quokka}
RUN=$CACHE/run
BIN=$CACHE/bin
LOGS=$RUN/logs
SECRETS=$RUN/secrets
KUBECONFIG_LOCAL=$RUN/kubeconfig
# PostgreSQL refuses to run as root, and its user may not be able to enter root's home.
POSTGRES_DIR=/var/lib/quokka/postgres

NAMESPACE=${QUOKKA_NAMESPACE:-quokka}
# Cargo's profile for the services and the load generator.
PROFILE=${QUOKKA_PROFILE:-release}
# How many stays there are to try the platform with.
STAYS=${STAYS:-300}

# The node's address lies on a bridge of its own: pods reach programs on this machine by it.
BRIDGE=quokka0
NODE_IP=10.243.0.1
NODE_NET=10.243.0.0/24
POD_NET=10.244.0.0/24
SERVICE_NET=10.96.0.0/16
KUBERNETES_SERVICE_IP=10.96.0.1
DNS_SERVICE_IP=10.96.0.10
NODE_NAME=quokka

# The servers, on 127.0.0.1 and on the node's address.
REDIS_PORT=16379
POSTGRES_PORT=15432
KAFKA_PORT=19092      # for programs on this machine
KAFKA_POD_PORT=19093  # for pods: advertised as the node's address
KAFKA_CONTROLLER_PORT=19094
# The cluster, on the node's address.
APISERVER_PORT=16443
ETCD_PORT=12379
ETCD_PEER_PORT=12380
KUBELET_PORT=20250
METRICS_SERVER_PORT=20443
DNS_PORT=10053
# The cluster's own health endpoints, on 127.0.0.1.
KUBELET_HEALTH_PORT=20248
PROXY_METRICS_PORT=20249
PROXY_HEALTH_PORT=20256
CONTROLLER_MANAGER_PORT=20257
SCHEDULER_PORT=20259
DNS_READY_PORT=20881
# The platform's entrance, on 127.0.0.1, and the simulated payment gateway's.
GATEWAY_NODE_PORT=30080
TOSS_NODE_PORT=30090

# Debian keeps server programs out of an ordinary user's PATH.
export PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
export LC_ALL=C

STARTED=${QUOKKA_STARTED:-$(date +%s)}

# say TEXT...: one line of progress, with the time since the command began.
say() {
  local elapsed=$(($(date +%s) - STARTED))
  printf '[%02d:%02d] %s\n' $((elapsed / 60)) $((elapsed % 60)) "$*"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# target_folder: where cargo puts what it builds.
target_folder() {
  printf '%s' "${CARGO_TARGET_DIR:-$REPO/target}"
}

# binaries_folder: where it puts the programs of the profile.
binaries_folder() {
  case $PROFILE in
    dev) printf '%s' "$(target_folder)/debug" ;;
    *) printf '%s' "$(target_folder)/$PROFILE" ;;
  esac
}

# step TITLE COMMAND...: runs the command and tells how long it took. The command's failure ends the run:
# it is called plainly, so that `set -e` holds inside it.
step() {
  local outer=${STEP:-} began
  STEP=$1
  began=$(date +%s)
  shift
  say "$STEP"
  "$@"
  say "$STEP: done in $(($(date +%s) - began)) s"
  STEP=$outer
}

# Whatever ends a run in the middle of a step, the last line says which it was.
tell_failed_step() {
  local status=$?
  if ((status != 0)) && [[ -n ${STEP:-} ]]; then say "$STEP: FAILED"; fi
  exit "$status"
}
trap tell_failed_step EXIT

# wait_until SECONDS WHAT LOG COMMAND...: waits until the command succeeds, at most so many seconds.
# On failure it shows the end of the log, which says why.
wait_until() {
  local seconds=$1 what=$2 log=$3 deadline
  shift 3
  deadline=$(($(date +%s) + seconds))
  until "$@" >/dev/null 2>&1; do
    if (($(date +%s) >= deadline)); then
      printf 'error: %s: not so after %s s\n' "$what" "$seconds" >&2
      if [[ -f $log ]]; then
        printf -- '--- the end of %s\n' "$log" >&2
        tail -n 30 "$log" >&2
      fi
      return 1
    fi
    sleep 0.2
  done
}

need_root() {
  [[ $(id -u) == 0 ]] || die "$1 needs root: it makes network devices, mounts and containers"
}

# lock: one command at a time changes the platform. The descriptor is closed in every process that is left running.
lock() {
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock -n 9 && return
  say "Waiting for another command that is changing the platform"
  flock -w 1800 9 || die "another command has held $CACHE/lock for half an hour"
}

# port_open HOST PORT
port_open() {
  (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

# random_password: 32 letters and digits.
random_password() {
  openssl rand -hex 16
}

# write_file FILE: writes standard input, only when that changes the file (its time then says when it changed).
write_file() {
  local new
  new=$(mktemp "$1.XXXXXX")
  cat >"$new"
  if cmp -s "$new" "$1"; then rm -f "$new"; else mv "$new" "$1"; fi
}

# render FILE NAME...: prints the file with each @NAME@ replaced by that shell variable's value.
render() {
  local text name
  text=$(<"$1")
  shift
  for name in "$@"; do text=${text//@$name@/"${!name}"}; done
  printf '%s\n' "$text"
}
