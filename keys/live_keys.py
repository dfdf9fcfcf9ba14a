"""`assert_live_keys()`: refuses to serve without the keys that rows need.

Called when serving starts. A process that lacks an encryption key would report integrity failures for every row under
it; one that lacks an HMAC key would not find some tenants, and would create them again under another hash.
"""

import logging
from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured

from keys.exceptions import MissingKeys
from keys.held_keys import held_keys
from keys.movers import movers

logger = logging.getLogger(__name__)


def assert_live_keys() -> None:
    """Raise MissingKeys, naming ids and variables, when rows name a key that this process does not hold."""
    try:
        problems = list(_problems())
    except ImproperlyConfigured as reason:
        logger.warning("Cannot look which keys the rows need: %s", reason)
        return
    if problems:
        raise MissingKeys(" ".join(problems))


def _problems() -> Iterator[str]:
    for mover in movers():
        held = held_keys(mover.purpose)
        if missing := mover.not_among(held.all):
            yield f"Rows are under {', '.join(missing)}: put the key into {held.accepted_variable}."
