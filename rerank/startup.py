"""Loading begins where serving begins: in wsgi, asgi, or a prefork server's worker. Never in a command, never in a
process that will fork, never in runserver's watching parent (which imports neither)."""

import logging
import sys
import threading

from django.conf import settings
from django.db import connections

from rerank import flag, gpu, runtime

logger = logging.getLogger(__name__)

# Servers that import the application before they fork, at least when told to preload it.
PREFORK_SERVERS = ("gunicorn.arbiter", "uwsgi")


def begin_serving() -> None:
    """Called by wsgi and asgi. Under a prefork server its worker calls `begin_serving_in_worker`, or its first request
    loads. Raises GPURequired."""
    gpu.assert_required_gpu()
    if not any(name in sys.modules for name in PREFORK_SERVERS):
        begin_serving_in_worker()


def begin_serving_in_worker() -> None:
    """Load in the background, if environment and switch want reranking at all. Returns at once."""
    if settings.RERANK_ENABLED:
        threading.Thread(target=_begin_if_switched_on, name="rerank-start", daemon=True).start()


def _begin_if_switched_on() -> None:
    try:
        if flag.is_enabled():
            runtime.current().begin_loading()
    finally:
        connections.close_all()  # this thread's own, made to read the switch
