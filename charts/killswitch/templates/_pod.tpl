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
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
