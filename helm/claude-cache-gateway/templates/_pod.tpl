{{/* The pod, which StatefulSet and Deployment have in common. */}}
{{- define "claude-cache-gateway.pod" -}}
metadata:
  annotations:
    {{- with omit .Values.podAnnotations "kubectl.kubernetes.io/default-container" "checksum/restart-settings" }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    kubectl.kubernetes.io/default-container: gateway
    checksum/restart-settings: {{ include "claude-cache-gateway.checksum" . }}
  labels:
    {{- /* The chart's own win: the selector has to match. */}}
    {{- $own := include "claude-cache-gateway.selectorLabels" . | fromYaml }}
    {{- toYaml (mergeOverwrite (deepCopy .Values.commonLabels) (deepCopy .Values.podLabels) $own) | nindent 4 }}
spec:
  serviceAccountName: {{ include "claude-cache-gateway.serviceAccountName" . | quote }}
  automountServiceAccountToken: false
  # The variables of a Service `gateway--x` would be read as settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "claude-cache-gateway.gracePeriod" . }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: gateway
      image: {{ include "claude-cache-gateway.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run]
      env:
        - {name: GATEWAY_CONFIG, value: /etc/claude-cache-gateway}
        - {name: GATEWAY_LISTEN__DATA, value: {{ printf "%s:8080" .Values.listenHost | quote }}}
        - {name: GATEWAY_LISTEN__ADMIN, value: {{ printf "%s:9090" .Values.listenHost | quote }}}
        - {name: GATEWAY_STATE__DIRECTORY, value: /data}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: data, containerPort: 8080, protocol: TCP}
        - {name: admin, containerPort: 9090, protocol: TCP}
      # The admin plane listens once everything is open. Whether Redis has answered by then is for readiness: a
      # restart would not bring it back.
      startupProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      {{- if .Values.preStopSeconds }}
      # The pod is taken from the Service at the same time as it is told to stop; this lets the former win.
      lifecycle:
        preStop:
          sleep: {seconds: {{ .Values.preStopSeconds | int64 }}}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        # A directory, never a subPath: only so do changes arrive.
        - {name: config, mountPath: /etc/claude-cache-gateway, readOnly: true}
        - {name: secrets, mountPath: /run/secrets/gateway, readOnly: true}
        - {name: state, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "claude-cache-gateway.fullname" . }}}
    - name: secrets
      projected:
        # 0440: for the pod's own group.
        defaultMode: 288
        {{- with include "claude-cache-gateway.secretSources" . | trim }}
        sources:
          {{- . | nindent 10 }}
        {{- else }}
        sources: []
        {{- end }}
    - name: tmp
      emptyDir: {}
    {{- if or (eq .Values.workload.kind "Deployment") (not .Values.persistence.enabled) }}
    - name: state
      emptyDir: {}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $selector := dict "matchLabels" (include "claude-cache-gateway.selectorLabels" $ | fromYaml) }}
    - {{- toYaml (merge (deepCopy .) (dict "labelSelector" $selector)) | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
