{{- /* Every setting of docs/settings.md. */ -}}
{{- define "mainspring.env" -}}
{{- $s := .Values.settings -}}
- {name: MAINSPRING_NAMESPACES, value: {{ if .Values.clusterWide }}"*"{{ else }}{{ join "," (include "mainspring.namespaces" . | fromJson).names | quote }}{{ end }}}
- {name: MAINSPRING_TRACKING_URI, value: {{ include "mainspring.trackingURI" . | quote }}}
- {name: MAINSPRING_SIGNING_KEY, value: /etc/mainspring/signing-key/key.pem}
{{- with .Values.trustedKeys }}
{{- $files := list }}{{ range $name, $_ := . }}{{ $files = append $files (printf "/etc/mainspring/trusted-keys/%s.pem" $name) }}{{ end }}
- {name: MAINSPRING_TRUSTED_KEYS, value: {{ join "," $files | quote }}}
{{- end }}
- {name: MAINSPRING_MIRRORS, value: /var/lib/mainspring/mirrors}
{{- with .Values.git.allowedHosts }}
- {name: MAINSPRING_ALLOWED_HOSTS, value: {{ join "," . | quote }}}
{{- end }}
{{- with .Values.prometheus }}
- {name: MAINSPRING_PROMETHEUS, value: {{ join "," . | quote }}}
{{- end }}
- {name: MAINSPRING_GIT_PROTOCOLS, value: {{ join "," .Values.git.protocols | quote }}}
{{- if .Values.webhook.existingSecret }}
- {name: MAINSPRING_WEBHOOK_KEY, value: /etc/mainspring/webhook/key}
- {name: MAINSPRING_WEBHOOK_PORT, value: {{ .Values.webhook.port | quote }}}
{{- end }}
- {name: MAINSPRING_JOBS_IMAGE, value: {{ include "mainspring.image" (list . .Values.images.jobs) | quote }}}
- {name: MAINSPRING_SERVER_IMAGE, value: {{ include "mainspring.image" (list . .Values.images.server) | quote }}}
- {name: MAINSPRING_WORKERS, value: {{ $s.workers | quote }}}
- {name: MAINSPRING_RESYNC, value: {{ $s.resync | quote }}}
- {name: MAINSPRING_DRAIN, value: {{ $s.drain | quote }}}
- {name: MAINSPRING_DEAF_AFTER, value: {{ $s.deafAfter | quote }}}
- {name: MAINSPRING_LOG_FORMAT, value: {{ $s.logFormat | quote }}}
- {name: MAINSPRING_LOG_LEVEL, value: {{ $s.logLevel | quote }}}
- {name: MAINSPRING_LEASE_NAME, value: {{ $s.leaseName | quote }}}
- {name: MAINSPRING_LEASE_NAMESPACE, value: {{ include "mainspring.leaseNamespace" . | quote }}}
{{- if $s.identity }}
{{- if gt (int .Values.replicas) 1 }}{{ fail "settings.identity must be empty when there are several replicas: two of one name would both lead" }}{{ end }}
- {name: MAINSPRING_IDENTITY, value: {{ $s.identity | quote }}}
{{- else }}
- {name: MAINSPRING_IDENTITY, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
{{- end }}
- {name: MAINSPRING_METRICS_HOST, value: {{ $s.metricsHost | quote }}}
- {name: MAINSPRING_METRICS_PORT, value: {{ $s.metricsPort | quote }}}
- {name: MAINSPRING_HEALTH_PORT, value: {{ $s.healthPort | quote }}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
