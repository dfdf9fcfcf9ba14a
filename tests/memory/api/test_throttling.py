from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from memory import metrics
from memory.access import rates
from memory.access.rates import parse_rate
from memory.access.tokens import ServiceAccount
from tests.factories import API, api_client, make_service, make_token, make_user, person_client, vector

pytestmark = pytest.mark.django_db
MEMORIES, QUERY = f"{API}/memories", f"{API}/memories/query"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The throttle's clock, 15 seconds into a minute."""
    now = [60.0 * 1000 + 15]
    monkeypatch.setattr(rates, "timer", lambda: now[0])
    return now


def test_calls_beyond_the_rate_are_429_until_the_window_ends(settings: Any, clock: list[float]) -> None:
    settings.MEMORY_THROTTLE_OTHER = "2/min"
    client = person_client()
    assert [client.get(MEMORIES).status_code for _ in range(3)] == [200, 200, 429]
    refused = client.get(MEMORIES)
    assert refused["Retry-After"] == "45"
    assert refused["Content-Type"] == "application/problem+json"
    clock[0] += 45
    assert client.get(MEMORIES).status_code == 200


def test_each_identity_has_its_own_count(settings: Any) -> None:
    settings.MEMORY_THROTTLE_OTHER = "1/min"
    secret = make_service()
    for client in (person_client("alice"), person_client("bob"), *(api_client(secret, user=u) for u in "ab")):
        assert [client.get(MEMORIES).status_code for _ in range(2)] == [200, 429]


