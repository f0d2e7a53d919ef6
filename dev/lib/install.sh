# The platform itself: secrets, both charts, the samples, and what is printed in the end. Sourced, never run.

helm_() {
  "$BIN/helm" "$@"
}

# use_cluster: which cluster the rest speaks to: ours, or with CLUSTER=existing the one of KUBECONFIG.
use_cluster() {
  if [[ ${CLUSTER:-} == existing ]]; then
    [[ -n ${KUBECONFIG:-} ]] || die "CLUSTER=existing needs KUBECONFIG"
    KUBECONFIG_LOCAL=$KUBECONFIG
  elif [[ -n ${CLUSTER:-} ]]; then
    die "CLUSTER is either unset or 'existing', not '$CLUSTER'"
  else
    export KUBECONFIG=$KUBECONFIG_LOCAL
  fi
}

namespace_up() {
  kubectl_ apply --server-side --force-conflicts --field-manager=quokka-platform -f - >/dev/null <<MANIFEST
apiVersion: v1
kind: Namespace
metadata:
  name: $NAMESPACE
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
MANIFEST
}

# The names and keys are the charts' defaults; the passwords are this platform's own.
secrets_up() {
  mkdir -p "$SECRETS"
  [[ -s $SECRETS/signing-key.pem ]] ||
    (umask 077 && openssl genpkey -algorithm ed25519 -out "$SECRETS/signing-key.pem")
  local url database
  {
    url=$(redis_url "$NODE_IP") secret_manifest quokka-redis url
    for database in "${POSTGRES_DATABASES[@]}"; do
      url=$(postgres_url "$NODE_IP" "$database") secret_manifest "quokka-postgres-${database#quokka_}" url
    done
    url=test_sk_$(secret_of toss) secret_manifest quokka-toss secretKey
    url=$(<"$SECRETS/signing-key.pem") secret_manifest quokka-signing-key key.pem
  } | kubectl_ apply --server-side --force-conflicts --field-manager=quokka-platform -f - >/dev/null
}

# secret_manifest NAME KEY: with the value of $url.
secret_manifest() {
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ndata: {%s: %s}\n' \
    "$1" "$NAMESPACE" "$2" "$(printf '%s' "$url" | base64 -w0)"
}

# image_note NAME: what the pods of an image carry, so that they are replaced when it changes.
image_note() {
  cut -d' ' -f2 "$IMAGES/$1.content"
}

# values_for CHART: the local platform's values, rendered.
values_for() {
  render "$REPO/dev/values/$1.yaml" NODE_IP KAFKA_POD_PORT REDIS_PORT POSTGRES_PORT APISERVER_PORT \
    GATEWAY_NODE_PORT | write_file "$RUN/values-$1.yaml"
  printf '%s' "$RUN/values-$1.yaml"
}

charts_up() {
  local registry=() operator_values services_values
  if [[ ${CLUSTER:-} == existing ]]; then
    operator_values=$OPERATOR_VALUES
    services_values=$VALUES
    [[ -z ${REGISTRY:-} ]] || registry=(--set-string "image.registry=$REGISTRY")
  else
    operator_values=$(values_for quokka-operator)
    services_values=$(values_for quokka)
  fi
  # A test build leaves out the rule that this names.
  local planted=() component components
  if [[ -n ${PLANTED_BUG:-} ]]; then
    components=("$(planted_in)")
    [[ ${components[0]} != promotions ]] || components+=(promotions-ledger)
    for component in "${components[@]}"; do
      planted+=(--set-string "components.$component.env.QUOKKA_PLANTED_BUG=$PLANTED_BUG")
    done
  fi
  release_up quokka-operator --values "$operator_values" "${registry[@]}" \
    --set-string "podAnnotations.quokka\.travel/image=$(image_note operator)"
  # Each component's program; two components share one.
  local notes=() image
  for component in gateway users promotions promotions-ledger stays booking orders payments; do
    image=${component%-ledger}
    notes+=(--set-string "components.$component.podAnnotations.quokka\.travel/image=$(image_note "$image")")
  done
  # So that a run of tests sees the end of everything.
  local times=()
  [[ -z ${TEST_TIMES:-} ]] || times=(--values "$REPO/dev/values/test-times.yaml")
  release_up quokka --values "$services_values" "${times[@]}" "${registry[@]}" "${planted[@]}" "${notes[@]}"
  rollouts_done
}

# release_up CHART ARGUMENTS...
release_up() {
  local chart=$1 state
  shift
  # A release that an interrupted command left half done refuses the next one.
  state=$(helm_ -n "$NAMESPACE" status "$chart" -o json 2>/dev/null | jq -r .info.status || true)
  case $state in
    pending-install | uninstalling) helm_ -n "$NAMESPACE" uninstall "$chart" --wait >/dev/null ;;
    pending-*) helm_ -n "$NAMESPACE" rollback "$chart" >/dev/null ;;
  esac
  helm_ -n "$NAMESPACE" upgrade --install "$chart" "$REPO/charts/$chart" "$@" >"$RUN/helm-$chart.log" 2>&1 || {
    cat "$RUN/helm-$chart.log" >&2
    die "helm could not install $chart"
  }
  say "  $chart: installed"
}

