# The node's bridge, forwarding for pods, and kernel settings, each undone by `network_down`. Sourced, never run.

# In the order in which they are put first in their chain: some machines drop what is forwarded unless told otherwise.
# A service's address that kube-proxy has not turned into a pod's must not leave the node by its default route: whoever
# answers there would be taken for the service.
FILTER_RULES=(
  "FORWARD -s $POD_NET -j ACCEPT"
  "FORWARD -d $POD_NET -j ACCEPT"
  "FORWARD -d $SERVICE_NET -j REJECT"
  "OUTPUT -d $SERVICE_NET -j REJECT"
)

network_up() {
  need_root "the node's network"
  if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
    ip link add "$BRIDGE" type bridge
  fi
  ip -4 addr show dev "$BRIDGE" | grep -q "inet $NODE_IP/" || ip addr add "$NODE_IP/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

# pod_network_up: what pods need besides the bridge. Servers alone do not need it.
pod_network_up() {
  remember_sysctls
  sysctl_set net.ipv4.ip_forward 1
  local rule
  for rule in "${FILTER_RULES[@]}"; do
    # shellcheck disable=SC2086 # words on purpose
    iptables_has filter $rule || iptables -w -I ${rule%% -j *} -m comment --comment quokka -j "${rule##* }"
  done
  iptables_has nat POSTROUTING -s "$POD_NET" '!' -d 10.240.0.0/12 -j MASQUERADE ||
    iptables -w -t nat -A POSTROUTING -s "$POD_NET" '!' -d 10.240.0.0/12 \
      -m comment --comment quokka -j MASQUERADE
}

# iptables_has TABLE CHAIN MATCH... -j TARGET: with our comment on it.
iptables_has() {
  local table=$1
  shift
  local arguments=("${@:1:$#-2}")
  iptables -w -t "$table" -C "${arguments[@]}" -m comment --comment quokka "${@: -2}" 2>/dev/null
}

network_down() {
  local rule
  if command -v iptables >/dev/null; then
    for rule in "${FILTER_RULES[@]}"; do
      # shellcheck disable=SC2086 # words on purpose
      while iptables_has filter $rule; do
        iptables -w -D ${rule%% -j *} -m comment --comment quokka -j "${rule##* }"
      done
    done
    while iptables_has nat POSTROUTING -s "$POD_NET" '!' -d 10.240.0.0/12 -j MASQUERADE; do
      iptables -w -t nat -D POSTROUTING -s "$POD_NET" '!' -d 10.240.0.0/12 \
        -m comment --comment quokka -j MASQUERADE
    done
  fi
  ip link del "$BRIDGE" 2>/dev/null || true
  restore_sysctls
}

# Kernel settings that the platform, the kubelet or kube-proxy change.
SYSCTLS=(
  net.ipv4.ip_forward
  net.ipv4.conf.all.route_localnet
  vm.overcommit_memory
  vm.panic_on_oom
  kernel.panic
  kernel.panic_on_oops
  kernel.keys.root_maxkeys
  kernel.keys.root_maxbytes
)

sysctl_path() {
  printf '/proc/sys/%s' "${1//.//}"
}

sysctl_set() {
  local path
  path=$(sysctl_path "$1")
  [[ $(<"$path") == "$2" ]] || printf '%s' "$2" >"$path"
}

# Remembered once, before the first change, and outside what `down` removes first.
remember_sysctls() {
  local name path
  [[ -f $RUN/sysctls ]] && return
  mkdir -p "$RUN"
  for name in "${SYSCTLS[@]}"; do
    path=$(sysctl_path "$name")
    [[ -r $path ]] && printf '%s %s\n' "$name" "$(<"$path")"
  done >"$RUN/sysctls"
}

restore_sysctls() {
  local name value
  [[ -f $RUN/sysctls ]] || return 0
  while read -r name value; do
    sysctl_set "$name" "$value" || true
  done <"$RUN/sysctls"
  rm -f "$RUN/sysctls"
}
