# A one-node Kubernetes of real components, each a program on this machine. Sourced, never run.

CONTAINERD_SOCKET=$RUN/containerd/containerd.sock
PAUSE_IMAGE=docker.io/quokka/pause:1

kubectl_() {
  "$BIN/kubectl" --kubeconfig "$KUBECONFIG_LOCAL" "$@"
}

ctr_() {
  ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io "$@"
}

cluster_up() {
  need_root "the cluster"
  [[ -x $BIN/kube-apiserver && -x $BIN/kubelet && -x $BIN/coredns && -x $BIN/metrics-server ]] ||
    die "Kubernetes is not built: run \`make tools\`"
  network_up
  pod_network_up
  certs_up
  heal_process etcd etcd_answers
  heal_process containerd ctr_ version
  heal_process kube-apiserver apiserver_answers
  heal_process kubelet kubelet_answers
  etcd_start
  containerd_start
  ready_process 20 etcd etcd_answers
  apiserver_start
  ready_process 20 containerd ctr_ version
  pause_image
  ready_process 60 kube-apiserver apiserver_answers
  controllers_start
  node_start
  addons_start
  ready_process 30 kube-controller-manager port_open 127.0.0.1 "$CONTROLLER_MANAGER_PORT"
  ready_process 30 kube-scheduler port_open 127.0.0.1 "$SCHEDULER_PORT"
  ready_process 30 kube-proxy curl -fsS "http://127.0.0.1:$PROXY_HEALTH_PORT/healthz"
  ready_process 60 kubelet kubelet_answers
  ready_process 30 coredns curl -fsS "http://127.0.0.1:$DNS_READY_PORT/ready"
  ready_process 30 metrics-server port_open "$NODE_IP" "$METRICS_SERVER_PORT"
  wait_until 60 "the node is Ready" "$LOGS/kubelet.log" \
    kubectl_ wait --for=condition=Ready "node/$NODE_NAME" --timeout=5s
  wait_until 60 "the default service account exists" "$LOGS/kube-controller-manager.log" \
    kubectl_ -n default get serviceaccount default
}

etcd_answers() {
  curl -fsS -m 5 "http://127.0.0.1:$ETCD_PORT/health"
}

apiserver_answers() {
  kubectl_ get --raw /readyz --request-timeout=5s
}

kubelet_answers() {
  curl -fsS -m 5 "http://127.0.0.1:$KUBELET_HEALTH_PORT/healthz"
}

etcd_start() {
  # Thrown away at `down`, so it need not wait for the disk.
  start_process etcd etcd --name quokka --data-dir "$RUN/etcd" \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "quokka=http://127.0.0.1:$ETCD_PEER_PORT" \
    --unsafe-no-fsync --auto-compaction-retention=10m --logger=zap --log-level=warn
}

apiserver_start() {
  start_process kube-apiserver "$BIN/kube-apiserver" \
    --etcd-servers="http://127.0.0.1:$ETCD_PORT" \
    --bind-address="$NODE_IP" --advertise-address="$NODE_IP" --secure-port="$APISERVER_PORT" \
    --service-cluster-ip-range="$SERVICE_NET" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --anonymous-auth=false \
    --client-ca-file="$PKI/ca.crt" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$PKI/service-accounts.pub" \
    --service-account-signing-key-file="$PKI/service-accounts.key" \
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" \
    --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" \
    --proxy-client-key-file="$PKI/front-proxy-client.key" \
    --enable-aggregator-routing=true --allow-privileged=true --profiling=false
}

controllers_start() {
  start_process kube-controller-manager "$BIN/kube-controller-manager" \
    --kubeconfig="$RUN/kube-controller-manager.kubeconfig" \
    --authentication-kubeconfig="$RUN/kube-controller-manager.kubeconfig" \
    --authorization-kubeconfig="$RUN/kube-controller-manager.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$CONTROLLER_MANAGER_PORT" --leader-elect=false \
    --cert-dir="$RUN/kube-controller-manager" --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" \
    --use-service-account-credentials --root-ca-file="$PKI/ca.crt" \
    --service-account-private-key-file="$PKI/service-accounts.key" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" --profiling=false
  start_process kube-scheduler "$BIN/kube-scheduler" \
    --kubeconfig="$RUN/kube-scheduler.kubeconfig" \
    --authentication-kubeconfig="$RUN/kube-scheduler.kubeconfig" \
    --authorization-kubeconfig="$RUN/kube-scheduler.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$SCHEDULER_PORT" --leader-elect=false \
    --cert-dir="$RUN/kube-scheduler" --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" --profiling=false
}

