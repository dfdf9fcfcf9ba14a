"""Sealing: what opens, what must not, and the bytes it is made of."""

import base64
import copy
import hashlib
import pickle
import re
import secrets
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from asgiref.sync import async_to_sync
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography_vectors import open_vector_file
from django.db import connection, connections
from hypothesis import given
from hypothesis import strategies as st

from keys.keyring import Key
from memory import rls, security
from memory.exceptions import InvalidUserId
from memory.indexing import index_memory_chunk
from memory.models import MemoryChunk
from memory.rls import set_rls_context, tenant_transaction
from memory.security import NONCE_BYTES, OVERHEAD, TAG_BYTES, aad_for, hmac_user, open_sealed, seal
from tests.factories import ALICE, BOB, key, recall, remember, texts, vector_of


class TestSealRoundTrip:
    @given(plaintext=st.binary(max_size=4096), aad=st.binary(max_size=128))
    def test_opens_to_what_was_sealed(self, plaintext: bytes, aad: bytes) -> None:
        assert open_sealed(seal(plaintext, aad), aad) == plaintext

    @pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1024, 1 << 20])
    def test_a_blob_is_28_bytes_longer(self, size: int) -> None:
        assert len(seal(secrets.token_bytes(size))) == size + OVERHEAD == size + 28

    def test_two_seals_of_one_text_differ(self) -> None:
        assert len({seal(b"same") for _ in range(1000)}) == 1000

    def test_a_blob_opens_with_ten_lines_of_cryptography_alone(self, settings: Any) -> None:
        settings.MEMORY_ENCRYPTION_KEY = written_down = key()
        blob = seal("grüße".encode(), b"a" * 64)
        nonce, rest = blob[:12], blob[12:]
        assert AESGCM(base64.b64decode(written_down)).decrypt(nonce, rest, b"a" * 64).decode() == "grüße"

    def test_an_accepted_key_opens_and_never_seals(self, settings: Any) -> None:
        settings.MEMORY_ENCRYPTION_KEY = old = key()
        blob = seal(b"text")
        settings.MEMORY_ENCRYPTION_KEY, settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = key(), [key(), old]
        assert open_sealed(blob) == b"text"
        settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = []
        with pytest.raises(InvalidTag):
            open_sealed(blob)

    def test_order_of_accepted_keys_does_not_matter(self, settings: Any) -> None:
        old, other, current = key(), key(), key()
        settings.MEMORY_ENCRYPTION_KEY = old
        blob = seal(b"text")
        settings.MEMORY_ENCRYPTION_KEY = current
        for accepted in ([old, other], [other, old]):
            settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED = accepted
            assert open_sealed(blob) == b"text"
            assert Key(base64.b64decode(current)).cipher.decrypt((new := seal(b"new"))[:12], new[12:], b"") == b"new"


class TestAADBinding:
    def test_seal_aad_binding(self) -> None:
        """A seal opens under the AAD it was made with, and under no other, none included."""
        blob = seal(b"text", aad=b"tenant a")
        assert open_sealed(blob, aad=b"tenant a") == b"text"
        for other in (b"tenant b", b"tenant a ", b""):
            with pytest.raises(InvalidTag):
                open_sealed(blob, aad=other)
        with pytest.raises(InvalidTag):
            open_sealed(seal(b"text"), aad=b"tenant a")

    def test_aad_binding_prevents_cross_tenant_decryption(self) -> None:
        blob = seal(b"Alice's diary", aad_for(hmac_user(ALICE)))
        with pytest.raises(InvalidTag):
            open_sealed(blob, aad_for(hmac_user(BOB)))
        assert open_sealed(blob, aad_for(hmac_user(ALICE))) == b"Alice's diary"

    @pytest.mark.parametrize("wrong", [b"", b"a" * 63, b"a" * 65, b"A" * 64, b"b" + b"a" * 63])
    def test_any_other_aad_fails(self, wrong: bytes) -> None:
        with pytest.raises(InvalidTag):
            open_sealed(seal(b"text", b"a" * 64), wrong)

    def test_the_aad_of_a_tenant_is_its_hash_in_ascii(self) -> None:
        assert re.fullmatch(rb"[0-9a-f]{64}", aad_for(hmac_user(ALICE)))


def _flipped(blob: bytes, position: int) -> bytes:
    return blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]


