"""The environment of a test run, then the project's settings.

Whatever the developer's shell and `.env` hold is left out. The cluster named here is made by `conftest.py`; to the
settings it looks like a Postgres of somebody else's, so that a test can take it away and nothing starts it again.
"""

import base64
import os
import secrets
import tempfile

OURS = (
    *("DATABASE_", "EMBEDDED_POSTGRES_", "MEMORY_", "RERANK_", "DJANGO_SECRET", "SECRET_KEY", "DEBUG", "ALLOWED_"),
    *("INSECURE_", "SECURE_", "TRUSTED_", "METRICS_", "CACHE_URL", "LOG_LEVEL", "ADMIN_", "STATIC_ROOT", "PROMETHEUS_"),
)
KEPT = {"RERANK_MODEL"}  # says where real weights are, for the one test that needs them
for name in [name for name in os.environ if name.startswith(OURS) and name not in KEPT]:
    del os.environ[name]

# Everything that the run leaves on the disk, so that it can be removed in one go. Made by `conftest.py`.
RUN_DIR = os.path.join(tempfile.gettempdir(), f"sealed-memory-test-{secrets.token_hex(8)}")
CLUSTER_DIR = os.path.join(RUN_DIR, "cluster")


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _urls() -> dict[str, str]:
    from psycopg.conninfo import make_conninfo

    from database.dsn import VARIABLES
    from database.embedded_postgres import dsn

    return {variable: make_conninfo(**dsn(CLUSTER_DIR, role)) for role, variable in VARIABLES.items()}


os.environ |= {
    "ENV_FILE": "",
    "INSECURE_HTTP": "true",
    "SECRET_KEY": secrets.token_urlsafe(50),
    "MEMORY_ENCRYPTION_KEY": _key(),
    "MEMORY_TENANT_HMAC_KEY": _key(),
    "MEMORY_EMBED_TIMEOUT_MS": "60000",  # a busy machine shall not change what is found
    "RERANK_ENABLED": "false",  # tests/rerank/ switches it on
    "RERANK_FALLBACK_MODEL": "",  # what is tested is told by the test
    **_urls(),
}

from project.settings import *  # noqa: E402, F403

# No thread of the tests' own process takes up calls by itself: tests do that, or servers as processes of their own.
MEMORY_WORK_IN_SERVER = False
