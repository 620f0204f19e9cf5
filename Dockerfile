# One image for every service; the command chooses which:
#   docker run apstream                                           the alert producer
#   docker run apstream python -m services.event_router.main      another service
#   docker run apstream apstream subtract ...                     the command line
# Runs as uid 1000 and with a read-only root; only /tmp has to be writable.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/apstream && /opt/apstream/bin/pip install --no-cache-dir --upgrade pip uv
ENV VIRTUAL_ENV=/opt/apstream UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
# dependencies first: this layer changes only with pyproject.toml
COPY pyproject.toml ./
RUN /opt/apstream/bin/uv pip compile --extra s3 --quiet pyproject.toml --output-file requirements.txt \
    && /opt/apstream/bin/uv pip install --no-cache --requirement requirements.txt
COPY README.md LICENSE ./
COPY apstream ./apstream
RUN /opt/apstream/bin/uv build --wheel --out-dir /wheels \
    && /opt/apstream/bin/uv pip install --no-cache --no-deps /wheels/*.whl \
    && /opt/apstream/bin/uv pip uninstall --quiet uv pip

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="apstream" \
      org.opencontainers.image.description="Exposures in, Avro alerts out" \
      org.opencontainers.image.licenses="BSD-3-Clause"
RUN groupadd --gid 1000 apstream \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin apstream
COPY --from=build /opt/apstream /opt/apstream
COPY services /app/services
WORKDIR /app
# Kernels are compiled for the processor they run on, so they cannot come with the image.
ENV PATH=/opt/apstream/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
CMD ["python", "-m", "services.alert_producer.main"]
