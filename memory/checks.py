"""System checks of the memory: what can be seen to be wrong without asking the database."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import Stemmer
from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from stop_words import AVAILABLE_LANGUAGES

from memory.access.rates import parse_rate
from memory.access.tokens import MAX_DAYS
from memory.index.embedders.remote_embedder import OPENAI_PATH, TEI_PATH
from memory.search.search_parameters import Weights
from memory.search.time_questions import MOST_WEIGHT
from memory.tenancy.managers import TenantManager
from memory.tenancy.tenant_model import TenantModel

E_NOT_TENANT_MANAGED = "memory.E002"
E_KEY_WITHOUT_TENANT = "memory.E003"
E_DIMENSION = "memory.E004"
E_CHUNK_TOKENS = "memory.E005"
E_MIDDLEWARE = "memory.E006"
E_RATE = "memory.E011"
E_WEIGHTS = "memory.E012"
E_RANGE = "memory.E013"
E_LANGUAGE = "memory.E014"
E_EMBEDDING = "memory.E015"

RATES = ("INDEX", "QUERY", "OTHER", "TOKEN", "FAILED_AUTH")
MOST_BYTES = 2**30  # what Postgres takes in one field
RANGES = {
    "MEMORY_TOKEN_DAYS": (0, MAX_DAYS),
    "MEMORY_MAX_BODY_BYTES": (1_024, MOST_BYTES),
    "MEMORY_MAX_TEXT_BYTES": (1, MOST_BYTES // 2),
    "MEMORY_MAX_QUERY_BYTES": (1, MOST_BYTES),
    "MEMORY_MAX_METADATA_BYTES": (2, MOST_BYTES // 2),
    "MEMORY_MAX_ANSWER_BYTES": (1, MOST_BYTES),
    "MEMORY_MAX_BATCH": (1, 100_000),
    "MEMORY_MAX_CHUNKS": (1, 1_000_000),
    "MEMORY_SEAL_PADDING": (0, 65_536),
    "MEMORY_SPLIT_SECONDS": (0.01, 3_600),
    "MEMORY_EMBEDDING_BATCH": (0, 10_000),
    "MEMORY_EMBEDDING_REMOTE_CONNECTIONS": (1, 64),
    "MEMORY_EMBED_TIMEOUT_MS": (1, 600_000),
    "MEMORY_EMBED_QUEUE": (1, 10_000_000),
    "MEMORY_EMBEDDING_THREADS": (0, 1_024),
    "MEMORY_EXACT_SCAN_MAX": (0, 10_000_000),
    "MEMORY_TIME_WEIGHT": (0, MOST_WEIGHT),
    "MEMORY_OPERATIONS_PER_USER": (1, 10_000),
    "MEMORY_OPERATIONS_TOTAL": (1, 1_000_000),
    "MEMORY_OPERATION_KEEP_HOURS": (1, 24 * 365),
}
NO_LANGUAGE = "none"
EMBEDDING_BACKENDS = ("auto", "onnx", "torch", "remote")

MIDDLEWARE = "memory.access.middleware.TenantMiddleware"
AFTER = "django.contrib.auth.middleware.AuthenticationMiddleware"


def check_tenant_models(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Every model with a user_hash goes through the tenant manager and starts every key with user_hash."""
    return [
        error
        for model in apps.get_models()
        if any(field.name == "user_hash" for field in model._meta.concrete_fields)
        for error in _check_model(model)
    ]


