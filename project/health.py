"""Probes: `/healthz` (is the process alive?) and `/readyz` (can it serve requests?)."""

import logging
from collections.abc import Callable

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from keys.exceptions import KeyConfigurationError
from keys.keyring import get_keyring
from memory.exceptions import DatabaseMisconfigured, EmbeddingModelUnavailable
from memory.index import embedding_runtime
from memory.tenancy.live_database import assert_live_database
from project import draining
from project.errors import DATABASE_AWAY
from rerank import health as rerank_health
from rerank.gpu import assert_required_gpu
from rerank.outcomes import GPURequired

logger = logging.getLogger(__name__)

EXTENSION = "vector"
SPEAKING = (DatabaseMisconfigured, EmbeddingModelUnavailable, GPURequired, KeyConfigurationError)


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as the process answers; touches nothing else."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when every part is `ok`, else 503 with `failing` beside the parts that are not. Reasons go to the log.

    While this process shuts down it is 503 with `draining`.

    It asks the database a fixed number of statements, on one connection, and does no work with a model. `embedding` is
    the embedding model's state, `ok` or why it cannot be used. `rerank` is the reranker's, which never causes a 503:
    without reranking, answers keep their retrieval order. Only with RERANK_REQUIRE_GPU is there a part `gpu`, a usable
    CUDA device.
    """
    if draining.has_begun():
        return JsonResponse({"status": "draining"}, status=503)
    parts, database_is_away = _parts()
    ready = all(state == "ok" for state in parts.values())
    headers = {} if ready else {"Retry-After": "5"}
    body = {
        "status": "ok" if ready else "failing",
        "parts": parts,
        "embedding": embedding_runtime.state(),
        "rerank": _rerank_state(ask=not database_is_away),
    }
    return JsonResponse(body, status=200 if ready else 503, headers=headers)


def _parts() -> tuple[dict[str, str], bool]:
    """Each part's state, and whether the database is away: then no other part waits for it as well."""
    parts: dict[str, str] = {}
    away = False
    for name, check in _checks().items():
        failure = None if away and name in ASK_THE_DATABASE else _failure(name, check)
        away = away or isinstance(failure, DATABASE_AWAY)
        parts[name] = "failing" if failure or (away and name in ASK_THE_DATABASE) else "ok"
    return parts, away


def _checks() -> dict[str, Callable[[], object]]:
    return CHECKS | ({"gpu": assert_required_gpu} if settings.RERANK_REQUIRE_GPU else {})


def _rerank_state(*, ask: bool) -> str:
    try:
        return rerank_health.state(ask=ask)
    except Exception as failure:
        logger.warning("The reranker's state cannot be told", exc_info=failure)
        return "unknown"


def _failure(name: str, check: Callable[[], object]) -> Exception | None:
    try:
        check()
    except Exception as failure:
        logger.warning("not ready", exc_info=failure, extra={"part": name, "reason": _reason(failure)})
        return failure
    return None


def _reason(failure: Exception) -> str:
    """The reason for the log: the message of our own errors, only the type of others, which may quote a value."""
    return str(failure) if isinstance(failure, SPEAKING) else type(failure).__name__


def _check_pgvector() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extversion FROM pg_extension WHERE extname = %s", [EXTENSION])
        if cursor.fetchone() is None:
            raise LookupError(f"The database lacks the extension {EXTENSION}.")


CHECKS: dict[str, Callable[[], object]] = {
    "database": lambda: assert_live_database(),
    "pgvector": _check_pgvector,
    "keys": lambda: get_keyring(),
    "embedding": embedding_runtime.assert_usable,
}
ASK_THE_DATABASE = {"database", "pgvector"}
