"""`begin_serving()`: the checks that can refuse to serve, then the start of what runs in the background.

A server runs no system checks by itself, so what `manage.py check` refuses is refused here as well.
"""

import sys

from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from inference.cores import share_between
from keys import heartbeat, nonce_budget
from keys.live_keys import assert_live_keys
from memory.index.embedding_keeper import begin_serving as begin_embedding
from memory.index.stale_settings import warn_of_stale_indexes
from memory.operations import worker
from memory.tenancy.live_database import assert_live_database
from project import draining
from rerank.startup import PREFORK_SERVERS
from rerank.startup import begin_serving as begin_reranking


def begin_serving(role: str) -> None:
    """Called by wsgi and asgi. Raises an error that says what to mend."""
    refuse_failed_checks()
    assert_live_database()
    assert_live_keys()
    nonce_budget.open_account()  # a key that may seal no more is refused from the first seal on
    warn_of_stale_indexes()
    heartbeat.start(role)
    share_between(settings.WEB_CONCURRENCY)
    begin_embedding()
    begin_reranking()
    worker.begin_serving()
    draining.tell(lambda: worker.end_working(seconds=0))
    if not any(name in sys.modules for name in PREFORK_SERVERS):
        worker.begin_working()


def refuse_failed_checks() -> None:
    """Raise ImproperlyConfigured with every error of the system checks that ask no database."""
    errors = [message for message in run_checks() if message.is_serious() and not message.is_silenced()]
    if errors:
        raise ImproperlyConfigured(" ".join(f"{error.id}: {error.msg} {error.hint or ''}" for error in errors))
