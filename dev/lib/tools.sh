# Programs built from source: Kubernetes and what goes with it from Go modules, Kafka from Maven artifacts, a checker of
# the API from PyPI.
# Sourced, never run.
#
# Each folder of dev/tools holds a go.mod with its go.sum, so the versions are pinned and checked. A program is built
# again only when those, its flags or the compiler change.

TOOLS=$REPO/dev/tools
# What each program was built from lies beside it, so that a copied or restored folder stays good.
STAMPS=$BIN/.stamps

KUBERNETES_VERSION=1.34.4
HELM_VERSION=3.20.1

# Without these a client can't tell which version it speaks to.
KUBERNETES_FLAGS="-X k8s.io/component-base/version.gitVersion=v$KUBERNETES_VERSION
  -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34
  -X k8s.io/component-base/version.gitTreeState=clean"
# The Kubernetes version that `helm template` and `helm lint` assume.
HELM_FLAGS="-X helm.sh/helm/v3/internal/version.version=v$HELM_VERSION
  -X helm.sh/helm/v3/internal/version.gitTreeState=clean
  -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34
  -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=34"

# MODULE-FOLDER COMMAND PACKAGE, in the order of need. Two lanes, so at most two builds at a time.
LANE_KUBERNETES=(
  "kubernetes kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver"
  "kubernetes kubectl k8s.io/kubernetes/cmd/kubectl"
  "kubernetes kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager"
  "kubernetes kubelet k8s.io/kubernetes/cmd/kubelet"
  "kubernetes kube-proxy k8s.io/kubernetes/cmd/kube-proxy"
  "kubernetes kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler"
)
LANE_OTHERS=(
  "helm helm helm.sh/helm/v3/cmd/helm"
  "metrics-server metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server"
  "coredns coredns ."
)
# What only `make test` needs, to check charts and alerts.
LANE_CHECKS=(
  "kube-score kube-score github.com/zegl/kube-score/cmd/kube-score"
  "helm-docs helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs"
  "promtool promtool github.com/prometheus/prometheus/cmd/promtool"
)

link_flags() {
  case $1 in
    kubernetes) printf '%s' "$KUBERNETES_FLAGS" ;;
    helm) printf '%s' "$HELM_FLAGS" ;;
    metrics-server) printf '%s' "-X k8s.io/component-base/version.gitVersion=v0.9.0" ;;
    promtool) printf '%s' "-X github.com/prometheus/common/version.Version=0.316.0" ;;
    *) printf '%s' "-X main.version=$(awk '$1 == "require" {print $3; exit}' "$TOOLS/$1/go.mod")" ;;
  esac
}

# What Prometheus would discover by cloud providers' libraries, promtool does not need.
build_tags() {
  case $1 in
    promtool) printf '%s' remove_all_sd ;;
  esac
}

# build_tools [checks|clients]: those that the platform runs on; with `checks` those that check charts too, with
# `clients` only what speaks to a cluster of the user's.
build_tools() {
  command -v go >/dev/null || die "Go 1.26 or later is needed to build Kubernetes"
  mkdir -p "$BIN" "$STAMPS" "$CACHE/build-logs"
  local began failed=0 kubernetes=("${LANE_KUBERNETES[@]}") others=("${LANE_OTHERS[@]}")
  began=$(date +%s)
  case ${1:-} in
    checks) others+=("${LANE_CHECKS[@]}") ;;
    clients) # kubectl and helm
      kubernetes=("${LANE_KUBERNETES[1]}")
      others=("${LANE_OTHERS[0]}")
      ;;
  esac
  [[ ${1:-} == clients ]] || fetch_kafka
  [[ ${1:-} != checks ]] || fetch_schemathesis
  build_lane "${kubernetes[@]}" &
  local first=$!
  build_lane "${others[@]}" &
  local second=$!
  heartbeat "$first" "$second" &
  local beat=$!
  # Builders that outlived this command would hold its lock.
  # shellcheck disable=SC2064 # the process ids of now
  trap "pkill -TERM -P $first,$second; kill $first $second $beat 2>/dev/null; exit 143" TERM INT
  wait "$first" || failed=1
  wait "$second" || failed=1
  trap - TERM INT
  kill "$beat" 2>/dev/null || true
  wait "$beat" 2>/dev/null || true
  ((failed == 0)) || die "a tool could not be built (see above; whole output in $CACHE/build-logs)"
  say "  tools: all there ($(($(date +%s) - began)) s)"
}

