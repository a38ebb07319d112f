# Three images of one project: operator (reconciles), jobs (fetch, evaluate, training by default), server (predicts).
#   docker build --target operator -t mainspring-operator .
# Everything Python comes from the hashed locks in requirements/; nothing is resolved here.
# BASE may be any Debian with python3 (3.11 or newer) and python3-venv.
# A package index or certificates of one's own are build secrets, so no image keeps them:
#   --secret id=pip,src=pip.conf --secret id=uv,src=uv.toml --secret id=ca,src=ca-certificates.crt
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# What only building needs: never part of an image.
FROM ${BASE} AS tools
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ENV UV_LINK_MODE=copy UV_CACHE_DIR=/var/cache/uv UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY requirements/bootstrap.txt requirements/build.txt requirements/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
       --require-hashes -r requirements/bootstrap.txt -r requirements/build.txt
COPY requirements/prune.sh requirements/

# Our own package, as it lies in an environment.
FROM tools AS own
COPY requirements/install.sh requirements/
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
RUN sh requirements/install.sh /opt/mainspring /own

# One environment for each image, without pip; tests and headers of packages are left out, bytecode is not: a root
# file system that cannot be written would have every process compile anew.
FROM tools AS operator-env
COPY requirements/operator.txt requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    sh requirements/prune.sh requirements/operator.txt /opt/mainspring

FROM tools AS jobs-env
COPY requirements/jobs.txt requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    sh requirements/prune.sh requirements/jobs.txt /opt/mainspring

FROM tools AS server-env
COPY requirements/server.txt requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    sh requirements/prune.sh requirements/server.txt /opt/mainspring

# What all three share: one user, no writing into the image, /tmp for everything temporary.
FROM ${BASE} AS runtime
ENV PATH=/opt/mainspring/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp TMPDIR=/tmp MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1
# ssh refuses to run for a user without a name.  Whatever installs Python packages is of no use in an image.
RUN echo 'mainspring:x:65532:65532:mainspring:/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'mainspring:x:65532:' >> /etc/group \
    && packages=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
    && rm -rf "$packages/ensurepip" /usr/share/python-wheels /usr/local/bin/pip* \
       "$packages"/site-packages/pip* "$packages"/site-packages/setuptools* "$packages"/site-packages/wheel*
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Mainspring"
WORKDIR /tmp
USER 65532:65532

FROM runtime AS with-git
USER 0:0
# A base that brings them already needs no network here.
RUN export PATH="$PATH:/usr/sbin:/sbin"; \
    if ! command -v git >/dev/null || ! command -v ssh >/dev/null || [ ! -s /etc/ssl/certs/ca-certificates.crt ]; then \
      apt-get update -qq \
      && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
         git openssh-client ca-certificates >/dev/null \
      && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log; \
    fi
USER 65532:65532

FROM with-git AS operator
LABEL org.opencontainers.image.title="mainspring-operator" \
      org.opencontainers.image.description="Makes the models that are served match what Git asks for"
CMD ["python", "-m", "controller.reconcile"]
COPY --from=operator-env /opt/mainspring /opt/mainspring
COPY --from=own /own /opt/mainspring
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

FROM with-git AS jobs
LABEL org.opencontainers.image.title="mainspring-jobs" \
      org.opencontainers.image.description="Steps of a training Job, and what training programs find by default"
CMD ["mainspring", "--help"]
COPY --from=jobs-env /opt/mainspring /opt/mainspring
COPY --from=own /own /opt/mainspring
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

FROM runtime AS server
USER 0:0
# LightGBM links against the system's OpenMP.
RUN export PATH="$PATH:/usr/sbin:/sbin"; \
    if ! ldconfig -p | grep -q libgomp.so.1; then \
      apt-get update -qq \
      && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends libgomp1 >/dev/null \
      && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log; \
    fi
LABEL org.opencontainers.image.title="mainspring-server" \
      org.opencontainers.image.description="Serves one verified model over HTTP, and predicts hold-outs with the same code"
CMD ["python", "-m", "controller.serving.server", "--help"]
COPY --from=server-env /opt/mainspring /opt/mainspring
COPY --from=own /own /opt/mainspring
USER 65532:65532
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"