# rollouts_done: waits for every Deployment of the namespace, and shows what the pods say if one does not come.
rollouts_done() {
  local deployment
  for deployment in $(kubectl_ -n "$NAMESPACE" get deployments -o name); do
    kubectl_ -n "$NAMESPACE" rollout status "$deployment" --timeout=180s >/dev/null || {
      pods_tell
      die "$deployment is not ready"
    }
    say "  ${deployment#deployment.apps/}: ready"
  done
}

# pods_tell: of each pod that is not ready, why, and the end of its log.
pods_tell() {
  local pod
  {
    kubectl_ -n "$NAMESPACE" get pods -o wide
    kubectl_ -n "$NAMESPACE" get events --sort-by=.lastTimestamp | tail -n 15
    for pod in $(kubectl_ -n "$NAMESPACE" get pods -o json |
      jq -r '.items[] | select(all(.status.containerStatuses[]?; .ready) | not) | .metadata.name'); do
      printf -- '--- the end of the log of %s\n' "$pod"
      kubectl_ -n "$NAMESPACE" logs "$pod" --all-containers --tail=20 || true
    done
  } >&2
}

# toss_simulator_up: what plays the payment gateway here. Faults are off until somebody asks it for some.
toss_simulator_up() {
  local TOSS_IMAGE TOSS_IMAGE_NOTE
  TOSS_IMAGE=$(image_name toss-simulator)
  TOSS_IMAGE_NOTE=$(image_note toss-simulator)
  render "$REPO/dev/cluster/toss-simulator.yaml" NAMESPACE TOSS_IMAGE TOSS_IMAGE_NOTE TOSS_NODE_PORT |
    kubectl_ apply --server-side --force-conflicts --field-manager=quokka-platform -f - >/dev/null
}

# stays_up: some stays to search and book; those that are there already stay as they are.
stays_up() {
  QUOKKA_DATABASE_URL=$(postgres_url 127.0.0.1 quokka_stays) \
    "$(binaries_folder)/stays" seed --stays "$STAYS" >"$LOGS/stays-seed.log" 2>&1 || {
    tail -n 20 "$LOGS/stays-seed.log" >&2
    die "the stays could not be loaded"
  }
  say "  stays: $STAYS to search and book"
}

# stays_seed OPTION...: as many as somebody wants, told to booking as those of `up` are, with the progress shown.
stays_seed() {
  local program
  program=$(binaries_folder)/stays
  [[ -x $program ]] || build_binaries
  if [[ " $* " == *" --help "* ]]; then
    "$program" seed --help
    return
  fi
  [[ -d $SECRETS ]] || die "the platform is not up: run \`make up\`"
  QUOKKA_DATABASE_URL=$(postgres_url 127.0.0.1 quokka_stays) "$program" seed "$@" |
    jq --unbuffered -Rr '. as $line | (fromjson? // {error: $line})
      | if .message == "seeding" then "  \(.stays) of \(.of) stays, \(.per_second) a second"
        elif .message == "seeded" then "  \(.stays) stays are there, \(.written) of them new, after \(.ms / 1000) s"
        else .error // empty end'
}

samples_up() {
  [[ -d $REPO/manifests/samples ]] || return 0
  kubectl_ -n "$NAMESPACE" apply -f "$REPO/manifests/samples/" >/dev/null
  kubectl_ -n "$NAMESPACE" wait --for=condition=Ready --timeout=120s -f "$REPO/manifests/samples/" >/dev/null || {
    kubectl_ -n "$NAMESPACE" get timesales,couponcampaigns -o wide >&2
    pods_tell
    die "the samples are not ready"
  }
}

gateway_answers() {
  local status
  status=$(curl -s -o /dev/null -m 5 -w '%{http_code}' "http://127.0.0.1:$GATEWAY_NODE_PORT/v1/time-sales")
  # Any answer of the services behind it shows that the way through is open; 5xx does not.
  [[ $status =~ ^[234] ]]
}

# entrance_up: the way through the gateway, as a guest takes it.
entrance_up() {
  wait_until 60 "the API answers on http://127.0.0.1:$GATEWAY_NODE_PORT" /dev/null gateway_answers
}

summary() {
  local api=http://127.0.0.1:$GATEWAY_NODE_PORT
  cat <<TEXT

Quokka is up.

  API          $api
  Kubernetes   https://$NODE_IP:$APISERVER_PORT     export KUBECONFIG=$KUBECONFIG_LOCAL
  Redis        127.0.0.1:$REDIS_PORT     (pods: $NODE_IP:$REDIS_PORT)
  Kafka        127.0.0.1:$KAFKA_PORT     (pods: $NODE_IP:$KAFKA_POD_PORT)
  PostgreSQL   127.0.0.1:$POSTGRES_PORT     (pods: $NODE_IP:$POSTGRES_PORT)
  Toss         http://127.0.0.1:$TOSS_NODE_PORT     a simulator: no money moves
  Passwords    $SECRETS, or \`dev/quokka env\`

  It takes $(memory_taken) of memory and $(disk_taken).

Try:
  dev/quokka kubectl get tsale,ccamp
  dev/quokka claim $(first_sale)
  curl '$api/v1/stays?region=jeju'
  make logs c=quokka-promotions
TEXT
}

first_sale() {
  kubectl_ -n "$NAMESPACE" get timesales -o jsonpath='{.items[0].metadata.name}' 2>/dev/null || true
}
