# Three images of one project: operator (reconciles), jobs (fetch, evaluate, training by default), server (predicts).
#   docker build --target operator -t mainspring-operator .
# Everything Python comes from the hashed locks in requirements/; nothing is resolved here.
# BASE may be any Debian with python3 (3.11 or newer) and python3-venv.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# What only building needs: never part of an image.
FROM ${BASE} AS tools
# A company's own certificates can be mounted over this file.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ENV UV_LINK_MODE=copy UV_CACHE_DIR=/var/cache/uv UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY requirements/bootstrap.txt requirements/build.txt requirements/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
       --require-hashes -r requirements/bootstrap.txt -r requirements/build.txt
COPY requirements/prune.sh requirements/

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY controller controller
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /wheel

# One environment for each image, without pip; tests and headers of packages are left out, bytecode is not: a root
# file system that cannot be written would have every process compile anew.
FROM tools AS operator-env
COPY requirements/operator.txt requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/build/bin/uv --quiet venv --python "$(command -v python3)" /opt/mainspring \
    && /opt/build/bin/uv --quiet pip sync --python /opt/mainspring/bin/python --require-hashes requirements/operator.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    sh requirements/prune.sh /opt/mainspring /wheel/*.whl

FROM tools AS jobs-env
COPY requirements/jobs.txt requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/build/bin/uv --quiet venv --python "$(command -v python3)" /opt/mainspring \
    && /opt/build/bin/uv --quiet pip sync --python /opt/mainspring/bin/python --require-hashes requirements/jobs.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    sh requirements/prune.sh /opt/mainspring /wheel/*.whl

FROM tools AS server-env
COPY requirements/server.txt requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    /opt/build/bin/uv --quiet venv --python "$(command -v python3)" /opt/mainspring \
    && /opt/build/bin/uv --quiet pip sync --python /opt/mainspring/bin/python --require-hashes requirements/server.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    sh requirements/prune.sh /opt/mainspring /wheel/*.whl

# What all three share: one user, no writing into the image, /tmp for everything temporary.
FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
ENV PATH=/opt/mainspring/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp TMPDIR=/tmp MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1
# ssh refuses to run for a user without a name.
RUN echo 'mainspring:x:65532:65532:mainspring:/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'mainspring:x:65532:' >> /etc/group
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Mainspring" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /tmp
USER 65532:65532

FROM runtime AS with-git
USER 0:0
# A base that brings them already needs no network here.
RUN if ! command -v git >/dev/null || ! command -v ssh >/dev/null || [ ! -s /etc/ssl/certs/ca-certificates.crt ]; then \
      apt-get update -qq \
      && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
         git openssh-client ca-certificates >/dev/null \
      && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log; \
    fi
USER 65532:65532

FROM with-git AS operator
LABEL org.opencontainers.image.title="mainspring-operator" \
      org.opencontainers.image.description="Makes the models that are served match what Git asks for"
COPY --from=operator-env /opt/mainspring /opt/mainspring
CMD ["python", "-m", "controller.reconcile"]

FROM with-git AS jobs
LABEL org.opencontainers.image.title="mainspring-jobs" \
      org.opencontainers.image.description="Steps of a training Job, and what training programs find by default"
COPY --from=jobs-env /opt/mainspring /opt/mainspring
CMD ["mainspring", "--help"]

FROM runtime AS server
USER 0:0
# LightGBM links against the system's OpenMP.
RUN if ! ldconfig -p | grep -q libgomp.so.1; then \
      apt-get update -qq \
      && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends libgomp1 >/dev/null \
      && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log; \
    fi
USER 65532:65532
LABEL org.opencontainers.image.title="mainspring-server" \
      org.opencontainers.image.description="Serves one verified model over HTTP, and predicts hold-outs with the same code"
COPY --from=server-env /opt/mainspring /opt/mainspring
CMD ["python", "-m", "controller.serving.server", "--help"]
