{{/* Names, labels and small values that several templates use. */}}

{{- define "claude-cache-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* 45 characters leave room for what is added to it, in names of pods and of their revisions. */}}
{{- define "claude-cache-gateway.fullname" -}}
{{- $name := include "claude-cache-gateway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By which pods are found: nothing that an upgrade changes, because selectors cannot be changed. */}}
{{- define "claude-cache-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "claude-cache-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: gateway
{{- end -}}

{{/* For all but pods and their selectors: (dict "root" $ "component" "gateway"). */}}
{{- define "claude-cache-gateway.labelsOf" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/name" (include "claude-cache-gateway.name" .root)
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "claude-cache-gateway"
  "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- toYaml (merge $own .root.Values.commonLabels) -}}
{{- end -}}

{{- define "claude-cache-gateway.labels" -}}
{{- include "claude-cache-gateway.labelsOf" (dict "root" . "component" "gateway") -}}
{{- end -}}

{{- define "claude-cache-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "claude-cache-gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "claude-cache-gateway.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Whole seconds, rounded up, of a duration as gateway.yaml has it; the schema has seen that it is one. */}}
{{- define "claude-cache-gateway.seconds" -}}
{{- $unit := regexFind "(ms|s|m|h|d)$" . -}}
{{- $each := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit -}}
{{- mulf (trimSuffix $unit . | float64) $each | ceil | int64 -}}
{{- end -}}

{{/* preStop, announce, timeout and the rest, one after the other: a pod that is killed earlier cuts streams and
settles nothing until its lease ends. */}}
{{- define "claude-cache-gateway.gracePeriod" -}}
{{- $drain := default dict .Values.config.gateway.drain -}}
{{- $announce := include "claude-cache-gateway.seconds" (default "5s" $drain.announce) -}}
{{- $timeout := include "claude-cache-gateway.seconds" (default "5m" $drain.timeout) -}}
{{- add .Values.preStopSeconds $announce $timeout .Values.graceSeconds -}}
{{- end -}}

{{/* The Secrets of a pod as one directory, `/run/secrets/gateway`: files, because the gateway reads a rotated
credential from a file, and a variable is seen by whoever may describe the pod's environment. */}}
{{- define "claude-cache-gateway.secretSources" -}}
{{- range $name, $upstream := .Values.upstreams }}
{{- with $upstream.credential.existingSecret }}
- secret: {name: {{ . | quote }}, items: [{key: {{ $upstream.credential.key | default "api-key" | quote }}, path: upstreams/{{ $name }}}]}
{{- end }}
{{- end }}
{{- if eq .Values.store.kind "redis" }}
- secret: {name: {{ .Values.store.redis.existingSecret | quote }}, items: [{key: {{ .Values.store.redis.key | quote }}, path: redis-url}]}
{{- end }}
{{- if eq .Values.ledger.kind "postgres" }}
- secret: {name: {{ .Values.ledger.postgres.existingSecret | quote }}, items: [{key: {{ .Values.ledger.postgres.key | quote }}, path: ledger-url}]}
{{- end }}
{{- with .Values.ledger.key.existingSecret }}
- secret: {name: {{ . | quote }}, items: [{key: {{ $.Values.ledger.key.key | quote }}, path: ledger-key}]}
{{- end }}
{{- with .Values.prefixes.existingSecret }}
- secret: {name: {{ . | quote }}, items: [{key: {{ $.Values.prefixes.key | quote }}, path: prefix-secret}]}
{{- end }}
{{- with .Values.admin.token.existingSecret }}
- secret: {name: {{ . | quote }}, items: [{key: {{ $.Values.admin.token.key | quote }}, path: admin-token}]}
{{- end }}
{{- with .Values.admin.metricsToken.existingSecret }}
- secret: {name: {{ . | quote }}, items: [{key: {{ $.Values.admin.metricsToken.key | quote }}, path: metrics-token}]}
{{- end }}
{{- range $name, $from := .Values.secretFiles }}
- secret: {name: {{ $from.existingSecret | quote }}, items: [{key: {{ $from.key | quote }}, path: files/{{ $name }}}]}
{{- end }}
{{- if .Values.clusterTokens.enabled }}
- configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: cluster/ca.crt}]}
- serviceAccountToken: {path: cluster/token, expirationSeconds: 3600}
{{- end }}
{{- if .Values.upstreamIdentity.enabled }}
- serviceAccountToken:
    audience: {{ .Values.upstreamIdentity.audience | quote }}
    expirationSeconds: {{ .Values.upstreamIdentity.expirationSeconds | int64 }}
    path: identity/token
{{- end }}
{{- end -}}
