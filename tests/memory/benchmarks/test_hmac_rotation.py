"""The HMAC rotation benchmark at a toy size: what it reports, and that it leaves nothing behind."""

import json
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from memory.benchmarks import hmac_rotation
from tests.factories import ALICE, recall, remember, texts

pytestmark = pytest.mark.django_db(transaction=True)


def report(*arguments: str) -> dict:
    out = StringIO()
    call_command("benchmark_hmac_rotation", "--json", "-v0", *arguments, stdout=out)
    return json.loads(out.getvalue())


def test_it_moves_its_own_users_twice_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac_rotation, "IDLE_SECONDS", 0.3)
    remember(ALICE, "doc", "Alice's diary")
    key = settings.MEMORY_TENANT_HMAC_KEY
    found = report("--rows", "60", "--tenants", "3", "--batch", "20", "--words", "20")
    quiet, served, verified = found["results"]
    assert (quiet["move"], served["move"]) == ("quiet", "served")
    assert quiet["rows"] == 60 and verified["rows"] >= 60 and verified["findings"] == 0
    values = {target["name"]: target["value"] for target in found["targets"]}
    assert values["HMAC rotation: writes lost"] == 0
    assert values["HMAC rotation: errors of queries and writes meanwhile"] == 0
    assert key == settings.MEMORY_TENANT_HMAC_KEY and settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED == []
    assert texts(recall(ALICE, "Alice's diary")) == ["Alice's diary"]


def test_fewer_rows_than_tenants_are_refused() -> None:
    with pytest.raises(CommandError, match="at least 1"):
        report("--rows", "1", "--tenants", "2")


def test_targets_can_be_missed() -> None:
    found = hmac_rotation.targets({"rows_s": 1499}, {"errors": 1, "lost": 1}, {"findings": 1})
    assert [target.ok for target in found] == [False] * 4
