{{- define "mainspring.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mainspring.labels" -}}
{{ include "mainspring.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: mainspring
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* The component is added by whoever selects. */ -}}
{{- define "mainspring.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mainspring.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mainspring.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Takes the root and one of images.operator, images.jobs, images.server. */ -}}
{{- define "mainspring.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "mainspring.signingKeySecret" -}}
{{- default (printf "%s-signing-key" (include "mainspring.fullname" .)) .Values.signingKey.existingSecret -}}
{{- end -}}

{{- define "mainspring.trackingURI" -}}
{{- if .Values.trackingURI -}}
{{- .Values.trackingURI -}}
{{- else if .Values.mlflow.enabled -}}
http://{{ include "mainspring.fullname" . }}-mlflow.{{ .Release.Namespace }}.svc:{{ .Values.mlflow.port }}
{{- else -}}
{{- fail "trackingURI is needed: the address of an MLflow server; or set mlflow.enabled=true to try it out with one of the chart's own" -}}
{{- end -}}
{{- end -}}

{{- /* Namespaces to work in, as JSON: {"names": [...]}. */ -}}
{{- define "mainspring.namespaces" -}}
{{- dict "names" (.Values.watchNamespaces | default (list .Release.Namespace) | uniq) | toJson -}}
{{- end -}}

{{- define "mainspring.leaseNamespace" -}}
{{- default .Release.Namespace .Values.settings.leaseNamespace -}}
{{- end -}}

{{- /* Where the operator writes to a Lease of its own and must hear it again: see controller/reconcile/process.py. */ -}}
{{- define "mainspring.canaryNamespace" -}}
{{- $home := include "mainspring.leaseNamespace" . -}}
{{- $names := (include "mainspring.namespaces" . | fromJson).names -}}
{{- if or .Values.clusterWide (has $home $names) }}{{ $home }}{{ else }}{{ first $names }}{{ end -}}
{{- end -}}

{{- define "mainspring.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "mainspring.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
