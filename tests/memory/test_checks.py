"""System checks of the memory: each misconfiguration by its id, with a hint."""

from typing import Any

import pytest
from django.db import models
from django.test.utils import isolate_apps

from memory import checks
from memory.tenancy.managers import TenantManager
from memory.tenancy.tenant_model import TenantModel


def ids(errors: Any) -> list[str]:
    found = list(errors)
    assert all(error.hint for error in found)
    return [error.id for error in found]


def test_the_project_passes() -> None:
    assert checks.check_tenant_models() == checks.check_limits() == checks.check_middleware() == []


@pytest.mark.parametrize("dimension", [0, 63, 1025])
def test_a_dimension_that_does_not_fit_a_page(settings: Any, dimension: int) -> None:
    settings.MEMORY_EMBEDDING_DIM = dimension
    assert ids(checks.check_limits()) == [checks.E_DIMENSION]


@pytest.mark.parametrize("name", checks.RANGES)
def test_numbers_out_of_range(settings: Any, name: str) -> None:
    assert ids(checks.check_ranges()) == []
    for wrong in (checks.RANGES[name][0] - 1, checks.RANGES[name][1] + 1):
        setattr(settings, name, wrong)
        assert ids(checks.check_ranges()) == [checks.E_RANGE]


@pytest.mark.parametrize(("language", "found"), [("none", []), ("polish", []), ("englisch", [checks.E_LANGUAGE])])
def test_a_language_nobody_knows(settings: Any, language: str, found: list[str]) -> None:
    settings.MEMORY_LEXICAL_LANGUAGE = language
    assert ids(checks.check_language()) == found


def test_chunks_too_short_to_mean_anything(settings: Any) -> None:
    settings.MEMORY_CHUNK_TOKENS = 8
    assert ids(checks.check_limits()) == [checks.E_CHUNK_TOKENS]


@pytest.mark.parametrize(("name", "weight"), [("LEXICAL", -0.1), ("NEIGHBOUR", -0.1), ("NEIGHBOUR", 1.1)])
def test_weights_that_would_turn_the_order_round(settings: Any, name: str, weight: float) -> None:
    setattr(settings, f"MEMORY_{name}_WEIGHT", weight)
    assert ids(checks.check_limits()) == [checks.E_WEIGHTS]


@pytest.mark.parametrize("change", [lambda m: m.remove(checks.MIDDLEWARE), lambda m: m.insert(0, m.pop())])
def test_the_middleware_missing_or_too_early(settings: Any, change: Any) -> None:
    middleware = [name for name in settings.MIDDLEWARE if name != checks.MIDDLEWARE] + [checks.MIDDLEWARE]
    change(middleware)
    settings.MIDDLEWARE = middleware
    assert ids(checks.check_middleware()) == [checks.E_MIDDLEWARE]


@isolate_apps("memory")
def test_a_model_with_a_user_hash_that_anybody_can_reach() -> None:
    class Loose(models.Model):
        user_hash = models.TextField(primary_key=True)

        class Meta:
            app_label = "memory"

        def __str__(self) -> str:
            return ""

    assert ids(checks._check_model(Loose)) == [checks.E_NOT_TENANT_MANAGED]


@isolate_apps("memory")
def test_a_tenant_model_with_another_manager() -> None:
    class Other(TenantModel):
        pk = models.CompositePrimaryKey("user_hash", "id")
        id = models.UUIDField()
        objects = models.Manager()

        class Meta(TenantModel.Meta):
            app_label = "memory"
            base_manager_name = "objects"

        def __str__(self) -> str:
            return ""

    assert checks.E_NOT_TENANT_MANAGED in ids(checks._check_model(Other))


@isolate_apps("memory")
def test_keys_that_do_not_start_with_the_tenant() -> None:
    class Global(TenantModel):
        id = models.UUIDField(primary_key=True)
        name = models.TextField(unique=True)
        objects = TenantManager()

        class Meta(TenantModel.Meta):
            app_label = "memory"
            constraints = [models.UniqueConstraint(fields=["name", "user_hash"], name="wrong_way_round")]

        def __str__(self) -> str:
            return ""

    assert ids(checks._check_model(Global)) == [checks.E_KEY_WITHOUT_TENANT] * 3
