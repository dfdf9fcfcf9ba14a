"""Index settings recorded per tenant, and followed until a reindex.

Turning a setting therefore never mixes two kinds of rows unnoticed: a tenant is searched as it was indexed, new tenants
are indexed as configured, and `manage.py reindex` brings the others over, batch by batch. While it does, the tenant's
recipe says by which recipes its rows may have been made, and is searched only by what all of these agree on.
"""

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from django.conf import settings

from memory.index.context import HEADER, NO_HEADER
from memory.index.names import READABLE, SEALED

ANALYSIS = (
    1  # raised when memory.index.text_analysis or memory.index.bm25 would make other terms or weights of the same text
)
FIRST_HEADER = 1
FIRST_LABELS, PRESENCE_LABELS = 1, 2
MIXED_HEADERS = -1


@dataclass(frozen=True)
class Recipe:
    """`language`: of the keyword index, None without one. `labels`: filterable metadata keys, sorted. `header`: the
    form of what is embedded and indexed in front of a text (`memory.index.context`). `label_form`: that of the labels
    (`memory.index.labels`): from the second on they tell that a key is there. `names`: that of documents' names and
    sources (`memory.index.names`), which all rows of a tenant have at any moment.

    `kinds`: while a reindex is under way the recipes by which the tenant's rows may have been made, the oldest first;
    the other fields are then what all of them agree on, with `model` empty where vectors are not comparable and
    `language` None where keywords are not.
    """

    model: str
    rotation: bool
    language: str | None
    analysis: int
    labels: tuple[str, ...]
    header: int = FIRST_HEADER
    label_form: int = FIRST_LABELS
    names: int = READABLE
    kinds: tuple["Recipe", ...] = ()

    def as_text(self) -> str:
        """Canonical JSON, as the tenant's row holds it: equal recipes are equal texts."""
        return _text_of(self)

    @property
    def id(self) -> int:
        """By which a row tells how it was made searchable: 8 bytes of the text's SHA-256, signed. Never 0.

        Not told is the form of the names: it changes of all rows at once.
        """
        return _id_of(self)

    def with_names(self, names: int) -> "Recipe":
        """The same, and of all kinds, with names in another form."""
        return replace(self, names=names, kinds=tuple(replace(kind, names=names) for kind in self.kinds))

    @property
    def tells_presence(self) -> bool:
        """Whether every row's labels tell which filterable keys it has."""
        return self.label_form >= PRESENCE_LABELS

    def compares_vectors_of(self, model: str | None) -> bool:
        """Whether the rows' vectors can be compared with one of this model; None: with a client's own."""
        return bool(self.model) and model in (None, self.model)

    def made(self, recipe_id: int) -> "Recipe | None":
        """The recipe of a row that carries `recipe_id`; None when this tenant's rows cannot have been made by it.

        0 is a row from before rows carried one: the oldest kind.
        """
        if not self.kinds:
            return self
        if not recipe_id:
            return self.kinds[0]
        return next((recipe for recipe in (*self.kinds, self) if recipe.id == recipe_id), None)


def configured() -> Recipe:
    """What the settings ask for."""
    return Recipe(
        model=settings.MEMORY_EMBEDDING_MODEL,
        rotation=settings.MEMORY_VECTOR_ROTATION,
        language=settings.MEMORY_LEXICAL_LANGUAGE if settings.MEMORY_LEXICAL_INDEX else None,
        analysis=ANALYSIS,
        labels=tuple(sorted(settings.MEMORY_FILTERABLE_METADATA)),
        header=HEADER if settings.MEMORY_CONTEXT_HEADER else NO_HEADER,
        label_form=PRESENCE_LABELS if settings.MEMORY_FILTERABLE_METADATA else FIRST_LABELS,
        names=SEALED if settings.MEMORY_SEALED_NAMES else READABLE,
    )


def recorded(text: str) -> Recipe:
    """The recipe in a tenant's row; an empty one, from before recipes were recorded, is the configured, but that names
    were readable then."""
    return _parse(text) if text else configured().with_names(READABLE)


def for_new_embeddings(recipe: Recipe) -> Recipe:
    """By which recipe to make a row whose embedding this process has just made, or a client has just given.

    While a reindex is under way that is the configured one, if it is one of the kinds: such a row need not be brought
    over again. A row that keeps its stored embedding is made by the tenant's recipe as it is.
    """
    return configured() if configured() in recipe.kinds else recipe


def from_stored_embeddings(recipe: Recipe) -> Recipe:
    """The recipe of rows that are made anew by the settings, but keep their embeddings and so the models of these."""
    kinds = recipe.kinds or (recipe,)
    return mixture(*(replace(configured(), model=kind.model, header=kind.header) for kind in kinds))


def mixture(*kinds: Recipe) -> Recipe:
    """The recipe of a tenant whose rows may have been made by any of these; one kind alone is that recipe itself."""
    kinds = tuple(dict.fromkeys(each for kind in kinds for each in (kind.kinds or (kind,))))
    *_, last = kinds
    if len(kinds) == 1:
        return last
    same_vectors = len({(kind.model, kind.rotation) for kind in kinds}) == 1
    same_terms = len({(kind.language, kind.analysis) for kind in kinds}) == 1
    return Recipe(
        model=last.model if same_vectors else "",
        rotation=last.rotation,
        language=last.language if same_terms else None,
        analysis=last.analysis,
        labels=tuple(sorted(set.intersection(*(set(kind.labels) for kind in kinds)))),
        # With and without a header vectors and keywords compare: only a reindex has to know which rows are which.
        label_form=min(kind.label_form for kind in kinds),
        names=last.names,
        header=last.header if len({kind.header for kind in kinds}) == 1 else MIXED_HEADERS,
        kinds=kinds,
    )


@lru_cache(maxsize=64)
def _text_of(recipe: Recipe) -> str:
    kinds = [_plain(kind) for kind in recipe.kinds]
    return json.dumps(kinds or _plain(recipe), sort_keys=True, separators=(",", ":"))


def _plain(recipe: Recipe) -> dict[str, Any]:
    members = {each.name: getattr(recipe, each.name) for each in fields(Recipe) if each.name != "kinds"}
    # First forms are not written: they are those of recipes from before there were others. (Rows had no context then,
    # and without one the first header is empty.)
    if recipe.header == FIRST_HEADER:
        del members["header"]
    if recipe.label_form == FIRST_LABELS:
        del members["label_form"]
    if recipe.names == READABLE:
        del members["names"]
    return members


@lru_cache(maxsize=64)
def _id_of(recipe: Recipe) -> int:
    digest = hashlib.sha256(_text_of(recipe.with_names(READABLE)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True) or 1


@lru_cache(maxsize=64)
def _parse(text: str) -> Recipe:
    value = json.loads(text)
    return mixture(*map(_from_plain, value)) if isinstance(value, list) else _from_plain(value)


def _from_plain(value: dict[str, Any]) -> Recipe:
    return Recipe(**{**value, "labels": tuple(value["labels"])})
