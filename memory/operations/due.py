"""Whose calls wait: by the census, which sees the states and times of all users' calls, and no id and no content."""

import time
from datetime import timedelta

from database.roles import census

AT_MOST = 100  # users a look

# In the order of the hashes, from the one that was served last and round: so a user with a hundred calls and one with
# one take turns. A user whose call is being done is left out; who comes first in the user's order is told by the claim.
DUE = """
SELECT DISTINCT user_hash, user_hash <= %(after)s AS round FROM memory_operations AS call
WHERE state IN ('pending', 'running') AND (held_until IS NULL OR held_until < clock_timestamp())
AND NOT EXISTS (
    SELECT 1 FROM memory_operations AS held
    WHERE held.user_hash = call.user_hash AND held.state = 'running' AND held.held_until >= clock_timestamp()
)
ORDER BY round, user_hash LIMIT %(limit)s
"""
UNFINISHED = "SELECT count(*) FROM memory_operations WHERE state IN ('pending', 'running')"
OLD = (
    "SELECT DISTINCT user_hash FROM memory_operations WHERE finished_at < clock_timestamp() - %s"
    " ORDER BY user_hash LIMIT %s"
)

# The total is looked up once a second in a process, however many calls come.
FRESH_SECONDS = 1.0
_counted: tuple[float, int] = (float("-inf"), 0)


def due_users(*, after: str = "") -> list[str]:
    """The hashes of users whose calls can be done now, the one behind `after` first."""
    with census() as cursor:
        cursor.execute(DUE, {"after": after, "limit": AT_MOST})
        return [user_hash for user_hash, _ in cursor.fetchall()]


def unfinished() -> int:
    """How many calls of all users are not finished; up to a second old."""
    global _counted
    now = time.monotonic()
    if now - _counted[0] > FRESH_SECONDS:
        with census() as cursor:
            (count,) = cursor.execute(UNFINISHED).fetchone() or (0,)
        _counted = now, int(count)
    return _counted[1]


def with_old_answers(kept: timedelta) -> list[str]:
    """The hashes of users some of whose finished calls are older than `kept`."""
    with census() as cursor:
        cursor.execute(OLD, [kept, AT_MOST])
        return [user_hash for (user_hash,) in cursor.fetchall()]