class TestTamperDetection:
    def test_tampered_ciphertext(self) -> None:
        blob = seal(b"text", b"aad")
        with pytest.raises(InvalidTag):
            open_sealed(_flipped(blob, NONCE_BYTES), b"aad")

    def test_tampered_nonce(self) -> None:
        blob = seal(b"text", b"aad")
        with pytest.raises(InvalidTag):
            open_sealed(_flipped(blob, 0), b"aad")

    def test_tampered_tag(self) -> None:
        blob = seal(b"text", b"aad")
        with pytest.raises(InvalidTag):
            open_sealed(_flipped(blob, len(blob) - TAG_BYTES), b"aad")

    @given(position=st.integers(0, 8 * (28 + 40) - 1))
    def test_every_flipped_bit_is_noticed(self, position: int) -> None:
        blob = bytearray(seal(b"x" * 40, b"aad"))
        blob[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidTag):
            open_sealed(bytes(blob), b"aad")

    @pytest.mark.parametrize("length", range(28))
    def test_a_blob_under_28_bytes_is_an_invalid_tag(self, length: int) -> None:
        with pytest.raises(InvalidTag):
            open_sealed(seal(b"")[:length])

    @pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[12:] + b[:12]])
    def test_a_blob_cut_extended_or_turned_is_noticed(self, change: Any) -> None:
        with pytest.raises(InvalidTag):
            open_sealed(change(seal(b"text")))

    def test_the_error_says_nothing_about_the_content(self) -> None:
        with pytest.raises(InvalidTag) as caught:
            open_sealed(seal(b"PLANTED-SECRET")[:-1])
        assert str(caught.value) == "" and "PLANTED" not in repr(caught.value)


class TestThroughput:
    """The specification's floor, and nothing tighter: `manage.py benchmark_crypto` has the figures."""

    @pytest.mark.parametrize("operation", ["seal", "open_sealed"])
    def test_5000_operations_a_second_with_p99_under_a_millisecond(self, operation: str) -> None:
        plaintext, aad = secrets.token_bytes(1024), b"a" * 64
        blob = seal(plaintext, aad)
        call = (lambda: seal(plaintext, aad)) if operation == "seal" else (lambda: open_sealed(blob, aad))
        durations = [_timed(call) for _ in range(10_000)]
        percentiles = statistics.quantiles(durations, n=100)
        p50, p95, p99 = percentiles[49], percentiles[94], percentiles[98]
        print(f"{operation}: p50 {p50 * 1e6:.0f} µs, p95 {p95 * 1e6:.0f} µs, p99 {p99 * 1e6:.0f} µs")
        assert 1 / statistics.mean(durations) > 5_000
        assert p50 <= p95 <= p99 < 0.001


def _timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@pytest.mark.django_db(transaction=True)
class TestIntegration:
    def test_index_memory_chunk_stores_seals_that_open_for_their_user_alone(self) -> None:
        async def stored() -> tuple[Any, ...] | None:
            async with await connections["default"].connect_async() as conn:  # type: ignore[attr-defined]
                await index_memory_chunk(
                    conn, ALICE, "doc", "chat", "PLANTED-TEXT", vector_of("text"), {"k": "PLANTED-META"}
                )
                async with set_rls_context(conn, ALICE):
                    columns = "user_hash, text_cipher, meta_cipher, emb_cipher"
                    cursor = await conn.execute(f"SELECT {columns} FROM memory_chunks")
                    return await cursor.fetchone()

        row = async_to_sync(stored)()
        assert row is not None
        user_hash, *seals = row
        assert user_hash == hmac_user(ALICE)
        assert not any(b"PLANTED" in blob for blob in seals)
        text, metadata, embedding = (open_sealed(blob, aad_for(user_hash)) for blob in seals)
        assert (text, metadata) == (b"PLANTED-TEXT", b'{"k":"PLANTED-META"}')
        assert np.array_equal(np.frombuffer(embedding, dtype="<f4"), vector_of("text"))
        for blob in seals:
            with pytest.raises(InvalidTag):
                open_sealed(blob, aad_for(hmac_user(BOB)))

    def test_the_table_holds_ciphertext_only(self) -> None:
        remember(ALICE, "doc", "PLANTED-TEXT", metadata={"k": "PLANTED-META"})
        with tenant_transaction(ALICE), connection.cursor() as cursor:
            cursor.execute("SELECT to_jsonb(c)::text, c.text_cipher, c.meta_cipher, c.emb_cipher FROM memory_chunks c")
            row, *ciphers = cursor.fetchone()
            cursor.execute("SELECT to_jsonb(t)::text FROM tenants t")
            (tenant,) = cursor.fetchone()
        for planted in ("PLANTED", ALICE, b"PLANTED".hex(), ALICE.encode().hex()):
            assert planted not in row and planted not in tenant
            assert not any(planted.encode() in bytes(cipher) for cipher in ciphers)

    def test_every_column_opens_with_cryptography_alone(self, settings: Any) -> None:
        settings.MEMORY_ENCRYPTION_KEY = written_down = key()
        remember(ALICE, "doc", "hello", metadata={"k": 1})
        with tenant_transaction(ALICE), connection.cursor() as cursor:
            cursor.execute("SELECT user_hash, text_cipher, meta_cipher FROM memory_chunks")
            user_hash, text, metadata = cursor.fetchone()
        cipher = AESGCM(base64.b64decode(written_down))
        assert cipher.decrypt(text[:12], bytes(text[12:]), user_hash.encode()) == b"hello"
        assert cipher.decrypt(metadata[:12], bytes(metadata[12:]), user_hash.encode()) == b'{"k":1}'

    def test_a_row_moved_to_another_user_does_not_open(self) -> None:
        (chunk_id,) = remember(BOB, "doc", "Bob's own")
        (stolen_id,) = remember(ALICE, "doc", "Alice's diary")
        with tenant_transaction(ALICE):
            stolen = MemoryChunk.objects.get(id=stolen_id).text_cipher
        with tenant_transaction(BOB):
            assert MemoryChunk.objects.filter(id=chunk_id).update(text_cipher=stolen) == 1
            with pytest.raises(InvalidTag):
                _ = MemoryChunk.objects.get(id=chunk_id).text
        assert texts(recall(BOB, "Alice's diary")) == []

    def test_it_comes_back(self) -> None:
        remember(ALICE, "doc", "first", "second")
        assert texts(recall(ALICE, "second")) == ["second", "first"]


