{{/* Checks that a schema cannot express. The StatefulSet includes them, so that a failure renders nothing at all. */}}
{{- define "killswitch.refusals" -}}
{{- include "killswitch.onePolicySource" . -}}
{{- include "killswitch.noInlineCredential" . -}}
{{- include "killswitch.noSecondWay" . -}}
{{- include "killswitch.ownLabels" . -}}
{{- include "killswitch.declaredRetention" . -}}
{{- if and .Values.live (eq .Values.store.kind "emptyDir") (not .Values.store.mayBeLost) -}}
{{- fail "live: an armed runner forgets latches and unfinished closes when its emptyDir is lost with the pod. Use store.kind: claim, or say store.mayBeLost: true" -}}
{{- end -}}
{{- if and .Values.locks.union (not .Values.locks.claim) -}}
{{- fail "locks.union: one file for all scopes is of use only in a folder that bots see. Name the folder's claim in locks.claim" -}}
{{- end -}}
{{- include "killswitch.serverAndWatcher" . -}}
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
{{- if and .Values.source.configMap .Values.source.secret -}}
{{- fail "source: it is declared in one object. Name source.configMap or source.secret" -}}
{{- end -}}
{{- if not (or $named (include "killswitch.hasSource" .)) -}}
{{- fail "policies: a runner needs policies and at least one account. Give policies.files, or name a policies.configMap, policies.claim or policies.volume; or a source that has them" -}}
{{- end -}}
{{- if gt (len $named) 1 -}}
{{- fail (printf "policies: they come from one place, and these are %d: %s" (len $named) (join ", " $named)) -}}
{{- end -}}
{{- end -}}

{{/*
`ksctl` refuses a secret in a document too, but by then it would be in a ConfigMap and in the release. Every document
of every file is checked, also one that begins on its separator's line or after `...`; one that cannot be parsed is
refused, because it cannot be checked.
*/}}
{{- define "killswitch.noInlineCredential" -}}
{{- range $file, $text := .Values.policies.files -}}
{{- if regexMatch "://[^/\\s'\"@]*@" $text -}}
{{- include "killswitch.failForAddress" $file -}}
{{- end -}}
{{- $lines := regexReplaceAll "\r\n?|\\x{85}|\\x{2028}|\\x{2029}" $text "\n" | trimPrefix "\ufeff" -}}
{{- /* The parser keeps only one of two equal keys, so the text is checked as well. */ -}}
{{- range regexFindAll "(?i)(?:api_?key|private_?key|secret|password|passphrase|token)[\"']?[ \t]*:[ \t]+[\"']?[^\\s\"',}\\]]*" (regexReplaceAll "(?m)(?:^|[ \t])#.*$" $lines "") -1 -}}
{{- if not (regexMatch ":[ \t]+[\"']?(?:(?:env|file):.*|[*{\\[].*|null|~|true|false)?$" .) -}}
{{- fail (printf "policies.files: %s, %s: this is not a reference but may be a secret. Write file:/run/secrets/SECRET/KEY or env:NAME, and change the secret if it was ever real" $file (regexFind "^\\w+" .)) -}}
{{- end -}}
{{- end -}}
{{- range $document := regexSplit "(?m)^(?:---|\\.\\.\\.)(?:\\s|$)" (regexReplaceAll "(?m)^%(?:YAML|TAG)\\s.*$" $lines "") -1 -}}
{{- $read := fromYaml $document -}}
{{- if hasKey $read "Error" -}}
{{- fail (printf "policies.files: %s: a document in it is not YAML, or not a mapping of keys to values, so that it is unknown whether it holds a secret. Correct it; `ksctl validate` shows the place" $file) -}}
{{- end -}}
{{- include "killswitch.noSecretIn" (dict "file" $file "path" "" "value" $read "secret" false "option" false) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Refuses what may be a secret: any value that is not a reference below `credentials` or below a usual name of a key.
Arguments: the file, the path of the value in it, the value, whether a parent has such a name, and whether it is an
option of an adapter, where `key` is such a name too.
*/}}
{{- define "killswitch.noSecretIn" -}}
{{- $all := . -}}
{{- if kindIs "map" .value -}}
{{- range $name, $value := .value -}}
{{- $called := regexReplaceAll "[^a-z0-9]" (lower $name) "" -}}
{{- $names := regexMatch "(credentials?|apikey|accesskey|secretkey|privatekey|signingkey|secrets?|password|passwd|passphrase|tokens?|authorization|cookie)$" $called -}}
{{- $secret := or $all.secret $names (and $all.option (eq $called "key")) -}}
{{- if and $all.secret (kindIs "invalid" $value) -}}
{{- fail (printf "policies.files: %s, %s: a name in it has no value, and may be a secret itself. Write NAME: file:/run/secrets/SECRET/KEY or NAME: env:NAME" $all.file $all.path) -}}
{{- end -}}
{{- include "killswitch.noSecretIn" (dict "file" $all.file "path" (printf "%s.%s" $all.path $name | trimPrefix ".") "value" $value "secret" $secret "option" (or $all.option (eq $name "options"))) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $value := .value -}}
{{- include "killswitch.noSecretIn" (merge (dict "value" $value) (omit $all "value")) -}}
{{- end -}}
{{- else if and .secret (not (or (kindIs "invalid" .value) (kindIs "bool" .value))) -}}
{{- if not (regexMatch "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$" (toString .value)) -}}
{{- fail (printf "policies.files: %s, %s: this is not a reference but may be a secret. Write file:/run/secrets/SECRET/KEY or env:NAME, and change the secret if it was ever real" .file .path) -}}
{{- end -}}
{{- else if and (kindIs "string" .value) (regexMatch "://[^/\\s'\"@]*@" .value) -}}
{{- include "killswitch.failForAddress" .file -}}
{{- end -}}
{{- end -}}

