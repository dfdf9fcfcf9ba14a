"""The error of the embedded Postgres."""

import psycopg


class EmbeddedPostgresError(psycopg.OperationalError):
    """The embedded Postgres cannot be made, started or stopped.

    An `OperationalError`, so that code which handles an unreachable database handles this too.
    """