def _nist_vectors() -> Iterator[dict[str, bytes]]:
    """NIST CAVP gcmEncryptExtIV256.rsp: the cases with our nonce and tag lengths."""
    section: dict[str, str] = {}
    case: dict[str, bytes] = {}
    with open_vector_file("ciphers/AES/GCM/gcmEncryptExtIV256.rsp", "r") as file:
        for line in file:
            if header := re.match(r"\[(\w+) = (\d+)\]", line):
                section[header[1]] = header[2]
            elif pair := re.match(r"(\w+) = ?([0-9a-f]*)$", line.strip()):
                case[pair[1]] = bytes.fromhex(pair[2]) if pair[1] != "Count" else b""
                if pair[1] == "Tag" and (section["IVlen"], section["Taglen"]) == ("96", "128"):
                    yield dict(case)


def test_nist_vectors_pass_through_seals_own_code(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = list(_nist_vectors())
    assert len(cases) > 300
    for case in cases:
        settings.MEMORY_ENCRYPTION_KEY = base64.b64encode(case["Key"]).decode()
        blob = case["IV"] + case["CT"] + case["Tag"]
        with monkeypatch.context() as patch:
            patch.setattr(security.os, "urandom", lambda size, nonce=case["IV"]: nonce)
            assert seal(case["PT"], case["AAD"]) == blob
        assert open_sealed(blob, case["AAD"]) == case["PT"]


def test_rfc_4231_vectors_pass_through_hmac_users_own_code() -> None:
    with open_vector_file("HMAC/rfc-4231-sha256.txt", "r") as file:
        found = re.findall(r"Key = (\w+)\n(?:#.*\n)*Msg = (\w+)\nMD = (\w+)", file.read())
    assert len(found) >= 6
    texts_among_them = 0
    for material, message, digest in found:
        # HMAC (RFC 2104) hashes a key that is longer than its block and fills up a shorter one with zeros.
        rfc_key = bytes.fromhex(material)
        vector_key = Key(hashlib.sha256(rfc_key).digest() if len(rfc_key) > 64 else rfc_key.ljust(32, b"\0"))
        assert vector_key.hmac_sha256(bytes.fromhex(message)).hex().startswith(digest)
        if bytes.fromhex(message).isascii() and len(digest) == 64:
            assert security._hash_user(vector_key, bytes.fromhex(message).decode()) == digest
            texts_among_them += 1
    assert texts_among_them >= 3


class TestHmacUser:
    def test_stands_beside_the_door_too(self) -> None:
        assert rls.hmac_user is hmac_user

    @given(user_id=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60))
    def test_is_64_hex_and_deterministic(self, user_id: str) -> None:
        assert re.fullmatch("[0-9a-f]{64}", hmac_user(user_id))
        assert hmac_user(user_id) == hmac_user(user_id)

    def test_ids_that_look_alike_stay_apart(self) -> None:
        ids = ["é", "e\u0301", "a", "A", " a", "a ", "1", "01", "person:5", "service:a:5", "service:b:5"]
        assert len({hmac_user(user_id) for user_id in ids}) == len(ids)

    @pytest.mark.parametrize("bad", ["", "x" * 256, "é" * 128, "a\0b", "\ud800", 5, None, b"bytes"])
    def test_refuses_what_is_no_user_id_and_does_not_repeat_it(self, bad: Any) -> None:
        with pytest.raises(InvalidUserId) as caught:
            hmac_user(bad)
        assert not (isinstance(bad, str) and len(bad) > 2 and bad in str(caught.value))

    def test_a_hash_that_is_copied_or_pickled_still_names_its_key(self) -> None:
        made = security.user_hashes(ALICE)[0]
        for twin in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301
            assert (twin, twin.hmac_key_id) == (hmac_user(ALICE), made.hmac_key_id)

    def test_takes_255_bytes(self) -> None:
        assert hmac_user("x" * 255)
