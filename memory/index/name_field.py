"""`NameField`: a name of a document or of a source, whichever form it is stored in (`memory.index.names`).

On a chunk it reads as the client gave it, and is compared by `exact` and `in` with what the client gave. What
`values()` and raw SQL read is what is stored: of a tenant with sealed names, a label. No name is kept on an instance
that was loaded: reading one opens the seal of the chunk's context.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.core.exceptions import FieldError
from django.db import models
from django.db.models.lookups import Exact, In
from django.db.models.query_utils import DeferredAttribute

from memory.index.names import StoredName, in_either_form, is_label, name_label
from memory.sealing.codecs import Context
from memory.tenancy.open_doors import reachable_hashes

# Of labels they tell nothing.
_OF_READABLE_NAMES = frozenset(
    {"contains", "startswith", "endswith", "iexact", "icontains", "istartswith", "iendswith", "regex", "iregex"}
    | {"gt", "gte", "lt", "lte", "range"}
)


_as_stored: ContextVar[bool] = ContextVar("names_as_stored", default=False)


@contextmanager
def names_as_stored() -> Iterator[None]:
    """Inside, names read as they are stored: Django copies columns from one instance to another by their attributes."""
    token = _as_stored.set(True)
    try:
        yield
    finally:
        _as_stored.reset(token)


def as_given(value: Any, column: str, context: Context | None) -> Any:
    """What a column's value reads as, for whoever has opened the chunk's context already."""
    return getattr(context, column) if _is_stored_label(value) and context is not None and context.doc_id else value


def _is_stored_label(value: Any) -> bool:
    return isinstance(value, StoredName) and is_label(value)


class NameAttribute(DeferredAttribute):
    """Reads as the client gave it, from the context's seal where the column holds a label."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        if instance is None:
            return self
        name = self.field.attname
        value = instance.__dict__[name] if name in instance.__dict__ else super().__get__(instance, cls)
        if _as_stored.get() or not _is_stored_label(value):
            return value
        return as_given(value, name, getattr(instance, "context", None))

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class NameField(models.TextField):
    """A text column of names. To migrations it is the `TextField` that it has always been."""

    descriptor_class = NameAttribute

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs

    def from_db_value(self, value: Any, *args: Any) -> StoredName | None:
        return None if value is None else StoredName(value)

    def value_from_object(self, obj: models.Model) -> Any:
        """As it is stored: serialisers carry no name out of a seal."""
        return self.stored(obj)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        return self.stored(model_instance)

    def stored(self, instance: Any) -> Any:
        """The column's value: a label where the instance's context holds the names."""
        if self.attname not in instance.__dict__:
            getattr(instance, self.attname)  # a deferred one is fetched
        value = instance.__dict__[self.attname]
        if not isinstance(value, str) or is_label(value):
            return value
        context: Context | None = getattr(instance, "context", None)
        return name_label(instance.user_hash, self.attname, value) if context and context.doc_id else value

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name in _OF_READABLE_NAMES and settings.MEMORY_SEALED_NAMES:
            raise FieldError(f"{self.name} may be a label: exact and in can be asked of it, not {lookup_name}.")
        return super().get_lookup(lookup_name)


class _InEitherForm:
    """A lookup by names, which finds labels of them as well."""

    def _sql(self: Any, compiler: Any, connection: Any, names: Iterable[str]) -> tuple[str, list[Any]]:
        sql, parameters = self.process_lhs(compiler, connection)
        stored: dict[str, str] = {}
        given = [str(name) for name in names]
        for user_hash in reachable_hashes(connection.alias):
            stored |= in_either_form(user_hash, self.lhs.output_field.attname, given)
        return f"{sql} = ANY (%s::text[])", [*parameters, list(stored)]


@NameField.register_lookup
class NameExact(_InEitherForm, Exact):
    """`doc_id="…"`"""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        if not isinstance(self.rhs, str) or isinstance(self.rhs, StoredName):
            return super().as_sql(compiler, connection)
        return self._sql(compiler, connection, [self.rhs])


@NameField.register_lookup
class NameIn(_InEitherForm, In):
    """`doc_id__in=[…]`"""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        if hasattr(self.rhs, "as_sql"):
            return super().as_sql(compiler, connection)
        names = [name for name in self.rhs if name is not None]
        return self._sql(compiler, connection, names)
