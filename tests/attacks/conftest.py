import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from tests.attacks.population import Population, populate
from tests.attacks.tally import TRIED


@pytest.fixture(scope="module", params=[0, 4], ids=["plain tables", "partitions"])
def population(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[Population]:
    """Committed rows of three users for all tests of a module, in plain tables and again in partitions."""
    with django_db_blocker.unblock():
        if request.param:
            migrate("--partitions", str(request.param))
        yield populate()
        call_command("flush", verbosity=0, interactive=False)
        if request.param:
            migrate("--partitions", "0")
        connections["default"].close()


def migrate(*options: str) -> None:
    call_command("migrate", *options, verbosity=0, stdout=io.StringIO())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TRIED:
        terminalreporter.section("attacks: what was tried, all in vain")
        for kind, times in sorted(TRIED.items()):
            terminalreporter.write_line(f"{times:>9,}  {kind}")
        terminalreporter.write_line(f"{sum(TRIED.values()):>9,}  in all")