containerd_start() {
  local SNAPSHOTTER CNI_BIN=/usr/lib/cni
  [[ -x $CNI_BIN/ptp ]] || CNI_BIN=/opt/cni/bin
  mkdir -p "$RUN/containerd" "$RUN/cni"
  SNAPSHOTTER=$(snapshotter)
  render "$REPO/dev/cluster/containerd.toml" RUN CONTAINERD_SOCKET PAUSE_IMAGE SNAPSHOTTER CNI_BIN |
    write_file "$RUN/containerd/config.toml"
  render "$REPO/dev/cluster/cni.conflist" POD_NET RUN | write_file "$RUN/cni/10-quokka.conflist"
  PROCESS_INPUT=$(<"$RUN/containerd/config.toml") start_process containerd \
    containerd --config "$RUN/containerd/config.toml" --log-level warn
}

# snapshotter: overlayfs, unless the state lies on something that can't carry one (an overlay itself, say).
snapshotter() {
  local probe=$RUN/containerd/probe answer=native
  [[ -s $RUN/containerd/snapshotter ]] && cat "$RUN/containerd/snapshotter" && return
  mkdir -p "$probe"/{lower,upper,work,merged}
  if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" \
    "$probe/merged" 2>/dev/null; then
    umount "$probe/merged"
    answer=overlayfs
  fi
  rm -rf "$probe"
  printf '%s\n' "$answer" | tee "$RUN/containerd/snapshotter"
}

node_start() {
  cgroups_up
  mkdir -p "$RUN/kubelet" "$RUN/pod-logs" "$RUN/kubelet-plugins"
  : >"$RUN/resolv.conf"
  render "$REPO/dev/cluster/kubelet.yaml" NODE_IP KUBELET_PORT KUBELET_HEALTH_PORT PKI DNS_SERVICE_IP RUN \
    CONTAINERD_SOCKET | write_file "$RUN/kubelet.yaml"
  PROCESS_INPUT=$(<"$RUN/kubelet.yaml") start_process kubelet "$BIN/kubelet" \
    --config="$RUN/kubelet.yaml" --kubeconfig="$RUN/kubelet.kubeconfig" --root-dir="$RUN/kubelet" \
    --cert-dir="$RUN/kubelet/pki" --hostname-override="$NODE_NAME" --node-ip="$NODE_IP"
  # NodePorts answer on this machine's own addresses only.
  start_process kube-proxy "$BIN/kube-proxy" \
    --kubeconfig="$RUN/kube-proxy.kubeconfig" --hostname-override="$NODE_NAME" --proxy-mode=iptables \
    --cluster-cidr="$POD_NET" --nodeport-addresses="127.0.0.0/8,$NODE_NET" \
    --metrics-bind-address="127.0.0.1:$PROXY_METRICS_PORT" --healthz-bind-address="127.0.0.1:$PROXY_HEALTH_PORT" \
    --conntrack-max-per-core=0 --conntrack-min=0 \
    --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
}

# cgroups_up: the kubelet wants its root group to exist in every hierarchy, and with every controller it uses.
cgroups_up() {
  local hierarchy controller
  for hierarchy in $(cgroup_hierarchies); do
    mkdir -p "$hierarchy/quokka"
    [[ -f $hierarchy/cgroup.subtree_control ]] || continue
    for controller in cpu cpuset memory pids hugetlb; do
      echo "+$controller" >"$hierarchy/cgroup.subtree_control" || true
    done 2>/dev/null
  done
}

# cgroup_hierarchies: the mount points of cgroup v1's controllers, or the one of v2.
cgroup_hierarchies() {
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup
  else
    awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/mounts
  fi
}

