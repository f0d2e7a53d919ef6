# What runs, what it takes, and what it says. Sourced, never run.

PROGRAMS=(redis kafka postgres etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy
  coredns metrics-server)

# address_of PROGRAM: where it is reached.
address_of() {
  case $1 in
    redis) echo "127.0.0.1:$REDIS_PORT" ;;
    kafka) echo "127.0.0.1:$KAFKA_PORT" ;;
    postgres) echo "127.0.0.1:$POSTGRES_PORT" ;;
    etcd) echo "127.0.0.1:$ETCD_PORT" ;;
    kube-apiserver) echo "https://$NODE_IP:$APISERVER_PORT" ;;
    coredns) echo "$NODE_IP:$DNS_PORT" ;;
    metrics-server) echo "https://$NODE_IP:$METRICS_SERVER_PORT" ;;
  esac
}

# resident_kib PID...: the resident memory of the processes and their children.
resident_kib() {
  (($# > 0)) || return 0
  ps -o rss= --ppid "$(IFS=,; echo "$*")" -p "$(IFS=,; echo "$*")" | awk '{sum += $1} END {print sum + 0}'
}

# Every process of the pods is in the kubelet's root group; the first hierarchy knows them all.
pod_pids() {
  local hierarchy
  hierarchy=$(cgroup_hierarchies | head -n 1)
  [[ -d $hierarchy/quokka ]] || return 0
  find "$hierarchy/quokka" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u
}

platform_status() {
  local program pid
  printf '%-26s %-9s %8s %9s  %s\n' PROGRAM STATE PROCESS MEMORY ADDRESS
  for program in "${PROGRAMS[@]}"; do
    if pid=$(pid_of "$program"); then
      printf '%-26s %-9s %8s %6s MB  %s\n' "$program" running "$pid" \
        "$(($(resident_kib "$pid") / 1024))" "$(address_of "$program")"
    else
      printf '%-26s %s\n' "$program" stopped
    fi
  done
  is_running kube-apiserver || return 0
  echo
  kubectl_ get nodes
  echo
  kubectl_ -n "$NAMESPACE" get deployments,pods 2>&1 || true
  if kubectl_ get crd timesales.quokka.travel >/dev/null 2>&1; then
    echo
    kubectl_ -n "$NAMESPACE" get timesales,couponcampaigns || true
  fi
  echo
  echo "API: http://127.0.0.1:$GATEWAY_NODE_PORT   memory: $(memory_taken)   $(disk_taken)"
}

memory_taken() {
  local program pid pids=() kib
  for program in "${PROGRAMS[@]}"; do
    if pid=$(pid_of "$program"); then pids+=("$pid"); fi
  done
  kib=$(resident_kib "${pids[@]}")
  mapfile -t pids < <(
    pod_pids
    our_shims
  )
  if ((${#pids[@]} > 0)); then
    kib=$((kib + $(ps -o rss= -p "$(IFS=,; echo "${pids[*]}")" | awk '{sum += $1} END {print sum + 0}')))
  fi
  printf '%s MB' "$((kib / 1024))"
}

disk_taken() {
  # Containers' file systems are mounted below the run folder: one file system only, or they would count twice.
  local run tools
  # Files come and go while it counts, which du reports as a failure.
  run=$({ du -smxc "$RUN" "$POSTGRES_DIR" || true; } 2>/dev/null | awk 'END {print $1}')
  tools=$({ du -smx "$CACHE" --exclude "$RUN" || true; } 2>/dev/null | cut -f1)
  printf '%s MB of disk, besides %s MB of tools that are kept' "$run" "$tools"
}

# platform_logs [NAME]: a program's log, or the logs of a Deployment's pods; FOLLOW=1 stays.
platform_logs() {
  local name=${1:-} follow=()
  [[ -z ${FOLLOW:-} ]] || follow=(-f)
  if [[ -z $name ]]; then
    echo "Name one, as in: make logs c=quokka-promotions"
    echo "Programs: ${PROGRAMS[*]}"
    is_running kube-apiserver &&
      echo "Deployments: $(kubectl_ -n "$NAMESPACE" get deployments -o jsonpath='{.items[*].metadata.name}')"
    return 0
  fi
  if [[ " ${PROGRAMS[*]} " == *" $name "* ]]; then
    tail -n 200 "${follow[@]}" "$LOGS/$name.log"
    return
  fi
  kubectl_ -n "$NAMESPACE" get deployment "$name" >/dev/null 2>&1 || die "neither a program nor a Deployment: $name"
  local selector
  selector=$(kubectl_ -n "$NAMESPACE" get deployment "$name" -o json |
    jq -r '.spec.selector.matchLabels | to_entries | map("\(.key)=\(.value)") | join(",")')
  kubectl_ -n "$NAMESPACE" logs -l "$selector" --all-containers --prefix --tail=200 --max-log-requests=20 "${follow[@]}"
}
