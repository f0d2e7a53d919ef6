# A guest's whole way in three requests, each shown with its answer. Sourced, never run.

# claim_as_guest SALE: a new guest signs up, signs in and claims a unit of a time sale.
claim_as_guest() {
  local sale=${1:-} api=http://127.0.0.1:$GATEWAY_NODE_PORT guest token
  [[ -n $sale ]] || sale=$(first_sale)
  [[ -n $sale ]] || die "there is no time sale: apply one of manifests/samples"
  guest=guest-$(openssl rand -hex 4)@example.com
  show_request POST "$api/v1/users" "{\"email\":\"$guest\",\"password\":\"correct horse battery\",\"name\":\"Guest\"}"
  show_request POST "$api/v1/sessions" "{\"email\":\"$guest\",\"password\":\"correct horse battery\"}"
  token=$(jq -r '.accessToken // empty' <<<"$ANSWER")
  [[ -n $token ]] || die "no token in that answer"
  show_request POST "$api/v1/time-sales/$sale/claims" '' -H "authorization: Bearer $token"
}

# show_request METHOD URL BODY [CURL-ARGUMENTS...]: leaves the answer's body in $ANSWER.
show_request() {
  local method=$1 url=$2 body=$3 answer
  shift 3
  printf '%s %s %s\n' "$method" "$url" "$body"
  [[ -z $body ]] || set -- "$@" -H 'content-type: application/json' -d "$body"
  answer=$(curl -sS -m 20 -X "$method" -w '\n%{http_code}' "$@" "$url")
  ANSWER=${answer%$'\n'*}
  printf '  %s %s\n' "${answer##*$'\n'}" "$ANSWER"
}
