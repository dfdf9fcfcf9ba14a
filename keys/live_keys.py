"""`assert_live_keys()`: does this process hold the keys of the rows it is about to serve?

Called where serving starts, beside the database's own check. A process that lacks a key would answer every query of
some tenants with integrity failures, and know other tenants under a hash that nobody else uses.
"""

import logging
from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured

from keys.exceptions import MissingKeys
from keys.keyring import ENCRYPTION_KEYS_ACCEPTED, HMAC_KEYS_ACCEPTED, get_keyring
from keys.models import KeyRecord, Purpose
from keys.sources import source

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
    keyring = get_keyring()
    # Only keys that once sealed and were not retired by a verified rotation can be in the rows: mostly there is none
    # that is not held, and no table is read.
    suspects = [
        record.key_id
        for record in KeyRecord.objects.filter(purpose=Purpose.ENCRYPTION, seals__gt=0, retired_at=None)
        if not keyring.opens(record.key_id)
    ]
    missing = source().any_row_under(suspects) if suspects else []
    if missing:
        yield f"Rows are sealed under {', '.join(missing)}: put the key into {ENCRYPTION_KEYS_ACCEPTED}."
    held = {key.key_id for key in keyring.hashing}
    unknown = sorted(set(source().hmac_key_counts()) - held)
    if unknown:
        yield f"Tenants are hashed under {', '.join(unknown)}: put the key into {HMAC_KEYS_ACCEPTED}."
