# Takes away everything that the platform left on this machine, but for the cache of tools. Sourced, never run.

platform_down() {
  need_root "taking the platform down"
  step "Containers and cluster" cluster_down
  step "Servers" servers_down
  network_down
  service_policy_down
  rm -rf "${RUN:?}" "${POSTGRES_DIR:?}"
  rmdir "$(dirname "$POSTGRES_DIR")" 2>/dev/null || true
  # The kernel takes a moment to let go of what was killed.
  wait_until 10 "nothing is left" /dev/null nothing_is_left || die "something is left:
$(what_is_left)"
  say "Nothing is left but the cache of tools in $CACHE"
}

nothing_is_left() {
  [[ -z $(what_is_left) ]]
}

# what_is_left: a line for each thing of ours that is still on this machine. The proof of `down`.
what_is_left() {
  local process port rules='comment quokka'
  for process in /proc/[0-9]*; do
    if grep --quiet --text -e "$RUN/" -e "$POSTGRES_DIR" "$process/cmdline"; then
      printf 'process %s (%s)\n' "${process#/proc/}" "$(tr '\0' ' ' <"$process/cmdline" | cut -c1-80)"
    fi
  done 2>/dev/null
  for port in "$REDIS_PORT" "$KAFKA_PORT" "$POSTGRES_PORT" "$ETCD_PORT"; do
    port_open 127.0.0.1 "$port" && printf 'port %s\n' "$port"
  done
  awk -v run="$RUN/" 'index($5, run) == 1 {print "mount " $5}' /proc/self/mountinfo
  if command -v ip >/dev/null; then
    ip -o link | awk -F': ' -v bridge="$BRIDGE" '$2 == bridge {print "device " $2}'
    ip -4 route | awk -v bridge="$BRIDGE" '$0 ~ " dev " bridge "( |$)" {print "route " $1}'
  fi
  if [[ -n ${KUBE_RULES_WERE_OURS:-} ]] || kube_rules_are_ours; then rules+='|KUBE-'; fi
  { iptables-save || true; } 2>/dev/null | awk -v rules="$rules" '$0 ~ rules {print "rule " $0}'
  our_cgroups | sed 's/^/cgroup /'
  find "$RUN" "$POSTGRES_DIR" -maxdepth 0 2>/dev/null | sed 's/^/folder /' || true
}

cache_down() {
  rm -rf "${CACHE:?}"
}
