{{/* gateway.yaml: `config.gateway`, and what the chart knows better. Addresses and the state directory are
variables of the container, as they are in the image. */}}
{{- define "claude-cache-gateway.settings" -}}
{{- $settings := deepCopy .Values.config.gateway -}}
{{- $secrets := "/run/secrets/gateway" -}}
{{- range $section, $word := dict "placement" "mode" "responses" "limit_headers" -}}
{{- /* Helm reads the words `on` and `off` as true and false. */ -}}
{{- $values := get $settings $section -}}
{{- if and $values (kindIs "bool" (get $values $word)) -}}
{{- $_ := set $values $word (ternary "on" "off" (get $values $word)) -}}
{{- end -}}
{{- end -}}
{{- $upstreams := dict -}}
{{- range $name, $upstream := .Values.upstreams -}}
{{- $own := dict "credential" (dict "file" (default (printf "%s/upstreams/%s" $secrets $name) $upstream.credential.file)) -}}
{{- with $upstream.credential.federation -}}
{{- $own = dict "federation" (merge (dict "identity" (dict "file" (printf "%s/identity/token" $secrets))) .) -}}
{{- end -}}
{{- $_ := set $upstreams $name (merge $own (default dict $upstream.settings)) -}}
{{- end -}}
{{- $_ := set $settings "upstreams" $upstreams -}}
{{- $store := merge (dict "kind" .Values.store.kind) (default dict $settings.store) -}}
{{- if eq .Values.store.kind "redis" -}}
{{- $_ := set $store "url" (dict "file" (printf "%s/redis-url" $secrets)) -}}
{{- end -}}
{{- $_ := set $settings "store" $store -}}
{{- $ledger := merge (dict "kind" .Values.ledger.kind) (default dict $settings.ledger) -}}
{{- if eq .Values.ledger.kind "postgres" -}}
{{- $_ := set $ledger "url" (dict "file" (printf "%s/ledger-url" $secrets)) -}}
{{- end -}}
{{- if .Values.ledger.key.existingSecret -}}
{{- $_ := set $ledger "key" (dict "file" (printf "%s/ledger-key" $secrets)) -}}
{{- end -}}
{{- $_ := set $settings "ledger" $ledger -}}
{{- if .Values.prefixes.existingSecret -}}
{{- $_ := set $settings "prefixes" (dict "secret" (dict "file" (printf "%s/prefix-secret" $secrets))) -}}
{{- end -}}
{{- $listen := default dict $settings.listen -}}
{{- if .Values.admin.token.existingSecret -}}
{{- $listen = merge (dict "admin_token" (dict "file" (printf "%s/admin-token" $secrets))) $listen -}}
{{- end -}}
{{- if .Values.admin.metricsToken.existingSecret -}}
{{- $listen = merge (dict "metrics_token" (dict "file" (printf "%s/metrics-token" $secrets))) $listen -}}
{{- end -}}
{{- if $listen -}}
{{- $_ := set $settings "listen" $listen -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* Of what is read at start-up only, so that pods are replaced when it changes, and for nothing else. Whatever is
not known to be taken over by a running gateway counts. */}}
{{- define "claude-cache-gateway.checksum" -}}
{{- $settings := omit (include "claude-cache-gateway.settings" . | fromYaml) "upstreams" "models" "responses" "tags" "retries" -}}
{{- $_ := set $settings "placement" (omit (default dict $settings.placement) "mode" "header") -}}
{{- toJson $settings | sha256sum -}}
{{- end -}}
