"""Gunicorn's configuration: `gunicorn -c project/gunicorn.py project.wsgi`.

Threads share a worker's models and its connection pool; each further worker costs their memory again.
"""

import gc
import os
import threading
from typing import Any

from project import metrics_folder, settings

bind = settings.BIND
workers = settings.WEB_CONCURRENCY
os.environ["WEB_CONCURRENCY"] = str(workers)  # by which a worker divides the CPU cores
worker_class = "project.waitress_worker.WaitressWorker"
threads = settings.WEB_THREADS
# Seconds after which a worker whose loop hangs is killed. Slow requests do not count: they run in threads.
timeout = 60
# Seconds for a worker to end: DRAIN_SECONDS, in which it still serves, and 30 to finish open requests.
graceful_timeout = int(settings.DRAIN_SECONDS) + 30
# The access log is our own (`project.middleware`): JSON, with routes instead of raw paths.
accesslog = None
errorlog = "-"
loglevel = "warning"

# New objects until a garbage collection. Python's 700 are what a tenth of a request makes.
GARBAGE_OBJECTS = 10_000

SETTLED_SECONDS = 15.0  # by when a worker has loaded its models, as a rule

# Before any process imports prometheus_client, which reads it once.
metrics_folder.claim()


def when_ready(server: Any) -> None:
    if server.cfg.uid == 0:
        server.log.warning("Workers run as root. Start as an account of its own, or give --user and --group.")


def post_worker_init(worker: Any) -> None:
    """Load the models in the background after the fork, whether or not the application was preloaded."""
    from memory.index import embedding_keeper
    from memory.operations.worker import begin_working
    from rerank import startup

    embedding_keeper.begin_serving_in_worker()
    startup.begin_serving_in_worker()
    begin_working()
    settled = threading.Timer(SETTLED_SECONDS, spare_what_stays)
    settled.daemon = True
    settled.start()


def spare_what_stays() -> None:
    """Leave what a loaded worker holds, most of it code, out of garbage collections, which are for requests then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 10, 10)


def worker_exit(server: Any, worker: Any) -> None:
    """Hand back the call that is being done, and end the process's heartbeat, so that neither another worker nor a key
    rotation need wait until they expire."""
    from keys import heartbeat
    from memory.operations.worker import end_working

    end_working()
    heartbeat.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Drop a dead worker's gauges from the metrics; its counters stay in the sum."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
