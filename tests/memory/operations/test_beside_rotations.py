"""Queued calls beside both key rotations, an inspection, and a reindex."""

from typing import Any

import pytest
from django.conf import settings as live_settings
from django.db import connection
from django.test import override_settings

from keys.generation import generate_key
from keys.keyring import get_keyring
from keys.rotation import rotate
from memory.models import MemoryOperation
from memory.operations import queue
from memory.operations.execution import Outcome, execute
from memory.rls import tenant_transaction
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.hmac_key import HMACKeyMover
from memory.rotation.integrity import inspect_all
from memory.security import aad_for, hmac_user, open_under
from tests.factories import ALICE, remember
from tests.memory.operations.queued import dumped, let_time_run_out, observed, operation, queue_call, stored, work

pytestmark = pytest.mark.django_db(transaction=True)


def new_encryption_key() -> Any:
    old = live_settings.MEMORY_ENCRYPTION_KEY
    return override_settings(MEMORY_ENCRYPTION_KEY=generate_key(), MEMORY_ENCRYPTION_KEYS_ACCEPTED=[old])


def new_hmac_key() -> Any:
    old = live_settings.MEMORY_TENANT_HMAC_KEY
    return override_settings(MEMORY_TENANT_HMAC_KEY=generate_key(), MEMORY_TENANT_HMAC_KEYS_ACCEPTED=[old])


def turned(mover: Any) -> None:
    finished = rotate(mover, started_by="test")
    assert finished.verified, finished.failures


def test_the_encryption_rotation_reseals_what_is_queued() -> None:
    done, waiting = queue_call("a", "one"), queue_call("b", "two")
    claimed = queue.claim(hmac_user(ALICE))
    assert claimed
    execute(claimed)
    with new_encryption_key():
        turned(EncryptionKeyMover())
        key = get_keyring().sealing
        for user_hash, _, payload, result, key_id in dumped():
            assert key_id == key.key_id
            open_under(key, payload or result, aad_for(user_hash))
        assert operation(done).result
        work()
        assert operation(waiting).status == "succeeded"


def test_the_encryption_rotation_beside_a_call_under_way() -> None:
    call = queue_call("a", "one")
    with new_encryption_key():
        claimed = queue.claim(hmac_user(ALICE))
        assert claimed
        with observed(lambda step: turned(EncryptionKeyMover()) if step == "portion embedded" else None):
            # The observer sees the rotation's own steps as well, which are others.
            assert execute(claimed) == Outcome.SUCCEEDED
        assert operation(call).status == "succeeded"
        assert inspect_all().findings == []


@pytest.mark.parametrize("chunks", [1, 600], ids=["moved at once", "copied"])
def test_a_user_who_moves_takes_the_queue_along(chunks: int) -> None:
    remember(ALICE, "before", *(f"text {number}" for number in range(chunks)))
    done, waiting = queue_call("a", "one"), queue_call("b", "two")
    claimed = queue.claim(hmac_user(ALICE))
    assert claimed
    execute(claimed)
    with new_hmac_key():
        turned(HMACKeyMover())
        assert {user_hash for user_hash, *_ in dumped()} == {hmac_user(ALICE)}
        result = operation(done).result
        assert result and result["documents"][0]["doc_id"] == "a"
        work()
        assert operation(waiting).status == "succeeded"
        assert len(stored()) == chunks + 2
        assert inspect_all().findings == []


def test_a_user_who_moves_while_a_call_is_under_way() -> None:
    """Claimed under one hash, the call ends under the other, once."""
    call = queue_call("a", "one")
    claimed = queue.claim(hmac_user(ALICE))
    assert claimed
    with new_hmac_key():
        turned(HMACKeyMover())
        assert execute(claimed) == Outcome.SUCCEEDED
        assert operation(call).status == "succeeded"
        let_time_run_out()
        assert work() == 0
        assert stored() == [("a", "one")]


def test_a_payload_that_does_not_open_keeps_its_user_under_the_old_key_and_is_found() -> None:
    call = queue_call("a", "one")
    with tenant_transaction(ALICE) as user_hash, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE memory_operations"
            " SET payload_cipher = set_byte(payload_cipher, 20, get_byte(payload_cipher, 20) # 1) WHERE user_hash = %s",
            [user_hash],
        )
    (finding,) = inspect_all().findings
    assert (finding.table, finding.row, finding.kind) == ("memory_operations", str(call), "unreadable")
    with new_hmac_key():
        finished = rotate(HMACKeyMover(), started_by="test")
        assert not finished.verified
        assert ("memory_operations", str(call)) in {(row["table"], row["row"]) for row in finished.failures}
        with tenant_transaction(ALICE):
            assert MemoryOperation.objects.count() == 1
