"""verify_integrity finds what is wrong, names it by tenant prefix and row, and shows nothing else."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from keys.generation import generate_key
from memory.index.keywords import sparse
from memory.index.reindexing import reindex_tenant
from memory.models import MemoryChunk, MemoryVector
from memory.rls import tenant_transaction
from memory.rotation import findings, row_integrity
from memory.rotation.findings import (
    COLUMNS,
    COUNT,
    EXPIRING,
    KEYWORDS,
    KNOWN_TWICE,
    LABELS,
    ORPHANS,
    POSTINGS,
    UNKNOWN_KEY,
    UNREADABLE,
    USER_ID,
    VECTOR,
)
from memory.rotation.integrity import inspect_all
from memory.security import user_hashes
from tests.factories import ALICE, BOB, remember
from tests.memory.rotation.hmac_rotating import promoted

pytestmark = pytest.mark.django_db(transaction=True)

FLIP = "set_byte({0}, 20, get_byte({0}, 20) # 1)"


@pytest.fixture(autouse=True)
def _two_users(readable_names: None) -> None:
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


@pytest.mark.parametrize(
    "wrong", ["NULL", "(SELECT lexical FROM memory_vectors WHERE chunk_index = 1)", "lexical * lexical"]
)
def test_keywords_that_are_not_the_texts(wrong: str) -> None:
    if "*" in wrong:  # the right terms with other weights
        with tenant_transaction(ALICE):
            lexical = MemoryVector.objects.get(chunk_index=0).lexical
        heavier = {index: 2 * value for index, value in zip(lexical.indices(), lexical.values(), strict=True)}
        damage("UPDATE memory_vectors SET lexical = %s WHERE chunk_index = 0", sparse(heavier))
    else:
        damage(f"UPDATE memory_vectors SET lexical = {wrong} WHERE chunk_index = 0")
    assert found() == [(KEYWORDS, prefix())]


@pytest.mark.parametrize("wrong", ["'{}'", "labels || 1::bigint"])
def test_labels_that_are_not_the_metadatas(wrong: str, settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = ["room"]
    remember("person:3", "diary", "Venus", metadata={"room": "attic"})
    assert found() == []
    with tenant_transaction("person:3"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE memory_vectors SET labels = {wrong}")
    assert [kind for kind, _ in found()] == [LABELS]


ONE = "ctid = (SELECT ctid FROM memory_terms ORDER BY term LIMIT 1)"


@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM memory_terms WHERE {ONE}",
        f"UPDATE memory_terms SET weight = weight + 1 WHERE {ONE}",
        f"UPDATE memory_terms SET term = 77 WHERE {ONE}",
        "UPDATE memory_vectors SET outgrown = false WHERE doc_id = 'more'",
    ],
    ids=["one missing", "another weight", "another term", "of a row that is still scanned"],
)
def test_postings_that_are_not_the_texts(statement: str, settings: Any) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 1
    remember(ALICE, "more", "Vostok")
    assert found() == []
    damage(statement)
    assert found() == [(POSTINGS, prefix())]


def test_findings_are_counted_and_only_the_first_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "MOST_KEPT", 2)
    remember(ALICE, "more", "Vostok", "Voskhod", "Soyuz")
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute(f"UPDATE memory_chunks SET text_cipher = {FLIP.format('text_cipher')}")
    seen = inspect_all()
    assert (seen.found, len(seen.findings)) == (5, 2)
    out = io.StringIO()
    with pytest.raises(CommandError, match="^5 things"):
        call_command("verify_integrity", stdout=out)
    assert out.getvalue().count("unreadable: ") == 2
    assert "… and 3 more." in out.getvalue()


def test_a_reindex_in_the_middle_is_no_damage(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are compared under the index settings that are recorded when they are read."""
    monkeypatch.setattr(row_integrity, "ROWS_A_READ", 1)
    settings.MEMORY_VECTOR_ROTATION = False
    reindexed: list[int] = []

    def reindex(rows: int) -> None:
        if not reindexed:
            reindexed.append(rows)
            for user_id in (ALICE, BOB):
                reindex_tenant(str(user_hashes(user_id)[0]))

    assert inspect_all(advance=reindex).findings == []
    assert reindexed


def test_a_wrong_count() -> None:
    damage("UPDATE tenants SET chunk_count = 7")
    assert found() == [(COUNT, prefix())]


def test_rows_that_expire_of_a_tenant_that_says_none_does() -> None:
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(chunk_index=0).update(expires_at=datetime(2999, 1, 1, tzinfo=UTC))
    damage("UPDATE tenants SET expiring = false")
    assert found() == [(EXPIRING, prefix())]
    damage("UPDATE tenants SET expiring = true")
    assert found() == []


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
    seen = {
        "sample": 1.0,
        "tenants": 2,
        "rows": 3,
        "drifted": 0,
        "without_mac": 0,
        "without_set": 0,
        "found": 0,
        "findings": [],
    }
    assert json.loads(out.getvalue()) == seen


@pytest.mark.parametrize("share", ["0", "2", "some"])
def test_the_command_refuses_a_share_that_is_none(share: str) -> None:
    with pytest.raises(CommandError, match="0 and 1|at most 1"):
        call_command("verify_integrity", "--sample", share)
