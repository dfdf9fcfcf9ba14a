"""The rotation benchmark at a toy size: what it reports, and that it leaves nothing behind."""

import json
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from keys import nonces
from keys.keyring import get_keyring
from keys.models import KeyRecord, RotationRun
from memory.benchmarks import rotation_beside_load
from tests.memory.rotation.rotating import assert_all_readable, key_ids, store_all

pytestmark = pytest.mark.django_db(transaction=True)


def report(*arguments: str) -> dict:
    out = StringIO()
    call_command("benchmark_rotation", "--json", "-v0", *arguments, stdout=out)
    return json.loads(out.getvalue())


@pytest.mark.parametrize("rotations", [1, 2])
def test_it_reports_and_leaves_everything_as_it_was(rotations: int) -> None:
    nonces.forget()  # of keys that tests before this one sealed under, which would be reported again
    store_all()
    before = key_ids()
    found = report("--rows", "60", "--tenants", "2", "--batch", "10", "--rotations", str(rotations))
    assert [row["rows"] for row in found["results"][:rotations]] == [60] * rotations
    assert {target["name"] for target in found["targets"]} >= {"re-sealing: ratio to a bare UPDATE"}
    # Nobody's rows were touched, no run and no key is left, and the sealing key is what it was.
    assert key_ids() == before == {get_keyring().sealing.key_id}
    assert_all_readable()
    assert not RotationRun.objects.exists()
    assert not KeyRecord.objects.exclude(key_id__in=before).exists()
    assert settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED == []


def test_beside_a_load_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation_beside_load, "IDLE_SECONDS", 0.3)
    found = report("--beside-load", "--rows", "60", "--tenants", "2", "--max-rate", "100")
    figures = {target["name"]: target["value"] for target in found["targets"]}
    assert figures["errors beside a rotation"] == figures["writes lost beside a rotation"] == 0


def test_fewer_rows_than_tenants_are_refused() -> None:
    with pytest.raises(CommandError, match="at least 1"):
        report("--rows", "1", "--tenants", "2")