def check_limits(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Settings whose bounds come from the layout of a database page and from the embedding model."""
    errors: list[CheckMessage] = []
    if not 64 <= settings.MEMORY_EMBEDDING_DIM <= 1024:
        errors.append(
            Error(
                "MEMORY_EMBEDDING_DIM must lie between 64 and 1024.",
                hint="A page holds 8 KB: the vector and the term weights must fit into one.",
                id=E_DIMENSION,
            )
        )
    if settings.MEMORY_CHUNK_TOKENS < 16:
        errors.append(
            Error(
                "MEMORY_CHUNK_TOKENS must be at least 16.",
                hint="254 is what the bundled model reads; shorter chunks lose their context.",
                id=E_CHUNK_TOKENS,
            )
        )
    try:
        Weights.configured()
    except ValueError as error:
        errors.append(
            Error("MEMORY_LEXICAL_WEIGHT or MEMORY_NEIGHBOUR_WEIGHT is wrong.", hint=str(error), id=E_WEIGHTS)
        )
    return errors


def check_ranges(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Numbers with which nothing could be stored, asked or answered."""
    return [
        Error(f"{name} must lie between {low} and {high}.", hint="docs/reference.md says what it is.", id=E_RANGE)
        for name, (low, high) in RANGES.items()
        if not low <= getattr(settings, name) <= high
    ]


def check_embedding(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """A backend that is none, or a server without an address that says how it is spoken to."""
    backend, url = settings.MEMORY_EMBEDDING_BACKEND, settings.MEMORY_EMBEDDING_REMOTE_URL
    if backend not in EMBEDDING_BACKENDS:
        names = ", ".join(EMBEDDING_BACKENDS)
        return [Error(f"MEMORY_EMBEDDING_BACKEND is none of {names}.", hint="auto suits most.", id=E_EMBEDDING)]
    speaks = url.startswith(("http://", "https://")) and url.rstrip("/").endswith((TEI_PATH, OPENAI_PATH))
    if backend == "remote" and not speaks:
        hint = "http://embed.internal:8080/embed (text-embeddings-inference) or https://…/v1/embeddings (OpenAI's API)."
        return [Error("MEMORY_EMBEDDING_BACKEND=remote needs MEMORY_EMBEDDING_REMOTE_URL.", hint=hint, id=E_EMBEDDING)]
    return []


def check_language(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """A language that is misspelt would be indexed without stems and stop words, and nobody told."""
    known = {*Stemmer.algorithms(), *AVAILABLE_LANGUAGES, NO_LANGUAGE}
    if settings.MEMORY_LEXICAL_LANGUAGE in known:
        return []
    return [
        Error(
            "MEMORY_LEXICAL_LANGUAGE is no language that the keyword index knows.",
            hint=f"One of {', '.join(sorted(known))}; {NO_LANGUAGE!r} for neither stems nor stop words.",
            id=E_LANGUAGE,
        )
    ]


def check_middleware(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """The middleware that binds the tenant is there, and behind the one that knows the session's user."""
    installed = list(settings.MIDDLEWARE)
    if MIDDLEWARE in installed and AFTER in installed and installed.index(MIDDLEWARE) > installed.index(AFTER):
        return []
    return [
        Error(
            f"{MIDDLEWARE} is missing from MIDDLEWARE, or stands before {AFTER}.",
            hint=f"Put {MIDDLEWARE} behind {AFTER}: without it no request has a tenant.",
            id=E_MIDDLEWARE,
        )
    ]


def check_rates(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Every throttle's rate can be read, so that no request finds out."""
    return list(_rate_errors(f"MEMORY_THROTTLE_{name}" for name in RATES))


def _rate_errors(names: Iterable[str]) -> Iterator[CheckMessage]:
    for name in names:
        try:
            parse_rate(getattr(settings, name) or "1/s")
        except ImproperlyConfigured as error:
            yield Error(f"{name} is no rate.", hint=str(error), id=E_RATE)


def _check_model(model: type[models.Model]) -> Iterator[CheckMessage]:
    if (
        not issubclass(model, TenantModel)
        or not isinstance(model._default_manager, TenantManager)
        or not isinstance(model._base_manager, TenantManager)
    ):
        yield Error(
            f"{model.__name__} has a user_hash but is not reached through TenantManager alone.",
            hint='Derive it from TenantModel and keep objects = TenantManager() and base_manager_name = "objects".',
            obj=model,
            id=E_NOT_TENANT_MANAGED,
        )
    for columns in _keys(model):
        if columns[0] != "user_hash":
            yield Error(
                f"A key of {model.__name__} starts with {columns[0]}, not with user_hash.",
                hint="A global key would tell one tenant about another: put user_hash first.",
                obj=model,
                id=E_KEY_WITHOUT_TENANT,
            )


def _keys(model: type[models.Model]) -> Iterator[tuple[str, ...]]:
    primary = model._meta.pk
    names = getattr(primary, "field_names", None)
    yield tuple(names) if names else (primary.name if primary else "",)
    for constraint in model._meta.constraints:
        if isinstance(constraint, models.UniqueConstraint):
            yield tuple(constraint.fields)
    yield from ((field.name,) for field in model._meta.concrete_fields if field.unique and not field.primary_key)
