"""Requests that are carried out once, however often they are sent: those with an Idempotency-Key.

    begin ──► held ──► finish: the answer is kept, and replayed to whoever sends the same again
                └────► release, or the time of its holder runs out: whoever sends it again carries it out

The key is stored as a hash under a subkey of the tenant's, what was asked as a digest inside a seal, beside the answer.
So a dump tells that there was a request, and when. Semantics: IETF draft "The Idempotency-Key HTTP Header Field".

A process that is killed between its commit and `finish` leaves a request that is carried out once more. What it stored
is then stored again under the same ids, which `stable_doc_id` makes sure of where the client named none.
"""

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from django.conf import settings

from database.roles import census
from keys import nonce_budget
from keys.keyring import get_keyring
from memory.exceptions import IdempotencyKeyReused, RequestInFlight
from memory.rls import tenant_transaction, tenant_transaction_by_hash
from memory.sealing.codecs import JSONCodec
from memory.sealing.fields import seal_value
from memory.sealing.opening import SealedRow, open_seals
from memory.sealing.subkeys import idempotency_subkey
from memory.security import UserHash, user_hashes
from memory.tenancy.cursors import binary_cursor

LONGEST_KEY: Final = 255
TENANTS_A_LOOK: Final = 1_000

CLAIM = (
    "INSERT INTO memory_requests (user_hash, key_hash, record_cipher, enc_key_id, held_until)"
    " VALUES (%s, %s, %b, %s, now() + %s) ON CONFLICT DO NOTHING RETURNING id"
)
FIND = (
    "SELECT id, record_cipher, enc_key_id, held_until IS NULL, greatest(held_until - clock_timestamp(), interval '0')"
    " FROM memory_requests WHERE user_hash = %s AND key_hash = ANY (%b::text[]) FOR UPDATE"
)
HOLD = "UPDATE memory_requests SET held_until = clock_timestamp() + %s WHERE user_hash = %s AND id = %s"
FINISH = (
    "UPDATE memory_requests SET record_cipher = %b, enc_key_id = %s, held_until = NULL"
    " WHERE user_hash = %s AND id = %s AND held_until IS NOT NULL"
)
# The row stays, and its id with it: whether something was committed before a connection broke is not known.
RELEASE = (
    "UPDATE memory_requests SET held_until = clock_timestamp()"
    " WHERE user_hash = %s AND id = %s AND held_until IS NOT NULL"
)
OLD = "SELECT DISTINCT user_hash FROM memory_requests WHERE created_at < now() - %s ORDER BY 1 LIMIT %s"
PURGE = "DELETE FROM memory_requests WHERE user_hash = %s AND created_at < now() - %s"

_json = JSONCodec()


@dataclass(frozen=True)
class Answer:
    """What a request was answered: status, headers worth keeping, and the JSON of the body."""

    status: int
    headers: Mapping[str, str]
    body: Any = field(repr=False)


@dataclass(frozen=True)
class Held:
    """A request that this process carries out. `answer`: what it was answered before, None if it was not."""

    id: UUID
    digest: str = field(repr=False)
    answer: Answer | None = field(default=None, repr=False)


def begin(*, user_id: str, key: str, asked: Any) -> Held:
    """Take a request, or find what it was answered. `asked`: all that makes it what it is, as JSON.

    Raises RequestInFlight while another process carries it out, IdempotencyKeyReused when the key came with something
    else before, IntegrityFailure, InvalidUserId.
    """
    nonce_budget.open_account()
    digest, held_for = _digest(asked), timedelta(seconds=settings.MEMORY_IDEMPOTENCY_HELD_SECONDS)
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        hashes = _key_hashes(user_id, user_hash, key)
        if found := _found(cursor, user_hash, hashes, digest, held_for):
            return found
        sealed, key_id = _sealed(user_hash, {"digest": digest})
        row = cursor.execute(CLAIM, [user_hash, hashes[0], sealed, key_id, held_for]).fetchone()
        if row is None:  # taken this very moment
            raise RequestInFlight(held_for.total_seconds())
        return Held(row[0], digest)


def finish(*, user_id: str, held: Held, answer: Answer) -> None:
    """Keep the answer. Nothing is kept of a request that erased its user."""
    kept = {"digest": held.digest, "status": answer.status, "headers": dict(answer.headers), "body": answer.body}
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        sealed, key_id = _sealed(user_hash, kept)
        cursor.execute(FINISH, [sealed, key_id, user_hash, held.id])


def release(*, user_id: str, held: Held) -> None:
    """Let the request be carried out by whoever sends it again."""
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        cursor.execute(RELEASE, [user_hash, held.id])


def purge() -> int:
    """Delete requests older than MEMORY_IDEMPOTENCY_HOURS; returns how many."""
    kept, purged = timedelta(hours=settings.MEMORY_IDEMPOTENCY_HOURS), 0
    with census() as seeing:
        tenants = [user_hash for (user_hash,) in seeing.execute(OLD, [kept, TENANTS_A_LOOK]).fetchall()]
    for user_hash in tenants:
        with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
            purged += cursor.execute(PURGE, [tenant, kept]).rowcount
    return purged


def stable_doc_id(held: Held, place: int) -> str:
    """The doc_id of a document for which the client gave none: the same whenever this request is carried out."""
    return str(uuid.uuid5(held.id, str(place)))


def _found(
    cursor: psycopg.Cursor[Any], user_hash: UserHash, hashes: Sequence[str], digest: str, held_for: timedelta
) -> Held | None:
    row = cursor.execute(FIND, [user_hash, list(hashes)]).fetchone()
    if row is None:
        return None
    request_id, sealed, key_id, is_answered, left = row
    opened = SealedRow(user_hash, "memory_requests", (user_hash, request_id), key_id)
    record: dict[str, Any] = open_seals(opened, (sealed, _json.decode)).values[0]
    if not hmac.compare_digest(record["digest"], digest):
        raise IdempotencyKeyReused(IdempotencyKeyReused.__doc__)
    if is_answered:
        return Held(request_id, digest, Answer(record["status"], record["headers"], record["body"]))
    if left:
        raise RequestInFlight(left.total_seconds())
    cursor.execute(HOLD, [held_for, user_hash, request_id])
    return Held(request_id, digest)


def _key_hashes(user_id: str, user_hash: UserHash, key: str) -> list[str]:
    """The key's hashes, the present one first. A rotation keeps rows as they were hashed, so while the former HMAC key
    is accepted its hash is looked for as well."""
    hashes = [user_hash, *(each for each in user_hashes(user_id) if each != user_hash)]
    return [hmac.digest(idempotency_subkey(each), key.encode(), "sha256").hex() for each in hashes]


def _digest(asked: Any) -> str:
    canonical = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _sealed(user_hash: UserHash, record: Mapping[str, Any]) -> tuple[bytes, str]:
    return bytes(seal_value(_json.encode(dict(record)), user_hash)), get_keyring().sealing.key_id
