{{/* What no schema can say. Included by the StatefulSet, so that nothing at all is rendered where it fails. */}}
{{- define "killswitch.refusals" -}}
{{- include "killswitch.onePolicySource" . -}}
{{- include "killswitch.noInlineCredential" . -}}
{{- include "killswitch.noSecondWay" . -}}
{{- if and .Values.live (eq .Values.store.kind "emptyDir") (not .Values.store.mayBeLost) -}}
{{- fail "live: an armed runner forgets latches and unfinished closes when its emptyDir is lost with the pod. Use store.kind: claim, or say store.mayBeLost: true" -}}
{{- end -}}
{{- if and .Values.locks.union (not .Values.locks.claim) -}}
{{- fail "locks.union: one file for all scopes is of use only in a folder that bots see. Name the folder's claim in locks.claim" -}}
{{- end -}}
{{- if and .Values.runAs.group (not .Values.runAs.user) -}}
{{- fail "runAs: with a group of your own, name the user too; or set both to null, and the cluster chooses" -}}
{{- end -}}
{{- end -}}

{{- define "killswitch.onePolicySource" -}}
{{- $named := list -}}
{{- with .Values.policies -}}
{{- if .files -}}{{- $named = append $named "policies.files" -}}{{- end -}}
{{- if .configMap -}}{{- $named = append $named "policies.configMap" -}}{{- end -}}
{{- if .claim.name -}}{{- $named = append $named "policies.claim" -}}{{- end -}}
{{- if .volume -}}{{- $named = append $named "policies.volume" -}}{{- end -}}
{{- end -}}
{{- if not $named -}}
{{- fail "policies: a runner needs policies and at least one account. Give policies.files, or name a policies.configMap, policies.claim or policies.volume" -}}
{{- end -}}
{{- if gt (len $named) 1 -}}
{{- fail (printf "policies: they come from one place, and these are %d: %s" (len $named) (join ", " $named)) -}}
{{- end -}}
{{- end -}}

{{/* `ksctl` refuses a secret in a document too, but by then it would lie in a ConfigMap and in the release. */}}
{{- define "killswitch.noInlineCredential" -}}
{{- range $file, $text := .Values.policies.files -}}
{{- if regexMatch "://[^/\\s'\"@]*:[^/\\s'\"@]*@" $text -}}
{{- fail (printf "policies.files: %s: an address in it holds a password. Refer to it with env:NAME or file:PATH, and change the password" $file) -}}
{{- end -}}
{{- range $document := regexSplit "(?m)^---.*$" $text -1 -}}
{{- $read := fromYaml $document -}}
{{- if kindIs "map" $read.spec -}}
{{- if kindIs "map" $read.spec.credentials -}}
{{- range $name, $value := $read.spec.credentials -}}
{{- if not (regexMatch "^(env|file):" (toString $value)) -}}
{{- fail (printf "policies.files: %s, credential %s: this is not a reference but may be a secret. Write file:/run/secrets/SECRET/KEY or env:NAME, and change the secret if it was ever real" $file $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Options that have a value of their own, so that a runner is armed in one place only; and headers, which hold keys. */}}
{{- define "killswitch.noSecondWay" -}}
{{- range .Values.extraArgs -}}
{{- if regexMatch "^--(live|policies|store|interval|read-timeout|ticks|lock-dir|lock-file)(=|$)" . -}}
{{- fail (printf "extraArgs: %s has a value of its own, or would end the runner. Say it there" (regexFind "^[^=]+" .)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "[@?]" .Values.telemetry.endpoint -}}
{{- fail "telemetry.endpoint: a user, a password or a query in it may be a secret. Take OTEL_EXPORTER_OTLP_ENDPOINT from a Secret: credentials.env" -}}
{{- end -}}
{{- range $name, $value := .Values.telemetry.env -}}
{{- if hasSuffix "HEADERS" $name -}}
{{- fail (printf "telemetry.env: %s holds keys. Take it from a Secret: credentials.env" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
