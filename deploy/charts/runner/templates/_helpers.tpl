{{/* Labels of everything in this chart. Names in a namespace are fixed. */}}
{{- define "invoke.labels" -}}
app.kubernetes.io/name: invoke-runner
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/*
What names of the whole cluster end with: nothing for the one runner that a cluster usually has, so that people
know them; for another one, of another dispatcher or under another name, the namespace that is its own.
*/}}
{{- define "invoke.ofThisRunner" -}}
{{- if ne .Release.Namespace "invoke-system" }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "invoke.selector" -}}
app.kubernetes.io/name: invoke-runner
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* repository@digest, or repository:tag */}}
{{- define "invoke.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}

{{/* The ServiceAccount of a profile: the one it names, or the one made for it. */}}
{{- define "invoke.serviceAccount" -}}
{{- $account := (.profile | default dict).serviceAccount | default dict -}}
{{- $account.name | default (printf "invoke-profile-%s" .name) }}
{{- end }}

{{/* The runner's configuration, as runner/src/config.rs reads it: every profile complete. */}}
{{- define "invoke.config" -}}
{{- $defaults := omit .Values.profiles.default "serviceAccount" "image" "secretVariables" "secretFolders" -}}
jobsNamespace: {{ .Values.jobsNamespace }}
maxJobs: {{ .Values.maxJobs }}
profiles:
{{- range $name, $given := .Values.profiles }}
{{- $profile := mergeOverwrite (deepCopy $defaults) (deepCopy ($given | default dict)) }}
  {{ $name }}:
    serviceAccount: {{ include "invoke.serviceAccount" (dict "name" $name "profile" $given) }}
    image: {{ $profile.image | default (include "invoke.image" $.Values.jobImage) | quote }}
    imagePullPolicy: {{ $profile.imagePullPolicy }}
    namespace: {{ $profile.namespace }}
    maxRunSeconds: {{ $profile.maxRunSeconds | int64 }}
    {{- with $profile.maxStartWithinSeconds }}
    maxStartWithinSeconds: {{ . | int64 }}
    {{- end }}
    drainSeconds: {{ $profile.drainSeconds | int64 }}
    outputCapBytes: {{ $profile.outputCapBytes | int64 }}
    secretVariables: {{ $profile.secretVariables | default list | toJson }}
    secretFolders: {{ $profile.secretFolders | default list | toJson }}
    resources: {{ $profile.resources | toJson }}
    nodeSelector: {{ $profile.nodeSelector | default dict | toJson }}
    tolerations: {{ $profile.tolerations | default list | toJson }}
{{- end }}
{{- end }}
