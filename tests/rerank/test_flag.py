import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from rerank import flag, get_cross_encoder, rerank, rerank_now, runtime
from rerank.models import SwitchChange
from rerank.outcomes import ModelUnavailable, SkipReason
from tests.inference.factories import FakeClock
from tests.rerank.factories import FakeBackend, serve_with


def never_load() -> FakeBackend:
    raise AssertionError("the cross-encoder was loaded")


def move(enabled: bool, name: str = "op") -> None:
    SwitchChange.objects.create(enabled=enabled, changed_by_name=name)


class TestFeatureFlag:
    def test_false_in_the_environment_never_loads(self, settings: Settings) -> None:
        settings.RERANK_ENABLED = False
        served = runtime.reset(runtime.Runtime(load=never_load))
        assert rerank_now("q", ["a", "b"]).skip_reason is SkipReason.DISABLED
        assert [result.text for result in async_to_sync(rerank)("q", ["a", "b"])] == ["a", "b"]
        with pytest.raises(ModelUnavailable, match="RERANK_ENABLED"):
            get_cross_encoder()
        assert served.status is runtime.Status.IDLE

    def test_switched_off_never_loads_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flag, "switch", flag.Switch(read=lambda: False))
        served = runtime.reset(runtime.Runtime(load=never_load))
        assert rerank_now("q", ["a"]).skip_reason is SkipReason.DISABLED
        assert served.status is runtime.Status.IDLE

    @pytest.mark.django_db
    def test_the_environment_wins_over_the_switch(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flag, "switch", flag.Switch())
        move(enabled=True)
        assert flag.is_enabled()
        settings.RERANK_ENABLED = False
        assert not flag.is_enabled()
        assert not async_to_sync(flag.ais_enabled)()

    @pytest.mark.django_db
    def test_every_process_follows_within_five_seconds(self) -> None:
        """Each process has a memory of its own; nothing but the database connects these two."""
        clocks = FakeClock(), FakeClock()
        here, there = (flag.Switch(clock=clock) for clock in clocks)
        assert here.is_on() and there.is_on()  # nobody ever moved it: on
        move(enabled=False)
        move(enabled=True)
        move(enabled=False)
        for clock in clocks:
            clock.advance(4.9)
        assert not here.is_on() and not there.is_on()

    @pytest.mark.django_db
    def test_it_is_read_at_most_every_two_seconds(self, django_assert_num_queries: object) -> None:
        clock = FakeClock()
        switch = flag.Switch(clock=clock)
        with django_assert_num_queries(2):  # type: ignore[operator]
            for _ in range(100):
                switch.is_on()
                clock.advance(0.03)

    def test_unreadable_it_stays_where_it_was(self, caplog: pytest.LogCaptureFixture) -> None:
        clock, answers = FakeClock(), iter([False])
        switch = flag.Switch(read=lambda: next(answers), clock=clock)
        assert not switch.is_on()
        clock.advance(3)
        with caplog.at_level(logging.WARNING):
            assert not switch.is_on()
        assert "cannot be read" in caplog.text

    @pytest.mark.django_db
    def test_read_from_a_coroutine_and_followed_at_once_where_it_was_moved(
        self, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
    ) -> None:
        monkeypatch.setattr(flag, "switch", flag.Switch())
        serve_with(FakeBackend())
        assert async_to_sync(rerank)("q", ["a =1", "b =2"])[0].text == "b =2"
        with django_capture_on_commit_callbacks(execute=True):
            move(enabled=False)
        assert async_to_sync(rerank)("q", ["a =1", "b =2"])[0].text == "a =1"

    @pytest.mark.django_db
    def test_history_cannot_be_rewritten(self) -> None:
        move(enabled=False)
        change = SwitchChange.objects.get()
        change.enabled = True
        with pytest.raises(TypeError):
            change.save()


@pytest.mark.django_db
class TestAdmin:
    @pytest.fixture
    def client(self) -> Client:
        client = Client()
        client.force_login(User.objects.create_superuser("olga", password="x"))
        return client

    def test_moving_the_switch_records_who_and_when(self, client: Client, settings: Settings) -> None:
        settings.SECURE_SSL_REDIRECT = False
        response = client.post(reverse("admin:rerank_switchchange_add"), {"note": "GPU is being replaced"})
        assert response.status_code == 302
        change = SwitchChange.objects.get()
        assert (change.enabled, change.changed_by_name, change.note) == (False, "olga", "GPU is being replaced")
        assert change.changed_by is not None and change.changed_at is not None
        assert not flag.read_switch()

    def test_the_page_shows_state_and_history_and_offers_no_change(self, client: Client, settings: Settings) -> None:
        settings.SECURE_SSL_REDIRECT = False
        serve_with(FakeBackend())
        move(enabled=False, name="olga")
        page = client.get(reverse("admin:rerank_switchchange_changelist")).content.decode()
        assert "breaker closed" in page and "olga" in page
        url = reverse("admin:rerank_switchchange_change", args=[SwitchChange.objects.get().pk])
        assert client.post(url, {"enabled": "on"}).status_code == 403
        assert client.post(reverse("admin:rerank_switchchange_delete", args=[1])).status_code in (302, 403)
        assert SwitchChange.objects.count() == 1