pause_image() {
  ctr_ images ls -q | grep -qx "$PAUSE_IMAGE" && return
  mkdir -p "$RUN/images/pause-root"
  gcc -Os -static -s -o "$RUN/images/pause-root/pause" "$REPO/dev/images/pause.c"
  oci_layer "$RUN/images/pause-root" "$RUN/images/pause.layer"
  oci_image "$PAUSE_IMAGE" "$RUN/images/pause.tar" /pause 65535 "$RUN/images/pause.layer"
  ctr_ images import "$RUN/images/pause.tar" >/dev/null
  rm -rf "$RUN/images/pause-root"
}

addons_start() {
  local DNS_FORWARD='' CA_BUNDLE
  # Names outside the cluster, where this machine knows a server for them.
  if grep -q '^nameserver' /etc/resolv.conf 2>/dev/null; then DNS_FORWARD='forward . /etc/resolv.conf'; fi
  CA_BUNDLE=$(base64 -w0 "$PKI/ca.crt")
  {
    render "$REPO/dev/cluster/dns.yaml" NODE_IP DNS_PORT DNS_SERVICE_IP
    echo ---
    render "$REPO/dev/cluster/metrics.yaml" NODE_IP METRICS_SERVER_PORT CA_BUNDLE
  } | write_file "$RUN/addons.yaml"
  kubectl_ apply --server-side --force-conflicts -f "$RUN/addons.yaml" >"$LOGS/addons.log" 2>&1 || {
    cat "$LOGS/addons.log" >&2
    return 1
  }
  render "$REPO/dev/cluster/Corefile" NODE_IP DNS_PORT DNS_READY_PORT DNS_FORWARD RUN | write_file "$RUN/Corefile"
  PROCESS_INPUT=$(<"$RUN/Corefile") start_process coredns "$BIN/coredns" -conf "$RUN/Corefile"
  start_process metrics-server "$BIN/metrics-server" --kubeconfig="$RUN/metrics-server.kubeconfig" \
    --authentication-kubeconfig="$RUN/metrics-server.kubeconfig" \
    --authorization-kubeconfig="$RUN/metrics-server.kubeconfig" \
    --bind-address="$NODE_IP" --secure-port="$METRICS_SERVER_PORT" --cert-dir="$RUN/metrics-server" \
    --tls-cert-file="$PKI/metrics-server-serving.crt" --tls-private-key-file="$PKI/metrics-server-serving.key" \
    --kubelet-preferred-address-types=InternalIP --kubelet-use-node-status-port \
    --kubelet-certificate-authority="$PKI/ca.crt" --metric-resolution=15s
}

# cluster_down: every container, then every program, then what they leave in the kernel.
cluster_down() {
  local name
  stop_process kubelet TERM 10
  containers_down
  stop_process kube-proxy TERM 5
  # They hold nothing that a good end would save, and the API server's good end takes many seconds.
  for name in metrics-server coredns kube-scheduler kube-controller-manager kube-apiserver; do
    kill_process "$name"
  done
  stop_process etcd TERM 10
  unmount_under "$RUN"
  cgroups_down
  if kube_rules_are_ours; then
    # What says so is removed before the proof that nothing is left.
    KUBE_RULES_WERE_OURS=1
    [[ ! -x $BIN/kube-proxy ]] || "$BIN/kube-proxy" --cleanup >/dev/null 2>&1 || true
    rules_down
  fi
  fixed_places_down
}

# kube_rules_are_ours: whether our kubelet or kube-proxy has run here, and no other cluster's does. Their chains have the
# same names in every cluster, so nothing else tells whose they are.
kube_rules_are_ours() {
  local other
  [[ -e $RUN/kubelet.yaml ]] || return 1
  for other in kube-proxy kubelet k3s-server k0s; do
    ! pgrep -x "$other" >/dev/null || return 1
  done
}

