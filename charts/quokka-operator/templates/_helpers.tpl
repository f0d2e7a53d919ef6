{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: quokka-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: quokka
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- default "quokka-operator" .Values.serviceAccount.name -}}
{{- end -}}

{{- define "operator.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag -}}
{{- end -}}

{{/* One egress rule of the network policy: {cidrs, ports}, and the protocols. */}}
{{- define "operator.egress" -}}
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
