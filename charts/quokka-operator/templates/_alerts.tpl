{{/*
One alert: `root`, `name`, `expr`, `summary` (one sentence, no templates) and `description` (with Prometheus's own
templates), and the `dashboard` that shows more. Whether it is on, for how long and how severe stands in the values under its name.
*/}}
{{- define "operator.alert" -}}
{{- $alerts := .root.Values.alerts -}}
{{- $rule := index $alerts.rules .name -}}
{{- if $rule.enabled -}}
- alert: {{ .name }}
  expr: |-
    {{- .expr | trim | nindent 4 }}
  for: {{ $rule.for }}
  labels:
    severity: {{ $rule.severity }}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    runbook_url: {{ printf "%s/%s.md" (trimSuffix "/" $alerts.runbookUrl) .name | quote }}
    dashboard_url: {{ $alerts.dashboardUrl | replace "{dashboard}" .dashboard | quote }}
{{- end }}
{{- end -}}
