{{/* What only makes sense together, said before anything is installed. The schema has the rest. */}}
{{- define "claude-cache-gateway.checks" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- $redis := eq .Values.store.kind "redis" -}}
{{- $postgres := eq .Values.ledger.kind "postgres" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: push the image to a registry of yours, and name it there." -}}
{{- end -}}
{{- if and $several (not $redis) -}}
{{- fail "More than one replica needs store.kind: redis: with sqlite, each would have budgets and keys of its own." -}}
{{- end -}}
{{- if and $redis (not .Values.store.redis.existingSecret) -}}
{{- fail "store.kind: redis needs store.redis.existingSecret, a Secret with the URL of Redis." -}}
{{- end -}}
{{- if and $redis (not .Values.prefixes.existingSecret) -}}
{{- fail "store.kind: redis needs prefixes.existingSecret: replicas that share a store must share the secret of prefixes." -}}
{{- end -}}
{{- if and $postgres (not .Values.ledger.postgres.existingSecret) -}}
{{- fail "ledger.kind: postgres needs ledger.postgres.existingSecret, a Secret with the URL of PostgreSQL." -}}
{{- end -}}
{{- if and $postgres .Values.ledger.migrate.enabled (not .Values.ledger.migrate.existingSecret) -}}
{{- fail "ledger.migrate.enabled needs ledger.migrate.existingSecret, a Secret with the URL of the tables' owner; or switch it off and run `gateway ledger migrate` yourself." -}}
{{- end -}}
{{- if and (eq .Values.workload.kind "Deployment") (not (and $redis $postgres .Values.ledger.key.existingSecret)) -}}
{{- fail "workload.kind: Deployment loses the state directory with each pod: it needs store.kind: redis, ledger.kind: postgres and ledger.key.existingSecret." -}}
{{- end -}}
{{- range $name, $upstream := .Values.upstreams -}}
{{- $credential := $upstream.credential -}}
{{- $ways := 0 -}}
{{- range list "existingSecret" "file" "federation" -}}{{- if get $credential . -}}{{- $ways = add1 $ways -}}{{- end -}}{{- end -}}
{{- if ne (int $ways) 1 -}}
{{- fail (printf "upstreams.%s.credential needs exactly one of existingSecret, file and federation." $name) -}}
{{- end -}}
{{- if and $credential.federation (not $.Values.upstreamIdentity.enabled) -}}
{{- fail (printf "upstreams.%s.credential.federation needs upstreamIdentity.enabled." $name) -}}
{{- end -}}
{{- range list "credential" "federation" -}}
{{- if hasKey (default dict $upstream.settings) . -}}
{{- fail (printf "upstreams.%s.settings.%s: write it below upstreams.%s.credential." $name . $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.upstreamIdentity.enabled (not .Values.upstreamIdentity.audience) -}}
{{- fail "upstreamIdentity.enabled needs upstreamIdentity.audience: a token without one is for the cluster's own API." -}}
{{- end -}}
{{- $gateway := .Values.config.gateway -}}
{{- $elsewhere := dict
  "upstreams" "upstreams" "listen.data" "listenHost" "listen.admin" "listenHost" "listen.admin_token" "admin.token" "listen.metrics_token" "admin.metricsToken"
  "state.directory" "persistence" "store.kind" "store.kind" "store.url" "store.redis" "ledger.kind" "ledger.kind"
  "ledger.url" "ledger.postgres" "ledger.key" "ledger.key" "prefixes.secret" "prefixes" -}}
{{- range $path, $instead := $elsewhere -}}
{{- $parts := splitList "." $path -}}
{{- $section := get $gateway (first $parts) -}}
{{- if or (and (eq (len $parts) 1) $section) (and (eq (len $parts) 2) $section (hasKey $section (last $parts))) -}}
{{- fail (printf "config.gateway.%s is written by the chart: set %s instead." $path $instead) -}}
{{- end -}}
{{- end -}}
{{- range list "public_url" "sign_in" -}}
{{- if and (get (default dict $gateway.page) .) (not $.Values.admin.token.existingSecret) -}}
{{- fail (printf "config.gateway.page.%s needs admin.token.existingSecret: the page is reached through a proxy then, and so is the admin API, which asks nobody without a token." .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.admin.token.existingSecret (not .Values.admin.metricsToken.existingSecret) -}}
{{- fail "serviceMonitor.enabled with admin.token needs admin.metricsToken.existingSecret, a Secret with a token for /metrics alone: with the admin token, whoever reads Prometheus' secrets could change budgets." -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if regexMatch "^GATEWAY_(CONFIG$|.*__)" .name -}}
{{- fail (printf "extraEnv: %s is a setting; write it in config.gateway, so that the chart sees it." .name) -}}
{{- end -}}
{{- end -}}
{{- range $file := list "limits" "workspaces" "prices" -}}
{{- with (get $.Values.config $file | fromYaml).Error -}}
{{- fail (printf "config.%s is not YAML: %s" $file .) -}}
{{- end -}}
{{- end -}}
{{- $written := printf "%s%s%s" (toJson .Values.config) (toJson .Values.upstreams) (toJson .Values.extraEnv) -}}
{{- if regexMatch "sk-ant-|cgw_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}" $written -}}
{{- fail "A credential stands in the values; put it into a Secret, and name that." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.targetOpenStreams)) -}}
{{- fail "autoscaling.enabled needs targetCPUUtilizationPercentage or targetOpenStreams." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs." -}}
{{- end -}}
{{- if and .Values.externalSecrets.enabled (not .Values.externalSecrets.secretStoreRef.name) -}}
{{- fail "externalSecrets.enabled needs externalSecrets.secretStoreRef.name." -}}
{{- end -}}
{{- end -}}
