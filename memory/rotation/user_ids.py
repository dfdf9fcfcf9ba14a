"""Opens the sealed user id of a tenant, and compares it with the tenant's hash."""

from dataclasses import dataclass, field

from keys.retry_while_away import retry_while_away
from memory.exceptions import IntegrityFailure, InvalidUserId, SealedMemoryError
from memory.rls import tenant_transaction_by_hash
from memory.sealing.codecs import TextCodec
from memory.sealing.opening import SealedRow, open_seals
from memory.security import UserHash, user_hashes
from memory.tenancy.cursors import binary_cursor

TENANT = "SELECT user_cipher, enc_key_id, recipe, chunk_count FROM tenants WHERE user_hash = %s"


class UserIdUnreadable(SealedMemoryError):
    """A tenant's sealed user id does not open, or does not match its hash. `key_id` is the key that its row names."""

    def __init__(self, reason: str, key_id: str) -> None:
        super().__init__(reason)
        self.key_id = key_id


@dataclass(frozen=True)
class TenantFacts:
    """The content of a `tenants` row. `recipe` is the recorded text of its index settings."""

    user_hash: UserHash
    user_cipher: bytes = field(repr=False)
    enc_key_id: str
    recipe: str
    chunk_count: int

    def open_user_id(self) -> str:
        """The user id. Raises UserIdUnreadable, whose message holds no id."""
        sealed = SealedRow(self.user_hash, "tenants", (self.user_hash,), self.enc_key_id)
        try:
            user_id = open_seals(sealed, (self.user_cipher, TextCodec().decode)).values[0]
        except IntegrityFailure as failure:
            raise self._unreadable(f"its sealed user id {failure.reason}") from None
        try:
            made_by = {str(user_hash): user_hash.hmac_key_id for user_hash in user_hashes(user_id)}
        except InvalidUserId:
            raise self._unreadable("what opens is no user id") from None
        if self.user_hash not in made_by:
            raise self._unreadable("no HMAC key held here makes its hash from its user id")
        if made_by[self.user_hash] != self.user_hash.hmac_key_id:
            raise self._unreadable("it names another HMAC key than the one that made its hash")
        return str(user_id)

    def _unreadable(self, reason: str) -> UserIdUnreadable:
        return UserIdUnreadable(reason, self.enc_key_id)


def tenant_facts(user_hash: UserHash) -> TenantFacts | None:
    """The content of the tenant's row; None when it is gone."""
    return retry_while_away(_read, user_hash)


def _read(user_hash: UserHash) -> TenantFacts | None:
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        row = cursor.execute(TENANT, [user_hash]).fetchone()
        return None if row is None else TenantFacts(user_hash, *row)
