# syntax=docker/dockerfile:1
# The service with its embedding model, for CPUs; --build-arg TORCH=cuda for CUDA.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY requirements.txt .
# torch alone comes from PyTorch's index; the pin in requirements.txt is then satisfied.
RUN version="$(sed -n 's/^torch==//p' requirements.txt)" && \
    if [ "$TORCH" = cpu ]; then \
        pip install "torch==$version" --index-url https://download.pytorch.org/whl/cpu; \
    fi && \
    pip install -r requirements.txt

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="Sealed Memory"
RUN groupadd --system --gid 10001 memory && \
    useradd --system --uid 10001 --gid memory --home-dir /app --no-create-home memory
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ENV_FILE= BIND=0.0.0.0:8000 HF_HUB_OFFLINE=1 HF_HOME=/models TMPDIR=/tmp
WORKDIR /app
COPY manage.py ./
COPY ops/container ops/container
COPY project project
COPY database database
COPY inference inference
COPY keys keys
COPY memory memory
COPY rerank rerank
USER memory
EXPOSE 8000
# The root file system may be read-only; /tmp has to be writable (a tmpfs will do). More models: mount them at /models.
VOLUME ["/tmp"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "/app/ops/container/healthcheck.py"]
STOPSIGNAL SIGTERM
CMD ["gunicorn", "-c", "project/gunicorn.py", "project.wsgi"]
