"""Both clients have the same surface, and it is that of the verbs."""

import inspect
from typing import Any, get_type_hints

import pytest
from sealed_memory import AsyncClient, Client, calls

VERBS = {
    name: verb
    for name, verb in vars(calls).items()
    if inspect.isfunction(verb) and verb.__module__ == calls.__name__ and not name.startswith("_")
}
OWN = {"for_user", "run", "close"}


def public(client: type) -> dict[str, Any]:
    return {name: member for name, member in vars(client).items() if not name.startswith("_")}


def test_every_verb_is_a_method_of_both_clients() -> None:
    verbs = set(VERBS) - {"ask"}
    assert public(Client).keys() == public(AsyncClient).keys() == verbs | OWN


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"ask"}))
def test_a_method_has_the_words_and_parameters_of_its_verb(name: str) -> None:
    verb = VERBS[name]
    for client in (Client, AsyncClient):
        method = getattr(client, name)
        assert (method.__name__, method.__doc__) == (name, verb.__doc__) and verb.__doc__
        parameters = list(inspect.signature(method).parameters.values())
        assert parameters[0].name == "self"
        assert parameters[1:] == list(inspect.signature(verb).parameters.values())
        # Bound, a method takes what its verb takes.
        bound = getattr(client("http://memory.test", token="t"), name)
        assert list(inspect.signature(bound).parameters.values()) == parameters[1:]


@pytest.mark.parametrize("name", sorted(set(VERBS) - {"ask"} | OWN))
def test_what_one_client_does_the_other_awaits(name: str) -> None:
    here, there = getattr(Client, name), getattr(AsyncClient, name)
    if inspect.isgeneratorfunction(here):
        assert inspect.isasyncgenfunction(there)
    else:
        assert inspect.iscoroutinefunction(there) == (name != "for_user")
        assert not inspect.iscoroutinefunction(here)


def test_both_are_made_alike() -> None:
    here, there = inspect.signature(Client).parameters, inspect.signature(AsyncClient).parameters
    assert list(here) == list(there)
    assert [each.default for each in here.values()] == [each.default for each in there.values()]


def test_verbs_say_what_they_take_and_give() -> None:
    for verb in VERBS.values():
        hints = get_type_hints(verb)
        assert set(inspect.signature(verb).parameters) | {"return"} == set(hints), verb
    assert get_type_hints(Client.__init__).keys() == get_type_hints(AsyncClient.__init__).keys()
