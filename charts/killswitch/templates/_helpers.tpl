{{/* The chart's name, in labels. */}}
{{- define "killswitch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of the objects of the release. Short enough for the pod's ordinal and the claim's prefix. */}}
{{- define "killswitch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "killswitch.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "killswitch.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "killswitch.selector" -}}
app.kubernetes.io/name: {{ include "killswitch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "killswitch.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "killswitch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "killswitch.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "killswitch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "killswitch.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "killswitch.policiesConfigMap" -}}
{{- default (printf "%s-policies" (include "killswitch.fullname" .)) .Values.policies.configMap -}}
{{- end -}}

{{/* The command of one probe. Takes the root, the probe's name for ksctl, and its values. */}}
{{- define "killswitch.probe" -}}
exec:
  command:
    - ksctl
    - status
    - --store=/var/lib/killswitch/store.sqlite
    - --probe={{ .probe }}
    {{- with .values.within }}
    - --within={{ . }}
    {{- end }}
periodSeconds: {{ .values.periodSeconds }}
timeoutSeconds: {{ .values.timeoutSeconds }}
failureThreshold: {{ .values.failureThreshold }}
{{- end -}}

{{/* Whether the runner follows a source of policies; empty if not. */}}
{{- define "killswitch.hasSource" -}}
{{- or .Values.source.configMap .Values.source.secret -}}
{{- end -}}

{{/* Whether policies are mounted, which a source of another place does not need; empty if not. */}}
{{- define "killswitch.hasPolicies" -}}
{{- with .Values.policies -}}
{{- if or .files .configMap .claim.name .volume -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The watcher's own labels: those of the runner would find its pod as well. */}}
{{- define "killswitch.watcherSelector" -}}
app.kubernetes.io/name: {{ include "killswitch.name" . }}-watcher
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "killswitch.watcherLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "killswitch.watcherSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Another node than the runner's, unless values say otherwise. */}}
{{- define "killswitch.watcherAffinity" -}}
{{- if .Values.watcher.affinity -}}
{{ toYaml .Values.watcher.affinity }}
{{- else -}}
podAntiAffinity:
  {{ ternary "requiredDuringSchedulingIgnoredDuringExecution" "preferredDuringSchedulingIgnoredDuringExecution" .Values.watcher.anotherNode }}:
    {{- if .Values.watcher.anotherNode }}
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {{- include "killswitch.selector" . | nindent 10 }}
    {{- else }}
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "killswitch.selector" . | nindent 12 }}
    {{- end }}
{{- end -}}
{{- end -}}
