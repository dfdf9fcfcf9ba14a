"""What goes wrong with the embedded Postgres."""

import psycopg


class EmbeddedPostgresError(psycopg.OperationalError):
    """The embedded Postgres cannot be made, started or stopped.

    An `OperationalError`, so that whoever handles a database that is away handles this one too.
    """
