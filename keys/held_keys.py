"""The keys of one purpose that this process holds, the variables they come from, and the command that rotates them."""

from dataclasses import dataclass

from keys.keyring import (
    ENCRYPTION_KEY,
    ENCRYPTION_KEYS_ACCEPTED,
    HMAC_KEY,
    HMAC_KEYS_ACCEPTED,
    get_keyring,
)
from keys.models import Purpose


@dataclass(frozen=True)
class HeldKeys:
    """Key ids: new rows name `current`; rows that name one of `accepted` can be read as well."""

    current: str
    accepted: tuple[str, ...]
    variable: str
    accepted_variable: str
    command: str

    @property
    def all(self) -> tuple[str, ...]:
        """The current key's id and the accepted ones'."""
        return (self.current, *self.accepted)


def held_keys(purpose: Purpose) -> HeldKeys:
    """The keys that this process holds for a purpose."""
    keyring = get_keyring()
    if purpose == Purpose.ENCRYPTION:
        current, accepted, variables = keyring.sealing, keyring.accepted, (ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED)
    else:
        current, accepted, variables = keyring.hmac_current, keyring.hmac_accepted, (HMAC_KEY, HMAC_KEYS_ACCEPTED)
    return HeldKeys(current.key_id, tuple(key.key_id for key in accepted), *variables, f"rotate_{purpose}_key")
