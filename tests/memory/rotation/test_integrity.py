"""verify_integrity finds what is wrong, names it by tenant prefix and row, and shows nothing else."""

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from keys.generation import generate_key
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.rotation.integrity import (
    COLUMNS,
    COUNT,
    KNOWN_TWICE,
    ORPHANS,
    UNKNOWN_KEY,
    UNREADABLE,
    USER_ID,
    VECTOR,
    inspect_all,
)
from memory.security import user_hashes
from tests.factories import ALICE, BOB, remember
from tests.memory.rotation.hmac_rotating import promoted

pytestmark = pytest.mark.django_db(transaction=True)

FLIP = "set_byte({0}, 20, get_byte({0}, 20) # 1)"


@pytest.fixture(autouse=True)
def _two_users() -> None:
    remember(ALICE, "diary", "Apollo", "Gemini")
    remember(BOB, "diary", "Mercury")


def damage(statement: str, *parameters: Any) -> None:
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        assert cursor.rowcount == 1


def prefix() -> str:
    return str(user_hashes(ALICE)[0])[:8]


def found() -> list[tuple[str, str]]:
    return [(finding.kind, finding.tenant) for finding in inspect_all().findings]


def test_nothing_is_wrong() -> None:
    seen = inspect_all()
    assert (seen.tenants, seen.rows, seen.drifted, seen.findings) == (2, 3, 0, [])


@pytest.mark.parametrize("column", ["text_cipher", "meta_cipher", "emb_cipher"])
def test_a_flipped_bit(column: str) -> None:
    damage(f"UPDATE memory_chunks SET {column} = {FLIP.format(column)} WHERE chunk_index = 1")
    with tenant_transaction(ALICE):
        row_id = str(MemoryChunk.objects.get(chunk_index=1).id)
    (finding,) = inspect_all().findings
    assert (finding.kind, finding.tenant, finding.row) == (UNREADABLE, prefix(), row_id)


@pytest.mark.parametrize("column, other", [("text", "emb"), ("meta", "text"), ("emb", "text"), ("emb", "meta")])
def test_a_seal_of_another_column(column: str, other: str) -> None:
    """It opens, for the AAD names the user alone; what is in it gives it away."""
    damage(f"UPDATE memory_chunks SET {column}_cipher = {other}_cipher WHERE chunk_index = 1")
    assert found() == [(UNREADABLE, prefix())]


@pytest.mark.parametrize("other", ["text", "emb"])
def test_a_user_id_that_is_none(other: str) -> None:
    remember(ALICE, "long", "x" * 256)
    damage(f"UPDATE tenants SET user_cipher = (SELECT {other}_cipher FROM memory_chunks WHERE doc_id = 'long')")
    assert found() == [(USER_ID, prefix())]


def test_a_vector_that_is_not_its_originals() -> None:
    damage(
        "UPDATE memory_vectors SET embedding = (SELECT embedding FROM memory_vectors WHERE chunk_index = 1)"
        " WHERE chunk_index = 0"
    )
    assert found() == [(VECTOR, prefix())]


def test_a_vector_that_is_missing() -> None:
    damage("DELETE FROM memory_vectors WHERE chunk_index = 0")
    assert found() == [(COLUMNS, prefix())]


def test_columns_that_the_index_repeats_wrongly() -> None:
    damage("UPDATE memory_vectors SET source = 'elsewhere' WHERE chunk_index = 0")
    assert found() == [(COLUMNS, prefix())]


def test_a_wrong_count() -> None:
    damage("UPDATE tenants SET chunk_count = 7")
    assert found() == [(COUNT, prefix())]


def test_a_user_id_that_does_not_open() -> None:
    damage(f"UPDATE tenants SET user_cipher = {FLIP.format('user_cipher')}")
    assert found() == [(USER_ID, prefix())]


def test_rows_of_a_hash_that_is_no_tenants() -> None:
    damage("DELETE FROM tenants")
    assert found() == [(ORPHANS, prefix())]


def test_an_encryption_key_that_is_not_held() -> None:
    with override_settings(MEMORY_ENCRYPTION_KEY=generate_key()):
        assert sorted(found()).count((UNKNOWN_KEY, prefix())) == 2
    assert found() == []


def test_an_hmac_key_that_is_not_held() -> None:
    with override_settings(MEMORY_TENANT_HMAC_KEY=generate_key()):
        assert [kind for kind, _ in found()] == [USER_ID, USER_ID]


def test_tenants_under_an_accepted_hmac_key_are_well() -> None:
    with promoted():
        assert found() == []


def test_a_user_known_twice() -> None:
    old = prefix()
    new = generate_key()
    with override_settings(MEMORY_TENANT_HMAC_KEY=new):
        remember(ALICE, "diary", "again")
    with promoted(new):
        assert found() == [(KNOWN_TWICE, old)]


def test_a_vector_is_compared_as_its_tenant_was_indexed(settings: Any) -> None:
    settings.MEMORY_VECTOR_ROTATION = False
    remember("person:3", "diary", "Venus")
    assert found() == []


def test_a_row_that_names_another_key_is_counted_and_no_failure() -> None:
    damage("UPDATE memory_chunks SET enc_key_id = 'deadbeef' WHERE chunk_index = 0")
    seen = inspect_all()
    assert (seen.drifted, seen.findings) == (1, [])


def test_a_sample_opens_some_rows_and_counts_all() -> None:
    damage("UPDATE tenants SET chunk_count = 7")
    seen = inspect_all(sample=1e-9)
    assert (seen.tenants, seen.rows, [finding.kind for finding in seen.findings]) == (2, 0, [COUNT])


def test_the_command_reports_by_tenant_prefix_and_fails() -> None:
    damage(f"UPDATE memory_chunks SET text_cipher = {FLIP.format('text_cipher')} WHERE chunk_index = 1")
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 things") as caught:
        call_command("verify_integrity", stdout=out)
    assert caught.value.returncode == 1
    assert f"unreadable: tenant {prefix()}, row " in out.getvalue()
    for secret in (ALICE, "Apollo", "Gemini", str(user_hashes(ALICE)[0])):
        assert secret not in out.getvalue()


def test_the_command_prints_one_json_object() -> None:
    out = io.StringIO()
    call_command("verify_integrity", "--json", stdout=out)
    assert json.loads(out.getvalue()) == {"sample": 1.0, "tenants": 2, "rows": 3, "drifted": 0, "findings": []}


@pytest.mark.parametrize("share", ["0", "2", "some"])
def test_the_command_refuses_a_share_that_is_none(share: str) -> None:
    with pytest.raises(CommandError, match="0 and 1|at most 1"):
        call_command("verify_integrity", "--sample", share)