{{- define "killswitch.failForAddress" -}}
{{- fail (printf "policies.files: %s: an address in it holds a user or a password. Refer to it with env:NAME or file:PATH, and change the password" .) -}}
{{- end -}}

{{/* The StatefulSet and monitoring of the release select the pod by these labels; a pod with others is lost to both. */}}
{{- define "killswitch.ownLabels" -}}
{{- range $name, $value := .Values.pod.labels -}}
{{- if hasKey (include "killswitch.selector" $ | fromYaml) $name -}}
{{- fail (printf "pod.labels: %s is what the StatefulSet finds its pod by. Use nameOverride, or a label of another name" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Options that have their own value, so that a runner is armed in one place only; and headers, which contain keys. */}}
{{- define "killswitch.noSecondWay" -}}
{{- range .Values.extraArgs -}}
{{- if regexMatch "^--(live|policies|source|store|interval|read-timeout|ticks|lock-dir|lock-file|retain)(=|$)" . -}}
{{- fail (printf "extraArgs: %s has a value of its own, or would end the runner. Say it there" (regexFind "^[^=]+" .)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "[@?]" .Values.telemetry.endpoint -}}
{{- fail "telemetry.endpoint: a user, a password or a query in it may be a secret. Take OTEL_EXPORTER_OTLP_ENDPOINT from a Secret: credentials.env" -}}
{{- end -}}
{{- range $name, $value := .Values.telemetry.env -}}
{{- if and (hasSuffix "ENDPOINT" $name) (regexMatch "[@?]" $value) -}}
{{- fail (printf "telemetry.env: %s: a user, a password or a query in it may be a secret. Take it from a Secret: credentials.env" $name) -}}
{{- end -}}
{{- if hasSuffix "HEADERS" $name -}}
{{- fail (printf "telemetry.env: %s holds keys. Take it from a Secret: credentials.env" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "killswitch.serverAndWatcher" -}}
{{- with .Values.server -}}
{{- if and .enabled (not .tokens.secret) -}}
{{- fail "server: every request needs a token. Make the file with `ksctl serve token`, put it into a Secret, and name it in server.tokens.secret" -}}
{{- end -}}
{{- if and .enabled (not .tls.secret) (not .behindProxy) -}}
{{- fail "server: tokens would be sent in the clear. Name a TLS Secret in server.tls.secret, or say server.behindProxy: true where a proxy in the pod's network has it" -}}
{{- end -}}
{{- end -}}
{{- if .Values.watcher.enabled -}}
{{- if not (include "killswitch.hasPolicies" .) -}}
{{- fail "watcher: it reads the switches and accounts from files, also next to a source. Give policies, or leave watcher.enabled false" -}}
{{- end -}}
{{- $own := list -}}
{{- range .Values.watcher.credentials.files -}}{{- $own = append $own .secret -}}{{- end -}}
{{- range .Values.watcher.credentials.env -}}{{- $own = append $own .secret -}}{{- end -}}
{{- range .Values.credentials.files -}}
{{- if has .secret $own -}}
{{- fail (printf "watcher.credentials: %s is the runner's own Secret. A key that is revoked or blocked would stop both: give the watcher one of its own" .secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* `ksctl run` reads the declaration before it starts, but only in the cluster; its folder there cannot be written. */}}
{{- define "killswitch.declaredRetention" -}}
{{- with .Values.retention.declared -}}
{{- if regexMatch "(?m)^[ \\t]*(archive|files)[ \\t]*=[ \\t]*[\"']*[^/\"' \\t]" . -}}
{{- fail "retention.declared: a path in it is relative, to a folder that cannot be written. Begin it with /var/lib/killswitch/ or a volume of yours" -}}
{{- end -}}
{{- if regexMatch "(?m)^[ \\t]*archive[ \\t]*=[ \\t]*[\"']*/tmp/" . -}}
{{- fail "retention.declared: the archive is in /tmp, which is lost with the pod, and its lines have left the store. Put it below /var/lib/killswitch/ or in a volume of yours" -}}
{{- end -}}
{{- if not (regexMatch "(?m)^[ \\t]*every[ \\t]*=" .) -}}
{{- fail "retention.declared: it does not say how often. Add a line such as every = \"1d\" before its first table" -}}
{{- end -}}
{{- end -}}
{{- end -}}
