#!/usr/bin/env bash
# Checks both charts, the samples and the runbooks: lint, every set of values rendered and accepted by a real
# kube-apiserver, alert rules with their unit tests, generated files fresh, and the rules of check.py.
# Needs the tools of `make tools`, etcd, openssl, Go (for the custom resources of the Prometheus operator) and python3-yaml.
set -euo pipefail

charts=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$charts")
cache=${QUOKKA_CACHE:-$HOME/.cache/quokka}
export PATH="$cache/bin:$PATH"
prometheus_operator=v0.85.0

missing=()
for tool in helm helm-docs promtool kube-score kubectl kube-apiserver etcd openssl go python3; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "missing: ${missing[*]}; run make tools" >&2
  exit 1
fi
python3 -c 'import yaml' 2>/dev/null || { echo "missing: PyYAML; apt-get install python3-yaml" >&2; exit 1; }

work=$(mktemp -d)
pids=()
cleanup() {
  # Nothing in them is kept, so they needn't end in order.
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

step() { printf '%6ss  %s\n' "$SECONDS" "$*"; }
# Runs a command and shows what it said only if it failed.
quietly() { "$@" >"$work/out" 2>&1 || { echo "failed: $*" >&2; cat "$work/out" >&2; exit 1; }; }
# The same for a command that must be refused, with a reason that matches the first argument.
refused() {
  local reason=$1
  shift
  if "$@" >"$work/out" 2>&1; then echo "must be refused: $*" >&2; exit 1; fi
  grep -qE "$reason" "$work/out" || { echo "refused for another reason than '$reason': $*" >&2; cat "$work/out" >&2; exit 1; }
}

names=(quokka quokka-operator)
rendered=$work/rendered
mkdir "$rendered"

# The API server starts while the rest is checked.
free_ports() {
  python3 -c '
import socket
held = [socket.socket() for _ in range(3)]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))'
}
start_api_server() {
  local ports client peer api token
  read -r client peer api < <(free_ports)
  token=$(openssl rand -hex 16)
  openssl genrsa -out "$work/sa.key" 2048 2>/dev/null
  echo "$token,admin,admin,system:masters" >"$work/tokens.csv"
  etcd --data-dir "$work/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$client" \
    --advertise-client-urls "http://127.0.0.1:$client" --listen-peer-urls "http://127.0.0.1:$peer" \
    >"$work/etcd.log" 2>&1 &
  pids+=($!)
  kube-apiserver --etcd-servers "http://127.0.0.1:$client" --secure-port "$api" --bind-address 127.0.0.1 \
    --cert-dir "$work/certs" --authorization-mode RBAC --token-auth-file "$work/tokens.csv" \
    --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file "$work/sa.key" --service-account-signing-key-file "$work/sa.key" \
    >"$work/apiserver.log" 2>&1 &
  pids+=($!)
  export KUBECONFIG=$work/kubeconfig
  kubectl config set-cluster check --server "https://127.0.0.1:$api" --insecure-skip-tls-verify >/dev/null
  kubectl config set-credentials check --token "$token" >/dev/null
  kubectl config set-context check --cluster check --user check --namespace quokka >/dev/null
  kubectl config use-context check >/dev/null
}
await_api_server() {
  local deadline=$((SECONDS + 60))
  until kubectl get --raw /readyz >/dev/null 2>&1; do
    for pid in "${pids[@]}"; do
      kill -0 "$pid" 2>/dev/null || { echo "etcd or kube-apiserver ended" >&2; tail -5 "$work"/*.log >&2; exit 1; }
    done
    [ "$SECONDS" -lt "$deadline" ] || { echo "kube-apiserver isn't ready after 60 s" >&2; tail -5 "$work"/*.log >&2; exit 1; }
    sleep 0.2
  done
}
start_api_server

step "lint, and render each set of values"
for chart in "${names[@]}"; do
  for values in "$charts/$chart"/ci/*-values.yaml; do
    quietly helm lint --strict --quiet "$charts/$chart" --values "$values"
    helm template "$chart" "$charts/$chart" --namespace quokka --values "$values" \
      >"$rendered/$chart.$(basename "$values" -values.yaml).yaml"
  done
  # What the schema must refuse: an unknown value at the top and inside, and a value of a wrong kind.
  refused 'nonsense' helm template "$chart" "$charts/$chart" --set kafka.brokers=k:1 --set nonsense=1
  refused 'nonsense' helm template "$chart" "$charts/$chart" --set kafka.brokers=k:1 --set image.nonsense=1
  refused 'brokers' helm template "$chart" "$charts/$chart" --set kafka.brokers=nowhere
  refused 'kafka.brokers' helm template "$chart" "$charts/$chart"
  # What a chart that has this one as a part may set.
  quietly helm template "$chart" "$charts/$chart" --set kafka.brokers=k:1 --set enabled=true --set global.anything=1
done
refused 'ingress.trustedProxies' helm template quokka "$charts/quokka" --set kafka.brokers=k:1 --set ingress.enabled=true

step "README generated from the values"
for chart in "${names[@]}"; do
  quietly helm-docs --chart-search-root "$charts/$chart" --dry-run --log-level error
  cp "$work/out" "$work/README.md"
  # helm-docs ends a printed page with one line more than a written one.
  diff -u "$charts/$chart/README.md" <(sed -e '${/^$/d}' "$work/README.md") >"$work/diff" ||
    { cat "$work/diff" >&2; echo "charts/$chart/README.md isn't fresh; run charts/docs.sh" >&2; exit 1; }
done

step "alert rules and their tests"
for chart in "${names[@]}"; do
  mkdir "$work/rules-$chart"
  helm template "$chart" "$charts/$chart" --namespace quokka --set kafka.brokers=k:1 --set alerts.enabled=true \
    --show-only templates/prometheusrule.yaml |
    python3 -c 'import sys, yaml; yaml.safe_dump(yaml.safe_load(sys.stdin)["spec"], sys.stdout)' \
      >"$work/rules-$chart/rules.yaml"
  cp "$charts/$chart"/tests/*.yaml "$work/rules-$chart/"
  quietly promtool check rules --lint=all --lint-fatal "$work/rules-$chart/rules.yaml"
  for tests in "$charts/$chart"/tests/*.yaml; do
    quietly promtool test rules "$work/rules-$chart/$(basename "$tests")"
  done
done

step "rules of our own"
python3 "$charts/check.py" "$root" "$rendered"

step "production preset: kube-score"
for chart in "${names[@]}"; do
  # A limit on CPU only makes a busy pod slower.
  quietly kube-score score --ignore-container-cpu-limit --exit-one-on-warning --kubernetes-version v1.34 --output-format ci \
    "$rendered/$chart.production.yaml"
done

step "server-side dry run"
await_api_server
kubectl create namespace quokka >/dev/null
# No controller makes it here.
kubectl --namespace quokka create serviceaccount default >/dev/null
# Deployments that break the restricted profile come back with a warning, and a warning fails.
kubectl label namespace quokka pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted >/dev/null
quietly go mod download "github.com/prometheus-operator/prometheus-operator@$prometheus_operator"
definitions=$(go env GOMODCACHE)/github.com/prometheus-operator/prometheus-operator@$prometheus_operator/example/prometheus-operator-crd
for kind in prometheusrules servicemonitors; do
  quietly kubectl create --filename "$definitions/monitoring.coreos.com_$kind.yaml"
done
accepted() {
  quietly kubectl apply --server-side --validate=strict "$@"
  if grep '^Warning' "$work/out" >&2; then echo "a warning for: $*" >&2; exit 1; fi
}
for set in "$rendered"/*.yaml; do
  accepted --dry-run=server --filename "$set"
done
# What the local platform fills in is any value of its kind.
filled_in() {
  sed -E 's/@NAMESPACE@/quokka/g; s/@NODE_IP@/10.0.0.1/g; s/@[A-Z_]+PORT@/30000/g; s/@[A-Z_]+@/check:1/g' "$1"
}
filled_in "$root/dev/cluster/toss-simulator.yaml" >"$work/toss-simulator.yaml"
accepted --dry-run=server --filename "$work/toss-simulator.yaml"
for chart in "${names[@]}"; do
  filled_in "$root/dev/values/$chart.yaml" >"$work/values.yaml"
  helm template "$chart" "$charts/$chart" --namespace quokka --values "$work/values.yaml" >"$work/local.yaml"
  accepted --dry-run=server --filename "$work/local.yaml"
done

step "samples"
accepted --filename "$root/charts/quokka-operator/files/crds"
quietly kubectl wait --for=condition=Established --timeout=30s crd/timesales.quokka.travel crd/couponcampaigns.quokka.travel
accepted --dry-run=server --filename "$root/manifests/samples"

step "charts: all well"