build_lane() {
  local entry
  for entry in "$@"; do
    # shellcheck disable=SC2086 # three words on purpose
    build_tool $entry || return 1
  done
}

# build_tool FOLDER COMMAND PACKAGE
build_tool() {
  local folder=$1 command=$2 package=$3 flags tags stamp began log
  flags="-s -w $(link_flags "$folder" | tr -s '\n ' ' ')"
  tags=$(build_tags "$folder")
  stamp=$(cat "$TOOLS/$folder"/* <(printf '%s' "$flags $tags $(go env GOVERSION)") | sha256sum)
  [[ -x $BIN/$command && $(cat "$STAMPS/$command" 2>/dev/null) == "$stamp" ]] && return 0
  began=$(date +%s)
  log=$CACHE/build-logs/$command.log
  say "  $command: building"
  printf '%s' "$began" >"$STAMPS/$command.building"
  if ! (cd "$TOOLS/$folder" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly \
    go build -trimpath -tags "$tags" -ldflags "$flags" -o "$BIN/$command.new" "$package") >"$log" 2>&1; then
    rm -f "$STAMPS/$command.building"
    tail -n 20 "$log" >&2
    say "  $command: the build failed"
    return 1
  fi
  # A rename, since the program may be running.
  mv "$BIN/$command.new" "$BIN/$command"
  printf '%s' "$stamp" >"$STAMPS/$command"
  rm -f "$STAMPS/$command.building"
  say "  $command: built in $(($(date +%s) - began)) s"
}

# heartbeat PID...: a line every half minute that says what is being built, while any of the builders lives.
heartbeat() {
  local ticks=0 file now
  while kill -0 "$1" 2>/dev/null || kill -0 "$2" 2>/dev/null; do
    sleep 1
    ((++ticks % 30 == 0)) || continue
    now=$(date +%s)
    for file in "$STAMPS"/*.building; do
      [[ -e $file ]] && say "  $(basename "$file" .building): building for $((now - $(<"$file"))) s"
    done
  done
  return 0
}

fetch_kafka() {
  command -v mvn >/dev/null || die "Maven is needed to fetch Kafka"
  command -v java >/dev/null || die "Java 17 is needed to run Kafka"
  local stamp began log=$CACHE/build-logs/kafka.log
  stamp=$(sha256sum <"$TOOLS/kafka/pom.xml")
  [[ -d $CACHE/kafka/libs && $(cat "$CACHE/kafka/stamp" 2>/dev/null) == "$stamp" ]] && return 0
  began=$(date +%s)
  say "  kafka: fetching"
  rm -rf "$CACHE/kafka"
  mkdir -p "$CACHE/kafka"
  (cd "$TOOLS/kafka" && mvn -B dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$CACHE/kafka/libs") >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "Maven could not fetch Kafka"
  }
  printf '%s' "$stamp" >"$CACHE/kafka/stamp"
  say "  kafka: $(find "$CACHE/kafka/libs" -name '*.jar' | wc -l) jars fetched in $(($(date +%s) - began)) s"
}

# fetch_schemathesis: a Python environment of its own, which holds nothing else.
fetch_schemathesis() {
  local folder=$CACHE/schemathesis stamp began log=$CACHE/build-logs/schemathesis.log
  stamp=$(sha256sum <"$TOOLS/schemathesis/requirements.txt")
  [[ -x $folder/bin/st && $(cat "$folder/stamp" 2>/dev/null) == "$stamp" ]] && return 0
  began=$(date +%s)
  say "  schemathesis: fetching"
  rm -rf "$folder"
  { python3 -m venv "$folder" &&
    "$folder/bin/pip" install --quiet --no-deps --requirement "$TOOLS/schemathesis/requirements.txt"; } >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "schemathesis could not be installed (whole output: $log)"
  }
  printf '%s' "$stamp" >"$folder/stamp"
  say "  schemathesis: fetched in $(($(date +%s) - began)) s"
}
