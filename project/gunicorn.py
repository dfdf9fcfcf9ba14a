"""Gunicorn's configuration: `gunicorn -c project/gunicorn.py project.wsgi`.

Threads share a worker's models and its connection pool; each further worker costs their memory again.
"""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.setdefault("WEB_CONCURRENCY", "2"))  # set: workers share the cores by it
worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS", "8"))
timeout = 60
graceful_timeout = 30
keepalive = 5
# The access log is our own (`project.middleware`): JSON, with routes instead of raw paths.
accesslog = None
errorlog = "-"
loglevel = "warning"

# Before any worker imports prometheus_client, which reads it once.
_metrics_dir = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", ".data/metrics")).absolute()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_dir)
# With --preload the application opens its files there before `on_starting`.
_metrics_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


def on_starting(server: Any) -> None:
    """Forget the counts of an earlier run: a counter starts at zero with the service."""
    shutil.rmtree(_metrics_dir, ignore_errors=True)
    _metrics_dir.mkdir(parents=True, mode=0o700)


def child_exit(server: Any, worker: Any) -> None:
    """A dead worker's gauges go; its counters stay in the sum."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def post_worker_init(worker: Any) -> None:
    """Load the models in the background, behind the fork, with the application preloaded or not."""
    from memory.index.embedding import get_embedding_model
    from rerank.startup import begin_serving_in_worker

    threading.Thread(target=get_embedding_model, name="load-embedding-model", daemon=True).start()

    begin_serving_in_worker()
