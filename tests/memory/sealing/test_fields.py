"""Sealed fields: nothing plain is kept, nothing plain gets in, and a row stands under one key."""

import base64
import copy
import json
import pickle
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from django.core import serializers
from django.core.exceptions import FieldError
from django.db import models
from django.db.models import Case, F, Value, When
from django.test.utils import isolate_apps
from hypothesis import given
from hypothesis import strategies as st

from keys.keyring import get_keyring
from memory.exceptions import IntegrityFailure, NotSealed, UnknownKeyId
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.sealing.codecs import SealedBytes
from memory.sealing.fields import E_INDEXED, SealedTextField
from memory.security import hmac_user
from tests.factories import ALICE, DIM, key, remember, vector_of

SECRET = "PLANTED-SECRET"
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | unicode_text,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(unicode_text, children, max_size=4),
    max_leaves=10,
)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def chunk(**fields: Any) -> Any:
    return MemoryChunk(user_hash=hmac_user(ALICE), id=uuid4(), doc_id="d", chunk_index=0, **fields)


def stored(user_id: str = ALICE) -> Any:
    return MemoryChunk.objects.get()


@given(text=unicode_text)
def test_text_comes_back(text: str) -> None:
    assert chunk(text=text).text == text


@given(value=json_values)
def test_json_comes_back(value: Any) -> None:
    assert chunk(metadata={"k": value}).metadata == {"k": value}


@given(values=st.lists(floats, min_size=1, max_size=40))
def test_vectors_come_back_bit_by_bit(values: list[float]) -> None:
    row = chunk(embedding=values)
    assert row.embedding.dtype == np.float32
    assert row.embedding.tobytes() == np.asarray(values, dtype=np.float32).tobytes()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {"k": float("nan")}])
def test_json_has_no_nan(bad: Any) -> None:
    with pytest.raises(ValueError, match="[Oo]ut of range"):
        chunk(metadata={"k": bad})


@pytest.mark.parametrize("bad", [5, "x", [1], True])
def test_metadata_is_an_object(bad: Any) -> None:
    with pytest.raises(TypeError, match="takes dict"):
        chunk(metadata=bad)


@pytest.mark.parametrize("bad", [[], [[1.0]], [float("nan")], [float("inf")]])
def test_a_vector_is_flat_finite_and_not_empty(bad: Any) -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        chunk(embedding=bad)


def test_text_is_str() -> None:
    with pytest.raises(TypeError):
        chunk(text=5)


def test_nothing_can_be_sealed_before_the_row_has_its_user() -> None:
    with pytest.raises(NotSealed, match="user_hash"):
        MemoryChunk(text=SECRET)


@pytest.mark.django_db
class TestNoPlaintextIsCarried:
    @pytest.fixture(autouse=True)
    def _row(self) -> None:
        remember(ALICE, "d", SECRET, metadata={"k": SECRET})

    @pytest.mark.parametrize(
        "carry",
        [
            lambda row: pickle.dumps(row),
            lambda row: pickle.dumps(copy.deepcopy(row)),
            lambda row: repr(row.__dict__).encode() + str(row.__dict__).encode(),
            lambda row: repr(row).encode() + str(row).encode(),
            lambda row: serializers.serialize("json", [row]).encode(),
            lambda row: repr(list(MemoryChunk.objects.values())).encode(),
            lambda row: repr(list(MemoryChunk.objects.values_list())).encode(),
        ],
    )
    def test_by_copies_of_an_instance(self, carry: Any) -> None:
        with tenant_transaction(ALICE):
            row = stored()
            assert row.text == SECRET
            row.refresh_from_db()
            carried = carry(row)
        assert SECRET.encode() not in carried
        assert base64.b64encode(SECRET.encode()) not in carried

    def test_by_a_pickle_that_still_opens_afterwards(self) -> None:
        with tenant_transaction(ALICE):
            assert pickle.loads(pickle.dumps(stored())).text == SECRET  # noqa: S301

    def test_only_and_defer_read_lazily(self) -> None:
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.only("doc_id").get()
            assert "text_cipher" not in row.__dict__
            assert cast(Any, row).text == SECRET

    def test_fixtures_carry_ciphertext_and_load_again(self) -> None:
        with tenant_transaction(ALICE):
            dumped = serializers.serialize("json", MemoryChunk.objects.all())
            assert SECRET not in dumped and json.loads(dumped)[0]["fields"]["text_cipher"]
            (restored,) = serializers.deserialize("json", dumped)
            assert isinstance(restored.object.text_cipher, SealedBytes)
            assert restored.object.text_cipher == stored().text_cipher


