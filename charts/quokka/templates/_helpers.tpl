{{/* The helpers below take a dict: `root` is the chart's own context, `name` the component's name. */}}

{{- define "quokka.componentName" -}}
quokka-{{ .name }}
{{- end -}}

{{- define "quokka.selectorLabels" -}}
app.kubernetes.io/name: quokka
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "quokka.labels" -}}
{{ include "quokka.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: quokka
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* The component's values: its own over the defaults, as YAML. */}}
{{- define "quokka.component" -}}
{{- $own := index .root.Values.components .name | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) | toYaml -}}
{{- end -}}

{{- define "quokka.image" -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end -}}
{{- .root.Values.image.prefix }}/{{ .image }}:{{ default .root.Chart.AppVersion .root.Values.image.tag -}}
{{- end -}}

{{/*
What is fixed by the programs and not for the user to choose, by component: the image, the arguments, which of the stores
it needs, its ports by name, each with the Service's port and who may come to it (`http` is the API, `internal` is for
other services), and whom it calls, at which of their ports.
*/}}
{{- define "quokka.programs" -}}
gateway:
  image: gateway
  args: []
  needs: [kubernetes]
  ports:
    http: {number: 8080, service: 80, callers: [guests]}
  calls: {users: http, promotions: http, stays: http, booking: http, orders: http, payments: http}
users:
  image: users
  args: []
  needs: [postgres]
  ports:
    http: {number: 8080, service: 8080, callers: [gateway, promotions, stays, booking, orders, payments]}
  calls: {}
promotions:
  image: promotions
  args: [api]
  needs: [redis, kafka, postgres]
  ports:
    http: {number: 8080, service: 8080, callers: [gateway]}
  calls: {users: http}
promotions-ledger:
  image: promotions
  args: [ledger]
  needs: [redis, kafka, postgres]
  ports:
    internal: {number: 8081, service: 8081, callers: [operator, orders]}
  calls: {}
stays:
  image: stays
  args: []
  needs: [redis, kafka, postgres]
  ports:
    http: {number: 8080, service: 8080, callers: [gateway]}
    internal: {number: 8081, service: 8081, callers: [orders]}
  calls: {users: http}
booking:
  image: booking
  args: []
  needs: [kafka, postgres]
  ports:
    http: {number: 8080, service: 8080, callers: [gateway]}
  calls: {users: http}
orders:
  image: orders
  args: []
  needs: [kafka, postgres]
  ports:
    http: {number: 8080, service: 8080, callers: [gateway]}
    internal: {number: 8081, service: 8081, callers: [payments]}
  calls: {users: http, stays: internal, promotions-ledger: internal}
payments:
  image: payments
  args: []
  needs: [kafka, postgres, toss]
  ports:
    http: {number: 8080, service: 8080, callers: [gateway]}
  calls: {users: http, orders: internal}
{{- end -}}

{{/* The environment of a component that is no secret, as the data of its ConfigMap. */}}
{{- define "quokka.environment" -}}
{{- $values := .root.Values -}}
{{- $component := include "quokka.component" . | fromYaml -}}
{{- $program := index (include "quokka.programs" . | fromYaml) .name -}}
QUOKKA_OPS_ADDR: 0.0.0.0:9090
QUOKKA_LOG: {{ $component.log | quote }}
QUOKKA_SHUTDOWN_GRACE: {{ $values.shutdown.graceSeconds }}s
QUOKKA_NAMESPACE: {{ .root.Release.Namespace }}
{{- with $values.tracing.otlpEndpoint }}
QUOKKA_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- if hasKey $program.ports "internal" }}
QUOKKA_INTERNAL_ADDR: 0.0.0.0:8081
{{- end }}
{{- if hasKey $program.ports "http" }}
QUOKKA_HTTP_ADDR: 0.0.0.0:8080
QUOKKA_JWT_ISSUER: {{ $values.tokens.issuer | quote }}
{{- end }}
{{- if hasKey $program.calls "users" }}
QUOKKA_JWKS_URL: http://quokka-users:8080/.well-known/jwks.json
{{- end }}
{{- if and (eq .name "gateway") $values.ingress.trustedProxies }}
QUOKKA_GATEWAY_TRUSTED_PROXIES: {{ join "," $values.ingress.trustedProxies | quote }}
{{- end }}
{{- if has "kafka" $program.needs }}
QUOKKA_KAFKA_BROKERS: {{ required "kafka.brokers: give the address of Kafka, host:port" $values.kafka.brokers | quote }}
{{- end }}
{{- if and (has "kafka" $program.needs) (ne .name "promotions") }}
QUOKKA_SAGA_PARTITIONS: {{ $values.kafka.sagaPartitions | quote }}
{{- end }}
{{- if eq .name "orders" }}
QUOKKA_STAYS_URL: http://quokka-stays:8081
QUOKKA_PROMOTIONS_URL: http://quokka-promotions-ledger:8081
{{- end }}
{{- if eq .name "payments" }}
QUOKKA_ORDERS_URL: http://quokka-orders:8081
QUOKKA_TOSS_URL: {{ $values.toss.url | quote }}
{{- end }}
{{- if eq .name "users" }}
QUOKKA_ACCESS_TOKEN_TTL: {{ $values.tokens.accessTtl | quote }}
QUOKKA_REFRESH_TOKEN_TTL: {{ $values.tokens.refreshTtl | quote }}
QUOKKA_FORWARDED_HOPS: {{ ternary "2" "1" (not (empty $values.ingress.trustedProxies)) | quote }}
QUOKKA_SIGNING_KEY_FILE: /etc/quokka/signing-key/key.pem
{{- if $values.tokens.signingKey.previousKey }}
QUOKKA_PREVIOUS_KEY_FILE: /etc/quokka/signing-key/previous.pem
{{- end }}
{{- end }}
{{- range $name, $value := $component.env }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* One egress rule of a network policy: `rule` {cidrs, ports}, and the `protocols`. */}}
{{- define "quokka.egress" -}}
- to:
    {{- range .rule.cidrs }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  ports:
    {{- range $port := .rule.ports }}
    {{- range $.protocols }}
    - port: {{ $port }}
      protocol: {{ . }}
    {{- end }}
    {{- end }}
{{- end -}}
