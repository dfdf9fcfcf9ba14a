"""The service measured from outside, with a real server on the test database."""

import pytest
from django.contrib.auth.models import User

from memory.benchmarks.http import Plan, accounts, measure_http, targets
from memory.benchmarks.server import ServerNotReady, running_server
from memory.rls import tenant_transaction
from tests.children import child_environment
from tests.factories import recall, remember


@pytest.mark.django_db(transaction=True)
def test_every_kind_of_work_is_answered_and_nothing_stays() -> None:
    environment = {**child_environment(), "WEB_CONCURRENCY": "1"}
    report = measure_http(
        Plan(sizes=(8,), clients=(1, 2), seconds=0.3, bulk_bytes=8_192, environment=environment), verbosity=0
    )
    assert {row["work"] for row in report.results} == {
        *("query, plain", "query, reranked", "index, short", "index, long"),
        *("read one", "change its metadata", "query beside bulk", "memory of all processes"),
        *("index, short, async", "index, long, async", "memory beside bulk", "bulk"),
        *("index, short, beside keys", "index, short, with a key", "query, beside MCP", "search_memories by MCP"),
    }
    for row in report.results:
        assert row["failed"] == 0
        if row["clients"] and row["work"] != "bulk":  # which hangs up, perhaps before its first answer
            assert row["p50_ms"] > 0 and row["per_s"] > 0
    assert [target.name for target in report.targets] == [
        "answers that failed",
        "8 rows: p95 beside bulk / alone",
        "p50 of changing metadata / reading",
        "p50 of index with an Idempotency-Key, beyond one without",
        "8 rows: p50 by MCP / by the JSON API",
    ]
    assert not User.objects.filter(username__startswith="benchmark-").exists()


@pytest.mark.django_db(transaction=True)
def test_the_accounts_and_their_memories_are_gone_at_the_end() -> None:
    with accounts(1) as (account,):
        remember(account.user_id, "a", "one")
        assert recall(account.user_id, "one")
    with tenant_transaction(account.user_id):
        assert not recall(account.user_id, "one")
    assert not User.objects.exists()


def test_an_answer_that_failed_is_a_target_missed() -> None:
    row = {"work": "query, plain", "tenant_rows": 8, "clients": 1, "p95_ms": 1.0, "failed": 1}
    failed, beside = targets([row, {**row, "work": "query beside bulk", "p95_ms": 4.0}])
    assert not failed.ok and not beside.ok


def test_chromas_server_is_a_target_for_small_tenants_only() -> None:
    ours = {"work": "query, plain", "tenant_rows": 100, "clients": 1, "p50_ms": 2.0, "p95_ms": 3.0, "failed": 0}
    theirs = {**ours, "work": "query, chroma", "p50_ms": 1.0}
    large = [{**row, "tenant_rows": 10_000} for row in (ours, theirs)]
    _, beside = targets([ours, theirs, *large])
    assert (beside.name, beside.value, beside.ok) == ("100 rows: p50 / chroma's server's", 2.0, False)


def test_a_server_that_does_not_start_shows_its_log() -> None:
    with (
        pytest.raises(ServerNotReady, match="(?s)stopped while starting.*Worker failed to boot"),
        running_server(SECRET_KEY=""),
    ):
        pass
