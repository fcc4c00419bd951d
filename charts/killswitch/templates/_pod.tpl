{{/* Environment: writable paths, telemetry, and secrets by reference. */}}
{{- define "killswitch.env" -}}
- {name: HOME, value: /tmp}
- {name: TMPDIR, value: /tmp}
- {name: XDG_CACHE_HOME, value: /tmp/cache}
- {name: MPLCONFIGDIR, value: /tmp/matplotlib}
- {name: KSCTL_STORE, value: /var/lib/killswitch/store.sqlite}
{{- if include "killswitch.hasPolicies" . }}
- {name: KSCTL_POLICIES, value: /etc/killswitch/policies}
{{- end }}
{{- with .Values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .Values.telemetry.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range .Values.credentials.env }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key | quote }}}
{{- end }}
{{- end -}}

{{- define "killswitch.mounts" -}}
{{- if include "killswitch.hasPolicies" . -}}
- name: policies
  mountPath: /etc/killswitch/policies
  readOnly: true
  {{- with .Values.policies.claim.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{ end -}}
{{- if include "killswitch.hasSource" . -}}
- {name: source, mountPath: /etc/killswitch/source, readOnly: true}
{{ end -}}
{{- if .Values.retention.declared -}}
- {name: retention, mountPath: /etc/killswitch/retention, readOnly: true}
{{ end -}}
- {name: store, mountPath: /var/lib/killswitch}
- {name: tmp, mountPath: /tmp}
{{- if .Values.locks.claim }}
- name: locks
  mountPath: /var/lib/killswitch-locks
  {{- with .Values.locks.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- range $index, $each := .Values.credentials.files }}
- {name: credentials-{{ $index }}, mountPath: {{ printf "/run/secrets/%s" $each.secret | quote }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "killswitch.volumes" -}}
{{- if include "killswitch.hasPolicies" . -}}
- name: policies
  {{- if .Values.policies.claim.name }}
  persistentVolumeClaim: {claimName: {{ .Values.policies.claim.name }}, readOnly: true}
  {{- else if .Values.policies.volume }}
  {{- toYaml .Values.policies.volume | nindent 2 }}
  {{- else }}
  configMap: {name: {{ include "killswitch.policiesConfigMap" . }}}
  {{- end }}
{{- end }}
{{- if .Values.source.configMap }}
- name: source
  configMap: {name: {{ .Values.source.configMap }}}
{{- else if .Values.source.secret }}
- name: source
  secret: {secretName: {{ .Values.source.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.retention.declared }}
- name: retention
  configMap: {name: {{ include "killswitch.fullname" . }}-retention}
{{- end }}
{{- if eq .Values.store.kind "emptyDir" }}
- name: store
  emptyDir: {{- toYaml .Values.store.emptyDir | nindent 4 }}
{{- else if .Values.store.claim.existing }}
- name: store
  persistentVolumeClaim: {claimName: {{ .Values.store.claim.existing }}}
{{- end }}
- name: tmp
  emptyDir: {{- toYaml .Values.tmp | nindent 4 }}
{{- with .Values.locks.claim }}
- name: locks
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- range $index, $each := .Values.credentials.files }}
- name: credentials-{{ $index }}
  secret:
    secretName: {{ $each.secret }}
    defaultMode: 0440
    {{- with $each.keys }}
    items:
      {{- range . }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
      {{- end }}
    {{- end }}
{{- end }}
{{- with .Values.server }}
{{- if .enabled }}
- name: server-tokens
  secret: {secretName: {{ .tokens.secret }}, defaultMode: 0440}
{{- with .tls.secret }}
- name: server-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What every pod of the release has. Takes the root, and the pod's affinity. */}}
{{- define "killswitch.podSettings" -}}
{{- $affinity := .affinity -}}
{{- with .root -}}
serviceAccountName: {{ include "killswitch.serviceAccount" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automountToken }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.runAs.user }}
  runAsUser: {{ . }}
  {{- end }}
  {{- with .Values.runAs.group }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- end -}}

{{- define "killswitch.containerSecurity" -}}
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
privileged: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/*
The HTTP API and the board: a container of its own next to the runner, with the same store. It has no credentials of the
venues, and the runner does not wait for it.
*/}}
{{- define "killswitch.server" -}}
- name: server
  image: {{ include "killswitch.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [ksctl]
  args:
    - serve
    - --store=/var/lib/killswitch/store.sqlite
    - --tokens=/etc/killswitch/tokens/{{ .Values.server.tokens.key }}
    - --listen=0.0.0.0:{{ .Values.server.port }}
    {{- range .Values.server.hostNames }}
    - --host-name={{ . }}
    {{- end }}
    {{- if .Values.server.service.enabled }}
    {{- $service := printf "%s-server" (include "killswitch.fullname" .) }}
    - --host-name={{ $service }}:{{ .Values.server.port }}
    - --host-name={{ $service }}.{{ .Release.Namespace }}.svc:{{ .Values.server.port }}
    {{- end }}
    {{- if .Values.server.tls.secret }}
    - --tls-certificate=/etc/killswitch/tls/tls.crt
    - --tls-key=/etc/killswitch/tls/tls.key
    {{- else }}
    - --behind-proxy
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: TMPDIR, value: /tmp}
    - {name: XDG_CACHE_HOME, value: /tmp/cache}
  ports:
    - {name: http, containerPort: {{ .Values.server.port }}, protocol: TCP}
  volumeMounts:
    - {name: store, mountPath: /var/lib/killswitch}
    - {name: tmp, mountPath: /tmp}
    - {name: server-tokens, mountPath: /etc/killswitch/tokens, readOnly: true}
    {{- if .Values.server.tls.secret }}
    - {name: server-tls, mountPath: /etc/killswitch/tls, readOnly: true}
    {{- end }}
    {{- if .Values.locks.claim }}
    - name: locks
      mountPath: /var/lib/killswitch-locks
      readOnly: true
      {{- with .Values.locks.subPath }}
      subPath: {{ . | quote }}
      {{- end }}
    {{- end }}
  resources: {{- toYaml .Values.server.resources | nindent 4 }}
  securityContext: {{- include "killswitch.containerSecurity" . | nindent 4 }}
  # A server that is not ready takes the pod out of its Service, and never restarts the runner.
  readinessProbe:
    httpGet: {path: /healthz, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.server.tls.secret "") }}}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  livenessProbe:
    httpGet: {path: /healthz, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.server.tls.secret "") }}}
    periodSeconds: 20
    timeoutSeconds: 10
    failureThreshold: 3
{{- end -}}
