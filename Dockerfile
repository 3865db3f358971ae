# syntax=docker/dockerfile:1
# One file for three images. EXTRAS is an extra of pyproject.toml:
#   docker build -t scpalm:cpu .                             service or worker on a CPU
#   docker build -t scpalm:cuda --build-arg EXTRAS=gpu .     service or worker on an NVIDIA GPU (CUDA as Python packages)
#   docker build -t scpalm:api --build-arg EXTRAS= .         API process for workers; has no model runtime

ARG PYTHON=3.11-slim

FROM python:${PYTHON} AS build
ARG EXTRAS=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/scpalm && python -m venv /opt/build
WORKDIR /src
COPY deploy/requirements-api.txt deploy/requirements-cpu.txt deploy/requirements-gpu.txt deploy/requirements-build.txt deploy/
# Every file that pip downloads must have a known hash. The wheel of scpalm is built without a network.
RUN /opt/scpalm/bin/pip install --require-hashes --only-binary :all: --requirement "deploy/requirements-${EXTRAS:-api}.txt" \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement deploy/requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY scpalm scpalm
COPY app app
COPY model model
COPY training training
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
    && /opt/scpalm/bin/pip install --no-deps --no-index /opt/wheels/*.whl \
    && /opt/scpalm/bin/pip check

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="scPaLM" \
      org.opencontainers.image.description="Embeddings, imputation, pathways and drug response for single cells" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# tini runs as PID 1: it forwards signals and reaps parser processes that outlive their parent.
# The service parses untrusted files, so it runs as an unprivileged user. Replicas share /var/lib/scpalm/shared.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --create-home --home-dir /var/lib/scpalm scpalm \
    && mkdir /var/lib/scpalm/shared \
    && chown 10001:10001 /var/lib/scpalm/shared
COPY --from=build /opt/scpalm /opt/scpalm
# LD_LIBRARY_PATH is where the CUDA 13 packages install their libraries. Other images have nothing there.
ENV PATH=/opt/scpalm/bin:$PATH \
    LD_LIBRARY_PATH=/opt/scpalm/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/scpalm/lib/python3.11/site-packages/nvidia/cudnn/lib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    SCPALM_HOST=0.0.0.0 \
    SCPALM_PORT=8000 \
    SCPALM_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/scpalm
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['SCPALM_PORT']}/health/live\", timeout=4)"]
ENTRYPOINT ["tini", "--"]
CMD ["scpalm", "serve"]
