"""A scan that is sent ahead counts only if the tenant is as it was expected to be."""

from dataclasses import replace

import numpy as np
import pytest

from memory.erasure import erase_user
from memory.index.recipe import configured
from memory.index.tail import index_tail
from memory.rls import tenant_transaction
from memory.search import candidates
from tests.factories import drawn_documents, store_drawn
from tests.memory.search.searches import found, path_of

ALICE = "person:1"

pytestmark = pytest.mark.django_db


@pytest.fixture
def rng():
    return np.random.default_rng(9)


@pytest.fixture
def expectation(monkeypatch):
    """Sets by which recipe the tenant is believed to be indexed, and whether its rows are believed to expire."""
    monkeypatch.setattr(candidates, "_states", {})

    def expect(recipe, *, expiring=False):
        with tenant_transaction(ALICE) as user_hash:
            candidates._states[user_hash] = candidates.TenantState(1, recipe, expiring, graph_is_valid=True)

    return expect


@pytest.mark.parametrize(
    "changes", [{"rotation": False}, {"language": "german"}, {"language": None}, {"model": "another"}]
)
def test_a_wrong_expectation_changes_no_answer(rng, expectation, changes):
    store_drawn(ALICE, drawn_documents(rng, [3] * 20))
    vector = rng.normal(size=384)
    expected = [(c.id, c.score) for c in found(ALICE, "apollo rivers", vector)]
    expectation(replace(configured(), **changes))
    assert [(c.id, c.score) for c in found(ALICE, "apollo rivers", vector)] == expected
    with tenant_transaction(ALICE) as user_hash:
        assert candidates._states[user_hash].recipe == configured()


def test_a_filter_that_the_expected_recipe_does_not_know(rng, settings, expectation):
    settings.MEMORY_FILTERABLE_METADATA = ["project"]
    store_drawn(ALICE, drawn_documents(rng, [1] * 3), metadata={"project": "apollo"})
    expectation(replace(configured(), labels=()))
    assert len(found(ALICE, "", np.ones(384), metadata={"project": "apollo"})) == 3


def test_a_tenant_that_has_outgrown_the_scan_or_is_gone(rng, settings, expectation):
    store_drawn(ALICE, drawn_documents(rng, [1] * 30))
    found(ALICE, "apollo", np.ones(384))
    settings.MEMORY_EXACT_SCAN_MAX = 20
    index_tail(user_id=ALICE, limit=100)
    assert path_of(ALICE, np.ones(384))[0] == "graph"
    erase_user(user_id=ALICE)
    expectation(configured())
    assert found(ALICE, "apollo", np.ones(384)) == []


def test_a_full_memory_starts_again(rng, monkeypatch, expectation):
    monkeypatch.setattr(candidates, "REMEMBERED", 1)
    for user in (ALICE, "person:2"):
        store_drawn(user, drawn_documents(rng, [1]))
        found(user, "apollo", np.ones(384))
        assert len(candidates._states) == 1