containers_down() {
  local shim tries=0 group
  # While containerd lives it ends containers in good order, shims and sockets included.
  if is_running containerd && ctr_ version >/dev/null 2>&1; then
    ctr_ tasks ls -q | xargs -r -n 1 -P 8 \
      timeout 20 ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io tasks rm --force >/dev/null 2>&1 || true
  fi
  stop_process containerd TERM 10
  # A shim outlives a containerd that crashed, and its container with it. Ours are known by our socket's address.
  for shim in $(our_shims); do kill -KILL "$shim" 2>/dev/null || true; done
  for group in $(our_cgroups); do
    xargs -r kill -KILL <"$group/cgroup.procs" 2>/dev/null || true
  done
  until [[ -z $(our_shims) ]] || ((++tries > 100)); do sleep 0.05; done
  # Sockets of shims that were killed: each bundle names its own.
  find "$RUN/containerd/state" -name address -path '*/k8s.io/*' -exec sed 's|^unix://||' {} + 2>/dev/null |
    grep '^/run/containerd/s/' | xargs -r rm -f || true
  rmdir /run/containerd/s 2>/dev/null || true
}

# our_shims: a shim's name is cut short in /proc, so the whole command line is looked at.
our_shims() {
  local process
  for process in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$process/cmdline" |
      grep -q -- "containerd-shim-runc-v2 .*-address $CONTAINERD_SOCKET "; then
      basename "$process"
    fi
  done 2>/dev/null
  return 0
}

# our_cgroups: the deepest first.
our_cgroups() {
  local hierarchy
  for hierarchy in $(cgroup_hierarchies); do
    [[ -d $hierarchy/quokka ]] && find "$hierarchy/quokka" -depth -type d
  done
  return 0
}

cgroups_down() {
  local tries=0
  until [[ -z $(our_cgroups) ]]; do
    our_cgroups | xargs -r rmdir 2>/dev/null || true
    ((++tries < 50)) || {
      say "  some control groups are still in use: $(our_cgroups | head -n 3 | tr '\n' ' ')"
      break
    }
    [[ -z $(our_cgroups) ]] || sleep 0.1
  done
}

# unmount_under FOLDER: the deepest first, as often as something is mounted twice in one place.
unmount_under() {
  local tries=0 points point
  # Not asked of `grep -q`: it ends at the first line, and the pipe's writer then fails for want of a reader.
  while points=$(awk -v under="$1/" 'index($5, under) == 1 {print $5}' /proc/self/mountinfo) && [[ -n $points ]]; do
    while read -r point; do
      # The kernel writes a space as \\040.
      umount -l "$(printf '%b' "$point")" 2>/dev/null || true
    done < <(sort -r <<<"$points")
    ((++tries < 10)) || break
  done
}

# rules_down: chains that kube-proxy's own cleanup left, because it crashed or is not built.
rules_down() {
  command -v iptables-save >/dev/null || return 0
  local table rule chain
  for table in filter nat mangle; do
    # The rules that jump into the chains, then the chains' content, then the chains.
    while read -r rule; do
      # A comment in a rule is quoted, as the shell would.
      eval "iptables -w -t $table $rule"
    done < <(rules_of "$table" | awk '/^-A (INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) .*KUBE-/ {sub(/^-A/, "-D"); print}')
    while read -r chain; do iptables -w -t "$table" -F "$chain"; done < <(kube_chains "$table")
    while read -r chain; do iptables -w -t "$table" -X "$chain"; done < <(kube_chains "$table")
  done
}

rules_of() {
  iptables-save -t "$1" 2>/dev/null || true
}

kube_chains() {
  rules_of "$1" | awk '/^:KUBE-/ {print substr($1, 2)}'
}

# fixed_places_down: the kubelet and the network library put some files where no setting moves them.
fixed_places_down() {
  local file id
  for file in /var/log/containers/*; do
    [[ $(readlink "$file") == "$RUN/pod-logs/"* ]] && rm -f "$file"
  done
  for file in /var/lib/cni/results/quokka-*-eth0; do
    id=${file##*/quokka-}
    rm -f "$file" "/var/lib/cni/results/cni-loopback-${id%-eth0}-lo"
  done
  # Another kubelet's socket is not ours to take.
  pgrep -x kubelet >/dev/null || rm -f /var/lib/kubelet/device-plugins/kubelet.sock
  for file in /var/log/containers /var/lib/cni/results /var/lib/cni /var/lib/kubelet/device-plugins /var/lib/kubelet \
    /run/containerd; do
    rmdir "$file" 2>/dev/null || true
  done
}
