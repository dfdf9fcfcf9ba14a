"""Index settings recorded per tenant, and followed until a reindex.

Turning a setting therefore never mixes two kinds of rows: a tenant is searched as it was indexed, new tenants are
indexed as configured, and `manage.py reindex` brings the others over, each in one transaction.
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache

from django.conf import settings

ANALYSIS = (
    1  # raised when memory.index.text_analysis or memory.index.bm25 would make other terms or weights of the same text
)


@dataclass(frozen=True)
class Recipe:
    """`language`: of the keyword index, None without one. `labels`: filterable metadata keys, sorted."""

    model: str
    rotation: bool
    language: str | None
    analysis: int
    labels: tuple[str, ...]

    def as_text(self) -> str:
        """Canonical JSON, as the tenant's row holds it: equal recipes are equal texts."""
        return _text_of(self)


def configured() -> Recipe:
    """What the settings ask for."""
    return Recipe(
        model=settings.MEMORY_EMBEDDING_MODEL,
        rotation=settings.MEMORY_VECTOR_ROTATION,
        language=settings.MEMORY_LEXICAL_LANGUAGE if settings.MEMORY_LEXICAL_INDEX else None,
        analysis=ANALYSIS,
        labels=tuple(sorted(settings.MEMORY_FILTERABLE_METADATA)),
    )


def recorded(text: str) -> Recipe:
    """The recipe in a tenant's row; an empty one, from before recipes were recorded, is the configured."""
    return _parse(text) if text else configured()


@lru_cache(maxsize=64)
def _text_of(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=64)
def _parse(text: str) -> Recipe:
    fields = json.loads(text)
    return Recipe(**{**fields, "labels": tuple(fields["labels"])})
