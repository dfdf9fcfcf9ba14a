"""Ids as mem0's client is given them.

A service's client sends them alone, without the user's name, so they carry it (`memory.sealing.handles`). A person's
are the memory's own. What is no id of this caller's is answered like the id of nothing.
"""

from typing import Final
from uuid import UUID

from memory.access.identity import Caller, Identity, acting_namespace
from memory.documents.fields import UUID_LENGTH
from memory.exceptions import ChunkNotFound
from memory.sealing.handles import InvalidHandle, open_handle, seal_handle

MEMORY: Final = "memory"
EVENT: Final = "event"
LONGEST: Final = 512


def id_for(identity: Identity, row_id: UUID, kind: str = MEMORY) -> str:
    """The id that the caller is given for a row of the identity's user."""
    namespace = acting_namespace(identity.account)
    if namespace is None:
        return str(row_id)
    return seal_handle(row_id, name=external_name(identity) or "", kind=kind, namespace=namespace)


def read_id(caller: Caller, given: str, kind: str = MEMORY) -> tuple[str | None, UUID]:
    """The name of the user whom an id is about (None: the caller), and the row's id. Raises ChunkNotFound."""
    namespace = caller.namespace
    try:
        if namespace is not None and len(given) <= LONGEST:
            return open_handle(given, kind=kind, namespace=namespace)
        if namespace is None and len(given) == UUID_LENGTH:
            return None, UUID(given)
    except (InvalidHandle, ValueError):
        pass
    raise ChunkNotFound(ChunkNotFound.__doc__)


def external_name(identity: Identity) -> str | None:
    """What the service calls its user; None for a caller who reaches its own memory."""
    namespace = acting_namespace(identity.account)
    return None if namespace is None else identity.user_id.removeprefix(f"service:{namespace}:")
