"""Keeps the embedding model of a serving process usable, whether or not questions come.

A process that is not ready gets no questions. So it is this thread, and no question, that tries again to load a model
that could not be loaded, and asks a breaker that is open whether it may close.
"""

import sys
import threading
from contextlib import suppress

from memory.exceptions import EmbeddingModelUnavailable
from memory.index import embedding_runtime
from memory.index.embedding import embed_query

SECONDS_BETWEEN = 5.0
PROBE = "Is anybody there?"

# Servers that import the application before they fork, at least when told to preload it.
PREFORK_SERVERS = ("gunicorn.arbiter", "uwsgi")


def begin_serving() -> None:
    """Called by wsgi and asgi. Under a prefork server its worker calls `begin_serving_in_worker`, or its first question
    loads."""
    if not any(name in sys.modules for name in PREFORK_SERVERS):
        begin_serving_in_worker()


def begin_serving_in_worker() -> None:
    """Load in the background, and keep an eye on the model. Returns at once."""
    threading.Thread(target=_keep, name="embedding-keeper", daemon=True).start()


def _keep() -> None:
    pause = threading.Event()
    while True:
        look()
        pause.wait(SECONDS_BETWEEN)


def look() -> None:
    """Load the model where it is not loaded; ask a breaker that is open whether it may close."""
    embedding_runtime.current().begin_loading()
    if embedding_runtime.state().startswith("breaker"):
        with suppress(EmbeddingModelUnavailable):
            embed_query(PROBE)  # refused, and its shadow is the breaker's probe once one is due
