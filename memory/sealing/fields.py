"""Sealed model fields: the attribute holds ciphertext, a property beside it seals and opens.

    text_cipher = SealedTextField(plain="text")

gives the model `text_cipher`, a bytea that only ever holds `SealedBytes`, and `text`, whose assignment seals at once
under the row's user hash and whose reading opens. No plaintext is kept on the instance, so nothing that copies an
instance (pickle, deepcopy, dumpdata, `values()`, `refresh_from_db`) can carry any.
"""

import base64
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from django.core import checks
from django.core.exceptions import FieldError
from django.db import models
from django.db.models.lookups import IsNull

from keys.keyring import get_keyring
from memory import metrics
from memory.exceptions import NotSealed
from memory.sealing.codecs import Codec, ContextCodec, JSONCodec, SealedBytes, TextCodec, VectorCodec
from memory.sealing.opening import SealedRow, open_seals
from memory.security import aad_for, seal

E_INDEXED = "memory.E001"


class SealedField(models.BinaryField):
    """A bytea of seals. Base of the typed fields; `plain` names the property that opens it."""

    description = "AES-256-GCM ciphertext bound to the row's user"
    codec: ClassVar[Codec]

    def __init__(self, *args: Any, plain: str = "", **kwargs: Any) -> None:
        self.plain = plain
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, {**kwargs, "plain": self.plain}

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        super().contribute_to_class(cls, name, private_only)
        # The historical models of migrations are bound to no user: they see ciphertext only.
        if self.plain and cls.__module__ != "__fake__":
            setattr(cls, self.plain, PlainProperty(self))

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        errors = super().check(**kwargs)
        if self.unique or getattr(self, "db_index", False):
            errors.append(
                checks.Error(
                    f"{self.model.__name__}.{self.name} is sealed: equal texts have unequal seals.",
                    hint="Remove unique, primary_key and db_index; index a keyed hash beside it instead.",
                    obj=self,
                    id=E_INDEXED,
                )
            )
        return errors

    def get_default(self) -> None:
        # BinaryField's default is b"", which is no seal. Without a default the column is NULL, which NOT NULL refuses.
        return None

    def from_db_value(self, value: Any, *args: Any) -> SealedBytes | None:
        return None if value is None else SealedBytes(value)

    def to_python(self, value: Any) -> Any:
        # Deserialisers hand over base64 of the ciphertext, as `value_to_string` wrote it.
        return SealedBytes(base64.b64decode(value, validate=True)) if isinstance(value, str) else value

    def value_to_string(self, obj: models.Model) -> str:
        value: Any = self.value_from_object(obj)
        return "" if value is None else base64.b64encode(value).decode("ascii")

    def pre_save(self, model_instance: models.Model, add: bool) -> SealedBytes | None:
        return self._require_sealed(getattr(model_instance, self.attname))

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(self._require_sealed(value), connection, prepared)

    def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> Any:
        # Expressions bypass get_db_prep_value: update(text_cipher=Value(b"plain")) would reach SQL without this.
        if hasattr(value, "as_sql") or hasattr(value, "resolve_expression"):
            self._refuse(value)
        return super().get_placeholder(value, compiler, connection)  # type: ignore[misc]

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name == "isnull":
            return IsNull
        raise FieldError(f"{self.name} is sealed: only isnull can be asked of it, not {lookup_name}.")

    def get_transform(self, lookup_name: str) -> Any:
        raise FieldError(f"{self.name} is sealed: it has no {lookup_name}.")

    def _require_sealed(self, value: Any) -> SealedBytes | None:
        if value is None or isinstance(value, SealedBytes):
            return value
        self._refuse(value)

    def _refuse(self, value: Any) -> NoReturn:
        raise NotSealed(f"{self.name} takes SealedBytes, not {type(value).__name__}: assign to `{self.plain}` instead.")


class SealedTextField(SealedField):
    """Sealed str."""

    codec = TextCodec()


class SealedJSONField(SealedField):
    """Sealed JSON object, a dict."""

    codec = JSONCodec()


class SealedContextField(SealedField):
    """Sealed `memory.sealing.codecs.Context`."""

    codec = ContextCodec()


class SealedVectorField(SealedField):
    """Sealed float32 vector, read as a numpy array of shape (d,)."""

    codec = VectorCodec()


class PlainProperty(property):
    """The property that seals and opens a field. As a `property`, its name is accepted by the model's constructor."""

    def __init__(self, field: SealedField) -> None:
        self.field = field
        super().__init__(self._read, self._write, doc=f"Opens and seals `{field.attname}`.")

    def _read(self, instance: models.Model) -> Any:
        return None if getattr(instance, self.field.attname) is None else open_field(instance, self.field)

    def _write(self, instance: models.Model, value: Any) -> None:
        sealed = None if value is None else seal_value(self.field.codec.encode(value), _user_hash(instance, self.field))
        reseal_siblings(instance, self.field)
        setattr(instance, self.field.attname, sealed)
        assigned_plain(instance).add(self.field.plain)


def assigned_plain(instance: models.Model) -> set[str]:
    """The names of the plain properties that were assigned on an instance; the model clears them."""
    names: set[str] = instance.__dict__.setdefault("_assigned_plain", set())
    return names


def seal_value(data: bytes, user_hash: str) -> SealedBytes:
    """Seal encoded bytes for a user, and count the seal in the metrics."""
    metrics.SEALS.inc()
    return SealedBytes(seal(data, aad_for(user_hash)))


def open_field(instance: models.Model, field: SealedField) -> Any:
    """Open one sealed column of a row. Raises IntegrityFailure, or UnknownKeyId when the row's key is not held here,
    RowAltered when it is not as it was written."""
    row_check: Any = instance if getattr(instance, "has_mac", False) else None
    if row_check is not None:
        row_check.read_whole()
    row = SealedRow(
        user_hash=_user_hash(instance, field),
        model=instance._meta.model_name or "",
        pk=instance.pk,
        key_id=getattr(instance, "enc_key_id", None),
    )
    seal = getattr(instance, field.attname), field.codec.decode
    value = open_seals(row, seal, column=field.attname).values[0]
    if row_check is not None:
        row_check.require_unaltered(field.attname)
    return value


def reseal_siblings(instance: models.Model, assigned: SealedField) -> None:
    """Re-seal the row's other columns under the sealing key, so that `enc_key_id` is right for all of them."""
    sealing_id = get_keyring().sealing.key_id
    if getattr(instance, "enc_key_id", None) != sealing_id:
        for field in sealed_fields(type(instance)):
            if field is not assigned and getattr(instance, field.attname) is not None:
                data = field.codec.encode(open_field(instance, field))
                setattr(instance, field.attname, seal_value(data, _user_hash(instance, field)))
        instance.enc_key_id = sealing_id  # type: ignore[attr-defined]


def sealed_fields(model: type[models.Model]) -> Sequence[SealedField]:
    """The sealed fields of a model, in column order."""
    return [field for field in model._meta.concrete_fields if isinstance(field, SealedField)]


def _user_hash(instance: models.Model, field: SealedField) -> str:
    user_hash = getattr(instance, "user_hash", "")
    if not user_hash:
        raise NotSealed(f"{field.plain} cannot be sealed before the row has its user_hash: use objects.create().")
    return str(user_hash)
