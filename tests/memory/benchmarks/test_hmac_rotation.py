"""The benchmark of the HMAC rotation, small: it measures, leaves nothing, and its targets can be missed."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks import hmac_rotation
from tests.memory.hmac_rotating import hashes_in_rows
from tests.memory.memories import ALICE, remember

pytestmark = pytest.mark.django_db(transaction=True)


def test_measures_both_moves_and_leaves_other_users_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac_rotation, "IDLE_SECONDS", 0.5)
    remember(ALICE, "diary", "Apollo")
    before = hashes_in_rows()
    out = io.StringIO()
    call_command(
        "benchmark_hmac_rotation", "--rows", "40", "--tenants", "4", "--words", "20", "--batch", "8", "--json",
        "-v", "0", stdout=out,
    )  # fmt: skip
    report = json.loads(out.getvalue())
    quiet, served, verified = report["results"]
    assert quiet["rows"] == served["rows"] == 40
    assert (served["errors"], served["lost"], verified["findings"]) == (0, 0, 0)
    assert verified["rows"] >= 40
    assert len(report["targets"]) == 4
    assert hashes_in_rows() == before


def test_targets_can_be_missed() -> None:
    found = hmac_rotation.targets({"rows_s": 1499}, {"errors": 1, "lost": 1}, {"findings": 1})
    assert [target.ok for target in found] == [False] * 4


def test_refuses_fewer_rows_than_tenants() -> None:
    with pytest.raises(CommandError, match="at least"):
        call_command("benchmark_hmac_rotation", "--rows", "3", "--tenants", "4")
