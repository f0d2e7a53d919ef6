# The cluster's keys and certificates, made once by openssl and kept until `down`. Sourced, never run.

PKI=$RUN/pki

certs_up() {
  mkdir -p "$PKI"
  chmod 700 "$PKI"
  authority ca quokka-cluster
  authority front-proxy-ca quokka-front-proxy
  # Who the API server is, to those that call it.
  certificate ca apiserver /CN=kube-apiserver \
    "IP:$NODE_IP,IP:127.0.0.1,IP:$KUBERNETES_SERVICE_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate ca kubelet-serving "/O=system:nodes/CN=system:node:$NODE_NAME" "IP:$NODE_IP,DNS:$NODE_NAME"
  certificate ca metrics-server-serving /CN=metrics-server "IP:$NODE_IP,DNS:metrics-server.kube-system.svc"
  # Who calls.
  certificate ca admin /O=system:masters/CN=quokka-admin
  certificate ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate ca kube-controller-manager /CN=system:kube-controller-manager
  certificate ca kube-scheduler /CN=system:kube-scheduler
  certificate ca kube-proxy /CN=system:kube-proxy
  certificate ca kubelet "/O=system:nodes/CN=system:node:$NODE_NAME"
  certificate ca coredns /CN=quokka:coredns
  certificate ca metrics-server /CN=quokka:metrics-server
  certificate front-proxy-ca front-proxy-client /CN=front-proxy-client
  # What service accounts' tokens are signed with.
  [[ -s $PKI/service-accounts.key ]] || quietly openssl genrsa -out "$PKI/service-accounts.key" 2048
  [[ -s $PKI/service-accounts.pub ]] ||
    quietly openssl rsa -in "$PKI/service-accounts.key" -pubout -out "$PKI/service-accounts.pub"
  local name
  for name in kube-controller-manager kube-scheduler kube-proxy kubelet coredns metrics-server; do
    kubeconfig_for "$name" "$RUN/$name.kubeconfig"
  done
  kubeconfig_for admin "$KUBECONFIG_LOCAL"
}

quietly() {
  local output
  output=$("$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    return 1
  }
}

# authority NAME COMMON-NAME
authority() {
  [[ -s $PKI/$1.crt ]] && return
  quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=$2" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
}

# certificate AUTHORITY NAME SUBJECT [ALTERNATIVE-NAMES]: one that both serves and calls.
certificate() {
  local authority=$1 name=$2 subject=$3 names=${4:-}
  [[ -s $PKI/$name.crt ]] && return
  quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -subj "$subject" -keyout "$PKI/$name.key" -out "$PKI/$name.csr"
  {
    echo 'basicConstraints=critical,CA:FALSE'
    echo 'keyUsage=critical,digitalSignature'
    echo 'extendedKeyUsage=serverAuth,clientAuth'
    [[ -z $names ]] || echo "subjectAltName=$names"
  } >"$PKI/$name.ext"
  quietly openssl x509 -req -in "$PKI/$name.csr" -CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" \
    -CAcreateserial -days 3650 -extfile "$PKI/$name.ext" -out "$PKI/$name.crt"
  rm -f "$PKI/$name.csr" "$PKI/$name.ext"
}

# kubeconfig_for NAME FILE: whole in itself, so that it can be copied.
kubeconfig_for() {
  local chosen=default
  [[ $1 != admin ]] || chosen=$NAMESPACE
  (umask 077 && write_file "$2" <<CONF
apiVersion: v1
kind: Config
clusters:
  - name: quokka
    cluster:
      server: https://$NODE_IP:$APISERVER_PORT
      certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
      client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
  - name: quokka
    context: {cluster: quokka, user: $1, namespace: $chosen}
current-context: quokka
CONF
  )
}