def test_a_service_does_not_go_round_its_tokens_limit_by_naming_users(settings: Any) -> None:
    settings.MEMORY_THROTTLE_TOKEN = "3/min"
    secret, other = make_service("first"), make_service("second")
    statuses = [api_client(secret, user=f"user-{number}").get(MEMORIES).status_code for number in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert api_client(other, user="user-1").get(MEMORIES).status_code == 200


def test_wrong_credentials_are_counted_by_address_and_valid_ones_pass(settings: Any) -> None:
    settings.MEMORY_THROTTLE_FAILED_AUTH = "2/min"
    failures = metrics.AUTHENTICATION_FAILURES._value.get()
    valid = make_token(make_user())
    statuses = [api_client(f"smem_{number}").get(MEMORIES).status_code for number in range(3)]
    assert statuses == [401, 401, 429]
    assert metrics.AUTHENTICATION_FAILURES._value.get() == failures + 3
    assert api_client("smem_wrong").get(MEMORIES)["Retry-After"] == "45"
    assert api_client(valid).get(MEMORIES).status_code == 200
    elsewhere = api_client("smem_wrong").get(MEMORIES, REMOTE_ADDR="192.0.2.7")
    assert elsewhere.status_code == 401


def test_tokens_of_one_person_share_a_count(settings: Any) -> None:
    settings.MEMORY_THROTTLE_OTHER = "1/min"
    user = make_user()
    assert api_client(make_token(user)).get(MEMORIES).status_code == 200
    assert api_client(make_token(user)).get(MEMORIES).status_code == 429


def test_index_and_query_have_rates_of_their_own(settings: Any) -> None:
    settings.MEMORY_THROTTLE_QUERY, settings.MEMORY_THROTTLE_INDEX = "1/min", "2/min"
    client = person_client()

    def statuses(path: str, body: dict[str, Any]) -> list[int]:
        return [client.post(path, body, content_type="application/json").status_code for _ in range(3)]

    assert statuses(QUERY, {"query": "a", "embedding": vector()}) == [200, 429, 429]
    assert statuses(f"{API}/memories/index", {"text": "a", "embedding": vector()}) == [200, 200, 429]
    assert client.get(MEMORIES).status_code == 200


def test_empty_rate_limits_nothing(settings: Any) -> None:
    settings.MEMORY_THROTTLE_OTHER = ""
    client = person_client()
    assert [client.get(MEMORIES).status_code for _ in range(3)] == [200] * 3


def test_counters_name_no_user(settings: Any) -> None:
    api_client(make_service(), user="a-telling-name").get(MEMORIES)
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(key, ' ') FROM project_cache")
        (keys,) = cursor.fetchone()
    assert "throttle:other:" in keys and "telling" not in keys


def test_cache_that_is_away_lets_calls_pass_but_a_database_that_is_away_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = person_client()

    def fail(error: Exception) -> Any:
        def count(timeouts: Any) -> Any:
            raise error

        return count

    monkeypatch.setattr(rates, "_raise", fail(ConnectionError()))
    assert client.get(MEMORIES).status_code == 200
    monkeypatch.setattr(rates, "_raise", fail(OperationalError()))
    assert client.get(MEMORIES).status_code == 503


def test_every_answer_says_what_is_left(settings: Any, clock: list[float]) -> None:
    """draft-ietf-httpapi-ratelimit-headers-10."""
    settings.MEMORY_THROTTLE_OTHER, settings.MEMORY_THROTTLE_TOKEN = "2/min", "5/h"
    client = person_client()
    first, wrong, refused = client.get(MEMORIES), client.get(f"{MEMORIES}?limit=0"), client.get(MEMORIES)
    assert [each.status_code for each in (first, wrong, refused)] == [200, 400, 429]
    for left, answer in zip(((1, 4), (0, 3), (0, 2)), (first, wrong, refused), strict=True):
        assert answer["RateLimit-Policy"] == '"other";q=2;w=60, "token";q=5;w=3600'
        assert answer["RateLimit"] == f'"other";r={left[0]};t=45, "token";r={left[1]};t={3600 - 1000 * 60 % 3600 - 15}'
    settings.MEMORY_THROTTLE_OTHER = settings.MEMORY_THROTTLE_TOKEN = ""
    assert "RateLimit" not in client.get(MEMORIES)
    settings.MEMORY_THROTTLE_OTHER = "2/min"
    assert "RateLimit" not in api_client("smem_wrong").get(MEMORIES)


def test_a_replayed_answer_says_what_is_left_now(settings: Any) -> None:
    settings.MEMORY_THROTTLE_TOKEN = ""
    client = person_client()
    body, key = {"text": "a", "embedding": vector()}, {"Idempotency-Key": "k"}
    told = [
        client.post(f"{API}/memories/index", body, content_type="application/json", headers=key)["RateLimit"]
        for _ in range(2)
    ]
    assert [each.split(";")[1] for each in told] == ["r=599", "r=598"]


def test_a_service_with_a_budget_of_its_own_has_it_for_all_of_its_tokens(settings: Any) -> None:
    settings.MEMORY_THROTTLE_TOKEN = "1/min"
    secrets = [make_service("first"), make_token(User.objects.get(username="service-first"))]
    ServiceAccount.objects.update(rate="3/min")
    answers = [api_client(secrets[number % 2], user=f"user-{number}").get(MEMORIES) for number in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    assert '"service";q=3;w=60' in answers[0]["RateLimit-Policy"]
    assert [api_client(make_service("second"), user="a").get(MEMORIES).status_code for _ in range(1)] == [200]


def test_all_budgets_of_a_call_are_counted_in_one_statement() -> None:
    client = api_client(make_service(), user="alice")
    for _ in range(2):  # the first makes the counters
        with CaptureQueriesContext(connection) as sent:
            client.get(MEMORIES)
        counting = [each["sql"] for each in sent.captured_queries if "project_cache" in each["sql"]]
        assert len(counting) == 1, counting


def test_rates_are_read() -> None:
    assert parse_rate("600/min") == (600, 60)
    assert parse_rate("1/d") == (1, 86400)
    for wrong in ("600", "²/min", "0/min", "-1/min", "x/min", "5/year", "5/"):
        with pytest.raises(ImproperlyConfigured):
            parse_rate(wrong)
