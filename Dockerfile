# syntax=docker/dockerfile:1
# docker build -t scpalm .                        serves on a CPU, without torch
# docker build -t scpalm:gpu --build-arg EXTRA=gpu .

FROM python:3.11-slim AS build
ARG EXTRA=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/scpalm
ENV PATH=/opt/scpalm/bin:$PATH
WORKDIR /src
COPY deploy/constraints.txt deploy/
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY model model
COPY training training
RUN pip install --constraint deploy/constraints.txt ".[${EXTRA}]"

FROM python:3.11-slim
LABEL org.opencontainers.image.title="scPaLM" org.opencontainers.image.licenses="Apache-2.0"
# A user without rights: the service parses files of strangers.
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/scpalm scpalm
COPY --from=build /opt/scpalm /opt/scpalm
ENV PATH=/opt/scpalm/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SCPALM_HOST=0.0.0.0 \
    SCPALM_PORT=8000 \
    SCPALM_LOG_FORMAT=json
USER scpalm
WORKDIR /var/lib/scpalm
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['SCPALM_PORT']}/health/live\", timeout=4)"]
CMD ["scpalm", "serve"]