@pytest.mark.django_db
class TestNothingPlainGetsIn:
    @pytest.fixture(autouse=True)
    def _row(self) -> None:
        remember(ALICE, "d", "text")

    @pytest.mark.parametrize("value", [b"plain", bytearray(b"plain"), "plain", memoryview(b"plain"), 5])
    def test_by_attribute_and_save(self, value: Any) -> None:
        with pytest.raises(NotSealed, match="assign to `text`"), tenant_transaction(ALICE):
            row = stored()
            row.text_cipher = value
            row.save()

    @pytest.mark.parametrize(
        "value",
        [b"x" * 40, Value(b"x" * 40), F("doc_id"), Case(When(doc_id="d", then=Value(b"x" * 40))), Value("x" * 40)],
    )
    def test_by_update(self, value: Any) -> None:
        with pytest.raises(NotSealed), tenant_transaction(ALICE):
            MemoryChunk.objects.update(text_cipher=value)
        with tenant_transaction(ALICE):
            assert stored().text == "text"

    def test_by_bulk_update(self) -> None:
        with pytest.raises(NotSealed), tenant_transaction(ALICE):
            row = stored()
            row.text_cipher = b"x" * 40
            MemoryChunk.objects.bulk_update([row], ["text_cipher"])

    def test_by_bulk_create(self) -> None:
        with pytest.raises(NotSealed), tenant_transaction(ALICE):
            MemoryChunk.objects.bulk_create([chunk(text_cipher=b"x" * 40)])

    def test_by_get_or_create(self) -> None:
        with pytest.raises(NotSealed), tenant_transaction(ALICE):
            MemoryChunk.objects.get_or_create(doc_id="new", defaults={"chunk_index": 0, "text_cipher": b"x" * 40})

    @pytest.mark.parametrize("lookup", ["exact", "contains", "in", "gt", "startswith", "regex", "length"])
    def test_no_lookup_but_isnull(self, lookup: str) -> None:
        with tenant_transaction(ALICE):
            with pytest.raises(FieldError, match="sealed"):
                MemoryChunk.objects.filter(**{f"text_cipher__{lookup}": b"x"}).exists()
            assert MemoryChunk.objects.filter(text_cipher__isnull=False).exists()

    @isolate_apps("memory")
    def test_no_index_on_a_sealed_field(self) -> None:
        class Indexed(models.Model):
            body_cipher = SealedTextField(plain="body", unique=True)

            class Meta:
                app_label = "memory"

            def __str__(self) -> str:
                return ""

        assert E_INDEXED in [error.id for error in Indexed._meta.get_field("body_cipher").check()]


@pytest.mark.django_db
class TestOneKeyARow:
    def promote(self, settings: Any) -> tuple[str, str]:
        """A row under the old key while a new one seals: their ids."""
        settings.MEMORY_ENCRYPTION_KEY = old = key()
        old_id = get_keyring().sealing.key_id
        remember(ALICE, "d", "text", metadata={"k": 1})
        settings.MEMORY_ENCRYPTION_KEY, settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = key(), [old]
        return old_id, get_keyring().sealing.key_id

    def test_assigning_one_column_reseals_its_siblings(self, settings: Any) -> None:
        _, new_id = self.promote(settings)
        with tenant_transaction(ALICE):
            row = stored()
            row.text = "changed"
            row.save(update_fields=["text_cipher"])
        settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = []
        with tenant_transaction(ALICE):
            row = stored()
            assert (row.text, row.metadata, row.enc_key_id) == ("changed", {"k": 1}, new_id)
            assert row.embedding.shape == (DIM,)

    def test_saving_another_column_leaves_the_seals_alone(self, settings: Any) -> None:
        old_id, _ = self.promote(settings)
        with tenant_transaction(ALICE):
            row = stored()
            row.chunk_index = 7
            row.save(update_fields=["chunk_index"])
            assert stored().enc_key_id == old_id

    def test_a_row_whose_key_is_gone_names_the_key_and_the_row(self, settings: Any) -> None:
        old_id, _ = self.promote(settings)
        settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = []
        with tenant_transaction(ALICE):
            row = stored()
            with pytest.raises(UnknownKeyId) as caught:
                _ = row.text
        assert old_id in str(caught.value) and str(row.id) in str(caught.value)
        assert row.user_hash not in str(caught.value)

    def test_a_wrong_hint_still_opens(self) -> None:
        remember(ALICE, "d", "text")
        with tenant_transaction(ALICE):
            MemoryChunk.objects.update(enc_key_id="00000000")
            assert stored().text == "text"

    def test_a_changed_byte_is_an_integrity_failure_that_tells_no_content(self) -> None:
        remember(ALICE, "d", SECRET)
        with tenant_transaction(ALICE):
            row = stored()
            blob = bytearray(row.text_cipher)
            blob[-1] ^= 1
            row.text_cipher = SealedBytes(blob)
            with pytest.raises(IntegrityFailure, match="text_cipher of memorychunk") as caught:
                _ = row.text
        assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.django_db
def test_create_binds_the_row_to_the_open_door() -> None:
    with tenant_transaction(ALICE):
        row = MemoryChunk.objects.create(
            doc_id="d", chunk_index=0, text="hello", metadata={}, embedding=vector_of("hello")
        )
        assert row.user_hash == hmac_user(ALICE)
        assert stored().text == "hello"


@pytest.mark.django_db
def test_update_or_create_seals() -> None:
    with tenant_transaction(ALICE):
        defaults = {"text": "hello", "metadata": {}, "embedding": vector_of("hello")}
        MemoryChunk.objects.update_or_create(doc_id="d", chunk_index=0, defaults=defaults)
        MemoryChunk.objects.update_or_create(doc_id="d", chunk_index=0, defaults={**defaults, "text": "changed"})
        assert stored().text == "changed"
