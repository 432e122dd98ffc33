# syntax=docker/dockerfile:1
# The gateway with all of its extras, run by a user without rights. Built from the lock files alone, every package
# checked by hash. What is built and started here is done step by step in tests/deploy/test_image.py.

# Of the versions that the gateway runs on, the one that takes least CPU (tests/bench/README.md). For a build that can be
# repeated, pin it: --build-arg PYTHON_DIGEST=sha256:...
ARG PYTHON_TAG=3.14-slim-trixie
ARG PYTHON_DIGEST=

FROM python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /src
# What changes seldom comes first, so that a change to the code installs nothing anew.
COPY requirements-build.txt ./
RUN --mount=type=cache,target=/root/.cache \
    python -m venv --without-pip /opt/build \
    && python -m pip --python /opt/build/bin/python install --require-hashes -r requirements-build.txt \
    && /opt/build/bin/uv venv /opt/gateway
COPY requirements-extras.txt ./
RUN --mount=type=cache,target=/root/.cache \
    /opt/build/bin/uv pip install --python /opt/gateway/bin/python \
      --only-binary :all: --require-hashes -r requirements-extras.txt
COPY pyproject.toml README.md ./
COPY config config
COPY gateway gateway
RUN --mount=type=cache,target=/root/.cache \
    /opt/build/bin/uv build --wheel --python /opt/build/bin/python --no-build-isolation --out-dir /opt/wheel \
    && /opt/build/bin/uv pip install --python /opt/gateway/bin/python --no-deps /opt/wheel/*.whl

FROM python:${PYTHON_TAG}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}
ARG PYTHON_TAG
ARG PYTHON_DIGEST
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=
ARG LICENSES=
LABEL org.opencontainers.image.title="claude-cache-gateway" \
      org.opencontainers.image.description="A gateway between an organisation's apps and the Claude API" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="${LICENSES}" \
      org.opencontainers.image.base.name="python:${PYTHON_TAG}" \
      org.opencontainers.image.base.digest="${PYTHON_DIGEST}"

# /data is the state directory: with /tmp, all that is ever written to. The root may be read-only.
RUN install -d -o 65532 -g 65532 -m 0750 /data
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_LISTEN__DATA=0.0.0.0:8080 \
    GATEWAY_LISTEN__ADMIN=0.0.0.0:9090 \
    GATEWAY_STATE__DIRECTORY=/data
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
CMD ["run"]
